if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Epilogues do
    @moduledoc false
    # Adds element-wise kernels to the operations whose results they read: those of `ExCubecl.Compiler.Fusion.Operation`, and reductions.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.Node
    alias ExCubecl.Shape
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @doc "The element-wise kernels that read the result of an operation become a part of it, if they have the elements of the result in the same order."
    def join(state) do
      state.ids
      |> Tuple.to_list()
      |> Enum.reduce(state, fn id, state ->
        case kind(id, state) do
          nil -> state
          kind -> id |> candidates(state) |> Enum.reduce(state, &(joined(id, kind, &1, &2) || &2))
        end
      end)
    end

    defp kind(id, state) do
      case {state.nodes[id].kind, state.info[of(id, state)]} do
        {:operation, _} -> {:operation, id}
        {:reduce, %{kind: {:reduce, ^id} = kind}} -> if epilogue?(state.nodes[id]), do: kind
        _ -> nil
      end
    end

    defp epilogue?(node), do: node.expr.data.op not in Node.places()

    # Those with a result in which the kernel of a product can keep its elements come first.
    defp candidates(id, state) do
      %{dtype: dtype} = state.nodes[id]

      for(
        user <- users_of(id, state) ++ Enum.flat_map(reshaped(id, state), &users_of(&1, state)),
        at = of(user, state),
        match?(%{kind: :map}, state.info[at]),
        uniq: true,
        do: at
      )
      |> Enum.sort_by(&{not typed?(&1, dtype, state), &1})
    end

    # Other shapes of the result.
    defp reshaped(id, state),
      do: for(user <- users_of(id, state), reshape?(state.nodes[user]), do: user)

    defp reshape?(%{kind: :view, moves: moves}), do: Enum.all?(moves, &match?({:reshape, _}, &1))
    defp reshape?(_node), do: false

    defp typed?(at, dtype, state),
      do: Enum.any?(results(at, state), &(state.nodes[&1].dtype == dtype))

    defp joined(id, {kind, _} = whole, at, state) do
      info = Map.get(state.info, of(id, state), %{kind: nil, shape: state.nodes[id].shape})

      views =
        for view <- reshaped(id, state),
            Enum.any?(users_of(view, state), &(of(&1, state) == at)),
            do: of(view, state)

      with %{} = new <- merged(state, [of(id, state), at | views], %{info | kind: whole}),
           true <- kind == :reduce or typed?(of(id, new), state.nodes[id].dtype, new),
           true <- in_place?(id, new),
           do: new,
           else: (_ -> nil)
    end

    # An epilogue has only the element at its own place: what depends on the result of the operation reads it without any view, or in another shape of
    # as many elements.
    defp in_place?(id, state) do
      found =
        id
        |> of(state)
        |> ids(state)
        |> Enum.reduce([id], &dependent(&1, &2, state))
        |> List.delete(id)

      case for(%{kind: :map, shape: shape} <- nodes(found, state), uniq: true, do: shape) do
        [shape] ->
          Shape.size(shape) == Shape.size(state.nodes[id].shape) and
            Enum.all?(nodes(found, state), fn node ->
              node.kind == :map or (reshape?(node) and node.shape == shape)
            end)

        _ ->
          false
      end
    end

    defp nodes(ids, state), do: Enum.map(ids, &state.nodes[&1])

    defp dependent(id, found, state) do
      reads? = Enum.any?(state.nodes[id].operands, fn %T{data: %Expr{id: id}} -> id in found end)
      if reads?, do: [id | found], else: found
    end
  end
end
