defmodule ExCubecl.Kernel.FloatFunctions.Power do
  @moduledoc false
  # x ** y, as exp(y log |x|), where the logarithm is the sum of two numbers: its error is multiplied by y.

  import ExCubecl.Kernel.FloatFunctions.Format

  alias ExCubecl.Kernel.FloatFunctions.Exponential

  # Sets k, and f with |x| = 2^k (1 + f).
  defp split(f) do
    {:__block__, _, lines} =
      quote do
        size_bits = magnitude(base)
        subnormal? = size_bits < unquote(Integer.pow(2, f.mantissa))
        size = abs(base)
        normal = if subnormal?, do: size * unquote(f.whole), else: size
        bits = bitcast(normal, unquote(f.integer))
        e = bsr(bits - unquote(bits_of(f, 0.7071067690849304)), unquote(f.mantissa))
        f = bitcast(bits - bsl(e, unquote(f.mantissa)), unquote(f.type)) - 1
        k = float_of(if subnormal?, do: e - unquote(f.mantissa), else: e)
      end

    lines
  end

  # Sets high and low, whose sum is log |x|: log(1 + f) is 2 atanh(s), where s is f / (2 + f).
  defp logarithm(f) do
    {ln2, ln2_low} = f.ln2
    {third, third_low} = f.third

    {:__block__, _, lines} =
      quote do
        under = 2 + f
        under_rest = sum_error(unquote(number(f.type, 2)), f, under)
        s = f / under
        p = s * under
        s_rest = (f - p - product_error(s, under, p) - s * under_rest) / under
        z = s * s
        z_rest = product_error(s, s, z) + 2 * s * s_rest
        # atanh(s) / s - 1, as the sum of u and u_rest.
        first = z * unquote(third)
        second = z * z * unquote(polynomial(f, :power, quote(do: z)))
        u = first + second

        u_rest =
          first - u + second +
            (product_error(z, unquote(number(f.type, third)), first) +
               (z * unquote(third_low) + z_rest * unquote(third)))

        twice = 2 * s
        twice_rest = 2 * s_rest
        product = twice * u

        product_rest = product_error(twice, u, product) + (twice * u_rest + twice_rest * u)

        integer = k * unquote(ln2)
        sum = integer + twice
        more = sum + product

        rest =
          sum_error(integer, twice, sum) + sum_error(sum, product, more) +
            (k * unquote(ln2_low) + twice_rest + product_rest)

        high = more + rest
        low = more - high + rest
      end

    lines
  end

  # As in C: 1 if the exponent is 0 or the base is 1; a negative base gives a negative result for odd exponents, and NaN if the exponent is no
  # integer.
  def all(f) do
    [
      pow:
        quote do
          fn base, exponent ->
            unquote_splicing(split(f) ++ logarithm(f))
            product = exponent * high
            x = unquote(limited(f, quote(do: product), f.exp_bound))
            error = product_error(exponent, high, product) + exponent * low
            error = if magnitude(product) < unquote(bits_of(f, f.exp_bound)), do: error, else: 0.0
            unquote_splicing(Exponential.reduced(f))
            one = 1 + r
            power = scaled(one + (1 - one + r + ((rest + error) * (one + (c + s)) + (c + s))), n)

            exponent_bits = magnitude(exponent)
            large? = size_bits > unquote(bits_of(f, 1.0))
            down? = bitcast(exponent, unquote(f.integer)) < 0
            grows? = (large? and not down?) or (down? and not large?)
            bound = if grows?, do: unquote(of_bits(f, f.infinity)), else: 0.0

            limit? =
              size_bits == 0 or size_bits == unquote(f.infinity) or
                exponent_bits == unquote(f.infinity)

            power = if limit?, do: bound, else: power
            half = 0.5 * exponent
            whole? = trunc(exponent) == exponent
            odd? = whole? and trunc(half) != half
            minus? = bitcast(base, unquote(f.integer)) < 0
            signed = if minus? and odd?, do: -power, else: power

            undefined? =
              minus? and size_bits != 0 and size_bits != unquote(f.infinity) and not whole?

            nan? = size_bits > unquote(f.infinity) or exponent_bits > unquote(f.infinity)

            one? =
              exponent_bits == 0 or bitcast(base, unquote(f.word)) == unquote(bits_of(f, 1.0)) or
                (size_bits == unquote(bits_of(f, 1.0)) and exponent_bits == unquote(f.infinity))

            cond do
              one? -> 1.0
              nan? or undefined? -> unquote(of_bits(f, f.nan))
              true -> signed
            end
          end
        end
    ]
  end
end
