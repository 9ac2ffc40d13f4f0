if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Maps do
    @moduledoc false
    # Joins element-wise operations.

    import ExCubecl.Compiler.Fusion.Merging

    alias ExCubecl.Compiler.Fusion.{Clusters, Pieces}
    alias ExCubecl.Shape
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    # Elements of the largest results, and the distance between nodes, which are joined although neither reads the other.
    @small 262_144
    @near 64

    @doc "Operations of one shape that read each other."
    def join(state) do
      for({id, at} <- in_order(state), match?(%{kind: :map}, state.info[at]), do: id)
      |> Enum.reduce(state, fn id, state ->
        Enum.reduce(aligned(state.nodes[id]), state, &join(id, &1, &2))
      end)
    end

    defp aligned(%{kind: :pieces, pieces: pieces}), do: Pieces.aligned(pieces)
    defp aligned(node), do: node.operands

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

    @doc "Small results of one shape that have nothing to do with each other still save launches together."
    def neighbors(state) do
      state
      |> small()
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Enum.sort()
      |> Enum.reduce(state, fn {_shape, [first | rest]}, state ->
        {state, _last} = Enum.reduce(rest, {state, first}, &neighbor/2)
        state
      end)
    end

    defp small(state) do
      for {at, %{kind: :map, shape: shape}} <- Enum.sort(state.info),
          Shape.size(shape) <= @small,
          do: {shape, at}
    end

    defp neighbor(at, {state, last}) do
      with true <- at - last <= @near,
           %{} = new <- merged(state, [last, at], state.info[last]) do
        {new, Clusters.of(new.clusters, at)}
      else
        _ -> {state, at}
      end
    end

    @doc "Small results of any shapes that have nothing to do with each other, such as the updates of several parameters, become parts of a kernel."
    def parts(state) do
      {state, _open} =
        for({_shape, at} <- small(state), do: at)
        |> Enum.reduce({state, []}, fn at, {state, open} ->
          open = Enum.filter(open, &(at - &1 <= @near))

          case Enum.find_value(open, &with_part(&1, at, state)) do
            nil -> {state, [at | open]}
            {joined, state} -> {state, [at | List.delete(open, joined)]}
          end
        end)

      state
    end

    # `open` is a number of a node of a cluster.
    defp with_part(open, at, state) do
      first = Clusters.of(state.clusters, open)
      info = %{kind: {:parts, parts(first, state) ++ [ids(at, state)]}, shape: nil}

      with true <- Clusters.independent?(state.clusters, first, at),
           %{} = new <- merged_parts(state, [first, at], info),
           do: {open, new},
           else: (_ -> nil)
    end

    defp parts(at, state) do
      case state.info[at] do
        %{kind: {:parts, parts}} -> parts
        %{kind: :map} -> [ids(at, state)]
      end
    end
  end
end
