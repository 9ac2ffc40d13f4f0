defmodule ExCubecl.LinAlg.Device.Unblocked do
  @moduledoc false
  # Decompositions of matrices of few rows by one launch, with a group for each matrix. Each thread reads and writes one column or row only, because a barrier
  # orders the accesses of a group to shared memory, but not those to buffers: what the others need of one is in shared memory.

  use ExCubecl.Kernel

  alias ExCubecl.{Buffer, Kernel}

  # A driver for CPUs stops loops of 65,536 iterations, and one thread solves a system in n * (n + 1).
  @threads 128

  @doc "The most rows."
  def most, do: @threads

  @doc """
  As `ExCubecl.LinAlg.Device.lu/2`; all columns are one block. `found` has for each column of the factors 1 if a number of it is NaN or infinite, else 0: so it is if
  one of the matrix is.
  """
  def lu(%{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    with {:ok, factors} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.empty([count, n], :s32, device: device),
         {:ok, diagonal} <- Buffer.empty([count, n], dtype, device: device),
         {:ok, found} <- Buffer.empty([count, n], :s32, device: device),
         :ok <- run(:eliminate, [n, found, pivots, diagonal, factors], count),
         do: {:ok, %{factors: factors, pivots: pivots, diagonal: diagonal}, found}
  end

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
  Replaces right-hand sides, of [batch, n, m], by the solutions of systems whose matrices have the factors of `lu/1`. Returns `{:ok, found}`: of each column 1 if a
  number of it is NaN or infinite, else 0.
  """
  def solve(%{factors: factors, pivots: pivots}, %{shape: [count, n, m], device: device} = x) do
    with {:ok, found} <- Buffer.empty([count, m], :s32, device: device),
         args = [factors, pivots, n, m, found, x],
         :ok <- Kernel.run({__MODULE__, :solve_factors}, args, size: count * m),
         do: {:ok, found}
  end

  defp run(name, args, count),
    do: Kernel.run({__MODULE__, name}, args, size: count * @threads)

  ## Kernels

  # Each thread exchanges rows in its column, and eliminates. Columns that are complete are passed on in two parts of the shared memory that take turns, so that
  # there is one barrier for each.
  defkernel eliminate(n, found, pivots, diagonal, a), group: 128 do
    column = shared(a, 256)
    place = shared(:u32, 2)
    b = cast(group(), :u32)
    t = cast(local(), :u32)
    top = b * n * n
    bad = cast(0, :s32)

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
        bad = bad + (pivot - pivot)

        for i <- (step + 1)..(n - 1) do
          r = cast(i, :u32)
          below = a[top + r * n + j]
          factor = if pivot == 0, do: below - below, else: below / pivot
          a[top + r * n + j] = factor
          column[turn * 128 + r] = factor
          bad = bad + (factor - factor)
        end

        found[b * n + j] = if bad == 0, do: 0, else: 1
      end

      barrier()
      at = place[turn]

      if t < n and t != j do
        value = a[top + at * n + t]
        a[top + at * n + t] = a[row + t]
        a[row + t] = value

        if t > j do
          bad = bad + (value - value)

          for i <- (step + 1)..(n - 1) do
            r = cast(i, :u32)
            a[top + r * n + t] = a[top + r * n + t] - column[turn * 128 + r] * value
          end
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

  # Each invocation solves for one column. The bounds of its loops are arguments and counters of outer loops: with other bounds, the kernel takes three times
  # as long to compile.
  defkernel solve_factors(a, pivots, n, m, found, x) do
    i = cast(index(), :u32)
    b = div(i, m)
    top = b * n * n
    first = b * n * m + rem(i, m)
    bad = cast(0, :s32)

    for step <- 0..(n - 1) do
      one = first + cast(step, :u32) * m
      other = first + cast(pivots[b * n + cast(step, :u32)], :u32) * m
      value = x[one]
      chosen = x[other]
      bad = bad + (chosen - chosen)
      x[one] = chosen
      x[other] = value
    end

    found[i] = if bad == 0, do: 0, else: 1

    for step <- 1..(n - 1) do
      row = cast(step, :u32)
      sum = x[first + row * m]

      for p <- 0..(step - 1) do
        k = cast(p, :u32)
        sum = sum - a[top + row * n + k] * x[first + k * m]
      end

      x[first + row * m] = sum
    end

    for step <- 0..(n - 1) do
      row = cast(n, :u32) - 1 - cast(step, :u32)
      sum = x[first + row * m]

      for p <- 1..step do
        k = row + cast(p, :u32)
        sum = sum - a[top + row * n + k] * x[first + k * m]
      end

      x[first + row * m] = sum / a[top + row * n + row]
    end
  end
end
