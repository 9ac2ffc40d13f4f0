defmodule ExCubecl.Ops.Kernels do
  @moduledoc false
  # What ExCubecl.Ops runs. A buffer is seen as [outer, n, inner] around the axis that it is about.

  use ExCubecl.Kernel

  ## Places: up to four axes, each with its stride in the input

  defkernel strided(input, out, d1, d2, d3, s0, s1, s2, s3) do
    i = index()
    rows = div(i, d3)
    planes = div(rows, d2)

    out[i] =
      input[div(planes, d1) * s0 + rem(planes, d1) * s1 + rem(rows, d2) * s2 + rem(i, d3) * s3]
  end

  # Each input at its place along the axis.
  defkernel place(input, n, inner, total, start, out) do
    i = index()
    k = rem(i, inner)
    j = rem(div(i, inner), n)
    o = div(i, inner * n)
    out[(o * total + start + j) * inner + k] = input[i]
  end

  defkernel gather(input, indices, n, inner, count, out) do
    i = index()
    k = rem(i, inner)
    at = indices[rem(div(i, inner), count)]
    o = div(i, inner * count)
    inside = at >= 0 and at < n
    out[i] = if inside, do: input[(o * n + at) * inner + k], else: 0
  end

  ## Reductions: each position goes over one chunk of the axis

  defkernel sum(input, n, inner, chunk, chunks, out) do
    i = index()
    c = rem(div(i, inner), chunks)
    base = div(i, inner * chunks) * n * inner + rem(i, inner)
    acc = cast(0, :s32)

    for j <- (c * chunk)..(min((c + 1) * chunk, n) - 1) do
      acc = acc + input[base + j * inner]
    end

    out[i] = acc
  end

  defkernel product(input, n, inner, chunk, chunks, out) do
    i = index()
    c = rem(div(i, inner), chunks)
    base = div(i, inner * chunks) * n * inner + rem(i, inner)
    acc = cast(1, :s32)

    for j <- (c * chunk)..(min((c + 1) * chunk, n) - 1) do
      acc = acc * input[base + j * inner]
    end

    out[i] = acc
  end

  defkernel least(input, n, inner, chunk, chunks, out) do
    i = index()
    c = rem(div(i, inner), chunks)
    base = div(i, inner * chunks) * n * inner + rem(i, inner)
    acc = input[base + c * chunk * inner]

    for j <- (c * chunk)..(min((c + 1) * chunk, n) - 1) do
      acc = min(acc, input[base + j * inner])
    end

    out[i] = acc
  end

  defkernel greatest(input, n, inner, chunk, chunks, out) do
    i = index()
    c = rem(div(i, inner), chunks)
    base = div(i, inner * chunks) * n * inner + rem(i, inner)
    acc = input[base + c * chunk * inner]

    for j <- (c * chunk)..(min((c + 1) * chunk, n) - 1) do
      acc = max(acc, input[base + j * inner])
    end

    out[i] = acc
  end

  # Where along the axis the value is first: past its end where it is not.
  defkernel places(input, values, n, inner, out) do
    i = index()
    o = div(i, inner * n)
    j = rem(div(i, inner), n)
    out[i] = if input[i] == values[o * inner + rem(i, inner)], do: j, else: n
  end

  defkernel running_sum(input, n, inner, out) do
    i = index()
    base = div(i, inner) * n * inner + rem(i, inner)
    acc = cast(0, :s32)

    for j <- 0..(n - 1) do
      acc = acc + input[base + j * inner]
      out[base + j * inner] = acc
    end
  end

  defkernel matmul(a, b, n, k, out) do
    row = div(index(), n)
    column = rem(index(), n)
    acc = cast(0, :s32)

    for j <- 0..(k - 1) do
      acc = acc + a[row * k + j] * b[j * n + column]
    end

    out[index()] = acc
  end

  ## Random numbers: a hash of the position and the seed (PCG)

  defkernel uniform(seed, salt, low, high, out) do
    state =
      cast(index(), :u32) * 747_796_405 + cast(seed, :u32) * 2_891_336_453 + cast(salt, :u32)

    state = state * 747_796_405 + 2_891_336_453
    word = bxor(bsr(state, bsr(state, 28) + 4), state) * 277_803_737
    word = bxor(bsr(word, 22), word)
    word = word * 747_796_405 + 2_891_336_453
    word = bxor(bsr(word, bsr(word, 28) + 4), word) * 277_803_737
    out[index()] = low + (high - low) * (cast(bsr(word, 8), :f32) * 5.9604644775390625e-8)
  end

  defkernel(normal(u, v, mean, deviation),
    do: mean + deviation * sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v)
  )
end
