defmodule ExCubecl.LinAlg.Device.QR do
  @moduledoc false
  # The QR decomposition by Householder reflections, with one launch for each column, which reflects all columns right of it by the reflector of the last launch, and
  # makes the reflector of the next one. A column is reflected by one thread, or by a group of 32 if it is long: each thread of a group reads and writes its
  # own rows, because a barrier does not order the accesses of a group to buffers.
  #
  # The vector of a reflector is in its column from the diagonal on, with 1 as its first element, and R is above; the diagonal of R is apart.

  use ExCubecl.Kernel

  alias ExCubecl.{Buffer, Error, Kernel, Shape}
  alias ExCubecl.LinAlg.Device.Operands

  # A driver for CPUs stops a thread after 65,536 iterations, and a thread makes four loops over its rows to reflect a column and make a reflector.
  @most_alone 4_096
  @most_iterations 30_000
  @most_rows 400_000

  @doc "The matrices as `ExCubecl.LinAlg.Device.Operands.buffer/2` has them, or `:host` if a driver may stop the loops over so many rows."
  def operand(%{m: m}) when m > @most_rows, do: :host

  def operand(%{m: m, n: n, batch: batch} = a),
    do: Operands.buffer(a, Shape.size(batch) * m * n)

  @doc "`{:ok, [q, r]}` of matrices of [batch, m, n], with `k` columns of Q and rows of R. `a` describes the matrices for errors."
  def factor(%{shape: [count, m, n], dtype: dtype, device: device} = buffer, k, a) do
    steps = min(m, n)

    with :ok <- Operands.finite(buffer, a),
         {:ok, factors} <- Buffer.duplicate(buffer),
         {:ok, taus} <- Buffer.empty([count, steps], dtype, device: device),
         {:ok, diagonal} <- Buffer.empty([count, steps], dtype, device: device),
         :ok <- eliminate(factors, taus, diagonal),
         {:ok, q} <- Buffer.empty([count, m, k], dtype, device: device),
         :ok <- multiply(factors, taus, q),
         {:ok, r} <- Buffer.empty([count, k, n], dtype, device: device),
         :ok <- run(:upper, [factors, diagonal, m, n, k, r], count * k * n),
         do: {:ok, [q, r]}
  end

  # If there are more columns than rows, the last launch has no reflector to make.
  defp eliminate(%{shape: [count, m, n]} = factors, taus, diagonal) do
    Error.each(0..min(m, n - 1), fn step ->
      args = [m, n, step, taus, diagonal, factors]
      columns(:reflect, args, count * (n - step), m)
    end)
  end

  # Q is the product of the reflectors, from the last one on, and the identity.
  defp multiply(%{shape: [count, m, n]} = factors, taus, %{shape: [_, _, k]} = q) do
    iterations = if m > @most_alone, do: 2 * div(m, 32) + 32, else: 2 * m
    at_once = max(div(@most_iterations, iterations), 1)

    Error.each((min(m, n) - 1)..0//-at_once, fn last ->
      args = [factors, taus, m, n, k, max(last - at_once + 1, 0), last, q]
      columns(:reflect_units, args, count * k, m)
    end)
  end

  defp columns(:reflect, args, count, m) when m > @most_alone,
    do: run(:reflect_long, args, 32 * count)

  defp columns(:reflect_units, args, count, m) when m > @most_alone,
    do: run(:reflect_long_units, args, 32 * count)

  defp columns(name, args, count, _m), do: run(name, args, count)

  defp run(name, args, size), do: Kernel.run({__MODULE__, name}, args, size: size)

  ## Kernels

  # Reflects the columns from `step` on by the reflector of the column before.
  defkernel reflect(m, n, step, taus, diagonal, a) do
    others = cast(n, :u32) - step
    b = div(cast(index(), :u32), others)
    c = rem(cast(index(), :u32), others) + step
    from = max(step - 1, 0)
    top = cast(from, :u32)
    steps = cast(min(m, n), :u32)
    start = b * m * n
    sum = cast(0, :s32)

    for i <- from..(m - 1) do
      row = start + cast(i, :u32) * n
      sum = sum + a[row + top] * a[row + c]
    end

    factor = if step == 0, do: 0, else: taus[b * steps + top] * sum
    most = cast(0, :s32)

    for i <- from..(m - 1) do
      row = start + cast(i, :u32) * n
      value = a[row + c] - factor * a[row + top]
      a[row + c] = value
      if i > step, do: most = max(most, abs(value))
    end

    if c == step and step < steps do
      alpha = a[start + cast(step, :u32) * n + c]

      # Devices that calculate with 0 for subnormal numbers find 0, too. On others, multiples of one of them are inexact: the reflector is that of the
      # column divided by its largest element.
      none = most + most == 0
      scale = max(most, abs(alpha))
      sum = cast(0, :s32)

      for i <- step..(m - 1) do
        value = a[start + cast(i, :u32) * n + c] / scale
        sum = sum + value * value
      end

      norm = sqrt(sum)
      beta = if alpha > 0, do: -norm, else: norm
      head = alpha / scale

      for i <- step..(m - 1) do
        at = start + cast(i, :u32) * n + c
        below = if none, do: 0, else: a[at] / scale / (head - beta)
        a[at] = if i == step, do: 1, else: below
      end

      taus[b * steps + c] = if none, do: 0, else: (beta - head) / beta
      diagonal[b * steps + c] = if none, do: alpha, else: beta * scale
    end
  end

  defkernel reflect_long(m, n, step, taus, diagonal, a), group: 32 do
    partial = shared(a, 32)
    largest = shared(a, 32)
    first = shared(a, 1)
    t = cast(local(), :u32)
    others = cast(n, :u32) - step
    b = div(cast(group(), :u32), others)
    c = rem(cast(group(), :u32), others) + step
    from = max(step - 1, 0)
    top = cast(from, :u32)
    steps = cast(min(m, n), :u32)
    start = b * m * n
    sum = cast(0, :s32)

    for part <- div(from, 32)..div(m - 1, 32) do
      r = cast(part, :u32) * 32 + t
      row = start + r * n
      sum = sum + if r >= top and r < m, do: a[row + top] * a[row + c], else: 0
    end

    partial[t] = sum
    barrier()
    sum = cast(0, :s32)
    for other <- 0..31, do: sum = sum + partial[other]
    factor = if step == 0, do: 0, else: taus[b * steps + top] * sum
    most = cast(0, :s32)

    for part <- div(from, 32)..div(m - 1, 32) do
      r = cast(part, :u32) * 32 + t
      row = start + r * n

      if r >= top and r < m do
        value = a[row + c] - factor * a[row + top]
        a[row + c] = value
        if r > step, do: most = max(most, abs(value))
        if r == step, do: first[0] = value
      end
    end

    largest[t] = most
    barrier()

    if c == step and step < steps do
      alpha = first[0]
      most = cast(0, :s32)
      for other <- 0..31, do: most = max(most, largest[other])
      none = most + most == 0
      scale = max(most, abs(alpha))
      sum = cast(0, :s32)

      for part <- div(step, 32)..div(m - 1, 32) do
        r = cast(part, :u32) * 32 + t
        value = if r >= step and r < m, do: a[start + r * n + c] / scale, else: 0
        sum = sum + value * value
      end

      partial[t] = sum
      barrier()
      sum = cast(0, :s32)
      for other <- 0..31, do: sum = sum + partial[other]
      norm = sqrt(sum)
      beta = if alpha > 0, do: -norm, else: norm
      head = alpha / scale

      for part <- div(step, 32)..div(m - 1, 32) do
        r = cast(part, :u32) * 32 + t
        at = start + r * n + c

        if r >= step and r < m do
          below = if none, do: 0, else: a[at] / scale / (head - beta)
          a[at] = if r == step, do: 1, else: below
        end
      end

      if t == 0 do
        taus[b * steps + c] = if none, do: 0, else: (beta - head) / beta
        diagonal[b * steps + c] = if none, do: alpha, else: beta * scale
      end
    end
  end

  # Reflects the columns of Q, which are those of the identity at first, by the reflectors from `last` to `first`.
  defkernel reflect_units(a, taus, m, n, k, first, last, q) do
    b = div(cast(index(), :u32), k)
    c = rem(cast(index(), :u32), k)
    steps = cast(min(m, n), :u32)
    start = b * m * n
    column = b * m * k + c

    if last == min(m, n) - 1 do
      for i <- 0..(m - 1) do
        r = cast(i, :u32)
        q[column + r * k] = if(r == c, do: 1, else: 0)
      end
    end

    for back <- 0..(last - first) do
      j = cast(last - back, :u32)
      sum = cast(0, :s32)

      for i <- (last - back)..(m - 1) do
        r = cast(i, :u32)
        sum = sum + a[start + r * n + j] * q[column + r * k]
      end

      factor = taus[b * steps + j] * sum

      for i <- (last - back)..(m - 1) do
        r = cast(i, :u32)
        q[column + r * k] = q[column + r * k] - factor * a[start + r * n + j]
      end
    end
  end

  # The sums of two reflections are in two parts of the shared memory, so that there is one barrier for each.
  defkernel reflect_long_units(a, taus, m, n, k, first, last, q), group: 32 do
    partial = shared(a, 64)
    t = cast(local(), :u32)
    b = div(cast(group(), :u32), k)
    c = rem(cast(group(), :u32), k)
    steps = cast(min(m, n), :u32)
    start = b * m * n
    column = b * m * k + c

    if last == min(m, n) - 1 do
      for part <- 0..div(m - 1, 32) do
        r = cast(part, :u32) * 32 + t
        if r < m, do: q[column + r * k] = if(r == c, do: 1, else: 0)
      end
    end

    for back <- 0..(last - first) do
      j = cast(last - back, :u32)
      turn = rem(cast(back, :u32), 2) * 32
      sum = cast(0, :s32)

      for part <- div(last - back, 32)..div(m - 1, 32) do
        r = cast(part, :u32) * 32 + t
        product = a[start + r * n + j] * q[column + r * k]
        sum = sum + if r >= j and r < m, do: product, else: 0
      end

      partial[turn + t] = sum
      barrier()
      sum = cast(0, :s32)
      for other <- 0..31, do: sum = sum + partial[turn + cast(other, :u32)]
      factor = taus[b * steps + j] * sum

      for part <- div(last - back, 32)..div(m - 1, 32) do
        r = cast(part, :u32) * 32 + t
        at = column + r * k
        if r >= j and r < m, do: q[at] = q[at] - factor * a[start + r * n + j]
      end
    end
  end

  defkernel upper(a, diagonal, m, n, k, out) do
    i = cast(index(), :u32)
    c = rem(i, n)
    r = rem(div(i, n), k)
    b = div(div(i, n), k)
    above = if r < c, do: a[(b * m + r) * n + c], else: 0
    out[i] = if r == c, do: diagonal[b * cast(min(m, n), :u32) + r], else: above
  end
end
