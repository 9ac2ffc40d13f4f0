if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Run do
    @moduledoc false
    # Runs programs. What a step makes for itself is freed after it (`ExCubecl.Buffer.Temporaries`). `values` has the values by the ids of their nodes, and as `:shares` how many further values have the handle of one: views of it. The last of
    # them frees the memory. Where a value belongs to another scope, a result is a further handle of it.

    alias ExCubecl.{Backend, DType, Error, Shape, View}
    alias ExCubecl.Buffer.Temporaries
    alias ExCubecl.Compiler.{Fusion, Liveness, Program}
    alias ExCubecl.Nx.{Folding, Storage}
    alias Nx.Tensor, as: T

    @no_values %{shares: %{}}
    # These may share the memory of their operand.
    @views [:reshape, :squeeze, :transpose, :reverse, :slice, :broadcast]

    @doc "The results of a program. `captured` are the tensors and functions that its expression captured."
    @spec run(Program.t(), tuple, tuple, map) :: [Nx.Tensor.t()]
    def run(program, parameters, captured, config) do
      Temporaries.run(fn ->
        state = state(parameters, captured, config)
        {values, memo} = steps(program.steps, @no_values, %{}, state)
        # Arguments may be results.
        results = exported(program.outputs, MapSet.new(), values)
        release_all(Map.values(memo), state)
        results
      end)
    end

    @doc "The state of a run."
    def state(parameters, captured, config) do
      %{
        config: config,
        parameters: parameters,
        captured: captured,
        copies: copies(captured, config),
        generic?: false
      }
    end

    @doc "No values."
    def no_values, do: @no_values

    @doc "A tensor on the device of a program."
    @spec input(Nx.Tensor.t(), map) :: Nx.Tensor.t()
    def input(%T{data: %Backend{config: %{device: device}}} = tensor, %{device: device}),
      do: tensor

    def input(%T{data: %backend{}} = tensor, config),
      do: backend.backend_copy(tensor, Backend, config: config)

    # Elements of a template: `Nx.TemplateBackend` raises.
    defp parameter(%T{data: %Nx.TemplateBackend{}} = template, state),
      do: input(template, state.config)

    defp parameter(tensor, _state), do: tensor

    # The captured tensors on the device, once for all rounds of a loop. Functions stay what they are.
    defp copies(captured, config) do
      captured
      |> Tuple.to_list()
      |> Enum.map(&if(is_struct(&1, T), do: input(&1, config), else: &1))
      |> List.to_tuple()
    end

    @doc "The bytes of the captured tensors that a run copies to the device."
    @spec copied([Nx.Tensor.t() | fun], map) :: non_neg_integer
    def copied(captured, %{device: device, host_limit: limit}) do
      bytes =
        for %T{data: data} = tensor <- captured,
            not match?(%Backend{config: %{device: ^device}}, data),
            Nx.size(tensor.shape) > limit,
            do: Liveness.size(tensor)

      Enum.sum(bytes)
    end

    # A body whose results do not belong to the caller's scope.
    defp body(program, parameters, state) do
      {values, memo} = steps(program.steps, @no_values, %{}, %{state | parameters: parameters})
      results = exported(program.outputs, program.borrowed, values)
      release_all(Map.values(memo), state)
      results
    end

    # A scope within another one, with its values and the values of lazy scopes.
    defp inner(program, values, memo, state) do
      {values, memo} = steps(program.steps, values, memo, state)
      {exported(program.outputs, program.borrowed, values), memo}
    end

    @doc "The results of a scope; those at the positions `borrowed` belong to others."
    def exported(outputs, borrowed, values) do
      {results, _} =
        outputs
        |> Enum.with_index()
        |> Enum.map_reduce(values.shares, fn {id, at}, shares ->
          value = Map.fetch!(values, id)

          cond do
            MapSet.member?(borrowed, at) ->
              {again(value), shares}

            is_map_key(shares, reference(value)) ->
              {again(value), fewer(shares, reference(value))}

            true ->
              {value, shares}
          end
        end)

      results
    end

    defp steps([], values, memo, _state), do: {values, memo}

    defp steps([{call, free} | rest], values, memo, state) do
      {values, memo} = call(call, values, memo, state)
      steps(rest, freed(free, values, state), memo, state)
    end

    ## Calls

    @doc "The values and the values of lazy scopes after a call."
    def call({:eager, id, operation, args, []}, values, memo, %{generic?: false})
        when operation in @views do
      args = arguments(args, values)

      case alone(fn -> Backend.view(operation, args) end) do
        {:ok, view} ->
          {share(values, id, view, hd(tensors(args))), memo}

        :none ->
          result = alone(fn -> apply(Backend, operation, args) end)
          {Map.put(values, id, own(result, args)), memo}
      end
    end

    def call({:eager, id, operation, args, unused}, values, memo, state) do
      args = arguments(args, values)
      module = if state.generic?, do: implementation(args), else: Backend
      result = alone(fn -> apply(module, operation, args) end)
      {put(values, id, own(result, args), unused, state), memo}
    end

    def call({:create, id, operation, args}, values, memo, state) do
      args = arguments(args, values)

      {backend, options} =
        if state.generic?, do: Nx.default_backend(), else: {Backend, config: state.config}

      {Map.put(values, id, alone(fn -> apply(backend, operation, args ++ [options]) end)), memo}
    end

    def call({:value, id, tensor}, values, memo, _state), do: {Map.put(values, id, tensor), memo}

    def call({:constant, id, out, number}, values, memo, _state) do
      {backend, options} = Nx.default_backend()
      {Map.put(values, id, backend.constant(out, number, options)), memo}
    end

    def call({:parameter, id, index}, values, memo, state),
      do: {Map.put(values, id, parameter(elem(state.parameters, index), state)), memo}

    def call({:drop, indices}, values, memo, state) do
      release_all(for(index <- indices, do: elem(state.parameters, index)), state)
      {values, memo}
    end

    def call({:captured, id, index}, values, memo, state) do
      tensors = if state.generic?, do: state.captured, else: state.copies
      {Map.put(values, id, elem(tensors, index)), memo}
    end

    def call({:elem, id, tuple, index}, values, memo, _state),
      do: {Map.put(values, id, elem(Map.fetch!(values, tuple), index)), memo}

    def call({:attach, id, value}, values, memo, _state) do
      value = Map.fetch!(values, value)
      {share(values, id, value, value), memo}
    end

    def call({:fused, group}, values, memo, state) do
      {results, replaced} = alone(fn -> Fusion.run(group, values, state.config) end)
      values = Enum.reduce(replaced, values, &Map.put(&2, &1, :replaced))
      {Enum.into(results, values), memo}
    end

    def call({:cond, id, predicate, yes, no, tuple?, unused}, values, memo, state) do
      chosen = if true?(Map.fetch!(values, predicate)), do: yes, else: no
      {results, memo} = inner(chosen, values, memo, state)
      {put(values, id, result(results, tuple?), unused, state), memo}
    end

    def call({:while, id, initial, condition, body, tuple?, unused}, values, memo, state) do
      initial = for id <- initial, do: initial(id, values, state)
      results = while(initial, condition, body, state)
      {put(values, id, result(results, tuple?), unused, state), memo}
    end

    def call({:lazy, id, program}, values, memo, state) do
      case memo do
        %{^id => value} ->
          {Map.put(values, id, value), memo}

        _ ->
          {[value], memo} = inner(program, values, memo, state)
          {Map.put(values, id, value), Map.put(memo, id, value)}
      end
    end

    def call({:fun, id, arity, program}, values, memo, state) do
      state = %{state | generic?: true}

      call = fn args ->
        [result] = body(program, args |> Enum.map(&Nx.to_tensor/1) |> List.to_tuple(), state)
        result
      end

      fun = if arity == 1, do: &call.([&1]), else: Folding.of_program(call)
      {Map.put(values, id, fun), memo}
    end

    def call({:effects, ids, calls}, values, memo, state) do
      Enum.reduce(calls, ids, fn {index, count}, ids ->
        {own, rest} = Enum.split(ids, count)
        if index, do: elem(state.captured, index).(given(own, values))
        rest
      end)

      {values, memo}
    end

    def call({:runtime_call, id, ids, index, _outs, tuple?, unused}, values, memo, state) do
      results = elem(state.captured, index).(given(ids, values))
      results = for tensor <- results, do: again(input(tensor, state.config))
      {put(values, id, result(results, tuple?), unused, state), memo}
    end

    # The result of a function, without the buffers that it made for itself.
    defp alone(fun), do: Temporaries.free(fun, &references/1)

    defp references(%T{} = tensor), do: List.wrap(reference(tensor))

    defp references(tuple) when is_tuple(tuple),
      do: tuple |> Tuple.to_list() |> Enum.flat_map(&references/1)

    defp references(list) when is_list(list), do: Enum.flat_map(list, &references/1)
    defp references(_other), do: []

    @doc "Values for a function of the caller, which may keep what it gets."
    def given(ids, values), do: for(id <- ids, do: again(Map.fetch!(values, id)))

    ## Loops and conditions

    @doc "A value of the first state of a loop."
    def initial({:host, id}, values, %{generic?: false, config: config}) do
      case Map.fetch!(values, id) do
        %T{data: %Backend{state: %View{}}} = tensor ->
          Storage.from_binary(tensor, Storage.to_binary(tensor, 1), config)

        tensor ->
          again(tensor)
      end
    end

    def initial({:host, id}, values, _state), do: again(Map.fetch!(values, id))
    def initial(id, values, _state), do: again(Map.fetch!(values, id))

    # The state belongs to the loop. The body frees that of the round before.
    defp while(values, condition, body, state) do
      parameters = List.to_tuple(values)
      [predicate] = body(condition, parameters, state)

      if true?(predicate) do
        values = body(body, parameters, state)
        Temporaries.collect()
        while(values, condition, body, state)
      else
        values
      end
    end

    defp true?(tensor), do: Nx.to_number(tensor) != 0

    ## Values

    defp arguments(args, values), do: Enum.map(args, &argument(&1, values))
    defp argument({:id, id}, values), do: Map.fetch!(values, id)
    defp argument({:term, term}, _values), do: term
    defp argument({:list, args}, values), do: arguments(args, values)

    defp implementation(args), do: args |> tensors() |> Nx.Shared.list_impl!()

    # Descriptions of results have no data.
    defp tensors(args) do
      Enum.flat_map(args, fn
        %T{data: nil} -> []
        %T{} = tensor -> [tensor]
        list when is_list(list) -> tensors(list)
        _ -> []
      end)
    end

    @doc "The results of a step as one value."
    def result([result], false), do: result
    def result(results, true), do: List.to_tuple(results)

    @doc "Puts the value of a step, and frees the components that no node takes."
    def put(values, id, result, unused, state) do
      for index <- unused, do: release(elem(result, index), @no_values, state)
      Map.put(values, id, result)
    end

    # A value that has the handle of another one.
    defp share(values, id, value, operand) do
      case {reference(value), reference(operand)} do
        {reference, reference} when reference != nil ->
          shares = Map.update(values.shares, reference, 1, &(&1 + 1))
          Map.merge(values, %{id => value, shares: shares})

        _ ->
          Map.put(values, id, value)
      end
    end

    defp fewer(shares, reference) do
      case shares do
        %{^reference => 1} -> Map.delete(shares, reference)
        %{^reference => count} -> %{shares | reference => count - 1}
      end
    end

    defp reference(%T{data: %Backend{state: %View{buffer: %{ref: reference}}}}), do: reference
    defp reference(_other), do: nil

    # A callback may return an operand itself.
    defp own(%T{data: %Backend{state: %View{buffer: %{ref: ref}}}} = result, args) do
      if Enum.any?(args, &match?(%T{data: %Backend{state: %View{buffer: %{ref: ^ref}}}}, &1)),
        do: again(result),
        else: result
    end

    defp own(results, args) when is_tuple(results),
      do: results |> Tuple.to_list() |> Enum.map(&own(&1, args)) |> List.to_tuple()

    defp own(result, _args), do: result

    @doc "Another handle of the memory of a tensor."
    def again(%T{data: %Backend{state: %View{} = view, config: config}} = tensor),
      do: Error.unwrap!(Storage.share(tensor, view, config))

    def again(other), do: other

    ## Memory

    @doc "The values without those of ids, which are freed."
    def freed(ids, values, state) do
      Enum.reduce(ids, values, fn id, values ->
        {value, values} = Map.pop!(values, id)
        %{values | shares: release(value, values, state)}
      end)
    end

    @doc "Frees values that nothing else shares."
    def release_all(values, state),
      do: Enum.each(values, &release(&1, @no_values, state))

    # Frees the memory of a value, unless others share its handle or have replaced it; returns what they share then.
    # Where the backend is not known, values may be symbols or belong to their backend.
    defp release(%T{data: %Backend{}} = value, %{shares: shares}, %{generic?: false}) do
      case {reference(value), shares} do
        {nil, _} ->
          shares

        {reference, _} when is_map_key(shares, reference) ->
          fewer(shares, reference)

        _ ->
          %{state: %View{buffer: %{shape: shape, dtype: dtype} = buffer}} = value.data
          Temporaries.release(buffer, Shape.size(shape) * DType.size!(dtype))
          shares
      end
    end

    defp release(tuple, values, state) when is_tuple(tuple) do
      tuple
      |> Tuple.to_list()
      |> Enum.reduce(values.shares, &release(&1, %{shares: &2}, state))
    end

    defp release(_value, %{shares: shares}, _state), do: shares
  end
end
