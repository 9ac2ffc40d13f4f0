defmodule ExCubecl.Kernel.FloatFunctions.Roots do
  @moduledoc false
  # rsqrt, cbrt and pow. A step of Newton's method with an exact remainder makes the roots right.

  import ExCubecl.Kernel.FloatFunctions.Format

  def all(f) do
    [
      rsqrt:
        quote do
          fn x ->
            subnormal? = magnitude(x) < unquote(Integer.pow(2, f.mantissa))
            normal = if subnormal?, do: x * unquote(even(f)), else: x
            bits = bitcast(normal, unquote(f.integer))
            e = bsr(bsr(bits, unquote(f.mantissa)) - unquote(f.bias), 1)
            # From 1 to 4.
            part = bitcast(bits - bsl(e, unquote(f.mantissa + 1)), unquote(f.type))
            y = 1 / sqrt(part)
            square = y * y
            p = part * square
            rest = product_error(part, square, p) + part * product_error(y, y, square)
            root = y + 0.5 * y * (1 - p - rest)
            e = if subnormal?, do: e - unquote(div(even_bits(f), 2)), else: e
            word = bitcast(x, unquote(f.word))

            cond do
              word - 1 < unquote(f.infinity - 1) -> root * power_of_two(-e)
              word == unquote(f.infinity) -> 0.0
              magnitude(x) == 0 -> with_sign(unquote(of_bits(f, f.infinity)), x)
              true -> unquote(of_bits(f, f.nan))
            end
          end
        end,
      cbrt:
        quote do
          fn x ->
            size = abs(x)
            small? = magnitude(x) < unquote(bits_of(f, 1.0))
            scaled = if small?, do: size * unquote(cubic(f)), else: size * unquote(1 / cubic(f))
            bits = bitcast(scaled, unquote(f.word))
            y = bitcast(div(bits, 3) + unquote(third_of_bias(f)), unquote(f.type))
            unquote_splicing(List.duplicate(refined(), refinements(f)) |> List.flatten())
            square = y * y
            p = square * y
            rest = product_error(square, y, p) + product_error(y, y, square) * y
            root = y + (scaled - p - rest) / (3 * square)

            factor =
              if small?,
                do: unquote(number(f.type, 1 / root_of_cubic(f))),
                else: unquote(root_of_cubic(f))

            if magnitude(x) - 1 < unquote(f.infinity - 1),
              do: with_sign(root * factor, x),
              else: x
          end
        end
    ]
  end

  # The series of y (1 - d)^(-1/3), where 1 - d is y^3 / x.
  defp refined do
    {:__block__, _, lines} =
      quote do
        d = 1 - y * (y * (y / scaled))

        y =
          y +
            y * d *
              (0.3333333333333333 +
                 d * (0.2222222222222222 + d * (0.1728395061728395 + d * 0.1440329218106996)))
      end

    lines
  end

  defp refinements(%{type: :f32}), do: 1
  defp refinements(%{type: :f64}), do: 2

  # A power of 4 that makes subnormal numbers normal.
  defp even_bits(%{type: :f32}), do: 24
  defp even_bits(%{type: :f64}), do: 52
  defp even(f), do: :math.pow(2, even_bits(f))

  # A power of 8.
  defp cubic(%{type: :f32}), do: 16_777_216.0
  defp cubic(%{type: :f64}), do: 18_014_398_509_481_984.0
  defp root_of_cubic(%{type: :f32}), do: 256.0
  defp root_of_cubic(%{type: :f64}), do: 262_144.0

  # Two thirds of the bits of 1, less what makes the error of the straight line symmetric.
  defp third_of_bias(%{type: :f32}), do: 709_958_130
  defp third_of_bias(%{type: :f64}), do: 715_094_163 * 4_294_967_296
end
