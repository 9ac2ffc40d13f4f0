if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Absorption do
    @moduledoc false
    # Adds operands that only one cluster uses to that cluster.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.Clusters
    alias ExCubecl.Shape

    # Members that are calculated again for each element of a larger result.
    @repeated 6

    @doc "The work that only a reduction needs becomes a part of it."
    def reductions(state) do
      for({id, at} <- in_order(state), match?(%{kind: {:reduce, _}}, state.info[at]), do: id)
      |> Enum.reduce(state, &absorb(of(&1, &2), &2))
    end

    @doc "The work that only an element-wise kernel or one of rows needs becomes a part of it."
    def maps(state) do
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

    @doc "Adds clusters that a cluster reads until none of them can be added."
    def absorb(at, state) do
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
           true <- info.kind == :map or not pieces?(candidate, state),
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
        not MapSet.member?(state.outputs, id) and
          Enum.all?(users_of(id, state), &(of(&1, state) in [at, candidate]))
      end)
    end

    # Only element-wise kernels read pieces.
    defp pieces?(candidate, state),
      do: Enum.any?(ids(candidate, state), &(state.nodes[&1].kind == :pieces))

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
