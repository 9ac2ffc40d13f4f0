if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.RowRegions do
    @moduledoc false
    # Grows the kernels of rows: each reduction of rows, with what follows it and what it reads.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.{Absorption, Rows}
    alias ExCubecl.Shape

    # Of a kernel of rows, and while it grows.
    @buffers 8
    @growing 24
    # Elements of the largest operands of reductions, and the distance between them, which are joined although they share nothing.
    @small 262_144
    @near 64

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
          regions(id, begun) || neighbors(id, begun) || state
        else
          _ -> state
        end
      end)
    end

    # Measured on lavapipe, two sums of 1,200 to 262,144 elements in one launch take 0.7 to 1.0 of the time of two launches.
    # Reductions of small operands of one shape that neither read each other nor the same save launches together.
    defp neighbors(id, state) do
      %{kind: {:rows, rows}} = info = state.info[of(id, state)]
      first = state.index[id]

      joined =
        Shape.size(rows.shape) <= @small &&
          Enum.find_value((first + 1)..min(first + @near, tuple_size(state.ids) - 1)//1, fn at ->
            other = elem(state.ids, at)

            with %{kind: :reduce} = node <- state.nodes[other],
                 true <- single?(other, state),
                 %{} = more <- Rows.new(node),
                 true <- {more.shape, more.axes} == {rows.shape, rows.axes},
                 both = %{rows | levels: Map.merge(rows.levels, more.levels)},
                 %{} = new <- merged(state, [of(id, state), at], %{info | kind: {:rows, both}}),
                 do: regions(id, new),
                 else: (_ -> nil)
          end)

      joined && (neighbors(id, joined) || joined)
    end

    defp regions(id, state), do: region(id, state, @growing) || region(id, state, @buffers)

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
             true <- {more.shape, more.axes} == {rows.shape, rows.axes},
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
