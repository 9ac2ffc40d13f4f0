if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Partition do
    @moduledoc false
    # Chooses the nodes of a scope that run together. A cluster of `ExCubecl.Compiler.Fusion.Clusters` becomes a kernel if its `info` has a kind:
    #
    #   * `:map` - all results have the shape of the cluster
    #   * `{:rows, description}` - see `ExCubecl.Compiler.Fusion.Rows`
    #   * `{:reduce, id}` - the results are those of the reduction and of what follows it, all others calculate its elements
    #   * `{:operation, id}` - the results are those of an `ExCubecl.Compiler.Fusion.Operation` and of what follows it
    #   * `{:parts, lists of ids}` - element-wise results of several shapes, none of which reads one of another list
    #
    # Nodes of a cluster that are not of its shape are read as broadcasts or through moves, and are no results.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.{
      Absorption,
      Clusters,
      Epilogues,
      Maps,
      Node,
      RowRegions,
      Rows,
      Stub
    }

    alias ExCubecl.Shape
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    # Elements of the smallest results whose memory matters.
    @large 65_536
    @ordered [:cond, :while, :lazy, :effects, :attach, :runtime_call]

    @type cluster :: %{
            kind:
              :map
              | {:reduce | :operation, non_neg_integer}
              | {:rows, Rows.t()}
              | {:parts, [cluster]}
              | :other,
            ids: [non_neg_integer],
            outputs: [non_neg_integer]
          }

    @doc "The clusters of the nodes of a scope that are no leaves, in an order in which they can run. A kernel binds at most `limit` buffers."
    @spec clusters(map, %{non_neg_integer => Node.t()}, pos_integer) :: [cluster]
    def clusters(scope, nodes, limit) do
      ids = for %T{data: %Expr{id: id}} <- scope.nodes, nodes[id].kind != :leaf, do: id
      index = ids |> Enum.with_index() |> Map.new()

      state = %{
        nodes: nodes,
        ids: List.to_tuple(ids),
        index: index,
        users: users(ids, nodes),
        outputs: MapSet.new(scope.outputs),
        clusters: Clusters.new(operands(ids, nodes, index)),
        info: info(ids, nodes),
        limit: limit
      }

      state =
        state
        |> RowRegions.join()
        |> Absorption.reductions()
        |> Maps.join()
        |> Absorption.maps()
        |> Epilogues.join()
        |> Maps.neighbors()
        |> Maps.parts()

      for at <- Clusters.in_order(state.clusters), do: cluster(at, state)
    end

    defp operands(ids, nodes, index) do
      {operands, _} =
        Enum.map_reduce(ids, [], fn id, last ->
          node = nodes[id]
          own = for %T{data: %Expr{id: operand}} <- node.operands, at = index[operand], do: at
          if node.expr.data.op in @ordered, do: {own ++ last, [index[id]]}, else: {own, last}
        end)

      operands
    end

    defp users(ids, nodes) do
      for id <- ids, %T{data: %Expr{id: operand}} <- nodes[id].operands, reduce: %{} do
        users -> Map.update(users, operand, [id], &[id | &1])
      end
    end

    defp info(ids, nodes) do
      for {id, at} <- Enum.with_index(ids),
          node = nodes[id],
          node.kind in [:map, :pieces, :view, :reduce],
          into: %{} do
        case node.kind do
          :reduce -> {at, %{kind: {:reduce, id}, shape: Stub.shape(hd(node.operands))}}
          :pieces -> {at, %{kind: :map, shape: node.shape}}
          kind -> {at, %{kind: kind, shape: node.shape}}
        end
      end
    end

    defp cluster(at, state) do
      ids = ids(at, state)
      kind = if info = state.info[at], do: info.kind, else: :other

      # A single operation is as fast on the backend, where its result does not replace an operand in its memory.
      kind =
        if kind == :view or (match?([_], ids) and not alone?(hd(ids), at, info, state)),
          do: :other,
          else: kind

      outputs = results(at, state)

      case kind do
        {:parts, parts} ->
          %{kind: {:parts, Enum.map(parts, &part(&1, outputs))}, ids: ids, outputs: outputs}

        _ ->
          %{kind: kind, ids: ids, outputs: outputs}
      end
    end

    defp part(ids, outputs),
      do: %{kind: :map, ids: Enum.sort(ids), outputs: Enum.filter(outputs, &(&1 in ids))}

    # The backend has a launch for each piece, which copies many elements faster than a kernel chooses them.
    defp alone?(id, at, %{kind: :map, shape: shape}, state) do
      node = state.nodes[id]
      large? = Shape.size(shape) >= @large

      if node.kind == :pieces,
        do: not large? and buffers(at, state) <= state.limit,
        else: large? or Enum.any?(node.operands, &match?(%{kind: :iota}, state.nodes[&1.data.id]))
    end

    defp alone?(_id, _at, _info, _state), do: false
  end
end
