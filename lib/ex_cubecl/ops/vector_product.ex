defmodule ExCubecl.Ops.VectorProduct do
  @moduledoc false
  # The kernel for the product of a vector and a large matrix whose adjacent elements belong to different sums. Each invocation reads four adjacent elements of
  # each row of a part, as a vector where rows start at multiples of four. Adjacent invocations read adjacent elements, so that a part is read in the order of its memory.

  alias ExCubecl.Ops.{Blocks, Index, Layout, Strided}
  alias ExCubecl.Shape

  @lanes 4

  # The rows of a part, so few that a CPU prefetches them all: a product of 4096 rows took three times as long by parts of 64 rows.
  @rows 16

  @doc """
  `{parts, launch}` for a product that this kernel can calculate, else `nil`. `launch` is a function of the operation and of a buffer for the sums of the parts.
  """
  def plan(%{batch: batch, rows: rows, columns: columns} = contraction, types) do
    cond do
      Shape.size(batch) != 1 -> nil
      Shape.size(rows) == 1 -> of_row(contraction, types)
      Shape.size(columns) == 1 -> contraction |> exchanged() |> of_row(types)
      true -> nil
    end
  end

  # The column is the vector, and the rows are columns. Axes of the batch have the length 1.
  defp exchanged(%{left: left, right: right, batch: batch, rows: rows} = contraction) do
    skip = length(batch)
    {inner, columns} = right.strides |> Enum.drop(skip) |> Enum.split(length(contraction.inner))
    {along_rows, along} = left.strides |> Enum.drop(skip) |> Enum.split(length(rows))
    ones = Enum.take(right.strides, skip)

    %{
      contraction
      | left: %{right | strides: ones ++ columns ++ inner},
        right: %{left | strides: ones ++ along ++ along_rows},
        rows: contraction.columns,
        columns: rows
    }
  end

  defp of_row(%{left: left, right: right, batch: batch, rows: rows} = contraction, types) do
    along = Enum.drop(left.strides, length(batch ++ rows))

    {inner, columns} =
      right.strides |> Enum.drop(length(batch)) |> Enum.split(length(contraction.inner))

    {counts, [vector, down]} = Layout.joined(contraction.inner, [along, inner])
    {widths, [across]} = Layout.joined(contraction.columns, [columns])

    with {[count], [width], [1], [vector], [down]} <- {counts, widths, across, vector, down},
         true <- Blocks.many?([count, width]) do
      aligned? = Enum.all?([right.offset, down, width], &(rem(&1, @lanes) == 0))
      typed? = Enum.all?([right.dtype, types.acc, types.stored], &Blocks.vectors?/1)
      {mode, unit} = if aligned? and typed?, do: {:vectors, @lanes}, else: {:elements, 1}
      fours = div(width + @lanes - 1, @lanes)
      parts = div(count + @rows - 1, @rows)

      numbers = [
        left_offset: left.offset,
        left_step: Index.wrapped(vector),
        right_offset: div(right.offset, unit),
        right_step: Index.wrapped(div(down, unit)),
        count: count,
        last: min(count, @rows) - 1,
        fours: fours,
        width: width
      ]

      args = [left: left.buffer, right: right.buffer] ++ numbers
      {parts, &launch(&1, args, {types.acc, mode}, parts * fours, &2)}
    else
      _ -> nil
    end
  end

  defp launch(op, args, types, invocations, out) do
    code = {statements(types), nil}
    {kernel, args} = Strided.kernel(op, {:vector, types}, args ++ [out: out], [:out], code)
    Strided.run(kernel, args, size: invocations)
  end

  defp statements({acc, mode}) do
    fours = Index.var(:fours)
    offset = fn operand -> Index.unsigned(Index.var(Index.name(operand, :offset))) end
    step = fn operand -> Index.unsigned(Index.var(Index.name(operand, :step))) end
    at = fn operand -> Index.var(Index.name(operand, :at)) end

    start = fn from, operand ->
      Index.call(:add, from, Index.call(:mul, Index.var(:first), step.(operand)))
    end

    column = Index.call(:sub, Index.var(:i), Index.call(:mul, Index.var(:sums), fours))
    unit = if mode == :vectors, do: 1, else: @lanes
    column = Index.call(:mul, column, Index.number(unit))
    lanes = 0..(@lanes - 1)

    [
      Index.let(:i, Index.unsigned({:index, nil})),
      Index.let(:sums, Index.call(:div, Index.var(:i), fours)),
      Index.let(:first, Index.call(:mul, Index.var(:sums), Index.number(@rows))),
      Index.let(:column, column),
      Index.let(:left_at, start.(offset.(:left), :left)),
      Index.let(:right_at, start.(Index.call(:add, offset.(:right), Index.var(:column)), :right))
    ] ++
      for(lane <- lanes, do: Index.let(sum(lane), {:cast, acc, Index.number(0)})) ++
      [
        {:for, 0, :j, Index.number(0), Index.var(:last),
         [
           Index.let(:factor, {:cast, acc, {:at, 0, :left, at.(:left)}})
         ] ++
           loads(mode) ++
           for(lane <- lanes, do: Index.let(sum(lane), added(lane, acc))) ++
           for(
             x <- [:left, :right],
             do: Index.let(Index.name(x, :at), Index.call(:add, at.(x), step.(x)))
           )}
      ] ++ stores(mode)
  end

  defp loads(:vectors) do
    lanes = for lane <- 0..(@lanes - 1), do: Index.lane(:right, lane)
    [{:load_vector, 0, :right, Index.var(:right_at), lanes}]
  end

  # Behind the end of a row are elements of the next one, whose sums are not written.
  defp loads(:elements) do
    for lane <- 0..(@lanes - 1) do
      at = Index.call(:add, Index.var(:right_at), Index.number(lane))
      Index.let(Index.lane(:right, lane), {:at, 0, :right, at})
    end
  end

  defp stores(:vectors) do
    sums = for lane <- 0..(@lanes - 1), do: Index.var(sum(lane))
    [{:store_vector, 0, :out, {:index, nil}, sums}]
  end

  defp stores(:elements) do
    row = Index.call(:mul, Index.var(:sums), Index.unsigned(Index.var(:width)))

    for lane <- 0..(@lanes - 1) do
      column = Index.call(:add, Index.var(:column), Index.number(lane))
      inside = Index.call(:lt, column, Index.unsigned(Index.var(:width)))
      write = {:write, 0, :out, Index.call(:add, row, column), Index.var(sum(lane))}
      {:branch, 0, inside, [write], []}
    end
  end

  defp added(lane, acc) do
    element = {:cast, acc, Index.var(Index.lane(:right, lane))}
    sum = Index.call(:add, Index.var(sum(lane)), Index.call(:mul, Index.var(:factor), element))
    k = Index.call(:add, Index.var(:first), Index.unsigned(Index.var(:j)))
    {:if, 0, Index.call(:lt, k, Index.unsigned(Index.var(:count))), sum, Index.var(sum(lane))}
  end

  defp sum(lane), do: Index.lane(:sum, lane)
end
