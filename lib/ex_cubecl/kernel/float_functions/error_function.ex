defmodule ExCubecl.Kernel.FloatFunctions.ErrorFunction do
  @moduledoc false
  # erf, erfc and erf_inv.

  import ExCubecl.Kernel.FloatFunctions.Format

  alias ExCubecl.Kernel.FloatFunctions.Exponential

  @doc "Helpers: erfc of numbers from 0.45 on, as exp(-x^2) (1 + g) / (1 + 2 x), and a step of Halley's method for erf_inv."
  def helpers(f) do
    [
      far_erfc:
        quote do
          fn value ->
            size = unquote(limited(f, quote(do: value), far(f)))
            t = (size - 3.75) / (size + 3.75)
            g = unquote(polynomial(f, :erfc, quote(do: t)))
            square = size * size
            x = -square
            unquote_splicing(Exponential.reduced(f))
            rest = rest - product_error(size, size, square)
            power = 1 + r
            power_rest = 1 - power + r + (rest * (power + (c + s)) + (c + s))
            factor = 1 + g
            factor_rest = 1 - factor + g
            over = power * factor

            over_rest =
              product_error(power, factor, over) + (power * factor_rest + power_rest * factor)

            twice = size + size
            under = 1 + twice
            under_rest = sum_error(unquote(number(f.type, 1)), twice, under)
            scaled(quotient(over, over_rest, under, under_rest), n)
          end
        end,
      # `rest` is 1 - erf of the result.
      nearer:
        quote do
          fn y, rest ->
            d = (far_erfc(y) - rest) * 0.886226925452758 * exp(y * y)
            y + d / (1 - y * d)
          end
        end
    ]
  end

  def all(f) do
    [
      erf:
        quote do
          fn x ->
            size = abs(x)
            z = size * size
            near = size + size * unquote(polynomial(f, :erf, quote(do: z)))
            far = 1 - far_erfc(size)

            with_sign(
              if(magnitude(x) <= unquote(bits_of(f, 0.75)), do: near, else: far),
              x
            )
          end
        end,
      erfc:
        quote do
          fn x ->
            z = x * x
            small = x * unquote(polynomial(f, :erf, quote(do: z)))
            rest = 1 - x
            near = rest + (1 - rest - x - small)
            far = far_erfc(abs(x))
            far = if bitcast(x, unquote(f.integer)) < 0, do: 2 - far, else: far
            if magnitude(x) < unquote(bits_of(f, 0.65625)), do: near, else: far
          end
        end,
      erf_inv:
        quote do
          fn x ->
            size = abs(x)
            z = x * x
            near = size + size * unquote(polynomial(f, :erf_inv, quote(do: z)))
            rest = 1 - size
            s = sqrt(-log(rest * (1 + size)))
            far = unquote(polynomial(f, :tail, quote(do: s)))
            unquote_splicing(steps(f))

            cond do
              magnitude(x) <= unquote(bits_of(f, 0.75)) ->
                with_sign(near, x)

              magnitude(x) < unquote(bits_of(f, 1.0)) ->
                with_sign(far, x)

              magnitude(x) == unquote(bits_of(f, 1.0)) ->
                with_sign(unquote(of_bits(f, f.infinity)), x)

              true ->
                unquote(of_bits(f, f.nan))
            end
          end
        end
    ]
  end

  defp steps(%{type: :f32}), do: [quote(do: far = nearer(far, rest))]
  defp steps(f), do: List.duplicate(hd(steps(%{f | type: :f32})), 2)

  # Where erfc is 0.
  defp far(%{type: :f32}), do: 10.2
  defp far(%{type: :f64}), do: 28.0
end
