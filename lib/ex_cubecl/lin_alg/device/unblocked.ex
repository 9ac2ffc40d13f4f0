defmodule ExCubecl.LinAlg.Device.Unblocked do
  @moduledoc false
  # Decompositions of matrices of few rows by few kernels, with a group for each matrix, or for some columns of each. Each thread reads and writes one column or row only, because a barrier
  # orders the accesses of a group to shared memory, but not those to buffers: what the others need of one in the same launch is in shared memory.

  use ExCubecl.Kernel

  alias ExCubecl.{Buffer, Error, Kernel}
  alias ExCubecl.Ops.Index

  @threads 128

  # More columns are factored in parts of as many, whose rows have to be in shared memory.
  @width 32

  # The columns of a panel of Cholesky decompositions, and the rows below its block for which a group has threads.
  @panel 8
  @below 24

  # The most rows for Cholesky decompositions: of more, the launches of blocks take less time. So they do for triangular systems of more than 128 rows.
  @most_cholesky 200

  # The most rows for which one thread solves a triangular system, in n * (n + 1) iterations, and for which it solves two: lavapipe ends loops after 65,535 iterations.
  @most 250
  @both 176

  @doc "The most rows for an algorithm."
  def most(:lu), do: @most
  def most(:cholesky), do: @most_cholesky
  def most(:triangular_solve), do: @threads

  @doc """
  As `ExCubecl.LinAlg.Device.lu/2`; pivots are counted from the first row. `found` has for each column of the factors 1 if a number of it is NaN or infinite, else 0: so it is if
  one of the matrix is.
  """
  def lu(%{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    with {:ok, factors} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.empty([count, n], :s32, device: device),
         {:ok, diagonal} <- Buffer.empty([count, n], dtype, device: device),
         {:ok, found} <- Buffer.empty([count, n], :s32, device: device),
         :ok <- eliminated(factors, {n, count}, pivots, [found, pivots, diagonal]),
         do: {:ok, %{factors: factors, pivots: pivots, diagonal: diagonal}, found}
  end

  defp eliminated(a, {n, count}, pivots, reports) do
    width = if n <= @threads, do: n, else: @width

    Error.each(0..(n - 1)//width, fn k ->
      size = min(width, n - k)

      with :ok <- run(:eliminate, [n, k, size | reports] ++ [a], count),
           do: beside(n - size, count, [n, k, size, pivots, a])
    end)
  end

  defp beside(0, _count, _args), do: :ok

  defp beside(columns, count, args),
    do: Kernel.run({__MODULE__, :eliminate_beside}, args, size: count * columns)

  @doc """
  `{:ok, l, pivots, found}`: the lower triangles L with A = L L', the numbers whose roots are on their diagonals, and of each matrix numbers of which one is 1 if
  a number of the matrix is NaN or infinite.
  """
  def cholesky(%{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    with {:ok, pivots} <- Buffer.empty([count, n], dtype, device: device),
         {:ok, l, found} <- cholesky(buffer, pivots),
         do: {:ok, l, pivots, found}
  end

  # Of more rows, panels are faster, because they have several groups for each matrix; their kernel takes longer to compile.
  defp cholesky(%{shape: [count, n, _]} = buffer, pivots) when n <= @threads do
    with {:ok, l} <- Buffer.duplicate(buffer),
         {:ok, found} <- Buffer.empty([count, n], :s32, device: buffer.device),
         :ok <- run(:cholesky_rows, [n, found, pivots, l], count),
         do: {:ok, l, found}
  end

  defp cholesky(%{shape: [count, n, _]} = buffer, pivots) do
    with {:ok, l} <- Buffer.empty(buffer.shape, buffer.dtype, device: buffer.device),
         {:ok, found} <- Buffer.zeros([count], :s32, device: buffer.device),
         :ok <- panels(n, count, buffer, [found, pivots, l]),
         do: {:ok, l, found}
  end

  defp panels(n, count, buffer, results) do
    Error.each(0..(n - 1)//@panel, fn k ->
      size = min(@panel, n - k)
      groups = max(div(n - k - size + @below - 1, @below), 1)
      args = [buffer, n, k, size, groups | results]
      Kernel.run({__MODULE__, :cholesky_panel}, args, size: count * groups * (@panel + @below))
    end)
  end

  @doc """
  The solutions, of [batch, n, m], of systems whose matrices have the factors of `lu/1`, for right-hand sides `b`. `order` has the numbers of the rows of each matrix in
  the order of the pivots. Returns `{:ok, x, found}`: `found` has of each column 1 if a number of `b` is NaN or infinite, else 0.
  """
  def solve(%{factors: factors}, %{shape: [count, n, m], device: device} = b, orders) do
    bytes = for order <- orders, row <- order, into: <<>>, do: <<row::32-native>>

    with {:ok, order} <- Buffer.new(bytes, [count, n], :s32, device: device),
         {:ok, found} <- Buffer.empty([count, m], :s32, device: device),
         {:ok, x} <- Buffer.empty(b.shape, b.dtype, device: device),
         args = [factors, order, b, n, m],
         passes = if(n <= @both, do: [[0, 1]], else: [[0, 0], [1, 1]]),
         run = &Kernel.run({__MODULE__, :solve_triangles}, args ++ &1, size: count * m),
         :ok <- Error.each(passes, &run.(&1 ++ [found, x])),
         do: {:ok, x, found}
  end

  @doc """
  The solutions of triangular systems, for right-hand sides `b` of `m` columns, which are given with the matrices `a` as for `ExCubecl.LinAlg.Device.solve_lower/4`.
  Returns `{:ok, x, diagonals, found, sides_found}`: the latter two have of each matrix and its right-hand sides 1 if a number is NaN or infinite, else 0.
  """
  def solve_triangle({a, triangle}, {b, sides}, {count, n, m}) do
    {first, row, column, _} = triangle
    {to, x_row, x_column, _} = sides
    places = Enum.map([first, row, column, to, x_row, x_column], &Index.wrapped/1)

    with {:ok, [found, sides_found]} <-
           Error.map([a, b], &Buffer.zeros([count], :s32, device: &1.device)),
         {:ok, diagonals} <- Buffer.empty([count, n], a.dtype, device: a.device),
         {:ok, x} <- Buffer.empty(b.shape, b.dtype, device: b.device),
         groups = div(max(n, m) + @width - 1, @width),
         args = [a, b, n, m, groups] ++ places ++ [found, sides_found, diagonals, x],
         :ok <- Kernel.run({__MODULE__, :solve_rows}, args, size: count * groups * @width),
         do: {:ok, x, diagonals, found, sides_found}
  end

  defp run(name, args, count),
    do: Kernel.run({__MODULE__, name}, args, size: count * @threads)

  ## Kernels

  # The columns from k on, `size` of them. Each thread exchanges rows in its column, and eliminates. Columns that are complete are passed on in two parts of the
  # shared memory that take turns, so that there is one barrier for each.
  defkernel eliminate(n, k, size, found, pivots, diagonal, a), group: 128 do
    column = shared(a, 512)
    place = shared(:u32, 2)
    b = cast(group(), :u32)
    t = cast(local(), :u32)
    c = k + t
    top = b * n * n
    bad = cast(0, :s32)

    for step <- k..(k + size - 1) do
      j = cast(step, :u32)
      turn = band(j, 1)
      row = top + j * n

      if j == c do
        best = abs(a[row + j])
        at = j

        for i <- (step + 1)..(n - 1) do
          r = cast(i, :u32)
          value = abs(a[top + r * n + j])

          if value > best do
            best = value
            at = r
          end
        end

        pivot = a[top + at * n + j]
        a[top + at * n + j] = a[row + j]
        a[row + j] = pivot
        place[turn] = at
        pivots[b * n + j] = cast(at, :s32)
        diagonal[b * n + j] = pivot
        bad = bad + (pivot - pivot)

        for i <- (step + 1)..(n - 1) do
          r = cast(i, :u32)
          below = a[top + r * n + j]
          factor = if pivot == 0, do: below - below, else: below / pivot
          a[top + r * n + j] = factor
          column[turn * 256 + r] = factor
          bad = bad + (factor - factor)
        end

        found[b * n + j] = if bad == 0, do: 0, else: 1
      end

      barrier()
      at = place[turn]

      if t < size and c != j do
        value = a[top + at * n + c]
        a[top + at * n + c] = a[row + c]
        a[row + c] = value

        if c > j do
          bad = bad + (value - value)

          for i <- (step + 1)..(n - 1) do
            r = cast(i, :u32)
            a[top + r * n + c] = a[top + r * n + c] - column[turn * 256 + r] * value
          end
        end
      end
    end
  end

  # Exchanges the rows of the columns beside those, and eliminates in the ones right of them. Each invocation has a column.
  defkernel eliminate_beside(n, k, size, pivots, a) do
    beside = cast(n, :u32) - size
    i = cast(index(), :u32)
    b = div(i, beside)
    left = rem(i, beside)
    c = if left < k, do: left, else: left + size
    top = b * n * n

    for step <- k..(k + size - 1) do
      j = cast(step, :u32)
      one = top + j * n + c
      other = top + cast(pivots[b * n + j], :u32) * n + c
      value = a[one]
      a[one] = a[other]
      a[other] = value
    end

    if c > k do
      for step <- k..(k + size - 1) do
        j = cast(step, :u32)
        value = a[top + j * n + c]

        for below <- (step + 1)..(n - 1) do
          at = top + cast(below, :u32) * n
          a[at + c] = a[at + c] - a[at + j] * value
        end
      end
    end
  end

  # Each thread has a row; the one whose row gets its diagonal passes it on.
  defkernel cholesky_rows(n, found, pivots, a), group: 128 do
    passed = shared(a, 128)
    root = shared(a, 1)
    b = cast(group(), :u32)
    t = cast(local(), :u32)
    row = (b * n + t) * n
    bad = cast(0, :s32)

    for step <- 0..(n - 1) do
      j = cast(step, :u32)

      if t == j do
        for p <- 0..(step - 1) do
          passed[cast(p, :u32)] = a[row + cast(p, :u32)]
        end
      end

      barrier()
      value = a[row + j]
      bad = bad + (value - value)

      if t >= j and t < n do
        for p <- 0..(step - 1) do
          value = value - passed[cast(p, :u32)] * a[row + cast(p, :u32)]
        end
      end

      if t == j do
        pivots[b * n + j] = value
        root[0] = sqrt(value)
      end

      barrier()

      if t < n do
        below = if t < j, do: 0, else: value / root[0]
        a[row + j] = if t == j, do: root[0], else: below
      end
    end

    if t < n, do: found[b * n + t] = if(bad == 0, do: 0, else: 1)
  end

  # The columns from k on, `size` of them, of the rows from k on. The first 8 threads of a group have the rows of the block on the diagonal, the others 24 of those
  # below it. Each group calculates the block, whose rows the first group writes: no group waits for another. The columns before k are those of other launches.
  defkernel cholesky_panel(a, n, k, size, groups, found, pivots, l), group: 32 do
    columns = shared(a, 256)
    t = cast(local(), :u32)
    b = div(cast(group(), :u32), groups)
    part = rem(cast(group(), :u32), groups)
    top = cast(k, :u32)
    r = if t < 8, do: top + t, else: top + size + part * 24 + t - 8
    rows = cast(n, :u32)
    row = (b * rows + min(r, rows - 1)) * rows
    block = (b * rows + top) * rows
    writes = r < rows and (t >= 8 or part == 0)

    # Four columns at once, of which `size` may need fewer, with sums of 32 products each, which keep more bits than one sum. A driver for CPUs takes much longer to compile loops whose ends differ between threads.
    for fours <- 0..div(size - 1, 4) do
      c = cast(fours, :u32) * 4
      other = block + c * rows
      v0 = a[row + top + c]
      v1 = a[row + top + c + 1]
      v2 = a[row + top + c + 2]
      v3 = a[row + top + c + 3]
      s0 = cast(0, :s32)
      s1 = cast(0, :s32)
      s2 = cast(0, :s32)
      s3 = cast(0, :s32)

      for p <- 0..(k - 1) do
        at = cast(p, :u32)
        x = l[row + at]
        s0 = s0 + x * l[other + at]
        s1 = s1 + x * l[other + rows + at]
        s2 = s2 + x * l[other + 2 * rows + at]
        s3 = s3 + x * l[other + 3 * rows + at]

        if band(at, 31) == 31 do
          v0 = v0 - s0
          v1 = v1 - s1
          v2 = v2 - s2
          v3 = v3 - s3
          s0 = 0
          s1 = 0
          s2 = 0
          s3 = 0
        end
      end

      columns[c * 32 + t] = v0 - s0
      columns[(c + 1) * 32 + t] = v1 - s1
      columns[(c + 2) * 32 + t] = v2 - s2
      columns[(c + 3) * 32 + t] = v3 - s3
    end

    # Each thread calculates the pivots itself: there is one barrier for each column.
    for step <- 0..(size - 1) do
      j = cast(step, :u32)
      barrier()
      pivot = columns[j * 33]
      value = columns[j * 32 + t]

      for p <- 0..(step - 1) do
        factor = columns[cast(p, :u32) * 32 + j]
        pivot = pivot - factor * factor
        value = value - factor * columns[cast(p, :u32) * 32 + t]
      end

      root = sqrt(pivot)
      below = value / root

      # No thread reads an element on the diagonal again.
      if t > j, do: columns[j * 32 + t] = below

      # All write the same pivot.
      if writes and t >= j do
        l[row + top + j] = if t == j, do: root, else: below
        pivots[b * rows + top + j] = pivot
      end
    end

    if writes and t < 8 do
      bad = cast(0, :s32)

      for column <- 0..(n - 1) do
        c = cast(column, :u32)
        value = a[row + c]
        bad = bad + (value - value)
        if c > r, do: l[row + c] = 0
      end

      if bad != 0, do: found[b] = 1
    end
  end

  # The passes from `first` to `last`: pass 0 solves the lower triangles, with ones on their diagonals, for rows of the right-hand sides in the order of the pivots; pass 1
  # the upper triangles, from the last row on. Each invocation has one column.
  defkernel solve_triangles(a, order, sides, n, m, first, last, found, x) do
    i = cast(index(), :u32)
    b = div(i, m)
    column = b * n * m + rem(i, m)

    for pass <- first..last do
      bad = cast(0, :s32)
      start = if pass == 0, do: cast(0, :u32), else: cast(n, :u32) - 1

      for step <- 0..(n - 1) do
        s = cast(step, :u32)
        row = if pass == 0, do: s, else: start - s
        elements = (b * n + row) * n
        chosen = sides[column + cast(order[b * n + row], :u32) * m]
        sum = if pass == 0, do: chosen, else: x[column + row * m]
        bad = bad + (chosen - chosen)

        for p <- 0..(step - 1) do
          k = if pass == 0, do: cast(p, :u32), else: start - cast(p, :u32)
          sum = sum - a[elements + k] * x[column + k * m]
        end

        x[column + row * m] = if pass == 0, do: sum, else: sum / a[elements + row]
      end

      found[i] = if bad == 0, do: 0, else: 1
    end
  end

  # Each thread has a column of the right-hand sides, and looks for numbers that are not finite in it and in a row of the matrix. Two rows of a column are solved at once; an
  # odd n leaves the last one of a pair unused. All threads of a group have the same matrix, whose elements a driver for CPUs then loads once for all of them.
  defkernel solve_rows(
              a,
              sides,
              n,
              m,
              groups,
              first,
              a_row,
              a_column,
              to,
              x_row,
              x_column,
              found,
              sides_found,
              diagonals,
              x
            ),
            group: 32 do
    b = div(cast(group(), :u32), groups)
    c = rem(cast(group(), :u32), groups) * 32 + cast(local(), :u32)
    rows = cast(n, :u32)
    matrix = b * rows * rows

    if c < m do
      top = b * n * m + to + c * x_column
      bad = cast(0, :s32)

      for pair <- 0..div(n - 1, 2) do
        j = cast(pair, :u32) * 2
        k = min(j + 1, rows - 1)
        one = matrix + first + j * a_row
        two = matrix + first + k * a_row
        sum = sides[top + j * x_row]
        next = sides[top + k * x_row]
        bad = bad + (sum - sum) + (next - next)

        part = cast(0, :s32)
        other = cast(0, :s32)

        for p <- 0..(2 * pair - 1) do
          at = cast(p, :u32)
          value = x[top + at * x_row]
          part = part + a[one + at * a_column] * value
          other = other + a[two + at * a_column] * value

          if band(at, 31) == 31 do
            sum = sum - part
            next = next - other
            part = 0
            other = 0
          end
        end

        value = (sum - part) / a[one + j * a_column]
        x[top + j * x_row] = value
        next = next - other - a[two + j * a_column] * value
        if k > j, do: x[top + k * x_row] = next / a[two + k * a_column]
      end

      if bad != 0, do: sides_found[b] = 1
    end

    if c < n do
      wrong = cast(0, :s32)

      for p <- 0..(n - 1) do
        value = a[matrix + c * n + cast(p, :u32)]
        wrong = wrong + (value - value)
      end

      diagonals[b * n + c] = a[matrix + c * n + c]
      if wrong != 0, do: found[b] = 1
    end
  end
end
