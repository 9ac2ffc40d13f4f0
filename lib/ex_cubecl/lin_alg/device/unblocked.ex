defmodule ExCubecl.LinAlg.Device.Unblocked do
  @moduledoc false
  # Decompositions of matrices of few rows by few kernels, with a group for each matrix, or for some columns of each. Each thread reads and writes one column or row only, because a barrier
  # orders the accesses of a group to shared memory, but not those to buffers: what the others need of one is in shared memory.

  use ExCubecl.Kernel

  alias ExCubecl.{Buffer, Error, Kernel}

  @threads 128

  # More columns are factored in parts of as many, whose rows have to be in shared memory.
  @width 32

  # The most rows for which one thread solves a triangular system, in n * (n + 1) iterations, and for which it solves two: lavapipe ends loops after 65,535 iterations.
  @most 250
  @both 176

  @doc "The most rows for Cholesky decompositions, and for the others."
  def most(:cholesky), do: @threads
  def most(:lu), do: @most

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
  `{:ok, l, pivots, found}`: the lower triangles L with A = L L', the numbers whose roots are on their diagonals, and of each row 1 if a number of it is NaN or
  infinite, else 0.
  """
  def cholesky(%{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    with {:ok, l} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.empty([count, n], dtype, device: device),
         {:ok, found} <- Buffer.empty([count, n], :s32, device: device),
         :ok <- run(:cholesky_rows, [n, found, pivots, l], count),
         do: {:ok, l, pivots, found}
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
end
