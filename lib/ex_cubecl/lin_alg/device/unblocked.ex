defmodule ExCubecl.LinAlg.Device.Unblocked do
  @moduledoc false
  # Decompositions of matrices of few rows by one launch, with a group for each matrix. Each thread reads and writes one column only, because a barrier orders the
  # accesses of a group to shared memory, but not those to buffers. What the others need of a column that is complete is in shared memory: in two parts that
  # take turns, so that there is one barrier for each column.

  use ExCubecl.Kernel

  alias ExCubecl.{Buffer, Kernel}

  # A driver for CPUs stops loops of 65,536 iterations, and one thread solves a system in n * (n + 1).
  @threads 128

  @doc "The most rows."
  def most, do: @threads

  @doc "As `ExCubecl.LinAlg.Device.lu/2`; all columns are one block."
  def lu(%{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    with {:ok, factors} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.empty([count, n], :s32, device: device),
         {:ok, diagonal} <- Buffer.empty([count, n], dtype, device: device),
         :ok <- run(:eliminate, [n, pivots, diagonal, factors], count),
         do: {:ok, %{factors: factors, pivots: pivots, diagonal: diagonal}}
  end

  @doc "`{:ok, l, pivots}`: the lower triangles L with A = L L', and the numbers whose roots are on their diagonals."
  def cholesky(%{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    with {:ok, l} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.empty([count, n], dtype, device: device),
         :ok <- run(:cholesky_columns, [n, pivots, l], count),
         do: {:ok, l, pivots}
  end

  @doc "Replaces right-hand sides, of [batch, n, m], by the solutions of systems whose matrices have the factors of `lu/1`."
  def solve(%{factors: factors, pivots: pivots}, %{shape: [count, n, m]} = x),
    do: Kernel.run({__MODULE__, :solve_factors}, [factors, pivots, n, m, x], size: count * m)

  defp run(name, args, count),
    do: Kernel.run({__MODULE__, name}, args, size: count * @threads)

  ## Kernels

  # Each thread exchanges rows in its column, and eliminates.
  defkernel eliminate(n, pivots, diagonal, a), group: 128 do
    column = shared(a, 256)
    place = shared(:u32, 2)
    b = cast(group(), :u32)
    t = cast(local(), :u32)
    top = b * n * n

    for step <- 0..(n - 1) do
      j = cast(step, :u32)
      turn = band(j, 1)
      row = top + j * n

      if j == t do
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

        for i <- (step + 1)..(n - 1) do
          r = cast(i, :u32)
          quotient = a[top + r * n + j] / pivot
          factor = if pivot == 0, do: pivot - pivot, else: quotient
          a[top + r * n + j] = factor
          column[turn * 128 + r] = factor
        end
      end

      barrier()
      at = place[turn]

      if t < n and t != j do
        value = a[top + at * n + t]
        a[top + at * n + t] = a[row + t]
        a[row + t] = value

        if t > j do
          for i <- (step + 1)..(n - 1) do
            r = cast(i, :u32)
            a[top + r * n + t] = a[top + r * n + t] - column[turn * 128 + r] * value
          end
        end
      end
    end
  end

  # Elements above the diagonal become zeros when their column is complete.
  defkernel cholesky_columns(n, pivots, a), group: 128 do
    column = shared(a, 256)
    b = cast(group(), :u32)
    t = cast(local(), :u32)
    top = b * n * n

    for step <- 0..(n - 1) do
      j = cast(step, :u32)
      turn = band(j, 1)

      if j == t do
        pivot = a[top + j * n + j]
        root = sqrt(pivot)
        pivots[b * n + j] = pivot

        for i <- 0..(n - 1) do
          r = cast(i, :u32)
          value = a[top + r * n + j] / root
          value = if r == j, do: root, else: value
          value = if r < j, do: 0, else: value
          a[top + r * n + j] = value
          column[turn * 128 + r] = value
        end
      end

      barrier()

      if t > j and t < n do
        factor = column[turn * 128 + t]

        for i <- cast(t, :s32)..(n - 1) do
          r = cast(i, :u32)
          a[top + r * n + t] = a[top + r * n + t] - column[turn * 128 + r] * factor
        end
      end
    end
  end

  # One column for each invocation.
  defkernel solve_factors(a, pivots, n, m, x) do
    i = cast(index(), :u32)
    b = div(i, m)
    top = b * n * n
    first = b * n * m + rem(i, m)

    for step <- 0..(n - 1) do
      one = first + cast(step, :u32) * m
      other = first + cast(pivots[b * n + cast(step, :u32)], :u32) * m
      value = x[one]
      x[one] = x[other]
      x[other] = value
    end

    # Forward with L, back with U.
    for step <- 0..(2 * n - 1) do
      forward = step < n
      row = if forward, do: step, else: 2 * n - 1 - step
      start = if forward, do: 0, else: row + 1
      count = if forward, do: step, else: n - 1 - row
      at = first + cast(row, :u32) * m
      line = top + cast(row, :u32) * n
      sum = x[at]

      for p <- 0..(count - 1) do
        k = cast(start + p, :u32)
        sum = sum - a[line + k] * x[first + k * m]
      end

      x[at] = if forward, do: sum, else: sum / a[line + cast(row, :u32)]
    end
  end
end
