defmodule ExCubecl.Ops.ReductionSpace do
  @moduledoc false
  # The index space of a reduction: the joined axes that it keeps and those that it reduces, with the strides of the operands along both.

  alias ExCubecl.{Shape, View}
  alias ExCubecl.Ops.{Index, Layout, Operands, Shapes}

  @doc "The space of an element-wise kernel of operands, which are reduced over axes."
  def new(name, op, operands, axes, keep?) do
    with {:ok, operands} <- Operands.views(operands),
         {:ok, shape} <- Shapes.broadcast(name, Operands.shapes(operands)),
         {:ok, reads} <- Operands.reads(op.parsed.args, operands, shape, false) do
      kept = Enum.to_list(0..(length(shape) - 1)//1) -- axes
      [lengths, reduced] = for list <- [kept, axes], do: Enum.map(list, &Enum.at(shape, &1))
      strided = Operands.strided(reads)

      {:ok,
       %{
         reads: reads,
         views: strided,
         kept: group(lengths, kept, strided),
         reduced: group(reduced, axes, strided),
         count: Shape.size(lengths),
         n: Shape.size(reduced),
         shape: if(keep?, do: Shapes.kept(shape, axes), else: lengths),
         interleaved: nil,
         device: Enum.find_value(operands, &(is_struct(&1, View) && &1.device))
       }}
    end
  end

  # The joined axes of a part of the shape, with the strides and patterns of the views.
  defp group(lengths, axes, views) do
    strides = for {_, view} <- views, do: Enum.map(axes, &Enum.at(view.strides, &1))
    {lengths, strides} = Layout.joined(lengths, strides)
    patterns = Enum.map(strides, &Index.pattern/1)
    %{lengths: lengths, strides: strides, patterns: patterns, used: Index.used(patterns)}
  end

  @doc "The results of the chunks, which are reduced next. The chunks are the first axis, or the last one."
  def of_chunks(space, buffers, names) do
    views = for {name, buffer} <- Enum.zip(names, buffers), do: {name, View.new(buffer)}
    [%{shape: shape} | _] = buffers
    {along, beside} = if space.interleaved, do: {1, 0}, else: {0, 1}
    chunks = Enum.at(shape, along)

    %{
      space
      | reads: for({name, view} <- views, do: {name, :strided, view}),
        views: views,
        kept: group([space.count], [beside], views),
        reduced: group([chunks], [along], views),
        n: chunks,
        interleaved: nil
    }
  end

  @doc "The arguments of a launch with the lengths and strides of the axes, and the offsets of the operands."
  def arguments(%{kept: kept, reduced: reduced, views: views}) do
    strides =
      for {{name, view}, along_kept, along_reduced} <-
            Enum.zip([views, kept.strides, reduced.strides]) do
        [{Index.name(name, :offset), view.offset}] ++
          Index.strides(name, along_kept, :kept) ++
          Index.strides(name, along_reduced, :reduced)
      end

    Index.lengths(kept.lengths, kept.used, :kept) ++
      Index.lengths(reduced.lengths, reduced.used, :reduced) ++ Enum.concat(strides)
  end
end
