defmodule ExCubecl.Ops.TiledProduct do
  @moduledoc false
  # The kernel for products of any types and strides, but those of `ExCubecl.Ops.VectorProduct`. Each invocation accumulates a tile of 4 by 4 elements, or of
  # 4 if there is one row or one column, so that it uses each element that it reads of a matrix or of a vector four times. The sums of few tiles are split among more
  # invocations, whose results a reduction adds up.
  #
  # Adjacent invocations read adjacent elements: those of adjacent columns or rows, or, of a vector and a matrix that is contiguous along the inner
  # axis, adjacent elements of the sums.

  alias ExCubecl.{Buffer, Device, Kernel, Shape, View}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Ops.{Contraction, Index, Layout, Reduction, Strided, Target, VectorProduct}

  require Kernel

  @side 4
  @sides 0..(@side - 1)

  # The least number of invocations, if there are enough products for them, and the least and the greatest number of products that one of
  # them sums up: a driver may stop a kernel whose loop runs too long.
  @invocations 4096
  @least 64
  @most 8192

  # A driver for CPUs has few threads, and a second launch takes it longer than such sums.
  @cpu_invocations 256
  @cpu_least 2048

  # The number of adjacent invocations for a sum whose elements are adjacent: those that a device runs together.
  @together 32

  # The accumulators and operands of a tile, by row and column.
  for n <- @sides do
    defp row(unquote(n)), do: unquote(:"left#{n}")
    defp column(unquote(n)), do: unquote(:"right#{n}")
    for m <- @sides, do: defp(sum(unquote(n), unquote(m)), do: unquote(:"sum#{n}_#{m}"))
  end

  @name Kernel.kernel(fn left, right -> left * right end)
  @add Kernel.kernel(fn acc, x -> acc + x end)

  @doc "The product of operands whose types the device computes; for the types see `ExCubecl.Ops.Operands.types/2`."
  def run(name, contraction, types, into) do
    {parts, launch} = VectorProduct.plan(contraction, types) || plan(contraction, types)
    shape = Contraction.shape(contraction)
    device = contraction.left.device

    # Only the last launch may round to the type of the result.
    {out_shape, dtype, target} =
      if parts == 1,
        do: {shape, types.stored, into},
        else: {[parts, Shape.size(shape)], types.acc, nil}

    with {:ok, out} <- Target.new(target, out_shape, dtype, device),
         :ok <- launch.(Strided.named(@name, name), out),
         :ok <- Buffer.ensure_allocated(out) do
      if parts == 1, do: {:ok, out}, else: added(name, out, shape, types)
    end
  end

  defp plan(contraction, types) do
    space = space(contraction)
    {space.parts, &launch(&1, space, types.acc, &2)}
  end

  defp added(name, parts, shape, %{acc: acc, stored: stored}) do
    spec = %{name: name, first: 0, step: @add, operands: acc, as: acc, dtype: stored}

    # The memory of the parts is free for the next operation, instead of after a garbage collection.
    with {:ok, sum} <- Reduction.run(spec, [View.new(parts)], [0], false),
         {:ok, _freed?} <- Handle.release(parts),
         do: {:ok, %{sum | shape: shape}}
  end

  # The joined axes of the four groups, with the strides of the operands along those that they have.
  defp space(%{left: left, right: right} = contraction) do
    [batch, rows, inner, columns] =
      for key <- [:batch, :rows, :inner, :columns], do: Map.fetch!(contraction, key)

    {left_batch, rest} = Enum.split(left.strides, length(batch))
    {left_rows, left_inner} = Enum.split(rest, length(rows))
    {right_batch, rest} = Enum.split(right.strides, length(batch))
    {right_inner, right_columns} = Enum.split(rest, length(inner))

    [row_count, column_count, count] = Enum.map([rows, columns, inner], &Shape.size/1)
    {height, width} = tile = {side(row_count), side(column_count)}
    {row_tiles, column_tiles} = {ceil_div(row_count, height), ceil_div(column_count, width)}
    tiles = Shape.size(batch) * row_tiles * column_tiles
    together? = together?(tile, List.last(left_inner), List.last(right_inner), count)

    length =
      if together?,
        do: ceil_div(count, @together),
        else: length_of_part(count, tiles, left.device)

    %{
      left: left,
      right: right,
      groups: [
        kept: group(batch, left: left_batch, right: right_batch),
        rows: group(rows, left: left_rows),
        columns: group(columns, right: right_columns),
        reduced: group(inner, left: left_inner, right: right_inner)
      ],
      tile: tile,
      together?: together?,
      parts: ceil_div(count, length),
      invocations: tiles * ceil_div(count, length),
      numbers: [
        tiles: tiles,
        rows: row_count,
        columns: column_count,
        row_tiles: row_tiles,
        column_tiles: column_tiles,
        size: Shape.size(batch) * row_count * column_count,
        count: count,
        part: length,
        parts: ceil_div(count, length)
      ]
    }
  end

  defp together?(tile, left_stride, right_stride, count) do
    adjacent? =
      case tile do
        {@side, 1} -> left_stride == 1
        {1, @side} -> right_stride == 1
        {1, 1} -> left_stride == 1 and right_stride == 1
        _ -> false
      end

    adjacent? and count in (@together * 8)..(@together * @most)
  end

  # The number of products that one invocation sums up.
  defp length_of_part(count, tiles, device) do
    {invocations, least} =
      if Device.cpu?(device), do: {@cpu_invocations, @cpu_least}, else: {@invocations, @least}

    count |> ceil_div(ceil_div(invocations, tiles)) |> max(least) |> min(@most) |> min(count)
  end

  defp side(1), do: 1
  defp side(_length), do: @side

  defp ceil_div(a, b), do: div(a + b - 1, b)

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

  ## The launch

  defp launch(op, %{left: left, right: right, groups: groups} = space, acc, out) do
    axes =
      for {name, group} <- groups do
        strides =
          for {operand, strides} <- group.strides, do: Index.strides(operand, strides, name)

        Index.lengths(group.lengths, group.used, name) ++ Enum.concat(strides)
      end

    args =
      [left: left.buffer, right: right.buffer, left_offset: left.offset] ++
        [right_offset: right.offset] ++ space.numbers ++ Enum.concat(axes) ++ [out: out]

    signature = for {name, group} <- groups, do: {name, length(group.lengths), group.patterns}
    key = {:tiles, acc, space.tile, space.together?, signature}
    statements = statements(groups, acc, space.tile, space.together?)
    {kernel, args} = Strided.kernel(op, key, args, [:out], {statements, nil})
    Strided.run(kernel, args, size: space.invocations)
  end

  ## Statements

  defp statements(groups, acc, {height, width}, together?) do
    {rows, columns} = {0..(height - 1), 0..(width - 1)}
    zeros = for r <- rows, c <- columns, do: Index.let(sum(r, c), {:cast, acc, Index.number(0)})

    part(together?) ++
      tile() ++
      coordinates(groups, :kept, :batch) ++
      [base(groups, :left, :kept), base(groups, :right, :kept)] ++
      Enum.flat_map(rows, &start(groups, :left, :rows, &1)) ++
      Enum.flat_map(columns, &start(groups, :right, :columns, &1)) ++
      zeros ++
      [loop(together?, body(groups, acc, rows, columns))] ++
      Enum.flat_map(rows, &write(&1, columns))
  end

  # The part of the sums of an invocation, and its tile. The elements of the sums are `first`, `first + step`, ...
  defp part(true) do
    [
      Index.let(:i, Index.unsigned({:index, nil})),
      Index.let(:tile, Index.call(:div, Index.var(:i), Index.var(:parts))),
      Index.let(:sums, remainder(:i, :tile, Index.var(:parts))),
      Index.let(:first, Index.var(:sums)),
      Index.let(:step, Index.unsigned(Index.var(:parts)))
    ]
  end

  defp part(false) do
    [
      Index.let(:i, Index.unsigned({:index, nil})),
      Index.let(:sums, Index.call(:div, Index.var(:i), Index.var(:tiles))),
      Index.let(:tile, remainder(:i, :sums, Index.var(:tiles))),
      Index.let(:first, Index.call(:mul, Index.var(:sums), Index.var(:part))),
      Index.let(:step, Index.unsigned(Index.number(1)))
    ]
  end

  # The batch, and the first row and column of the tile.
  defp tile do
    [columns, rows] = Enum.map([:column_tiles, :row_tiles], &Index.var/1)

    [
      Index.let(:rest, Index.call(:div, Index.var(:tile), columns)),
      Index.let(:column, remainder(:tile, :rest, columns)),
      Index.let(:batch, Index.call(:div, Index.var(:rest), rows)),
      Index.let(:row, remainder(:rest, :batch, rows))
    ]
  end

  defp remainder(number, quotient, divisor),
    do: Index.call(:sub, Index.var(number), Index.call(:mul, Index.var(quotient), divisor))

  defp loop(together?, body) do
    left = Index.call(:sub, Index.var(:count), Index.var(:first))

    rounds =
      if together?,
        do:
          Index.call(
            :div,
            Index.call(
              :add,
              left,
              Index.call(:sub, Index.unsigned(Index.var(:parts)), Index.number(1))
            ),
            Index.var(:parts)
          ),
        else: Index.call(:min, left, Index.var(:part))

    last = {:cast, :s32, Index.call(:sub, rounds, Index.number(1))}
    {:for, 0, :j, Index.number(0), last, body}
  end

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

  # The rows and columns of a tile are as far apart as there are tiles.
  defp nth(:rows, n), do: nth(:row, :row_tiles, n)
  defp nth(:columns, n), do: nth(:column, :column_tiles, n)

  # Without the cast, the product of an argument and a number would be signed, and the sum have 64 bits.
  defp nth(first, tiles, n) do
    distance = Index.call(:mul, Index.unsigned(Index.var(tiles)), Index.number(n))
    Index.call(:add, Index.var(first), distance)
  end

  defp body(groups, acc, rows, columns) do
    along =
      for operand <- [:left, :right] do
        from = Index.unsigned(Index.number(0))
        Index.let(Index.name(operand, :inner), along(groups, operand, :reduced, from))
      end

    reads =
      for {operand, name, numbers} <- [{:left, &row/1, rows}, {:right, &column/1, columns}],
          n <- numbers do
        from = Index.var(Index.name(operand, "start#{n}"))
        index = Index.call(:add, from, Index.var(Index.name(operand, :inner)))
        Index.let(name.(n), {:cast, acc, {:at, 0, operand, index}})
      end

    sums =
      for r <- rows, c <- columns do
        product = Index.call(:mul, Index.var(row(r)), Index.var(column(c)))
        Index.let(sum(r, c), Index.call(:add, Index.var(sum(r, c)), product))
      end

    distance = Index.call(:mul, Index.unsigned(Index.var(:j)), Index.var(:step))
    k = Index.call(:add, Index.var(:first), distance)
    [Index.let(:k, k)] ++ coordinates(groups, :reduced, :k) ++ along ++ reads ++ sums
  end

  # Writes row `r` of the tile.
  defp write(r, columns) do
    before = Index.call(:mul, Index.var(:sums), Index.var(:size))
    rows = Index.call(:mul, Index.var(:batch), Index.var(:rows))
    row = Index.call(:mul, Index.call(:add, rows, nth(:rows, r)), Index.var(:columns))
    row = Index.call(:add, before, row)

    elements =
      for c <- columns do
        inside = Index.call(:lt, Index.var(:at), Index.var(:columns))
        write = {:write, 0, :out, Index.call(:add, row, Index.var(:at)), Index.var(sum(r, c))}
        [Index.let(:at, nth(:columns, c)), {:branch, 0, inside, [write], []}]
      end

    inside = Index.call(:lt, nth(:rows, r), Index.var(:rows))
    [{:branch, 0, inside, Enum.concat(elements), []}]
  end
end
