if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.RowRegions do
    @moduledoc false
    # Grows the kernels of rows: each reduction of rows, with what follows it and what it reads.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.{Absorption, Rows}

    # Of a kernel of rows, and while it grows.
    @buffers 8
    @growing 24

    @doc "Each reduction of rows whose kernel does more than the reduction."
    def join(state) do
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
    defp read?(node, at, state) do
      inputs = at |> ids(state) |> inputs(state)
      Enum.any?(node.operands, &(&1.data.id in inputs))
    end

    # A node whose users have not joined yet counts as a result: while a cluster grows, it may have more than a kernel. `nil` if it still has in the end.
    defp region(id, %{limit: most} = state, limit) do
      grown = grow(%{state | limit: limit}, id)
      grown = Absorption.absorb(of(id, grown), grown)
      %{kind: {:rows, rows}} = grown.info[of(id, grown)]

      if Rows.worth?(rows, state.nodes) and buffers(of(id, grown), grown) <= @buffers,
        do: beside(id, %{grown | limit: most})
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

    # In the order of the nodes, since each may make its users nodes of the rows.
    defp grow(state, first) do
      for({id, at} <- in_order(state), at > state.index[first], do: id)
      |> Enum.reduce(state, &follow(&1, of(first, &2), &2))
    end

    defp follow(id, at, state) do
      %{kind: {:rows, rows}} = info = state.info[at]

      node = Map.fetch!(state.nodes, id)
      read? = node.kind == :reduce and read?(node, at, state)

      with level when level != nil <- Rows.level(node, rows, read?),
           true <- single?(id, state) and is_map_key(state.info, state.index[id]),
           rows = %{rows | levels: Map.put(rows.levels, id, level)},
           %{} = new <- merged(state, [at, of(id, state)], %{info | kind: {:rows, rows}}) do
        new
      else
        _ -> state
      end
    end
  end
end
