if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Partition do
    @moduledoc false
    # Chooses the nodes of a scope that run together. A cluster of `ExCubecl.Compiler.Fusion.Clusters` becomes a kernel if its `info` has a kind:
    #
    #   * `:map` - all results have the shape of the cluster
    #   * `{:rows, description}` - see `ExCubecl.Compiler.Fusion.Rows`
    #   * `{:reduce, id}` - the result is that of the reduction, all others calculate its elements
    #
    # Nodes of a cluster that are not of its shape are read as broadcasts or through moves, and are no results.

    alias ExCubecl.Compiler.Fusion.{Clusters, Node, Rows}
    alias ExCubecl.Shape
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    # Devices bind at least this many storage buffers.
    @buffers 8
    @growing 24
    @members 64
    # Functions of floats are long code.
    @functions 16
    # Elements of the largest results, and the distance between nodes, which are joined although neither reads the other.
    @small 262_144
    @near 64
    # Members that are calculated again for each element of a larger result.
    @repeated 6

    @ordered [:cond, :while, :lazy, :effects, :attach, :runtime_call]
    @simple [
              :add,
              :subtract,
              :multiply,
              :divide,
              :max,
              :min,
              :negate,
              :abs,
              :sign,
              :floor,
              :ceil,
              :as_type,
              :select
            ] ++
              [
                :equal,
                :not_equal,
                :greater,
                :less,
                :greater_equal,
                :less_equal,
                :clip,
                :sqrt,
                :rsqrt
              ] ++
              [
                :logical_and,
                :logical_or,
                :logical_xor,
                :bitwise_and,
                :bitwise_or,
                :bitwise_xor,
                :bitwise_not
              ]

    @type cluster :: %{
            kind: :map | {:reduce, non_neg_integer} | {:rows, Rows.t()} | :other,
            ids: [non_neg_integer],
            outputs: [non_neg_integer]
          }

    @doc "The clusters of the nodes of a scope that are no leaves, in an order in which they can run."
    @spec clusters(map, %{non_neg_integer => Node.t()}) :: [cluster]
    def clusters(scope, nodes) do
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
        limit: @buffers
      }

      state = state |> rows() |> reductions() |> maps() |> absorptions() |> neighbors()
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
          node.kind in [:map, :view, :reduce],
          into: %{} do
        case node.kind do
          :reduce -> {at, %{kind: {:reduce, id}, shape: Node.shape(hd(node.operands))}}
          kind -> {at, %{kind: kind, shape: node.shape}}
        end
      end
    end

    defp cluster(at, state) do
      ids = ids(at, state)
      kind = if info = state.info[at], do: info.kind, else: :other
      # A single operation is as fast on the backend.
      kind =
        if kind == :view or (length(ids) == 1 and not indices?(ids, state)),
          do: :other,
          else: kind

      %{kind: kind, ids: ids, outputs: results(at, state)}
    end

    defp indices?([id], state) do
      node = state.nodes[id]

      node.kind == :map and
        Enum.any?(node.operands, &match?(%{kind: :iota}, state.nodes[&1.data.id]))
    end

    ## What is known of a cluster

    defp ids(at, state),
      do: for(at <- Clusters.members(state.clusters, at), do: elem(state.ids, at))

    defp of(id, state), do: Clusters.of(state.clusters, state.index[id])

    # The members that others use.
    defp results(at, state) do
      for id <- ids(at, state),
          id in state.outputs or Enum.any?(users_of(id, state), &(of(&1, state) != at)),
          do: id
    end

    defp users_of(id, state), do: Map.get(state.users, id, [])

    # What a kernel of these members would read.
    defp inputs(ids, state) do
      members = MapSet.new(ids)

      for id <- ids,
          %T{data: %Expr{id: operand, op: op}} <- state.nodes[id].operands,
          op not in [:constant, :iota] and operand not in members,
          uniq: true,
          do: operand
    end

    defp buffers(at, state),
      do: length(at |> ids(state) |> inputs(state)) + length(results(at, state))

    defp function?(id, state) do
      node = state.nodes[id]
      node.kind == :map and node.expr.data.op not in @simple
    end

    # Merges clusters if a kernel of them would not be too large: the state, or `nil`.
    defp merged(state, clusters, info) do
      with {:ok, merged} <- Clusters.merge(state.clusters, clusters) do
        first = Enum.min(clusters)

        new = %{
          state
          | clusters: merged,
            info: state.info |> Map.drop(clusters) |> Map.put(first, info)
        }

        ids = ids(first, new)

        fits? =
          length(ids) <= @members and
            Enum.count(ids, &function?(&1, state)) <= @functions and
            buffers(first, new) <= state.limit

        if fits?, do: new
      else
        :cycle -> nil
      end
    end

    ## Rows: each reduction of rows, with what follows it and what it reads

    defp rows(state) do
      state.ids
      |> Tuple.to_list()
      |> Enum.reduce(state, fn id, state ->
        # A reduction of numbers on the host is no kernel.
        with %{kind: :reduce} = node <- state.nodes[id],
             true <- single?(id, state),
             %{} = rows <- Rows.new(node) do
          info = %{kind: {:rows, rows}, shape: rows.shape}
          begun = %{state | info: Map.put(state.info, of(id, state), info)}
          region(id, begun, @growing) || region(id, begun, @buffers) || state
        else
          _ -> state
        end
      end)
    end

    # Whether the cluster reads an operand of the node, too.
    defp read?(id, at, state) do
      inputs = at |> ids(state) |> inputs(state)
      Enum.any?(state.nodes[id].operands, &(&1.data.id in inputs))
    end

    # A node whose users have not joined yet counts as a result: while a cluster grows, it may have more than a kernel. `nil` if it still has in the end.
    defp region(id, state, limit) do
      grown = grow(%{state | limit: limit}, id)
      grown = absorb(of(id, grown), grown)
      %{kind: {:rows, rows}} = grown.info[of(id, grown)]

      if Rows.worth?(rows, state.nodes) and buffers(of(id, grown), grown) <= @buffers,
        do: beside(id, %{grown | limit: @buffers})
    end

    # Kernels of the same rows that exchange values, or read the same ones, become one.
    defp beside(id, state) do
      at = of(id, state)
      %{kind: {:rows, rows}} = info = state.info[at]
      ids = ids(at, state)
      near = MapSet.new(ids ++ inputs(ids, state))

      state.info
      |> Enum.sort()
      |> Enum.find_value(state, fn {other, found} ->
        with %{kind: {:rows, more}} when other != at <- found,
             true <- {more.shape, more.axis} == {rows.shape, rows.axis},
             theirs = ids(other, state),
             true <- Enum.any?(theirs ++ inputs(theirs, state), &MapSet.member?(near, &1)),
             both = %{rows | levels: Map.merge(rows.levels, more.levels)},
             do: merged(state, [at, other], %{info | kind: {:rows, both}}),
             else: (_ -> nil)
      end)
    end

    defp single?(id, state), do: match?([_], Clusters.members(state.clusters, of(id, state)))

    # In the order of the nodes, since each may make its users nodes of the rows.
    defp grow(state, first) do
      for({id, at} <- in_order(state), at > state.index[first], do: id)
      |> Enum.reduce(state, &follow(&1, of(first, &2), &2))
    end

    defp follow(id, at, state) do
      %{kind: {:rows, rows}} = info = state.info[at]

      with level when level != nil <- Rows.level(state.nodes[id], rows, read?(id, at, state)),
           true <- single?(id, state) and is_map_key(state.info, state.index[id]),
           rows = %{rows | levels: Map.put(rows.levels, id, level)},
           %{} = new <- merged(state, [at, of(id, state)], %{info | kind: {:rows, rows}}) do
        new
      else
        _ -> state
      end
    end

    ## Element-wise operations of one shape

    defp maps(state) do
      for({id, at} <- in_order(state), match?(%{kind: :map}, state.info[at]), do: id)
      |> Enum.reduce(state, fn id, state ->
        Enum.reduce(state.nodes[id].operands, state, &join(id, &1, &2))
      end)
    end

    defp in_order(state), do: state.ids |> Tuple.to_list() |> Enum.with_index()

    defp join(id, %T{data: %Expr{id: operand}}, state) do
      with true <- is_map_key(state.index, operand),
           {a, b} = {of(id, state), of(operand, state)},
           %{kind: :map, shape: shape} = info <- state.info[a],
           %{kind: :map, shape: ^shape} when a != b <- state.info[b],
           %{} = new <- merged(state, [a, b], info) do
        new
      else
        _ -> state
      end
    end

    # Small results of one shape that have nothing to do with each other still save launches together.
    defp neighbors(state) do
      small =
        for {at, %{kind: :map, shape: shape}} <- Enum.sort(state.info),
            Shape.size(shape) <= @small,
            do: {shape, at}

      small
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Enum.sort()
      |> Enum.reduce(state, fn {_shape, [first | rest]}, state ->
        {state, _last} = Enum.reduce(rest, {state, first}, &neighbor/2)
        state
      end)
    end

    defp neighbor(at, {state, last}) do
      with true <- at - last <= @near,
           %{} = new <- merged(state, [last, at], state.info[last]) do
        {new, Clusters.of(new.clusters, at)}
      else
        _ -> {state, at}
      end
    end

    ## Operands that only one cluster uses

    defp reductions(state) do
      for({id, at} <- in_order(state), match?(%{kind: {:reduce, _}}, state.info[at]), do: id)
      |> Enum.reduce(state, &absorb(of(&1, &2), &2))
    end

    defp absorptions(state) do
      state.info
      |> Map.keys()
      |> Enum.sort(:desc)
      |> Enum.reduce(state, fn at, state ->
        case state.info[at] do
          %{kind: kind} when kind == :map or is_tuple(kind) -> absorb(at, state)
          _ -> state
        end
      end)
    end

    # Until none of the clusters that the cluster reads can be added.
    defp absorb(at, state) do
      candidates =
        for id <- at |> ids(state) |> inputs(state),
            is_map_key(state.index, id),
            do: of(id, state)

      case Enum.find_value(Enum.uniq(candidates), &absorbed(&1, at, state)) do
        nil -> state
        new -> absorb(Clusters.of(new.clusters, at), new)
      end
    end

    defp absorbed(candidate, at, state) do
      with %{kind: kind, shape: shape} when kind in [:map, :view] <- state.info[candidate],
           info = state.info[at],
           true <- only_for?(candidate, at, state) or result?(kind, shape, info),
           true <- kind == :view or cheap?(candidate, shape, info, state),
           do: merged(state, [at, candidate], info),
           else: (_ -> nil)
    end

    # A kernel of rows can store elements that others need, too.
    defp result?(:map, shape, %{kind: {:rows, _}, shape: shape}), do: true
    defp result?(_kind, _shape, _info), do: false

    defp only_for?(candidate, at, state) do
      candidate
      |> results(state)
      |> Enum.all?(fn id ->
        id not in state.outputs and
          Enum.all?(users_of(id, state), &(of(&1, state) in [at, candidate]))
      end)
    end

    # Elements of a smaller operand are calculated more than once.
    defp cheap?(candidate, shape, info, state) do
      if Shape.size(shape) >= Shape.size(info.shape) do
        true
      else
        ids = ids(candidate, state)
        length(ids) <= @repeated and not Enum.any?(ids, &function?(&1, state))
      end
    end
  end
end
