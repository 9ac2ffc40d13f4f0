defmodule ExCubecl.Ops.TiledCode do
  @moduledoc false
  # The statements of the kernels of `ExCubecl.Ops.TiledProduct`, in the intermediate form of `ExCubecl.Kernel.Parser`.

  alias ExCubecl.Ops.Index

  # The longest side of a tile.
  @sides 0..7

  # The accumulators and operands of a tile, by row and column.
  for n <- @sides do
    defp row(unquote(n)), do: unquote(:"left#{n}")
    defp column(unquote(n)), do: unquote(:"right#{n}")
    for m <- @sides, do: defp(sum(unquote(n), unquote(m)), do: unquote(:"sum#{n}_#{m}"))
  end

  @doc """
  The statements for groups of axes with the patterns of the operands. `acc` is the type of the sums, `split` whether they are `:whole`, in `:parts`, or in parts
  of which adjacent invocations have adjacent elements (`:together`). Each sum is written to the output `kept`; then the statements `last` run with the number of each element of the tile as `:element`.
  """
  def statements(groups, acc, {height, width}, split, {kept, last}) do
    {rows, columns} = {0..(height - 1), 0..(width - 1)}
    zeros = for r <- rows, c <- columns, do: Index.let(sum(r, c), {:cast, acc, Index.number(0)})

    part(split) ++
      tile() ++
      coordinates(groups, :kept, :batch) ++
      [base(groups, :left, :kept), base(groups, :right, :kept)] ++
      Enum.flat_map(rows, &start(groups, :left, :rows, &1)) ++
      Enum.flat_map(columns, &start(groups, :right, :columns, &1)) ++
      zeros ++
      [loop(split, body(groups, acc, rows, columns))] ++
      Enum.flat_map(rows, &write(&1, columns, kept)) ++
      if(last == [], do: [], else: [epilogue(last, height, width)])
  end

  # The part of the sums of an invocation, and its tile. The elements of the sums are `first`, `first + step`, ...
  defp part(:together) do
    [
      Index.let(:i, Index.unsigned({:index, nil})),
      Index.let(:tile, Index.call(:div, Index.var(:i), Index.var(:parts))),
      Index.let(:sums, remainder(:i, :tile, Index.var(:parts))),
      Index.let(:first, Index.var(:sums)),
      Index.let(:step, Index.unsigned(Index.var(:parts)))
    ]
  end

  defp part(_whole_or_parts) do
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

  # A loop whose bound is an argument is compiled in less time than others.
  defp loop(:whole, body) do
    last = Index.call(:sub, Index.var(:count), Index.number(1))
    {:for, 0, :j, Index.number(0), last, body}
  end

  defp loop(split, body) do
    left = Index.call(:sub, Index.var(:count), Index.var(:first))

    rounds =
      if split == :together,
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

  # Without the cast, the product of an argument and a number would be signed, and their sum would have 64 bits.
  defp nth(first, tiles, n) do
    n = if is_integer(n), do: Index.number(n), else: n
    distance = Index.call(:mul, Index.unsigned(Index.var(tiles)), n)
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
  defp write(r, columns, kept) do
    before = Index.call(:mul, Index.var(:sums), Index.var(:size))
    row = Index.call(:add, before, row_start(nth(:rows, r)))

    elements =
      for c <- columns do
        inside = Index.call(:lt, Index.var(:at), Index.var(:columns))
        write = {:write, 0, kept, Index.call(:add, row, Index.var(:at)), Index.var(sum(r, c))}
        [Index.let(:at, nth(:columns, c)), {:branch, 0, inside, [write], []}]
      end

    inside = Index.call(:lt, nth(:rows, r), Index.var(:rows))
    [{:branch, 0, inside, Enum.concat(elements), []}]
  end

  defp row_start(row) do
    rows = Index.call(:mul, Index.var(:batch), Index.var(:rows))
    Index.call(:mul, Index.call(:add, rows, row), Index.var(:columns))
  end

  # A loop, because code for each element of a tile would take long to compile.
  defp epilogue(statements, height, width) do
    inside =
      Index.call(
        :and,
        Index.call(:lt, Index.var(:tile_row), Index.unsigned(Index.var(:rows))),
        Index.call(:lt, Index.var(:at), Index.unsigned(Index.var(:columns)))
      )

    element = Index.call(:add, row_start(Index.var(:tile_row)), Index.var(:at))

    body = [
      Index.let(:at, nth(:columns, Index.unsigned(Index.var(:across)))),
      {:branch, 0, inside, [Index.let(:element, element) | statements], []}
    ]

    across = {:for, 0, :across, Index.number(0), Index.number(width - 1), body}
    row = Index.let(:tile_row, nth(:rows, Index.unsigned(Index.var(:down))))
    {:for, 0, :down, Index.number(0), Index.number(height - 1), [row, across]}
  end
end
