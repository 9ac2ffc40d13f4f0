defmodule ExCubecl.Kernel.FloatFunctions.Logarithm do
  @moduledoc false
  # log, and the functions that are made of it. A number is 2^k (1 + f) with 1 + f from sqrt(1/2) to sqrt(2).

  import ExCubecl.Kernel.FloatFunctions.Format

  @doc "Helpers: log(1 + h + l) + more log 2, where l is the rounding error of h."
  def helpers(f) do
    {ln2, ln2_low} = f.ln2

    [
      log_sum:
        quote do
          fn h, l, more ->
            u = 1 + h
            lost = sum_error(unquote(number(f.type, 1)), h, u) + l
            bits = bitcast(u, unquote(f.integer))
            e = bsr(bits - unquote(root_half(f)), unquote(f.mantissa))
            m = bitcast(bits - bsl(e, unquote(f.mantissa)), unquote(f.type))
            f = if e == 0, do: h, else: m - 1
            far = if e > unquote(f.bits), do: 0.0, else: lost * power_of_two(-e)
            lost = if e == 0, do: l, else: far
            k = float_of(e + more)
            unquote_splicing(mantissa(f, ln2, ln2_low))
            # The correction is divided by 1 + f.
            sum + (error + (low + lost * ((1 - f) * (1 + square))))
          end
        end
    ]
  end

  # Sets sum, error and low, whose sum is k log 2 + log(1 + f).
  defp mantissa(f, ln2, ln2_low) do
    {:__block__, _, lines} =
      quote do
        square = f * f
        integer = k * unquote(ln2)
        sum = integer + f
        error = integer - sum + f
        cubic = f * square * unquote(polynomial(f, :log, quote(do: f)))
        low = k * unquote(ln2_low) + (cubic - 0.5 * square)
      end

    lines
  end

  defp root_half(%{type: :f32} = f), do: bits_of(f, 0.7071067690849304)
  defp root_half(f), do: bits_of(f, 0.7071067811865476)

  # NaN for numbers below the domain, and for NaN itself.
  def all(f) do
    {ln2, ln2_low} = f.ln2

    [
      log:
        quote do
          fn x ->
            word = bitcast(x, unquote(f.word))
            subnormal? = word < unquote(bsl1(f.mantissa))
            normal = if subnormal?, do: x * unquote(f.whole), else: x
            bits = bitcast(normal, unquote(f.integer))
            e = bsr(bits - unquote(root_half(f)), unquote(f.mantissa))
            f = bitcast(bits - bsl(e, unquote(f.mantissa)), unquote(f.type)) - 1
            k = float_of(if subnormal?, do: e - unquote(f.mantissa), else: e)
            unquote_splicing(mantissa(f, ln2, ln2_low))

            cond do
              word - 1 < unquote(f.infinity - 1) -> sum + (error + low)
              word == unquote(f.infinity) -> x
              magnitude(x) == 0 -> unquote(of_bits(f, f.infinity + f.sign))
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end,
      log1p:
        quote do
          fn x ->
            y = log_sum(x, unquote(number(f.type, 0.0)), unquote(number(f.integer, 0)))
            # Below -1, and NaN.
            word = bitcast(x, unquote(f.word))
            below = word - unquote(bits_of(f, 1.0) + f.sign)

            cond do
              magnitude(x) < unquote(bits_of(f, f.tiny * f.tiny)) -> x
              word < unquote(f.infinity) -> y
              word == unquote(f.infinity) -> x
              word < unquote(f.sign) -> x
              word < unquote(bits_of(f, 1.0) + f.sign) -> y
              below == 0 -> unquote(of_bits(f, f.infinity + f.sign))
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end,
      # log(x + sqrt(1 + x^2)), as log(1 + x + (sqrt(1 + x^2) - 1)).
      asinh:
        quote do
          fn x ->
            z = abs(x)
            p = z * z
            v = p + 1
            v_rest = sum_error(p, unquote(number(f.type, 1)), v) + product_error(z, z, p)
            root = sqrt(v)
            q = root * root
            root_rest = (v - q - product_error(root, root, q) + v_rest) / (2 * root)
            d = root - 1
            h = z + d
            l = sum_error(z, d, h) + (sum_error(root, unquote(number(f.type, -1)), d) + root_rest)
            unquote_splicing(log_sum_or_double(f, quote(do: z)))

            small = z - z * p * 0.16666666666666666

            cond do
              magnitude(x) < unquote(bits_of(f, asinh_small(f))) -> with_sign(small, x)
              magnitude(x) >= unquote(f.infinity) -> x
              true -> with_sign(y, x)
            end
          end
        end,
      # log(1 + t + sqrt(2 t + t^2)), where t is x - 1.
      acosh:
        quote do
          fn x ->
            t = x - 1
            t_rest = sum_error(x, unquote(number(f.type, -1)), t)
            p = t * t
            twice = t + t
            v = twice + p
            v_rest = sum_error(twice, p, v) + product_error(t, t, p)
            root = sqrt(v)
            q = root * root
            root_rest = (v - q - product_error(root, root, q) + v_rest) / (2 * root)
            h = t + root
            l = sum_error(t, root, h) + (root_rest + 2 * t_rest)
            unquote_splicing(log_sum_or_double(f, quote(do: x)))

            word = bitcast(x, unquote(f.word)) - unquote(bits_of(f, 1.0))

            cond do
              word == 0 -> 0.0
              word < unquote(f.infinity - bits_of(f, 1.0)) -> y
              word == unquote(f.infinity - bits_of(f, 1.0)) -> x
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end,
      # log(1 + 2 x / (1 - x)) / 2
      atanh:
        quote do
          fn x ->
            z = abs(x)
            over = z + z
            under = 1 - z
            under_rest = 1 - under - z
            h = over / under
            p = h * under
            l = (over - p - product_error(h, under, p) - h * under_rest) / under
            y = 0.5 * log_sum(h, l, unquote(number(f.integer, 0)))
            bits = magnitude(x)

            cond do
              bits < unquote(bits_of(f, f.tiny)) -> x
              bits < unquote(bits_of(f, 1.0)) -> with_sign(y, x)
              bits == unquote(bits_of(f, 1.0)) -> with_sign(unquote(of_bits(f, f.infinity)), x)
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end
    ]
  end

  # Sets y to log(1 + h + l), or to log(2 z) for large z, where the square of z may overflow.
  defp log_sum_or_double(f, z) do
    {:__block__, _, lines} =
      quote do
        large? = unquote(z) > unquote(asinh_large(f))
        less = unquote(z) - 1
        less_rest = sum_error(unquote(z), unquote(number(f.type, -1)), less)
        h = if large?, do: less, else: h
        l = if large?, do: less_rest, else: l
        y = log_sum(h, l, if(large?, do: unquote(number(f.integer, 1)), else: 0))
      end

    lines
  end

  defp bsl1(bits), do: Integer.pow(2, bits)

  # Where asinh x is log 2 x.
  defp asinh_large(%{type: :f32}), do: 8_192.0
  defp asinh_large(%{type: :f64}), do: 268_435_456.0

  # Where asinh x is x - x^3 / 6.
  defp asinh_small(%{type: :f32}), do: 0.015625
  defp asinh_small(%{type: :f64}), do: 6.103515625e-5
end
