if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Epilogues do
    @moduledoc false
    # Adds element-wise kernels to the operations whose results they read: those of `ExCubecl.Compiler.Fusion.Operation`, and reductions.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.Node
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @doc "The element-wise kernels that read the result of an operation become a part of it, if they have the shape of the result."
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
      %{shape: shape, dtype: dtype} = state.nodes[id]

      for(
        user <- users_of(id, state),
        at = of(user, state),
        match?(%{kind: :map, shape: ^shape}, state.info[at]),
        uniq: true,
        do: at
      )
      |> Enum.sort_by(&{not typed?(&1, dtype, state), &1})
    end

    defp typed?(at, dtype, state),
      do: Enum.any?(results(at, state), &(state.nodes[&1].dtype == dtype))

    defp joined(id, {kind, _} = whole, at, state) do
      info = Map.get(state.info, of(id, state), %{kind: nil, shape: state.nodes[id].shape})

      with %{} = new <- merged(state, [of(id, state), at], %{info | kind: whole}),
           true <- kind == :reduce or typed?(of(id, new), state.nodes[id].dtype, new),
           true <- in_place?(id, new),
           do: new,
           else: (_ -> nil)
    end

    # An epilogue has only the element at its own place: what depends on the result of the operation reads it without any view.
    defp in_place?(id, state) do
      %{shape: shape} = state.nodes[id]

      found =
        id
        |> of(state)
        |> ids(state)
        |> Enum.reduce([id], &dependent(&1, &2, state))
        |> List.delete(id)

      Enum.all?(found, &match?(%{kind: :map, shape: ^shape}, state.nodes[&1]))
    end

    defp dependent(id, found, state) do
      reads? = Enum.any?(state.nodes[id].operands, fn %T{data: %Expr{id: id}} -> id in found end)
      if reads?, do: [id | found], else: found
    end
  end
end
