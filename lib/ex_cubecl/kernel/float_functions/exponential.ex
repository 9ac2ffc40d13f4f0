defmodule ExCubecl.Kernel.FloatFunctions.Exponential do
  @moduledoc false
  # exp, and the functions that are made of it. x is n log 2 + r + rest with |r| at most log(2) / 2; exp(r) is 1 + r + c + s, where c is cosh r - 1
  # and s is sinh r - r.

  import ExCubecl.Kernel.FloatFunctions.Format

  @doc "Sets n, r, rest, c and s for x."
  def reduced(f) do
    {ln2, ln2_low} = f.ln2

    quote do
      shifted = x * 1.4426950408889634 + unquote(f.rounder)
      n = bitcast(shifted, unquote(f.integer)) - unquote(f.rounder_bits)
      whole = shifted - unquote(f.rounder)
      first = x - whole * unquote(ln2)
      low = whole * unquote(ln2_low)
      r = first - low
      rest = first - r - low
      z = r * r
      half_z = 0.5 * z
      fourth = z * z * unquote(polynomial(f, :cosh, quote(do: z)))
      c = half_z + fourth
      s = r * (z * unquote(polynomial(f, :sinh, quote(do: z))))
    end
    |> lines()
  end

  # Sets a and b to 2^(n - 2) and 2^(-n - 2). sinh is twice (a - b) (1 + c) + (a + b) (r + s), where d is a - b, and cosh is twice
  # (a + b) (1 + c) + (a - b) (r + s), where g is a + b.
  defp hyperbolic(f) do
    quote do
      a = power_of_two(n - 2)
      b = if n > unquote(2 * f.mantissa), do: 0.0, else: power_of_two(-n - 2)
      d = a - b
      g = a + b
      q = rest + s
      above = a * r
      below = b * r
    end
    |> lines()
  end

  defp sinh do
    quote do
      high = d + above
      odd = high + below
      odd_rest = a - d - b + (d * c + g * q)
      odd_rest = odd_rest + (sum_error(d, above, high) + sum_error(high, below, odd))
    end
    |> lines()
  end

  defp cosh do
    quote do
      high = g + above
      even = high - below
      even_rest = a - g + b + (g * c + d * q)
      even_rest = even_rest + (sum_error(g, above, high) + sum_error(high, -below, even))
    end
    |> lines()
  end

  defp lines({:__block__, _, lines}), do: lines

  def all(f) do
    [
      exp:
        quote do
          fn value ->
            x = unquote(limited(f, quote(do: value), f.exp_bound))
            unquote_splicing(reduced(f))
            sum = 1 + r
            scaled(sum + (1 - sum + r + (rest + (c + s))), n)
          end
        end,
      expm1:
        quote do
          fn value ->
            x = unquote(limited(f, quote(do: value), expm1_bound(f)))
            unquote_splicing(reduced(f))
            n = max(n, unquote(-3 * f.mantissa))
            half = power_of_two(n - 1)
            less = half - 0.5
            product = half * r
            sum = less + product

            low =
              sum_error(half, unquote(number(f.type, -0.5)), less) +
                half * (rest + (half_z + (fourth + s)))

            y = sum + (sum_error(less, product, sum) + low)
            if magnitude(value) < unquote(bits_of(f, f.tiny * f.tiny)), do: value, else: y + y
          end
        end,
      sinh:
        quote do
          fn value ->
            size = abs(value)
            x = unquote(limited(f, quote(do: size), sinh_bound(f)))
            unquote_splicing(reduced(f) ++ hyperbolic(f) ++ sinh())
            y = odd + odd_rest

            if magnitude(value) < unquote(bits_of(f, f.tiny)),
              do: value,
              else: with_sign(y + y, value)
          end
        end,
      cosh:
        quote do
          fn value ->
            size = abs(value)
            x = unquote(limited(f, quote(do: size), sinh_bound(f)))
            unquote_splicing(reduced(f) ++ hyperbolic(f) ++ cosh())
            y = even + even_rest
            y + y
          end
        end,
      tanh:
        quote do
          fn value ->
            size = abs(value)
            x = unquote(limited(f, quote(do: size), 20.0))
            unquote_splicing(reduced(f) ++ hyperbolic(f) ++ sinh() ++ cosh())
            over = odd + odd_rest
            under = even + even_rest
            y = quotient(over, odd - over + odd_rest, under, even - under + even_rest)

            if magnitude(value) < unquote(bits_of(f, f.tiny)),
              do: value,
              else: with_sign(y, value)
          end
        end,
      # 1 / (1 + t) or t / (1 + t), where t is exp(-|x|).
      sigmoid:
        quote do
          fn value ->
            size = -abs(value)
            x = unquote(limited(f, quote(do: size), f.exp_bound))
            unquote_splicing(reduced(f))
            sum = 1 + r
            more = 1 - sum + r + (rest + (c + s))
            power = sum + more
            power_rest = sum - power + more
            t = power_of_two(max(n, unquote(-3 * f.mantissa)))
            under = 1 + t * power
            under_rest = 1 - under + t * power + t * power_rest
            above? = bitcast(value, unquote(f.integer)) >= 0
            over = if above?, do: 1.0, else: power
            over_rest = if above?, do: 0.0, else: power_rest
            y = quotient(over, over_rest, under, under_rest)
            if above?, do: y, else: scaled(y, n)
          end
        end
    ]
  end

  # A little above where the result is infinite.
  defp expm1_bound(%{type: :f32}), do: 89.0
  defp expm1_bound(%{type: :f64}), do: 710.0

  defp sinh_bound(%{type: :f32}), do: 89.6
  defp sinh_bound(%{type: :f64}), do: 710.6
end
