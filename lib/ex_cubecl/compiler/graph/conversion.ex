if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Graph.Conversion do
    @moduledoc false
    # Traced expressions as graphs.

    alias ExCubecl.Backend
    alias ExCubecl.Compiler.{Constants, Graph, Trips}
    alias ExCubecl.Compiler.Graph.{Calls, Nodes}
    alias Nx.Defn.{Composite, Expr}
    alias Nx.Tensor, as: T

    @doc """
    The graph of the tensors of a container, its key, and the tensors and functions that it captured. `hooks` are those of the option of this name.
    """
    @spec build([Nx.Tensor.t()], map) :: {Graph.t(), binary, [Nx.Tensor.t() | fun]}
    def build(outputs, hooks) do
      {graph, state} = nested(outputs, Nodes.new(hooks))
      {graph, Nodes.key(state), Enum.reverse(state.captured)}
    end

    ## Nodes

    defp nested(outputs, state),
      do: Nodes.graph(state, &Enum.map_reduce(outputs, &1, fn t, state -> convert(t, state) end))

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
          Nodes.add(:elem, [stub, index], t, state)
      end
    end

    defp make(:parameter, [index], _t, %{params: %{} = params} = state),
      do: {Map.fetch!(params, index), state}

    defp make(:tensor, [tensor], t, state) do
      {index, state} = Nodes.capture(tensor, state)
      {stub, state} = Nodes.add(:captured, [index], t, state)

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
          Nodes.add(:while, [initial, condition, body], t, state)
      end
    end

    defp make(:fun, [args, result, _mfa], t, state) do
      {body, state} = nested(Composite.flatten_list([result]), state)
      Nodes.add(:fun, [length(args), body], t, state)
    end

    defp make(:token, [token], t, state) do
      {calls, state} =
        Enum.flat_map_reduce(Enum.reverse(token.hooks), state, fn hook, state ->
          call(state.hooks[hook.name] || hook.callback, hook.expr, state)
        end)

      Nodes.effects(calls, t, state)
    end

    defp make(:attach_token, [token, inner], _t, state) do
      {effects, state} = convert(token, state)
      {value, state} = convert(inner, state)
      Nodes.attach(effects, value, state)
    end

    defp make(:hook, [inner, spec, _template, _ref], t, state) do
      {value, state} = convert_composite(inner, state)

      {hook, hooked} =
        case spec do
          {:token_hook, hooked, spec} -> {hook(spec, state), hooked}
          spec -> {hook(spec, state), inner}
        end

      {calls, state} = call(hook, hooked, state)

      {effects, state} =
        Nodes.effects(calls, %{t | type: {:tuple, 0}, shape: {}, names: []}, state)

      Nodes.attach(effects, value, state)
    end

    defp make(:runtime_call, [inner, fun, template, opts], t, state) do
      {values, state} = convert_all(inner, state)
      call = Calls.runtime_call(fun, inner, template, opts)
      {index, state} = Nodes.capture(call, state)
      outs = [template] |> Composite.flatten_list() |> Enum.map(&Calls.template/1)
      Nodes.add(:runtime_call, [values, index, outs], t, %{state | effects: state.effects + 1})
    end

    defp make(:optional, [call, default, _callback], t, state) do
      %T{data: %Expr{op: op, args: args}} = call

      if function_exported?(Backend, op, length(args) + 1) do
        {args, state} = Enum.map_reduce(args, state, &argument/2)
        Nodes.add(op, outs(t, default) ++ args, t, state)
      else
        inlined(args, default, state)
      end
    end

    defp make(:block, [struct, args, default, _callback], t, state) do
      if Backend.native_block?(struct, args) do
        {args, state} = Enum.map_reduce(args, state, &argument/2)
        Nodes.add(:block, [struct | outs(t, default)] ++ [args], t, state)
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

    defp make(:put_slice, [tensor, starts, slice], t, state) do
      {[tensor, starts, slice], state} =
        Enum.map_reduce([tensor, starts, slice], state, &argument/2)

      starts = Constants.starts(starts, tensor.shape, Tuple.to_list(slice.shape))
      Nodes.add(:put_slice, [tensor, starts, slice], t, state)
    end

    defp make(op, args, t, state) do
      {args, state} = Enum.map_reduce(args, state, &argument/2)
      folded(op, args, t, state)
    end

    defp folded(op, args, t, state) do
      case Constants.fold(op, args, t, state.literals) do
        {:ok, number} -> Nodes.add(:constant, [number], t, state)
        :error -> Nodes.add(op, args, t, state)
      end
    end

    # A callback with several results takes their descriptions as its first argument.
    defp outs(%T{type: {:tuple, _}}, default), do: [Calls.template(default)]
    defp outs(_t, _default), do: []

    defp argument(%T{data: %Expr{}} = t, state), do: convert(t, state)
    defp argument(%T{} = t, state), do: {Calls.template(t), state}

    defp argument([%T{} | _] = list, state), do: Enum.map_reduce(list, state, &argument/2)

    defp argument([first | _] = list, state) when is_integer(first) or is_struct(first),
      do: Enum.map_reduce(list, state, &argument/2)

    defp argument(tuple, state) when is_tuple(tuple) and tuple_size(tuple) > 0 do
      if is_struct(elem(tuple, 0), T), do: {Calls.template(tuple), state}, else: {tuple, state}
    end

    defp argument(other, state), do: {other, state}

    # A tensor, or for a tuple a tuple of operands.
    defp convert_composite(%T{} = t, state), do: convert(t, state)

    defp convert_composite(container, state) do
      {parts, state} = convert_all(container, state)
      {List.to_tuple(parts), state}
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

      # The values of a round may be unused, and hooks in it are called all the same.
      if inner.next - state.next > @most_unrolled or inner.effects > state.effects,
        do: :error,
        else: {:ok, values, %{inner | ids: state.ids, params: state.params}}
    end

    defp round(counter, index, values, body, state) do
      {constant, state} = Nodes.add(:constant, [counter], Enum.at(values, index), state)
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

      Nodes.add(:cond, [predicate, yes, no], t, state)
    end

    # Nodes of a branch of a condition may never run: equal nodes outside of the branch are not replaced by them.
    defp apart(state, fun) do
      {result, inner} = fun.(state)
      {result, %{inner | known: state.known}}
    end

    defp parts(inner, %T{type: {:tuple, _}}, like, state) do
      like
      |> Enum.with_index()
      |> Enum.map_reduce(state, fn {t, index}, state ->
        Nodes.add(:elem, [inner, index], t, state)
      end)
    end

    defp parts(inner, _t, _like, state), do: {[inner], state}

    ## Hooks

    defp hook({:fn, fun}, _state), do: fun
    defp hook({:named, name, callback}, state), do: state.hooks[name] || callback

    # The call of a hook with a container. Without a function the container matters only if it has effects itself.
    defp call(fun, container, state) do
      before = state.effects
      {values, state} = convert_all(container, state)

      cond do
        fun != nil ->
          {index, state} = fun |> Calls.hook(container) |> Nodes.capture(state)
          {[{index, values}], state}

        state.effects > before ->
          {[{nil, values}], state}

        true ->
          {[], state}
      end
    end
  end
end
