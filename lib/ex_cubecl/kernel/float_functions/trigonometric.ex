defmodule ExCubecl.Kernel.FloatFunctions.Trigonometric do
  @moduledoc false
  # sin, cos and tan. |x| is quadrant pi / 2 + y + rest with |y| at most pi / 4.

  import ExCubecl.Kernel.FloatFunctions.Format

  alias ExCubecl.Kernel.FloatFunctions.Reduction

  # Sets quadrant, y and rest for x.
  defp reduced(f) do
    [first, second, third, fourth] = f.half_pi_parts

    {:__block__, _, lines} =
      quote do
        size = abs(x)
        shifted = size * 0.6366197723675814 + unquote(f.rounder)
        quadrant = bitcast(shifted, unquote(f.word)) - unquote(f.rounder_bits)
        whole = shifted - unquote(f.rounder)
        part = size - whole * unquote(first)
        next = whole * unquote(second)
        difference = part - next
        last = whole * unquote(third)
        high = difference - last
        low = difference - high - last + (part - difference - next)
        low = low - whole * unquote(fourth)

        if magnitude(x) > unquote(bits_of(f, f.reduction_bound)) do
          (unquote_splicing(Reduction.large(f)))
        end

        y = high + low
        rest = high - y + low
        z = y * y
      end

    lines
  end

  # Sets sine, whose sum with y is sin(y + rest).
  defp sine(f) do
    [
      quote do
        sine = rest - 0.5 * z * rest + y * (z * unquote(polynomial(f, :sin, quote(do: z))))
      end
    ]
  end

  # Sets one and cosine, whose sum is cos(y + rest).
  defp cosine(f) do
    {:__block__, _, lines} =
      quote do
        half = 0.5 * z
        one = 1 - half

        cosine =
          1 - one - half + (z * (z * unquote(polynomial(f, :cos, quote(do: z)))) - y * rest)
      end

    lines
  end

  def all(f) do
    [
      sin:
        quote do
          fn x ->
            unquote_splicing(reduced(f) ++ sine(f) ++ cosine(f))
            value = if band(quadrant, 1) == 0, do: y + sine, else: one + cosine
            flipped = if band(quadrant, 2) == 0, do: value, else: -value

            cond do
              magnitude(x) < unquote(bits_of(f, f.tiny)) -> x
              magnitude(x) < unquote(f.infinity) -> with_sign(flipped, x)
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end,
      cos:
        quote do
          fn x ->
            unquote_splicing(reduced(f) ++ sine(f) ++ cosine(f))
            value = if band(quadrant, 1) == 0, do: one + cosine, else: y + sine
            flipped = if band(quadrant + 1, 2) == 0, do: value, else: -value

            if magnitude(x) < unquote(f.infinity),
              do: flipped,
              else: unquote(of_bits(f, f.nan))
          end
        end,
      tan:
        quote do
          fn x ->
            unquote_splicing(reduced(f) ++ sine(f) ++ cosine(f))
            # The quotient has the errors of both: that of the square is taken off.
            cosine = cosine - 0.5 * product_error(y, y, z)
            s = y + sine
            s_rest = y - s + sine
            c = one + cosine
            c_rest = one - c + cosine
            even? = band(quadrant, 1) == 0
            over = if even?, do: s, else: -c
            over_rest = if even?, do: s_rest, else: -c_rest
            under = if even?, do: c, else: s
            under_rest = if even?, do: c_rest, else: s_rest
            value = quotient(over, over_rest, under, under_rest)

            cond do
              magnitude(x) < unquote(bits_of(f, f.tiny)) -> x
              magnitude(x) < unquote(f.infinity) -> with_sign(value, x)
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end
    ]
  end
end
