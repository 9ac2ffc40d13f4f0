defmodule ExCubecl.LinAlg.Device.OneSided do
  @moduledoc false
  # Singular value decompositions by the one-sided Jacobi method: columns of a matrix are rotated in pairs until all are orthogonal. Their lengths are the singular
  # values. A sweep has the rounds of `ExCubecl.LinAlg.Device.Jacobi`, each of one launch with a group for each pair.
  #
  # A buffer of [batch, columns, length] has a column of the matrix in each row, followed by the column of the product of rotations; with one more column of
  # zeros if their number is odd. A matrix with more columns than rows is transposed.

  use ExCubecl.Kernel

  alias ExCubecl.{Batch, Buffer, Kernel, Ops, View}
  alias ExCubecl.LinAlg.{Device, Operands}
  alias ExCubecl.LinAlg.Device.{Completion, Jacobi}
  alias ExCubecl.Native.Rehearsal
  alias ExCubecl.View.Strides

  # Sweeps; random matrices of 500 columns take nine.
  @most 40

  @threads 64

  @doc "The singular values, of [batch, least of rows and columns], of matrices of :f32 or :f64; `a` describes them for errors."
  def values(a, buffer) do
    with {:ok, {w, size, scales}} <- rotated(a, buffer, 0),
         {:ok, lengths} <- lengths(w, size),
         {:ok, order} <- Ops.argsort(lengths, axis: 1, direction: :desc),
         {:ok, values} <- Ops.take_along_axis(lengths, order, axis: 1),
         do: Ops.multiply(values, scales)
  end

  @doc "`{:ok, [u, values, vt]}`; with `complete?`, U and V' are square."
  def decompose(%{m: rows, n: columns} = a, buffer, complete?) do
    {m, n} = {max(rows, columns), min(rows, columns)}

    with {:ok, {left, values, right}} <- turned(a, buffer, if(complete?, do: m, else: n)) do
      if rows >= columns,
        do: oriented(left, values, right),
        else: oriented(right, values, left)
    end
  end

  # Both have singular vectors in their rows.
  defp oriented(left, values, right) do
    with {:ok, u} <- Ops.transpose(left, axes: [0, 2, 1]),
         do: {:ok, [u, values, right]}
  end

  defp turned(a, %{dtype: dtype} = buffer, count) do
    with {:ok, {w, {m, n}, scales}} <- rotated(a, buffer, min(a.m, a.n)),
         {:ok, {lengths, w}} <- sorted(w, {m, n}),
         {:ok, values} <- Ops.multiply(lengths, scales),
         {:ok, left} <- Completion.rows({w, lengths}, {m, n, count}, shortest(dtype)),
         {:ok, right} <- right(w, {m, n}),
         do: {:ok, {left, values, right}}
  end

  defp right(%{shape: [count, _, length]} = w, {m, n}) do
    w
    |> View.new()
    |> Strides.slice([0, 0, m], [count, n, length - m], [1, 1, 1])
    |> View.Copy.copy(:svd)
  end

  ## Sweeps

  # Rotated columns of m elements and, with `vectors` elements, of the product of rotations.
  defp rotated(a, %{shape: [count, _, _], dtype: dtype, device: device} = buffer, vectors) do
    {m, n, row, column} = if a.m >= a.n, do: {a.m, a.n, a.n, 1}, else: {a.n, a.m, 1, a.n}

    columns = n + rem(n, 2)
    length = m + vectors

    with :ok <- Device.Operands.finite(buffer, a),
         {:ok, magnitudes} <- Ops.abs(buffer),
         {:ok, scales} <- Jacobi.scales(magnitudes),
         {:ok, factors} <-
           Buffer.new(Enum.map(scales, &(1 / &1)), [count], dtype, device: device),
         {:ok, w} <- Buffer.empty([count, columns, length], dtype, device: device, lazy: false),
         :ok <- run(:start, [buffer, factors, m, n, row, column, w], count * columns * length),
         :ok <- sweeps(a, w, m),
         {:ok, scales} <- Buffer.new(scales, [count, 1], dtype, device: device),
         do: {:ok, {w, {m, n}, scales}}
  end

  defp sweeps(a, %{shape: [count | _], device: device} = w, m) do
    with {:ok, last} <- Buffer.zeros([count], :s32, device: device),
         do: sweeps(a, {w, last}, m, 1)
  end

  # A sweep without a rotation is the last one. `last` has the last sweep with a rotation of each matrix.
  defp sweeps(a, {_, last} = state, m, sweep) do
    Rehearsal.depends()

    with :ok <- Batch.submit(rounds(state, m, sweep)),
         {:ok, lasts} <- Buffer.to_list(last) do
      case Enum.find_index(lasts, &(&1 == sweep)) do
        nil -> :ok
        index when sweep == @most -> Operands.found(:no_convergence, a, index)
        _ -> sweeps(a, state, m, sweep + 1)
      end
    end
  end

  defp rounds({%{shape: [count, columns, length], dtype: dtype} = w, last}, m, sweep) do
    size = count * div(columns, 2) * @threads
    limit = limit(dtype) * max(4, :math.sqrt(m))
    least = :math.pow(shortest(dtype), 2)

    for round <- 0..(columns - 2), reduce: Batch.new() do
      batch ->
        args = [columns, m, length, round, sweep, limit, least, last, w]
        Batch.run(batch, {__MODULE__, :rotate}, args, size: size)
    end
  end

  # The greatest cosine of the angle of two columns that counts as zero, for few elements.
  defp limit(:f32), do: :math.pow(2.0, -23)
  defp limit(:f64), do: :math.pow(2.0, -52)

  # Shorter columns count as zero, where the longest one is about 1. The square of the ratio of two lengths, divided by the limit, is within the range of the type.
  defp shortest(:f32), do: :math.pow(2.0, -38)
  defp shortest(:f64), do: :math.pow(2.0, -400)

  ## Results

  defp lengths(%{shape: [count, columns, length]} = w, {m, n}) do
    view = %{View.new(w) | shape: [count, n, m], strides: [columns * length, length, 1]}
    Ops.norm(view, axes: [2])
  end

  # The lengths in descending order, and the rows in that order.
  defp sorted(%{shape: [count, columns, length]} = w, {_, n} = size) do
    view = %{View.new(w) | shape: [count, n, length], strides: [columns * length, length, 1]}

    with {:ok, lengths} <- lengths(w, size),
         {:ok, order} <- Ops.argsort(lengths, axis: 1, direction: :desc),
         {:ok, lengths} <- Ops.take_along_axis(lengths, order, axis: 1),
         {:ok, order} <- Buffer.reshape(order, [count, n, 1]),
         rows = order |> View.new() |> Strides.broadcast([count, n, length]),
         {:ok, w} <- Ops.take_along_axis(view, rows, axis: 1),
         do: {:ok, {lengths, w}}
  end

  defp run(name, args, size), do: Kernel.run({__MODULE__, name}, args, size: size)

  ## Kernels

  # The columns of the matrix, multiplied by its factor, and those of an identity matrix. An element of row r and column c is at r * row + c * column.
  defkernel start(a, factors, m, n, row, column, w) do
    i = cast(index(), :u32)
    length = cast(shape(w, 2), :u32)
    r = rem(i, length)
    c = rem(div(i, length), cast(shape(w, 1), :u32))
    b = div(div(i, length), cast(shape(w, 1), :u32))
    element = a[b * m * n + r * row + c * column] * factors[b]
    scaled = if c < n, do: element, else: 0
    unit = if r == c + m, do: 1, else: 0
    w[i] = if r < m, do: scaled, else: unit
  end

  # Each thread has every 64th element of both columns. The cosine is 1 minus the sine times the tangent of the half angle, as in
  # `ExCubecl.LinAlg.Device.Jacobi`.
  defkernel rotate(columns, m, length, round, sweep, limit, least, last, w), group: 64 do
    parts = shared(w, 192)
    sums = shared(w, 3)
    t = cast(local(), :u32)
    size = cast(columns, :u32)
    pairs = div(size, 2)
    b = div(cast(group(), :u32), pairs)
    k = rem(cast(group(), :u32), pairs)
    p = (b * size + Jacobi.first(k, size, cast(round, :u32))) * length
    q = (b * size + Jacobi.second(k, size, cast(round, :u32))) * length
    xx = cast(0, :s32)
    yy = cast(0, :s32)
    xy = cast(0, :s32)

    for part <- 0..div(m - 1, 64) do
      at = cast(part, :u32) * 64 + t
      x = if at < m, do: w[p + at], else: 0
      y = if at < m, do: w[q + at], else: 0
      xx = xx + x * x
      yy = yy + y * y
      xy = xy + x * y
    end

    parts[t] = xx
    parts[64 + t] = yy
    parts[128 + t] = xy
    barrier()

    if t < 3 do
      sum = parts[t * 64]

      for other <- 1..63 do
        sum = sum + parts[t * 64 + cast(other, :u32)]
      end

      sums[t] = sum
    end

    barrier()
    one = sums[0]
    two = sums[1]
    product = sums[2]
    rotates = one > least and two > least and abs(product) > limit * sqrt(one) * sqrt(two)
    ratio = (two - one) / (2 * product)
    tangent = 1 / (abs(ratio) + sqrt(1 + ratio * ratio))
    tangent = if ratio < 0, do: -tangent, else: tangent
    cosine = 1 / sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    half = sine / (1 + cosine)

    if rotates do
      if t == 0, do: atomic_max(last[b], sweep)

      for part <- 0..div(length - 1, 64) do
        at = cast(part, :u32) * 64 + t

        if at < length do
          x = w[p + at]
          y = w[q + at]
          w[p + at] = x - sine * (y + half * x)
          w[q + at] = y + sine * (x - half * y)
        end
      end
    end
  end
end
