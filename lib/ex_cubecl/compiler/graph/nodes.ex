if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Graph.Nodes do
    @moduledoc false
    # The nodes of a graph while it is made: what `ExCubecl.Compiler.Graph.Conversion` adds, each with the entry that it has in the key of the graph.

    alias ExCubecl.Compiler.Graph
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

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

    @type state :: map
    @type stub :: Graph.stub()

    @doc "No nodes. `hooks` are the functions of named hooks."
    @spec new(map) :: state
    def new(hooks), do: %{@state | hooks: hooks}

    @doc "The key of all graphs that were made."
    @spec key(state) :: binary
    def key(%{entries: entries}), do: :erlang.md5(:erlang.term_to_binary(entries))

    @doc """
    A graph whose outputs `make` returns, together with the state in which it has added the nodes. `params` are the values of the parameters of the expression where it is part
    of the graph around it.
    """
    @spec graph(state, (state -> {[stub], state})) :: {Graph.t(), state}
    def graph(state, make) do
      {outputs, inner} = make.(%{state | nodes: %{}, ids: %{}, known: %{}, params: nil})
      inner = entry({:outputs, Enum.map(outputs, & &1.data.id)}, inner)
      graph = %Graph{nodes: inner.nodes, outputs: outputs}
      same = Map.take(state, [:nodes, :ids, :known, :params])
      {graph, Map.merge(inner, same)}
    end

    ## Effects

    @doc "The node of the calls of functions with values, `nil` without calls."
    @spec effects([{non_neg_integer | nil, [stub]}], Nx.Tensor.t(), state) :: {stub | nil, state}
    def effects([], _t, state), do: {nil, state}

    def effects(calls, t, state) do
      values = Enum.flat_map(calls, &elem(&1, 1))
      calls = for {index, values} <- calls, do: {index, length(values)}
      add(:effects, [values, calls], t, %{state | effects: state.effects + 1})
    end

    @doc "A value, or a tuple of values, that is there after the effects."
    @spec attach(stub | nil, stub | tuple, state) :: {stub | tuple, state}
    def attach(nil, value, state), do: {value, state}

    def attach(effects, value, state) when is_tuple(value) do
      {parts, state} =
        value |> Tuple.to_list() |> Enum.map_reduce(state, &attach(effects, &1, &2))

      {List.to_tuple(parts), state}
    end

    def attach(effects, value, state), do: add(:attach, [effects, value], value, state)

    ## Nodes

    @doc "The index of a further captured tensor or function."
    @spec capture(Nx.Tensor.t() | fun, state) :: {non_neg_integer, state}
    def capture(value, %{captured: captured, captured_count: count} = state),
      do: {count, %{state | captured: [value | captured], captured_count: count + 1}}

    @one_each [:while, :fun, :cond, :effects, :runtime_call]

    @doc "The node of an operation on operands, or the one that is equal to it."
    @spec add(atom, list, Nx.Tensor.t(), state) :: {stub, state}
    def add(op, args, t, %{known: known} = state) when op not in @one_each do
      args_key = if op == :constant, do: :erlang.term_to_binary(args), else: keyed(args)
      # A component of a tuple is one value, which is freed once, whatever its axes are named.
      names = if op == :elem, do: [], else: t.names
      key = {op, t.type, t.shape, names, args_key}

      case known do
        %{^key => stub} ->
          {stub, state}

        _ ->
          {stub, state} = added(op, args, t, state)
          {stub, %{state | known: Map.put(state.known, key, stub)}}
      end
    end

    def add(op, args, t, state), do: added(op, args, t, state)

    defp added(op, args, t, %{next: id} = state) do
      node = %{t | data: %Expr{id: id, op: op, args: args, context: nil}}
      state = %{state | nodes: Map.put(state.nodes, id, node), next: id + 1}
      {Graph.stub(node), entry({op, t.type, t.shape, t.names, keyed(args)}, state)}
    end

    # Names, options and constants are part of the key as they are; -0.0 and 0.0 differ in it, because it is made of their bytes.
    defp keyed(%T{data: %Expr{id: id}}), do: {:operand, id}
    defp keyed(%Graph{}), do: :graph
    defp keyed(list) when is_list(list), do: Enum.map(list, &keyed/1)
    defp keyed(other), do: other

    defp entry(entry, state), do: %{state | entries: [entry | state.entries]}
  end
end
