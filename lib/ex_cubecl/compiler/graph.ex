if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Graph do
    @moduledoc false
    # The nodes of a traced expression, numbered by its structure. An expression shares its nodes by reference, and a program is cached in ETS, which copies
    # terms without their sharing: in a graph an operand is a stub, which has no operands of its own.
    #
    # Two expressions of the same structure have the same nodes and the same key. What they may differ in is outside: tensors and functions that
    # the expression closed over are captured, in the order of the nodes that use them.
    #
    # A node is an Nx.Tensor with an Nx.Defn.Expr whose id is an integer; operands have smaller ids. Besides the operations of Nx.Backend there are
    #
    #   * `:parameter [index]`, `:captured [index]`, `:constant [number]`
    #   * `:elem [tuple, index]`
    #   * `:cond [predicate, [result if true], [result if false]]`: chains are nested
    #   * `:while [[initial], condition, body]` with two graphs
    #   * `:fun [arity, body]` with a graph
    #   * `:effects [[value], calls]`: each call is `{index of a captured function, number of its values}`
    #   * `:attach [effects, value]`: the value, after the effects
    #   * `:runtime_call [[value], index of a captured function]`
    #   * `:block [struct, arguments]`, of several results `[struct, descriptions, arguments]`: a block that ExCubecl.Backend has; others are their default
    #     implementation

    alias ExCubecl.Backend
    alias ExCubecl.Compiler.{Constants, Trips}
    alias Nx.Defn.{Composite, Expr}
    alias Nx.Tensor, as: T

    @enforce_keys [:nodes, :outputs]
    defstruct [:nodes, :outputs]

    @type stub :: Nx.Tensor.t()
    @type t :: %__MODULE__{nodes: %{non_neg_integer => Nx.Tensor.t()}, outputs: [stub]}

    # `known` has the nodes that equal ones can be replaced by.
    @state %{
      nodes: %{},
      ids: %{},
      known: %{},
      next: 0,
      params: nil,
      entries: [],
      captured: [],
      captured_count: 0,
      literals: %{},
      effects: 0,
      hooks: %{}
    }

    @doc """
    The graph of the tensors of a container, its key, and the tensors and functions that it captured. `hooks` are those of the option of this name.
    """
    @spec build([Nx.Tensor.t()], map) :: {t, binary, [Nx.Tensor.t() | fun]}
    def build(outputs, hooks) do
      {graph, state} = graph(outputs, %{@state | hooks: hooks})
      key = :erlang.md5(:erlang.term_to_binary(state.entries))
      {graph, key, Enum.reverse(state.captured)}
    end

    @doc "The operands of a node, those of nested graphs excepted."
    @spec operands(Nx.Tensor.t()) :: [stub]
    def operands(%T{data: %Expr{args: args}}), do: Enum.flat_map(args, &stubs/1)

    defp stubs(%T{data: %Expr{}} = stub), do: [stub]
    defp stubs(list) when is_list(list), do: Enum.flat_map(list, &stubs/1)
    defp stubs(_other), do: []

    @doc "The operand itself, without operands."
    @spec stub(Nx.Tensor.t()) :: stub
    def stub(%T{data: %Expr{op: op, args: args} = expr} = node) do
      args = if op in [:constant, :iota, :eye, :parameter, :captured], do: args, else: []
      %{node | data: %{expr | args: args}}
    end

    ## Nodes

    defp graph(outputs, state) do
      inner = %{state | nodes: %{}, ids: %{}, known: %{}}
      {outputs, inner} = Enum.map_reduce(outputs, inner, &convert/2)
      inner = entry({:outputs, Enum.map(outputs, & &1.data.id)}, inner)
      graph = %__MODULE__{nodes: inner.nodes, outputs: outputs}
      {graph, %{inner | nodes: state.nodes, ids: state.ids, known: state.known}}
    end

    defp convert(%T{vectorized_axes: [_ | _]} = t, state), do: convert(Nx.devectorize(t), state)

    # The id of a constant has its number, of which 0.0 and -0.0 are the same key of a map.
    defp convert(%T{data: %Expr{id: id, op: :constant, args: [number]}} = t, state),
      do: once({:erlang.term_to_binary(number), id}, t, state)

    defp convert(%T{data: %Expr{id: id}} = t, state), do: once(id, t, state)

    defp once(id, %T{data: %Expr{op: op, args: args}} = t, state) do
      case state.ids do
        %{^id => known} ->
          {known, state}

        _ ->
          {made, state} = make(op, args, t, state)
          {made, %{state | ids: Map.put(state.ids, id, made)}}
      end
    end

    # The tensors of a container, as a list of operands.
    defp convert_all(container, state) do
      [container] |> Composite.flatten_list() |> Enum.map_reduce(state, &convert/2)
    end

    defp make(:metadata, [inner, _metadata], _t, state), do: convert_composite(inner, state)

    defp make(:elem, [tuple, index], t, state) do
      case convert(tuple, state) do
        {parts, state} when is_tuple(parts) ->
          {elem(parts, index), state}

        {stub, state} ->
          add(:elem, [stub, index], t, state)
      end
    end

    defp make(:parameter, [index], _t, %{params: %{} = params} = state),
      do: {Map.fetch!(params, index), state}

    defp make(:tensor, [tensor], t, state) do
      {index, state} = capture(tensor, state)
      {stub, state} = add(:captured, [index], t, state)

      if Constants.literal?(tensor),
        do: {stub, put_in(state.literals[stub.data.id], tensor)},
        else: {stub, state}
    end

    defp make(:cond, [clauses, last], t, state), do: clauses(clauses, last, t, state)

    defp make(:while, [initial, _arg, condition, body], t, state) do
      {initial, state} = convert_all(initial, state)

      with {:ok, index, rounds} <- Trips.of(initial, condition, body),
           {:ok, results, state} <- unrolled(rounds, index, initial, body, state) do
        if match?({:tuple, _}, t.type),
          do: {List.to_tuple(results), state},
          else: {hd(results), state}
      else
        :error ->
          {condition, state} = nested([condition], state)
          {body, state} = nested(Composite.flatten_list([body]), state)
          add(:while, [initial, condition, body], t, state)
      end
    end

    defp make(:fun, [args, result, _mfa], t, state) do
      {body, state} = nested(Composite.flatten_list([result]), state)
      add(:fun, [length(args), body], t, state)
    end

    defp make(:token, [token], t, state) do
      {calls, state} =
        Enum.flat_map_reduce(Enum.reverse(token.hooks), state, fn hook, state ->
          call(state.hooks[hook.name] || hook.callback, hook.expr, state)
        end)

      effects(calls, t, state)
    end

    defp make(:attach_token, [token, inner], _t, state) do
      {effects, state} = convert(token, state)
      {value, state} = convert(inner, state)
      attach(effects, value, state)
    end

    defp make(:hook, [inner, spec, _template, _ref], t, state) do
      {value, state} = convert_composite(inner, state)

      {hook, hooked} =
        case spec do
          {:token_hook, hooked, spec} -> {hook(spec, state), hooked}
          spec -> {hook(spec, state), inner}
        end

      {calls, state} = call(hook, hooked, state)
      {effects, state} = effects(calls, %{t | type: {:tuple, 0}, shape: {}, names: []}, state)
      attach(effects, value, state)
    end

    defp make(:runtime_call, [inner, fun, template, opts], t, state) do
      {values, state} = convert_all(inner, state)
      inner = template(inner)

      call = fn values ->
        result = fun.(filled(inner, values), opts)

        unless Nx.compatible?(template, result),
          do: raise("expected the runtime_call function to match the given output template")

        Composite.flatten_list([result])
      end

      {index, state} = capture(call, state)
      add(:runtime_call, [values, index], t, %{state | effects: state.effects + 1})
    end

    defp make(:optional, [call, default, _callback], t, state) do
      %T{data: %Expr{op: op, args: args}} = call

      if function_exported?(Backend, op, length(args) + 1) do
        {args, state} = Enum.map_reduce(args, state, &argument/2)
        add(op, outs(t, default) ++ args, t, state)
      else
        inlined(args, default, state)
      end
    end

    defp make(:block, [struct, args, default, _callback], t, state) do
      if Backend.native_block?(struct) do
        {args, state} = Enum.map_reduce(args, state, &argument/2)
        add(:block, [struct | outs(t, default)] ++ [args], t, state)
      else
        inlined(args, default, state)
      end
    end

    defp make(:slice, [tensor, starts, lengths, strides], t, state) do
      {tensor, state} = convert(tensor, state)
      {starts, state} = argument(starts, state)
      starts = Constants.starts(starts, tensor.shape, lengths)
      folded(:slice, [tensor, starts, lengths, strides], t, state)
    end

    defp make(op, args, t, state) do
      {args, state} = Enum.map_reduce(args, state, &argument/2)
      folded(op, args, t, state)
    end

    defp folded(op, args, t, state) do
      case Constants.fold(op, args, t, state.literals) do
        {:ok, number} -> add(:constant, [number], t, state)
        :error -> add(op, args, t, state)
      end
    end

    # A callback with several results takes their descriptions as its first argument.
    defp outs(%T{type: {:tuple, _}}, default), do: [template(default)]
    defp outs(_t, _default), do: []

    defp argument(%T{data: %Expr{}} = t, state), do: convert(t, state)
    defp argument(%T{} = t, state), do: {template(t), state}

    defp argument([%T{} | _] = list, state), do: Enum.map_reduce(list, state, &argument/2)

    defp argument([first | _] = list, state) when is_integer(first) or is_struct(first),
      do: Enum.map_reduce(list, state, &argument/2)

    defp argument(tuple, state) when is_tuple(tuple) and tuple_size(tuple) > 0 do
      if is_struct(elem(tuple, 0), T), do: {template(tuple), state}, else: {tuple, state}
    end

    defp argument(other, state), do: {other, state}

    # A tensor, or for a tuple a tuple of operands.
    defp convert_composite(%T{} = t, state), do: convert(t, state)

    defp convert_composite(container, state) do
      {parts, state} = convert_all(container, state)
      {List.to_tuple(parts), state}
    end

    defp nested(outputs, state) do
      params = state.params
      {graph, state} = graph(outputs, %{state | params: nil})
      {graph, %{state | params: params}}
    end

    # The default implementation of an operation, whose parameters are its arguments.
    defp inlined(args, default, state) do
      {tensors, _opts} = Enum.split_while(args, &is_struct(&1, T))
      {tensors, state} = Enum.map_reduce(tensors, state, &convert/2)
      params = tensors |> Enum.with_index() |> Map.new(fn {tensor, at} -> {at, tensor} end)
      {made, inner} = convert_composite(default, %{state | ids: %{}, params: params})
      {made, %{inner | ids: state.ids, params: state.params}}
    end

    ## Loops with few rounds: one round after the other, if these are few nodes

    @most_unrolled 500

    defp unrolled(rounds, index, values, body, state) do
      body = Composite.flatten_list([body])

      {values, inner} =
        Enum.reduce(rounds, {values, state}, fn counter, {values, inner} ->
          if inner.next - state.next > @most_unrolled,
            do: {values, inner},
            else: round(counter, index, values, body, inner)
        end)

      if inner.next - state.next > @most_unrolled,
        do: :error,
        else: {:ok, values, %{inner | ids: state.ids, params: state.params}}
    end

    defp round(counter, index, values, body, state) do
      {constant, state} = add(:constant, [counter], Enum.at(values, index), state)
      values = List.replace_at(values, index, constant)
      params = values |> Enum.with_index() |> Map.new(fn {value, at} -> {at, value} end)
      Enum.map_reduce(body, %{state | ids: %{}, params: params}, &convert/2)
    end

    ## Conditions

    defp clauses([{predicate, result} | rest], last, t, state) do
      {predicate, state} = convert(predicate, state)
      {yes, state} = apart(state, &convert_all(result, &1))

      {no, state} =
        apart(state, fn state ->
          if rest == [] do
            convert_all(last, state)
          else
            {inner, state} = clauses(rest, last, t, state)
            parts(inner, t, yes, state)
          end
        end)

      add(:cond, [predicate, yes, no], t, state)
    end

    # Nodes of a branch of a condition may never run: equal nodes outside of the branch are not replaced by them.
    defp apart(state, fun) do
      {result, inner} = fun.(state)
      {result, %{inner | known: state.known}}
    end

    defp parts(inner, %T{type: {:tuple, _}}, like, state) do
      like
      |> Enum.with_index()
      |> Enum.map_reduce(state, fn {t, index}, state -> add(:elem, [inner, index], t, state) end)
    end

    defp parts(inner, _t, _like, state), do: {[inner], state}

    ## Effects

    defp hook({:fn, fun}, _state), do: fun
    defp hook({:named, name, callback}, state), do: state.hooks[name] || callback

    # The call of a hook with a container. Without a function the container matters only if it has effects itself.
    defp call(fun, container, state) do
      before = state.effects
      {values, state} = convert_all(container, state)

      cond do
        fun != nil ->
          template = template(container)
          {index, state} = capture(fn values -> fun.(filled(template, values)) end, state)
          {[{index, values}], state}

        state.effects > before ->
          {[{nil, values}], state}

        true ->
          {[], state}
      end
    end

    defp effects([], _t, state), do: {nil, state}

    defp effects(calls, t, state) do
      values = Enum.flat_map(calls, &elem(&1, 1))
      calls = for {index, values} <- calls, do: {index, length(values)}
      add(:effects, [values, calls], t, %{state | effects: state.effects + 1})
    end

    defp attach(nil, value, state), do: {value, state}

    defp attach(effects, value, state) when is_tuple(value) do
      {parts, state} =
        value |> Tuple.to_list() |> Enum.map_reduce(state, &attach(effects, &1, &2))

      {List.to_tuple(parts), state}
    end

    defp attach(effects, value, state), do: add(:attach, [effects, value], value, state)

    # A container without the data of its tensors, and with the data of others.
    defp template(container), do: Composite.traverse(container, &%{&1 | data: nil})

    defp filled(template, values) do
      {container, []} =
        Composite.traverse(template, values, fn _, [value | rest] -> {value, rest} end)

      container
    end

    defp capture(value, %{captured: captured, captured_count: count} = state),
      do: {count, %{state | captured: [value | captured], captured_count: count + 1}}

    @one_each [:while, :fun, :cond, :effects, :runtime_call]

    defp add(op, args, t, %{known: known} = state) when op not in @one_each do
      args_key = if op == :constant, do: :erlang.term_to_binary(args), else: keyed(args)
      # A component of a tuple is one value, which is freed once, whatever its axes are named.
      names = if op == :elem, do: [], else: t.names
      key = {op, t.type, t.shape, names, args_key}

      case known do
        %{^key => stub} ->
          {stub, state}

        _ ->
          {stub, state} = new(op, args, t, state)
          {stub, %{state | known: Map.put(state.known, key, stub)}}
      end
    end

    defp add(op, args, t, state), do: new(op, args, t, state)

    defp new(op, args, t, %{next: id} = state) do
      node = %{t | data: %Expr{id: id, op: op, args: args, context: nil}}
      state = %{state | nodes: Map.put(state.nodes, id, node), next: id + 1}
      {stub(node), entry({op, t.type, t.shape, t.names, keyed(args)}, state)}
    end

    # Names, options and constants are part of the key as they are; -0.0 and 0.0 differ in it, because it is made of their bytes.
    defp keyed(%T{data: %Expr{id: id}}), do: {:operand, id}
    defp keyed(%__MODULE__{}), do: :graph
    defp keyed(list) when is_list(list), do: Enum.map(list, &keyed/1)
    defp keyed(other), do: other

    defp entry(entry, state), do: %{state | entries: [entry | state.entries]}
  end
end
