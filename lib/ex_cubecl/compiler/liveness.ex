if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Liveness do
    @moduledoc false
    # When each value of a list of steps is needed last. A step has `reads` and `writes`, lists of ids.

    alias Nx.Tensor, as: T

    @doc """
    For each step the ids, among `owned`, that no later step reads and that are no outputs. `tuples` has the tuple of each component: a tuple is needed as long as
    one of its components.
    """
    @spec frees([map], [non_neg_integer], MapSet.t(), map) :: [[non_neg_integer]]
    def frees(steps, outputs, owned, tuples) do
      owner = &Map.get(tuples, &1, &1)
      outputs = MapSet.new(outputs, owner)

      {frees, _} =
        steps
        |> Enum.reverse()
        |> Enum.map_reduce(outputs, fn %{reads: reads, writes: writes}, needed ->
          touched = (reads ++ writes) |> Enum.map(owner) |> Enum.uniq()
          free = for id <- touched, id in owned, id not in needed, do: id
          {free, Enum.into(touched, needed)}
        end)

      Enum.reverse(frees)
    end

    @doc "The bytes of a tensor; 0 of a tuple."
    @spec size(Nx.Tensor.t()) :: non_neg_integer
    def size(%T{type: {:tuple, _}}), do: 0
    def size(%T{shape: shape, type: {_, bits}}), do: div(Tuple.product(shape) * bits + 7, 8)
  end
end
