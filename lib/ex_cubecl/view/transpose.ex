defmodule ExCubecl.View.Transpose do
  @moduledoc false
  # Copies of views whose elements are contiguous along another axis than the last one. Each invocation copies a tile of 4 by 4 elements: it loads
  # four vectors along that axis, and stores four vectors along the last one.

  alias ExCubecl.Ops.{Index, Layout, Strided}

  @lanes 4

  @doc """
  The tiles of a copy of a view into a buffer: the joined axes of both, and which of them is contiguous in the view; `:no` if
  the copy does not consist of whole tiles.
  """
  def tiles(%{buffer: %{dtype: dtype}} = view, %{dtype: dtype, shape: shape}) do
    {lengths, [from, to]} = Layout.joined(shape, [view.strides, Layout.strides(shape)])
    last = length(lengths) - 1
    axis = Enum.find_index(from, &(&1 == 1))

    if axis != nil and axis != last and 0 not in shape and
         whole?(view.offset, lengths, from, to, axis),
       do: {:ok, %{lengths: lengths, from: from, to: to, axis: axis, last: last}},
       else: :no
  end

  def tiles(_view, _out), do: :no

  # Whether each vector starts at a multiple of its length.
  defp whole?(offset, lengths, from, to, axis) do
    sides = [Enum.at(lengths, axis), List.last(lengths)]
    starts = [offset | List.delete_at(from, axis)] ++ Enum.drop(to, -1)
    Enum.all?(sides ++ starts, &(rem(&1, @lanes) == 0))
  end

  @doc "Copies the tiles. `op` is the kernel whose name the launch gets."
  def run(op, %{axis: axis, last: last} = tiles, view, out) do
    # Strides and lengths in vectors and tiles. Adjacent invocations load adjacent vectors: on a CPU, this takes 0.8 of the time that they take if they store
    # adjacent ones, and 0.7 of it for strides that are powers of two.
    shape = tiles.lengths |> divided(axis) |> divided(last) |> exchanged(axis, last)
    from = tiles.from |> strides(axis, last) |> exchanged(axis, last)
    to = tiles.to |> strides(last, axis) |> exchanged(axis, last)
    x = %{offset: div(view.offset, @lanes), strides: from}
    indexed = Strided.indexed([x: x, out: %{offset: 0, strides: to}], shape)

    loads =
      for row <- 0..(@lanes - 1) do
        index = moved(:x_first, :x_row, row)
        {:load_vector, 0, :x, index, for(column <- 0..(@lanes - 1), do: cell(row, column))}
      end

    stores =
      for column <- 0..(@lanes - 1) do
        index = moved(:out_first, :out_row, column)
        values = for row <- 0..(@lanes - 1), do: Index.var(cell(row, column))
        {:store_vector, 0, :out, index, values}
      end

    firsts = [Index.let(:x_first, indexed.index.x), Index.let(:out_first, indexed.index.out)]

    [x_row, out_row] = [
      div(Enum.at(tiles.from, last), @lanes),
      div(Enum.at(tiles.to, axis), @lanes)
    ]

    rows = [x_row: Index.wrapped(x_row), out_row: out_row]
    args = [x: view.buffer] ++ indexed.args ++ rows ++ [out: out]
    code = {indexed.statements ++ firsts ++ loads ++ stores, nil}
    {kernel, args} = Strided.kernel(op, {:tiles, indexed.key}, args, [:out], code)
    Strided.run(kernel, args, size: Enum.product(shape))
  end

  defp divided(list, at), do: List.update_at(list, at, &div(&1, @lanes))

  defp exchanged(list, a, b) do
    list |> List.replace_at(a, Enum.at(list, b)) |> List.replace_at(b, Enum.at(list, a))
  end

  # In vectors: along the axis that vectors lie along, a tile is one vector wide; along the other one, it has four rows.
  defp strides(strides, along, across) do
    for {stride, axis} <- Enum.with_index(strides) do
      cond do
        axis == along -> 1
        axis == across -> stride
        true -> div(stride, @lanes)
      end
    end
  end

  defp moved(first, row, count),
    do:
      Index.call(
        :add,
        Index.var(first),
        Index.call(:mul, Index.unsigned(Index.var(row)), Index.number(count))
      )

  defp cell(row, column), do: :"cell_#{row}#{column}"
end
