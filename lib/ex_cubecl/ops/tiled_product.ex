defmodule ExCubecl.Ops.TiledProduct do
  @moduledoc false
  # The kernel for products of any types and strides. Each invocation accumulates a tile of 4 by 4 elements, so that each element that it
  # reads is used four times. The columns of a tile are far apart, and those of adjacent invocations are adjacent.

  alias ExCubecl.{Buffer, Kernel, Shape}
  alias ExCubecl.Ops.{Contraction, Index, Layout, Operands, Strided}

  require Kernel

  @side 4
  @sides 0..(@side - 1)

  # The number of products that one launch sums up: a driver may stop a kernel whose loop runs too long.
  @products 8192

  # The accumulators and operands of a tile, by row and column.
  for n <- @sides do
    defp row(unquote(n)), do: unquote(:"left#{n}")
    defp column(unquote(n)), do: unquote(:"right#{n}")
    for m <- @sides, do: defp(sum(unquote(n), unquote(m)), do: unquote(:"sum#{n}_#{m}"))
  end

  @name Kernel.kernel(fn left, right -> left * right end)

  @doc "The number of tiles of a product."
  def tiles(batch, rows, columns), do: batch * side(rows) * side(columns)

  defp side(length), do: div(length + @side - 1, @side)

  @doc "The product of operands whose types the device computes; for the types see `ExCubecl.Ops.Operands.types/2`."
  def run(name, contraction, types) do
    space = space(contraction)
    # Only the last launch may round to the type of the result.
    dtype = if space.inner <= @products, do: types.stored, else: types.acc

    with {:ok, out} <-
           Buffer.empty(Contraction.shape(contraction), dtype, device: space.left.device),
         :ok <- launch(Strided.named(@name, name), space, types.acc, out, 0),
         :ok <- Buffer.ensure_allocated(out),
         do: Operands.converted(out, types.stored)
  end

  # The joined axes of the four groups, with the strides of the operands along those that they have.
  defp space(%{left: left, right: right} = contraction) do
    [batch, rows, inner, columns] =
      for key <- [:batch, :rows, :inner, :columns], do: Map.fetch!(contraction, key)

    {left_batch, rest} = Enum.split(left.strides, length(batch))
    {left_rows, left_inner} = Enum.split(rest, length(rows))
    {right_batch, rest} = Enum.split(right.strides, length(batch))
    {right_inner, right_columns} = Enum.split(rest, length(inner))

    %{
      left: left,
      right: right,
      groups: [
        kept: group(batch, left: left_batch, right: right_batch),
        rows: group(rows, left: left_rows),
        columns: group(columns, right: right_columns),
        reduced: group(inner, left: left_inner, right: right_inner)
      ],
      tiles: tiles(Shape.size(batch), Shape.size(rows), Shape.size(columns)),
      rows: Shape.size(rows),
      columns: Shape.size(columns),
      inner: Shape.size(inner)
    }
  end

  defp group(lengths, views) do
    {lengths, strides} = Layout.joined(lengths, Keyword.values(views))
    patterns = Enum.map(strides, &Index.pattern/1)

    %{
      lengths: lengths,
      strides: Enum.zip(Keyword.keys(views), strides),
      patterns: Enum.zip(Keyword.keys(views), patterns),
      used: Index.used(patterns)
    }
  end

  ## Launches

  defp launch(_op, %{inner: inner}, _acc, _out, from) when from >= inner, do: :ok

  defp launch(op, %{left: left, right: right, groups: groups} = space, acc, out, from) do
    to = min(from + @products, space.inner) - 1

    axes =
      for {name, group} <- groups do
        strides =
          for {operand, strides} <- group.strides, do: Index.strides(operand, strides, name)

        Index.lengths(group.lengths, group.used, name) ++ Enum.concat(strides)
      end

    args =
      [left: left.buffer, right: right.buffer, left_offset: left.offset] ++
        [right_offset: right.offset, rows: space.rows, columns: space.columns] ++
        [row_tiles: side(space.rows), column_tiles: side(space.columns), from: from, to: to] ++
        Enum.concat(axes) ++ [out: out]

    signature = for {name, group} <- groups, do: {name, length(group.lengths), group.patterns}
    key = {:tiles, acc, from == 0, signature}
    statements = statements(groups, acc, from == 0)
    {kernel, args} = Strided.kernel(op, key, args, [:out], {statements, nil})

    with :ok <- Strided.run(kernel, args, size: space.tiles),
         do: launch(op, space, acc, out, to + 1)
  end

  ## Statements

  defp statements(groups, acc, first?) do
    zeros = for r <- @sides, c <- @sides, do: Index.let(sum(r, c), {:cast, acc, Index.number(0)})

    tile() ++
      coordinates(groups, :kept, :batch) ++
      [base(groups, :left, :kept), base(groups, :right, :kept)] ++
      Enum.flat_map(@sides, &start(groups, :left, :rows, &1)) ++
      Enum.flat_map(@sides, &start(groups, :right, :columns, &1)) ++
      zeros ++
      [{:for, 0, :j, Index.var(:from), Index.var(:to), body(groups, acc)}] ++
      Enum.flat_map(@sides, &write(&1, first?))
  end

  # The batch, and the first row and column of the tile of an invocation.
  defp tile do
    [count, tiles] = [Index.var(:column_tiles), Index.var(:row_tiles)]

    [
      Index.let(:i, Index.unsigned({:index, nil})),
      Index.let(:rest, Index.call(:div, Index.var(:i), count)),
      Index.let(:column, remainder(:i, :rest, count)),
      Index.let(:batch, Index.call(:div, Index.var(:rest), tiles)),
      Index.let(:row, remainder(:rest, :batch, tiles)),
      Index.let(:row, Index.call(:mul, Index.var(:row), Index.number(@side)))
    ]
  end

  defp remainder(number, quotient, divisor),
    do: Index.call(:sub, Index.var(number), Index.call(:mul, Index.var(quotient), divisor))

  defp coordinates(groups, name, linear) do
    group = groups[name]
    Index.coordinates(linear, length(group.lengths), group.used, name)
  end

  # The index of an operand plus its offset along a group of axes.
  defp along(groups, operand, name, from),
    do: Index.offset(from, operand, groups[name].patterns[operand], name)

  defp base(groups, operand, name) do
    from = Index.unsigned(Index.var(Index.name(operand, :offset)))
    Index.let(Index.name(operand, :batch), along(groups, operand, name, from))
  end

  # The index at which row or column `n` of the tile starts.
  defp start(groups, operand, name, n) do
    from = Index.var(Index.name(operand, :batch))

    [Index.let(:at, nth(name, n))] ++
      coordinates(groups, name, :at) ++
      [Index.let(Index.name(operand, "start#{n}"), along(groups, operand, name, from))]
  end

  defp nth(:rows, n), do: Index.call(:add, Index.var(:row), Index.number(n))

  # Without the cast, the product of an argument and a number would be signed, and the sum have 64 bits.
  defp nth(:columns, n) do
    distance = Index.call(:mul, Index.unsigned(Index.var(:column_tiles)), Index.number(n))
    Index.call(:add, Index.var(:column), distance)
  end

  defp body(groups, acc) do
    along =
      for operand <- [:left, :right] do
        Index.let(Index.name(operand, :inner), along(groups, operand, :reduced, zero()))
      end

    reads =
      for {operand, name} <- [left: &row/1, right: &column/1], n <- @sides do
        from = Index.var(Index.name(operand, "start#{n}"))
        index = Index.call(:add, from, Index.var(Index.name(operand, :inner)))
        Index.let(name.(n), {:cast, acc, {:at, 0, operand, index}})
      end

    sums =
      for r <- @sides, c <- @sides do
        product = Index.call(:mul, Index.var(row(r)), Index.var(column(c)))
        Index.let(sum(r, c), Index.call(:add, Index.var(sum(r, c)), product))
      end

    [Index.let(:k, Index.unsigned(Index.var(:j)))] ++
      coordinates(groups, :reduced, :k) ++ along ++ reads ++ sums
  end

  defp zero, do: Index.unsigned(Index.number(0))

  # Writes row `r` of the tile, or adds it to the sums of the launches before.
  defp write(r, first?) do
    place = Index.call(:mul, Index.var(:batch), Index.unsigned(Index.var(:rows)))
    place = Index.call(:mul, Index.call(:add, place, nth(:rows, r)), Index.var(:columns))

    elements =
      for c <- @sides do
        at = Index.call(:add, place, Index.var(:at))
        sum = Index.var(sum(r, c))
        sum = if first?, do: sum, else: Index.call(:add, {:at, 0, :out, at}, sum)
        inside = Index.call(:lt, Index.var(:at), Index.var(:columns))
        [Index.let(:at, nth(:columns, c)), {:branch, 0, inside, [{:write, 0, :out, at, sum}], []}]
      end

    inside = Index.call(:lt, nth(:rows, r), Index.var(:rows))
    [{:branch, 0, inside, Enum.concat(elements), []}]
  end
end
