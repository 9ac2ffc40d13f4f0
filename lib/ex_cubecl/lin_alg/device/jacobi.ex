defmodule ExCubecl.LinAlg.Device.Jacobi do
  @moduledoc false
  # Eigenvalues and eigenvectors of symmetric matrices by the cyclic Jacobi method. A sweep has a round for each way to pair the rows as players of a round-robin
  # tournament, so that each pair meets once; the rotations of a round are independent. Each makes the element between the rows of its pair zero.
  #
  # A buffer of [batch, 2, m, m] has each matrix and the product of its rotations, padded with zeros to an even m.

  use ExCubecl.Kernel

  alias ExCubecl.{Batch, Buffer, Kernel, Ops, View}
  alias ExCubecl.LinAlg.{Device, Operands}
  alias ExCubecl.Native.Rehearsal
  alias ExCubecl.View.Strides

  # Sweeps; random matrices of 500 rows take nine.
  @most 40

  @doc "`{:ok, values, vectors}` of matrices of [batch, n, n], of :f32 or :f64; `a` describes them for errors."
  def decompose(a, %{shape: [count, n, _], dtype: dtype, device: device} = buffer) do
    m = n + rem(n, 2)

    with :ok <- Device.Operands.finite(buffer, a),
         {:ok, lower} <- Buffer.empty(buffer.shape, dtype, device: device, lazy: false),
         :ok <- run(:magnitudes, [buffer, n, lower], count * n * n),
         {:ok, scales} <- scales(lower),
         {:ok, factors} <-
           Buffer.new(Enum.map(scales, &(1 / &1)), [count], dtype, device: device),
         {:ok, w} <- Buffer.empty([count, 2, m, m], dtype, device: device, lazy: false),
         :ok <- run(:start, [buffer, factors, n, m, w], count * 2 * m * m),
         :ok <- sweeps(a, w),
         {:ok, scales} <- Buffer.new(scales, [count, 1], dtype, device: device),
         do: sorted(w, n, scales)
  end

  @doc "The power of two above the greatest of the magnitudes of each matrix, so that no sum of the rotations exceeds the range of the type, and products do not vanish."
  def scales(magnitudes) do
    with {:ok, greatest} <- Ops.reduce_max(magnitudes, axes: [1, 2]),
         {:ok, greatest} <- Buffer.to_list(greatest),
         # The factors, their inverses, are within the range of :f32.
         do: {:ok, Enum.map(greatest, &scale/1)}
  end

  defp scale(x) when x == 0, do: 1.0
  defp scale(x), do: :math.pow(2.0, x |> :math.log2() |> ceil() |> max(-126) |> min(126))

  ## Sweeps

  defp sweeps(a, %{shape: [count, _, m, _], dtype: dtype, device: device} = w) do
    with {:ok, turns} <- Buffer.empty([count, div(m, 2), 2], dtype, device: device, lazy: false),
         {:ok, last} <- Buffer.zeros([count], :s32, device: device),
         do: sweeps(a, {w, turns, last}, 1)
  end

  # A sweep without a rotation is the last one. `last` has the last sweep with a rotation of each matrix.
  defp sweeps(a, {_, _, last} = state, sweep) do
    Rehearsal.depends()

    with :ok <- Batch.submit(rounds(state, sweep)),
         {:ok, lasts} <- Buffer.to_list(last) do
      case Enum.find_index(lasts, &(&1 == sweep)) do
        nil -> :ok
        index when sweep == @most -> Operands.found(:no_convergence, a, index)
        _ -> sweeps(a, state, sweep + 1)
      end
    end
  end

  defp rounds({%{shape: [count, _, m, _], dtype: dtype} = w, turns, last}, sweep) do
    half = div(m, 2)

    for round <- 0..(m - 2), reduce: Batch.new() do
      batch ->
        batch
        |> step(:turns, [w, m, round, sweep, limit(dtype), turns, last], [count, half])
        |> step(:rotate, [turns, m, round, w], [2 * count, half, half])
    end
  end

  # The greatest magnitude that counts as zero, for matrices whose greatest one is about 1.
  defp limit(:f32), do: :math.pow(2.0, -26)
  defp limit(:f64), do: :math.pow(2.0, -55)

  ## Results

  defp sorted(%{shape: [count, _, m, _]} = w, n, scales) do
    square = m * m
    view = View.new(w)
    diagonal = %{view | shape: [count, n], strides: [2 * square, m + 1]}
    vectors = %{view | offset: square, shape: [count, n, n], strides: [2 * square, m, 1]}

    with {:ok, order} <- Ops.argsort(diagonal, axis: 1),
         {:ok, values} <- Ops.take_along_axis(diagonal, order, axis: 1),
         {:ok, values} <- Ops.multiply(values, scales),
         {:ok, order} <- Buffer.reshape(order, [count, 1, n]),
         columns = order |> View.new() |> Strides.broadcast([count, n, n]),
         {:ok, vectors} <- Ops.take_along_axis(vectors, columns, axis: 2),
         do: {:ok, values, vectors}
  end

  defp step(batch, name, args, size), do: Batch.run(batch, {__MODULE__, name}, args, size: size)
  defp run(name, args, size), do: Kernel.run({__MODULE__, name}, args, size: size)

  ## Kernels

  # The magnitudes of the lower triangle, the only one that is read.
  defkernel magnitudes(a, n, out) do
    i = cast(index(), :u32)
    out[i] = if rem(i, n) <= rem(div(i, n), n), do: abs(a[i]), else: 0
  end

  # The symmetric matrix, multiplied by its factor, and an identity matrix.
  defkernel start(a, factors, n, m, w) do
    i = cast(index(), :u32)
    c = rem(i, m)
    r = rem(div(i, m), m)
    half = div(i, cast(m, :u32) * m)
    b = div(half, 2)
    inside = r < n and c < n
    element = a[(b * n + max(r, c)) * n + min(r, c)] * factors[b]
    scaled = if inside, do: element, else: 0
    unit = if r == c, do: 1, else: 0
    w[i] = if rem(half, 2) == 0, do: scaled, else: unit
  end

  # The pair `k` of a round: one player stays, the others move around a ring. A CPU takes longer for a division than for the access to an element.
  defkernel first(k, m, round) do
    at = k + round
    on_ring = if at < m - 1, do: at, else: at - (m - 1)
    if k == 0, do: m - 1, else: on_ring
  end

  defkernel(second(k, m, round), do: if(round < k, do: m - 1 + round - k, else: round - k))

  # For each pair the sine of the angle, at most an eighth of a turn, and the tangent of its half; no rotation for what counts as zero.
  defkernel turns(w, m, round, sweep, limit, turns, last) do
    k = cast(index(:x), :u32)
    b = cast(index(:y), :u32)
    size = cast(m, :u32)
    i = b * div(size, 2) + k
    p = first(k, size, cast(round, :u32))
    q = second(k, size, cast(round, :u32))
    top = b * 2 * size * size
    between = w[top + p * size + q]
    ratio = (w[top + q * size + q] - w[top + p * size + p]) / (2 * between)
    tangent = 1 / (abs(ratio) + sqrt(1 + ratio * ratio))
    tangent = if ratio < 0, do: -tangent, else: tangent
    cosine = 1 / sqrt(1 + tangent * tangent)
    sine = tangent * cosine
    rotates = abs(between) > limit
    turns[2 * i] = if rotates, do: sine, else: 0
    turns[2 * i + 1] = if rotates, do: sine / (1 + cosine), else: 0
    if rotates, do: atomic_max(last[b], sweep)
  end

  # Each invocation has the elements in the rows of one pair and the columns of another. Only columns of the product of rotations are rotated. The cosine is 1 minus
  # the sine times the tangent of the half angle, with more bits than a number of the type: the product of rotations stays orthogonal.
  defkernel rotate(turns, m, round, w) do
    j = cast(index(:x), :u32)
    k = cast(index(:y), :u32)
    part = cast(index(:z), :u32)
    size = cast(m, :u32)
    matrix = rem(part, 2) == 0
    turn = div(part, 2) * div(size, 2)
    top = part * size * size
    u = first(j, size, cast(round, :u32))
    v = second(j, size, cast(round, :u32))
    p = top + first(k, size, cast(round, :u32)) * size
    q = top + second(k, size, cast(round, :u32)) * size
    sine = turns[2 * (turn + j)]
    half = turns[2 * (turn + j) + 1]
    row_sine = if matrix, do: turns[2 * (turn + k)], else: 0
    row_half = turns[2 * (turn + k) + 1]
    a = w[p + u]
    b = w[p + v]
    c = w[q + u]
    d = w[q + v]
    a_turned = a - sine * (b + half * a)
    b_turned = b + sine * (a - half * b)
    c_turned = c - sine * (d + half * c)
    d_turned = d + sine * (c - half * d)
    zero = matrix and j == k and sine != 0
    b_new = b_turned - row_sine * (d_turned + row_half * b_turned)
    c_new = c_turned + row_sine * (a_turned - row_half * c_turned)
    w[p + u] = a_turned - row_sine * (c_turned + row_half * a_turned)
    w[p + v] = if zero, do: 0, else: b_new
    w[q + u] = if zero, do: 0, else: c_new
    w[q + v] = d_turned + row_sine * (b_turned - row_half * d_turned)
  end
end
