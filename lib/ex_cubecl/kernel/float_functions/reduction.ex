defmodule ExCubecl.Kernel.FloatFunctions.Reduction do
  @moduledoc false
  # The reduction of large numbers by pi / 2, after M. Payne and R. Hanek: x is m 2^s with an integer m, and the digits of 2 / pi below 2^(1 - s) decide
  # x 2 / pi modulo 4. The product of m and three words of these digits is calculated exactly, modulo 2^(3 words).

  import ExCubecl.Kernel.FloatFunctions.Format

  # The digits of 2 / pi after the point.
  @two_by_pi 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E006492EEA09D1921CFE1DEB1CB129A73EE88235F52EBB4484E99C7026B45F7E413991D639835339F49C845F8BBDF9283B1FF897FFDE05980FEF2F118B5A0A6D1F6D367ECF27CB09B74F463F669E5FEA2D7527BAC7EBE5F17B3D0739F78A5292EA6BFB5FB11F8D5D0856033046FC7B6BABF0CFBC209AF4361D
  @digits 1280

  @doc "Sets quadrant, high and low for x."
  def large(f) do
    {:__block__, _, before} =
      quote do
        bits = magnitude(x)
        exponent = bsr(bits, unquote(f.mantissa))
        m = bor(band(bits, unquote(mask(f.mantissa))), unquote(mask(f.mantissa) + 1))
        # The first digit needed, in a table that begins with a word of zeros.
        start = exponent - unquote(f.bias + f.mantissa + 2 - f.bits)
        at = bsr(start, unquote(log2(f.bits)))
        shift = band(start, unquote(f.bits - 1))
      end

    {:__block__, _, later} =
      quote do
        back = unquote(f.bits - 1) - shift
        d0 = bor(bsl(w0, shift), bsr(bsr(w1, 1), back))
        d1 = bor(bsl(w1, shift), bsr(bsr(w2, 1), back))
        d2 = bor(bsl(w2, shift), bsr(bsr(w3, 1), back))
        p1 = m * d1
        p = p1 + product_high(m, d2)
        carry = if p < p1, do: unquote(number(f.word, 1)), else: 0
        p0 = m * d0 + product_high(m, d1) + carry
        # Rounded to whole quadrants.
        quadrant = bsr(p0 + unquote(Integer.pow(2, f.bits - 3)), unquote(f.bits - 2))
        p0 = p0 - bsl(quadrant, unquote(f.bits - 2))
        minus? = bitcast(p0, unquote(f.integer)) < 0
        more = if p == 0, do: unquote(number(f.word, 1)), else: 0
        q1 = if minus?, do: 0 - p, else: p
        q0 = if minus?, do: bnot(p0) + more, else: p0
        a = float_of_digits(bsr(q0, unquote(half(f))), 1)
        b = float_of_digits(band(q0, unquote(mask(half(f)))), 2)
        c = float_of_digits(bsr(q1, unquote(half(f))), 3)
        d = float_of_digits(band(q1, unquote(mask(half(f)))), 4)
        first = a + b
        tail = a - first + b
        sum = tail + c
        fraction = first + sum
        fraction_rest = first - fraction + sum + (sum_error(tail, c, sum) + d)
        turned = fraction * unquote(elem(f.half_pi, 0))
        low = product_error(fraction, unquote(number(f.type, elem(f.half_pi, 0))), turned)

        low =
          low +
            (fraction * unquote(elem(f.half_pi, 1)) + fraction_rest * unquote(elem(f.half_pi, 0)))

        high = if minus?, do: -turned, else: turned
        low = if minus?, do: -low, else: low
      end

    before ++ words(f) ++ Enum.flat_map(later, &digits(&1, f))
  end

  # Digits as a fraction: the weight of `half` digits.
  defp digits(line, f) do
    line =
      Macro.prewalk(line, fn
        {:float_of_digits, _, [digits, place]} ->
          weight = :math.pow(2, 2 - place * half(f))

          quote do
            (bitcast(bor(unquote(digits), unquote(f.whole_bits)), unquote(f.type)) -
               unquote(f.whole)) * unquote(weight)
          end

        other ->
          other
      end)

    [line]
  end

  # Sets w0 to w3 to four words of the table, from the one at `at` on: each bit of the index halves the words that are left.
  defp words(f) do
    table = table(f)
    levels = if f.bits == 32, do: [4, 2, 1], else: [16, 8, 4, 2, 1]

    {lines, _} =
      Enum.flat_map_reduce(levels, table, fn level, words ->
        count = 3 + level

        chosen =
          for i <- 0..(count - 1) do
            name = Macro.var(:"w#{i}", nil)
            [here, there] = for j <- [i, i + level], do: Enum.at(words, j, 0)

            line =
              quote do
                unquote(name) =
                  if band(at, unquote(level)) == 0,
                    do: cast(unquote(here), unquote(f.word)),
                    else: cast(unquote(there), unquote(f.word))
              end

            {line, name}
          end

        {Enum.map(chosen, &elem(&1, 0)), Enum.map(chosen, &elem(&1, 1))}
      end)

    lines
  end

  defp table(%{bits: bits}) do
    count = if bits == 32, do: 7, else: 19

    words =
      for i <- 1..count,
          do: @two_by_pi |> Bitwise.bsr(@digits - bits * i) |> Bitwise.band(mask(bits))

    [0 | words]
  end

  defp half(f), do: div(f.bits, 2)
  defp mask(bits), do: Integer.pow(2, bits) - 1
  defp log2(32), do: 5
  defp log2(64), do: 6

  @doc "Helpers: the upper word of a product of two words."
  def helpers(f) do
    [
      product_high:
        quote do
          fn a, b ->
            a0 = band(a, unquote(mask(half(f))))
            a1 = bsr(a, unquote(half(f)))
            b0 = band(b, unquote(mask(half(f))))
            b1 = bsr(b, unquote(half(f)))
            first = a0 * b1
            second = a1 * b0

            middle =
              bsr(a0 * b0, unquote(half(f))) + band(first, unquote(mask(half(f)))) +
                band(second, unquote(mask(half(f))))

            a1 * b1 + bsr(first, unquote(half(f))) + bsr(second, unquote(half(f))) +
              bsr(middle, unquote(half(f)))
          end
        end
    ]
  end
end
