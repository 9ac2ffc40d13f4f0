defmodule ExCubecl.Ops.Fourier.Kernels do
  @moduledoc false
  # The kernels of Fourier transforms. Complex numbers are pairs, x[2 * i] and x[2 * i + 1], of buffers of [outer, n, inner, 2]. Indices
  # are of :u32, which has the cheapest division.
  #
  # Roots of unity are made from two tables: exp(-2 pi i e / n) is h + h * l, for h = high[e div 2^shift] and l = low[e mod 2^shift], which is so small
  # that the error is that of two roundings.

  use ExCubecl.Kernel

  alias ExCubecl.Ops.Fourier.Butterfly

  # Complex numbers from real ones (`width` 1) or pairs (2), of which the first n along the axis are taken, followed by zeros.
  defkernel load(x, width, m, n, inner, out) do
    i = div(cast(index(), :u32), 2)
    imaginary = rem(cast(index(), :u32), 2)
    at = rem(div(i, inner), n)
    from = (div(div(i, inner), n) * m + at) * inner + rem(i, inner)
    value = x[from * width + imaginary]
    inside = at < m and (width == 2 or imaginary == 0)
    out[index()] = if inside, do: value, else: 0
  end

  # The n values of which the first n / 2 + 1 are given, of a transform of real numbers.
  defkernel hermitian(x, m, n, inner, out) do
    i = div(cast(index(), :u32), 2)
    imaginary = rem(cast(index(), :u32), 2)
    k = rem(div(i, inner), n)
    mirrored = k > n - k
    at = if mirrored, do: n - k, else: k
    value = x[((div(div(i, inner), n) * m + at) * inner + rem(i, inner)) * 2 + imaginary]
    signed = if mirrored and imaginary == 1, do: -value, else: value
    real = at == 0 or at * 2 == n
    out[index()] = if at >= m or (real and imaginary == 1), do: 0, else: signed
  end

  root = fn exponent, re, im ->
    quote do
      a = band(unquote(exponent), lowest) * 2
      b = bsr(unquote(exponent), shift) * 2
      unquote(re) = high[b] + (low[a] * high[b] - low[a + 1] * high[b + 1])
      unquote(im) = high[b + 1] + (low[a] * high[b + 1] + low[a + 1] * high[b])
    end
  end

  # One pass of Stockham's algorithm of any radix, by sums of products with roots of unity: for short transforms, because the kernels below take longer to
  # compile than all of their work. An invocation has the sums of the products with even and with odd numbers, which are as accurate as sums of pairs. For an
  # even radix, their sum and their difference are two numbers of the result, of which there then are `count` pairs, half of the radix. All roots are in a
  # table. Products with zeros, the parts of the roots at quarters of a turn, are left out: those of infinities would be NaN.
  term = fn part, factor, zero ->
    quote(do: if(unquote(zero), do: 0, else: unquote(part) * unquote(factor)))
  end

  [re, im, wr, wi, no_wr, no_wi] =
    for name <- [:re, :im, :wr, :wi, :no_wr, :no_wi], do: {name, [], nil}

  pass =
    quote do
      defkernel pass(
                  x,
                  roots,
                  n,
                  inner,
                  p,
                  step,
                  radix,
                  count,
                  sign,
                  scale,
                  conjugated,
                  out
                ) do
        i = cast(index(), :u32)
        at = div(i, inner)
        turns = cast(n, :u32)
        m = div(turns, radix)
        row = div(at, m * count)
        block = div(at - row * (m * count), p)
        k = at - row * (m * count) - block * p
        group = div(block, count)
        q = block - group * count
        turn = k * step + q * m
        column = i - at * inner
        from = (row * n + group * p + k) * inner + column
        apart = m * inner
        sum = x[from * 2]
        other = x[from * 2 + 1] * sign
        sum_before = cast(0, :s32)
        other_before = cast(0, :s32)
        e = turn

        for _ <- 1..(radix - 1) do
          from = from + apart
          re = x[from * 2]
          im = x[from * 2 + 1] * sign
          wr = roots[e * 2]
          wi = roots[e * 2 + 1]
          no_wr = e * 4 == turns or e * 4 == turns * 3
          no_wi = e == 0 or e * 2 == turns

          next = sum_before + (unquote(term.(re, wr, no_wr)) - unquote(term.(im, wi, no_wi)))

          other_next =
            other_before + (unquote(term.(re, wi, no_wi)) + unquote(term.(im, wr, no_wr)))

          sum_before = sum
          other_before = other
          sum = next
          other = other_next
          e = e + turn
          e = if e >= turns, do: e - turns, else: e
        end

        to = ((row * n + (group * radix + q) * p + k) * inner + column) * 2
        out[to] = (sum_before + sum) * scale
        out[to + 1] = (other_before + other) * conjugated

        if count < radix do
          to = to + cast(count, :u32) * p * inner * 2
          out[to] = (sum_before - sum) * scale
          out[to + 1] = (other_before - other) * conjugated
        end
      end
    end

  Code.eval_quoted(pass, [], __ENV__)

  # One pass of Stockham's algorithm: transforms of length `radix` of values n / radix apart. `p` is the product of the radices of the passes
  # before it, `step` is n / (p * radix). Imaginary parts are multiplied by `sign` when they are read.
  #
  # On CPUs, most of the time is that of loads. So a pass of radix 8 reads only the factors of its values 1, 2, 3 and 4, and one of radix 16 also those of 8 and
  # 12, whose products are the others.
  for radix <- [2, 3, 4, 5, 7, 8, 16] do
    variable = fn letter, j -> {:"#{letter}#{j}", [], nil} end
    values = for j <- 0..(radix - 1), do: {variable.("x", j), variable.("y", j)}

    reads =
      for {re, im} <- values do
        quote do
          unquote(re) = x[from]
          unquote(im) = x[from + 1] * sign
          from = from + apart
        end
      end

    factor = fn j -> {variable.("c", j), variable.("s", j)} end

    turns =
      for {{re, im}, j} <- Enum.drop(Enum.with_index(values), 1) do
        {wr, wi} = factor.(j)
        low = rem(j, 4)

        made =
          if radix < 8 or low in [0, j] do
            quote do
              e = unquote(j) * turn
              unquote(root.({:e, [], nil}, wr, wi))
            end
          else
            [{ar, ai}, {br, bi}] = Enum.map([j - low, low], factor)

            quote do
              unquote(wr) = unquote(ar) * unquote(br) - unquote(ai) * unquote(bi)
              unquote(wi) = unquote(ar) * unquote(bi) + unquote(ai) * unquote(br)
            end
          end

        quote do
          unquote(made)
          turned = unquote(re) * unquote(wr) - unquote(im) * unquote(wi)
          unquote(im) = unquote(re) * unquote(wi) + unquote(im) * unquote(wr)
          unquote(re) = turned
        end
      end

    {statements, results} = Butterfly.transform(values, "v")

    writes =
      for {re, im} <- results do
        quote do
          out[to] = unquote(re) * scale
          out[to + 1] = unquote(im) * conjugated
          to = to + between
        end
      end

    kernel =
      quote do
        defkernel unquote(:"pass_#{radix}")(
                    x,
                    low,
                    high,
                    shift,
                    n,
                    inner,
                    p,
                    step,
                    sign,
                    scale,
                    conjugated,
                    out
                  ) do
          i = cast(index(), :u32)
          at = div(i, inner)
          column = i - at * inner
          m = div(cast(n, :u32), unquote(radix))
          row = div(at, m)
          t = at - row * m
          k = t - div(t, p) * p
          from = ((row * n + t) * inner + column) * 2
          to = ((row * n + (t - k) * unquote(radix) + k) * inner + column) * 2
          apart = m * inner * 2
          between = inner * cast(p, :u32) * 2
          turn = k * step
          lowest = bsl(cast(1, :u32), shift) - 1
          unquote_splicing(reads)
          # The first pass has no factors but 1.
          if p > 1 do
            (unquote_splicing(turns))
          end

          unquote_splicing(statements)
          unquote_splicing(writes)
        end
      end

    Code.eval_quoted(kernel, [], __ENV__)
  end

  # From the transform Z of h pairs of real numbers, taken as complex numbers, to the first h + 1 numbers X of the transform of all n = 2 h, or back. With
  # w = exp(-2 pi i k / n), Z[h] for Z[0], and e and d for half of the sum and of the difference of Z[k] and conj(Z[h - k]), X[k] = e - i w d and
  # X[h - k] = conj(e + i w d). Z is made of X by the same sums with i conj(w) for -i w. `turn` is -1 to make X and 1 to make Z; `last` is the index in x of
  # the number opposite to the first, 0 to make X and h to make Z. Numbers from index `given` on are zeros, and X[0] and X[h] are real.
  kernel =
    quote do
      defkernel real_halves(x, low, high, shift, h, pairs, given, length, turn, last, out) do
        i = cast(index(), :u32)
        row = div(i, pairs)
        k = i - row * pairs
        opposite = cast(h, :u32) - k
        other = if k == 0, do: cast(last, :u32), else: opposite
        real = k == 0 and last > 0
        from = (row * given + k) * 2
        re = if k < given, do: x[from], else: 0
        im = if k < given and not real, do: x[from + 1], else: 0
        from = (row * given + other) * 2
        other_re = if other < given, do: x[from], else: 0
        other_im = if other < given and not real, do: x[from + 1], else: 0
        e_re = (re + other_re) * 0.5
        e_im = (im - other_im) * 0.5
        # The difference of an infinity and itself would be NaN.
        d_re = if k == other, do: 0, else: (re - other_re) * 0.5
        d_im = (im + other_im) * 0.5
        lowest = bsl(cast(1, :u32), shift) - 1
        unquote(root.({:k, [], nil}, {:wr, [], nil}, {:wi, [], nil}))
        wr = wr * turn
        turned_re = wi * d_re - wr * d_im
        turned_im = wi * d_im + wr * d_re
        to = (row * length + k) * 2
        out[to] = e_re + turned_re
        out[to + 1] = e_im + turned_im

        if opposite < length do
          to = (row * length + opposite) * 2
          out[to] = e_re - turned_re
          out[to + 1] = turned_im - e_im
        end
      end
    end

  Code.eval_quoted(kernel, [], __ENV__)

  ## Bluestein's algorithm: a transform of any length n as a convolution with exp(pi i k^2 / n), of a power of two m >= 2 n - 1

  # The square of k modulo 2 n, by four bits of k at a time, without overflow.
  square = fn k ->
    quote do
      period = cast(n, :u32) * 2
      e = period - period

      for part <- 0..6 do
        digit = band(bsr(unquote(k), (6 - cast(part, :u32)) * 4), 15)
        e = rem(rem(e * 16, period) + rem(digit * unquote(k), period), period)
      end

      lowest = bsl(cast(1, :u32), shift) - 1
      unquote(root.({:e, [], nil}, {:wr, [], nil}, {:wi, [], nil}))
    end
  end

  # The conjugates of the factors exp(-pi i k^2 / n), which are the same for k and m - k.
  kernels =
    quote do
      defkernel filter(low, high, shift, n, m, out) do
        i = cast(index(), :u32)
        k = if i < n, do: i, else: m - i
        unquote(square.({:k, [], nil}))
        out[i * 2] = if k < n, do: wr, else: 0
        out[i * 2 + 1] = if k < n, do: -wi, else: 0
      end
    end

  Code.eval_quoted(kernels, [], __ENV__)

  # Of `m` numbers along the axis the first n, or all of them followed by zeros, multiplied by numbers y, whose imaginary parts are multiplied by `y_sign`.
  defkernel multiply(x, y, m, n, inner, sign, y_sign, scale, conjugated, out) do
    i = cast(index(), :u32)
    at = div(i, inner)
    row = div(at, n)
    k = at - row * n
    from = ((row * m + k) * inner + (i - at * inner)) * 2
    re = x[from]
    im = x[from + 1] * sign
    wr = y[k * 2]
    wi = y[k * 2 + 1] * y_sign
    inside = k < m
    out[i * 2] = if inside, do: (re * wr - im * wi) * scale, else: 0
    out[i * 2 + 1] = if inside, do: (re * wi + im * wr) * conjugated, else: 0
  end
end
