defmodule ExCubecl.Ops.ReductionVectors do
  @moduledoc false
  # The operands of a reduction that it reads by vectors of four elements: those of large ones whose elements are adjacent along the reduced axes and aligned.

  alias ExCubecl.Ops.{Blocks, Index}

  @lanes 4

  @doc "The names of these operands in an index space of `ExCubecl.Ops.Reduction`."
  def names(%{kept: kept, reduced: %{lengths: [_]} = reduced} = space) do
    if Blocks.many?([space.n, space.count]) do
      for {{name, view}, along, [1]} <- Enum.zip([space.views, kept.strides, reduced.strides]),
          Blocks.vectors?(view.dtype),
          Enum.all?([view.offset | along], &(rem(&1, @lanes) == 0)),
          do: name
    else
      []
    end
  end

  def names(_space), do: []

  @doc "Statements that load the vectors with the elements at the index expressions `index`, the first of which are those of lane 0."
  def loads(names, index) do
    for name <- names do
      vector = Index.call(:div, Map.fetch!(index, name), Index.number(@lanes))
      {:load_vector, 0, name, vector, for(lane <- 0..(@lanes - 1), do: Index.lane(name, lane))}
    end
  end

  @doc "The variables with the elements of a lane."
  def variables(names, lane), do: for(name <- names, do: {name, Index.lane(name, lane)})
end
