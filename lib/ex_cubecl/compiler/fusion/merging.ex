if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Merging do
    @moduledoc false
    # The state of a partition in progress, and whether clusters may become one kernel. `clusters` are those of `ExCubecl.Compiler.Fusion.Clusters`, `info` has
    # the kind and the shape of each that can be a kernel, `ids` the nodes in the order of their numbers, `index` the numbers, `users` who reads a node.
    # `limit` is the number of buffers that a kernel may bind.

    alias ExCubecl.Compiler.Fusion.Clusters
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    # Enough for the rounds of threefry, which are 125 operations of integers. Functions of floats are long code.
    @one %{members: 160, functions: 16}
    # Parts have code of their own.
    @parts %{members: 256, functions: 64}

    @simple ~w(add subtract multiply divide max min negate abs sign floor ceil as_type bitcast select clip sqrt rsqrt)a ++
              ~w(equal not_equal greater less greater_equal less_equal left_shift right_shift)a ++
              ~w(logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not)a

    @doc "The nodes of a cluster."
    def ids(at, state),
      do: for(at <- Clusters.members(state.clusters, at), do: elem(state.ids, at))

    @doc "The cluster of a node."
    def of(id, state), do: Clusters.of(state.clusters, state.index[id])

    @doc "The nodes of a cluster that others use."
    def results(at, state) do
      for id <- ids(at, state),
          MapSet.member?(state.outputs, id) or
            Enum.any?(users_of(id, state), &(of(&1, state) != at)),
          do: id
    end

    @doc "The nodes that read a node."
    def users_of(id, state), do: Map.get(state.users, id, [])

    @doc "What a kernel of these nodes would read."
    def inputs(ids, state) do
      members = MapSet.new(ids)

      for id <- ids,
          %T{data: %Expr{id: operand, op: op}} <- Map.fetch!(state.nodes, id).operands,
          op not in [:constant, :iota] and not MapSet.member?(members, operand),
          uniq: true,
          do: operand
    end

    @doc "The buffers that a kernel of the cluster would bind."
    def buffers(at, state), do: length(reads(ids(at, state), state)) + length(results(at, state))

    # A tensor is bound again for each view that is read of it.
    defp reads(ids, state) do
      members = MapSet.new(ids)

      for id <- ids,
          {%T{data: %Expr{id: operand, op: op}}, view} <- views(Map.fetch!(state.nodes, id)),
          op not in [:constant, :iota] and not MapSet.member?(members, operand),
          uniq: true,
          do: {operand, view}
    end

    # The operands of a node, each with a term for the view through which it is read.
    defp views(%{kind: :pieces, id: id, pieces: pieces}) do
      for {{stub, moves, _}, at} <- Enum.with_index(pieces),
          do: {stub, if(moves != [], do: {id, at})}
    end

    defp views(%{kind: :view, id: id, operands: [stub | _]}), do: [{stub, id}]
    defp views(%{operands: operands}), do: for(stub <- operands, do: {stub, nil})

    @doc "Whether a node is a function of floats, which is long code."
    def function?(id, state) do
      node = state.nodes[id]
      node.kind == :map and node.expr.data.op not in @simple
    end

    @doc "Merges clusters if a kernel of them would not be too large: the state, or `nil`."
    def merged(state, clusters, info) do
      with {:ok, first, new} <- put_merged(state, clusters, info),
           true <- short?(ids(first, new), state, @one) and buffers(first, new) <= state.limit,
           do: new,
           else: (_ -> nil)
    end

    @doc "Merges clusters of parts, as `merged/3`. A value of one element that is likely to be on the host is no buffer."
    def merged_parts(state, clusters, %{kind: {:parts, parts}} = info) do
      with {:ok, first, new} <- put_merged(state, clusters, info),
           read = for(ids <- parts, {id, _} <- reads(ids, new), not number?(id, new), do: id),
           true <- length(read) + length(results(first, new)) <= state.limit,
           true <- short?(ids(first, new), state, @parts),
           do: new,
           else: (_ -> nil)
    end

    defp number?(id, state), do: match?(%{host?: true, shape: []}, state.nodes[id])

    defp put_merged(state, clusters, info) do
      with {:ok, merged} <- Clusters.merge(state.clusters, clusters) do
        first = Enum.min(clusters)
        info = state.info |> Map.drop(clusters) |> Map.put(first, info)
        {:ok, first, %{state | clusters: merged, info: info}}
      end
    end

    defp short?(ids, state, most) do
      length(ids) <= most.members and Enum.count(ids, &function?(&1, state)) <= most.functions
    end

    @doc "Whether a node is a cluster of its own."
    def single?(id, state), do: match?([_], Clusters.members(state.clusters, of(id, state)))

    @doc "The nodes with their numbers."
    def in_order(state), do: state.ids |> Tuple.to_list() |> Enum.with_index()
  end
end
