defmodule ExCubecl.LinAlg.Device.Kernels do
  @moduledoc false
  # The kernels of blocked algorithms, on buffers of [batch, n, n], or [batch, n, m] for right-hand sides. A block starts at row and column k and has `size` of
  # them, at most 32. Indices are of :u32.

  use ExCubecl.Kernel

  ## out -= a b, for blocks of the same matrices or, for `update_sides`, with a in another buffer

  # Each invocation calculates a tile of 4 by 4 elements. Matrices are given by their first element, and the strides of their rows, columns
  # and batches.
  name = fn letter, number -> {:"#{letter}#{number}", [], nil} end
  [rows, columns] = [for(n <- 0..3, do: name.("a", n)), for(n <- 0..3, do: name.("b", n))]

  cells =
    for {a, r} <- Enum.with_index(rows),
        {b, c} <- Enum.with_index(columns),
        do: {name.("c", 4 * r + c), a, b, r, c}

  zeros = for {cell, _, _, _, _} <- cells, do: quote(do: unquote(cell) = cast(0, :s32))

  sums =
    for {cell, a, b, _, _} <- cells,
        do: quote(do: unquote(cell) = unquote(cell) + unquote(a) * unquote(b))

  writes =
    for {cell, _, _, r, c} <- cells do
      quote do
        if row + unquote(r) < rows and column + unquote(c) < columns do
          at = to + (row + unquote(r)) * out_row + (column + unquote(c)) * out_column
          out[at] = out[at] - unquote(cell)
        end
      end
    end

  for {kernel, source} <- [update: :out, update_sides: :a] do
    source = {source, [], nil}
    arguments = if kernel == :update, do: [], else: [source]

    reads =
      for {a, r} <- Enum.with_index(rows),
          do:
            quote(
              do:
                unquote(a) =
                  unquote(source)[from + (row + unquote(r)) * a_row + cast(p, :u32) * a_column]
            )

    more =
      for {b, c} <- Enum.with_index(columns),
          do:
            quote(
              do:
                unquote(b) = out[other + cast(p, :u32) * b_row + (column + unquote(c)) * b_column]
            )

    names =
      for n <-
            [:rows, :columns, :size, :a_first, :a_row, :a_column, :a_batch] ++
              [:b_first, :b_row, :b_column, :first, :out_row, :out_column, :batch],
          do: {n, [], nil}

    code =
      quote do
        defkernel unquote(kernel)(unquote_splicing(arguments ++ names), out) do
          row = cast(index(:y), :u32) * 4
          column = cast(index(:x), :u32) * 4
          from = cast(index(:z), :u32) * a_batch + a_first
          other = cast(index(:z), :u32) * batch + b_first
          to = cast(index(:z), :u32) * batch + first
          unquote_splicing(zeros)

          for p <- 0..(size - 1) do
            (unquote_splicing(reads ++ more ++ sums))
          end

          unquote_splicing(writes)
        end
      end

    Code.eval_quoted(code, [], __ENV__)
  end

  ## Cholesky

  # The block on the diagonal, by one group for each matrix, each thread of which has a row. The first pivot that is not positive is reported, as its index + 1
  # and its value. Each thread calculates the pivots itself: there is one barrier for each column.
  defkernel cholesky_block(n, k, size, failed, pivots, a), group: 32 do
    tile = shared(a, 1024)
    b = cast(group(), :u32)
    t = cast(local(), :u32)
    row = (b * n + k + t) * n + k

    for column <- 0..(size - 1) do
      tile[t * 32 + cast(column, :u32)] = a[row + cast(column, :u32)]
    end

    for step <- 0..(size - 1) do
      j = cast(step, :u32)
      barrier()
      pivot = tile[j * 33]
      value = tile[t * 32 + j]

      for p <- 0..(step - 1) do
        factor = tile[j * 32 + cast(p, :u32)]
        pivot = pivot - factor * factor
        value = value - factor * tile[t * 32 + cast(p, :u32)]
      end

      root = sqrt(pivot)

      if t == j and not (pivot > 0) and failed[b] == 0 do
        failed[b] = k + step + 1
        pivots[b] = pivot
      end

      # No thread reads an element on the diagonal again.
      if t > j, do: tile[t * 32 + j] = value / root
      if t >= j and t < size, do: a[row + j] = if(t == j, do: root, else: value / root)
    end
  end

  # The rows below the block: each is a triangular system.
  defkernel cholesky_rows(n, k, size, a) do
    below = cast(n, :u32) - k - size
    i = cast(index(), :u32)
    matrix = div(i, below) * n
    row = (matrix + k + size + rem(i, below)) * n + k
    block = (matrix + k) * n + k

    for j <- 0..(size - 1) do
      c = cast(j, :u32)
      sum = a[row + c]

      for p <- 0..(j - 1) do
        sum = sum - a[row + cast(p, :u32)] * a[block + c * n + cast(p, :u32)]
      end

      a[row + c] = sum / a[block + c * n + c]
    end
  end

  ## LU: a panel is the columns of a block, from row k on, in a buffer of [batch, height, 32]

  defkernel load_panel(a, n, k, size, height, panel) do
    i = cast(index(), :u32)
    c = rem(i, 32)
    r = rem(div(i, 32), height)
    b = div(div(i, 32), height)
    value = a[(b * n + k + r) * n + k + c]
    panel[i] = if c < size, do: value, else: 0
  end

  defkernel store_panel(panel, n, k, size, height, a) do
    i = cast(index(), :u32)
    c = rem(i, 32)
    r = rem(div(i, 32), height)
    b = div(div(i, 32), height)
    if c < size, do: a[(b * n + k + r) * n + k + c] = panel[i]
  end

  # The row of the largest element of column j from row j on, one group for each matrix.
  defkernel pivot(panel, n, k, j, height, pivots), group: 256 do
    largest = shared(panel, 256)
    place = shared(:s32, 256)
    t = local()
    base = group() * height
    best = abs(panel[(base + j) * 32 + j])
    at = cast(j, :s32)

    for part <- 0..div(height - j - 1, 256) do
      r = j + part * 256 + t
      value = abs(panel[(base + r) * 32 + j])

      if r < height and value > best do
        best = value
        at = r
      end
    end

    largest[t] = best
    place[t] = at
    barrier()

    # A tree of comparisons would have a barrier for each of its levels, and a driver for CPUs compiles those for a tenth of a second.
    if t == 0 do
      for other <- 1..255 do
        value = largest[other]

        if value > best or (value == best and place[other] < at) do
          best = value
          at = place[other]
        end
      end

      pivots[group() * n + k + j] = at
    end
  end

  # Exchanges row j with the pivot's, and eliminates column j below it, from one buffer into another.
  defkernel eliminate(panel, pivots, n, k, j, height, out) do
    i = cast(index(), :u32)
    c = rem(i, 32)
    r = rem(div(i, 32), height)
    b = div(div(i, 32), height)
    row = cast(pivots[b * n + k + j], :u32)
    from = if r == j, do: row, else: if(r == row, do: cast(j, :u32), else: r)
    value = panel[(b * height + from) * 32 + c]
    pivot = panel[(b * height + row) * 32 + j]
    quotient = panel[(b * height + from) * 32 + j] / pivot
    factor = if pivot == 0, do: panel[i] - panel[i], else: quotient
    rest = value - factor * panel[(b * height + row) * 32 + c]
    changed = if c == j, do: factor, else: rest
    out[i] = if r > j and c >= j, do: changed, else: value
  end

  # Exchanges the rows of the columns beside the panel, and solves the systems of those right of it.
  defkernel exchange(pivots, n, k, size, a) do
    beside = cast(n, :u32) - size
    i = cast(index(), :u32)
    b = div(i, beside)
    left = rem(i, beside)
    c = if left < k, do: left, else: left + size
    top = (b * n + k) * n

    for j <- 0..(size - 1) do
      one = top + cast(j, :u32) * n + c
      other = top + cast(pivots[b * n + k + cast(j, :u32)], :u32) * n + c
      value = a[one]
      a[one] = a[other]
      a[other] = value
    end

    if c > k do
      for j <- 1..(size - 1) do
        row = top + cast(j, :u32) * n
        sum = a[row + c]

        for p <- 0..(j - 1) do
          sum = sum - a[row + k + cast(p, :u32)] * a[top + cast(p, :u32) * n + c]
        end

        a[row + c] = sum
      end
    end
  end

  # The lower triangle (`sign` 1) or the upper one (-1); with `unit` 1, ones on the diagonal.
  defkernel triangle(a, n, sign, unit, out) do
    i = cast(index(), :u32)
    below = (cast(rem(div(i, n), n), :s32) - cast(rem(i, n), :s32)) * sign
    diagonal = if unit == 1, do: a[i] - a[i] + 1, else: a[i]
    out[i] = if below > 0, do: a[i], else: if(below == 0, do: diagonal, else: 0)
  end

  ## Right-hand sides of [batch, n, m]

  # The rows in the order of the pivots of LU.
  defkernel exchange_rows(pivots, n, m, width, x) do
    i = cast(index(), :u32)
    b = div(i, m)

    for j <- 0..(n - 1) do
      at = b * n + cast(j, :u32)
      one = at * m + rem(i, m)
      block = cast(j, :u32) - rem(cast(j, :u32), width)
      other = (b * n + block + cast(pivots[at], :u32)) * m + rem(i, m)
      value = x[one]
      x[one] = x[other]
      x[other] = value
    end
  end

  # The system of a block of a lower triangle, with ones on its diagonal if `unit` is 1, one column for each invocation. Matrices are given as for `update`.
  defkernel solve_block(
              a,
              first,
              a_row,
              a_column,
              a_batch,
              m,
              size,
              unit,
              to,
              x_row,
              x_column,
              x_batch,
              x
            ) do
    i = cast(index(), :u32)
    b = div(i, m)
    block = b * a_batch + first
    sides = b * x_batch + rem(i, m) * x_column + to

    for j <- 0..(size - 1) do
      row = block + cast(j, :u32) * a_row
      place = sides + cast(j, :u32) * x_row
      sum = x[place]

      for p <- 0..(j - 1) do
        sum = sum - a[row + cast(p, :u32) * a_column] * x[sides + cast(p, :u32) * x_row]
      end

      x[place] = if unit == 1, do: sum, else: sum / a[row + cast(j, :u32) * a_column]
    end
  end
end
