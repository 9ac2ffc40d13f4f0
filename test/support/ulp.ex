defmodule ExCubecl.Ulp do
  @moduledoc false
  # The errors of functions of floats in units in the last place, against the 64-bit floats of Erlang.

  alias ExCubecl.{Buffer, Ops}

  @half_sqrt_pi 0.886226925452758

  @doc "The functions of one operand, with a reference that raises where there is no finite result."
  def references do
    [
      exp: &:math.exp/1,
      expm1: &expm1/1,
      log: &:math.log/1,
      log1p: &log1p/1,
      sqrt: &:math.sqrt/1,
      rsqrt: &(1 / :math.sqrt(&1)),
      cbrt: &cbrt/1,
      sin: &:math.sin/1,
      cos: &:math.cos/1,
      tan: &:math.tan/1,
      asin: &:math.asin/1,
      acos: &:math.acos/1,
      atan: &:math.atan/1,
      sinh: &:math.sinh/1,
      cosh: &:math.cosh/1,
      tanh: &:math.tanh/1,
      asinh: &:math.asinh/1,
      acosh: &:math.acosh/1,
      atanh: &:math.atanh/1,
      erf: &:math.erf/1,
      erfc: &:math.erfc/1,
      erf_inv: &erf_inv/1,
      sigmoid: &sigmoid/1
    ]
  end

  @doc "The largest error of an operation at some numbers, in units in the last place of `dtype`, and where."
  def worst(name, reference, dtype, points) do
    x = ExCubecl.buffer!(points, [length(points)], dtype)
    found = Buffer.to_flat_list!(apply(Ops, :"#{name}!", [x]))
    worst_of(Buffer.to_flat_list!(x), found, reference, dtype)
  end

  @doc "The largest error of the results of an operation at some numbers, and where."
  def worst_of(points, found, reference, dtype) do
    [points, found]
    |> Enum.zip_with(fn [x, y] -> {error(y, expected(reference, x), dtype), x, y} end)
    |> Enum.max_by(&elem(&1, 0))
  end

  defp expected(reference, x) when is_float(x) do
    reference.(x)
  rescue
    ArithmeticError -> :none
  end

  defp expected(_reference, _special), do: :none

  # Infinities and NaN are those where there is no finite 64-bit float, or where it is too large.
  defp error(y, :none, _dtype), do: if(is_float(y), do: 1.0e9, else: 0.0)

  defp error(y, expected, dtype) when is_float(y),
    do: abs(y - expected) / unit(expected, dtype)

  defp error(_y, expected, :f32),
    do: if(abs(expected) >= 3.4028235677973366e38, do: 0.0, else: 1.0e9)

  defp error(_y, _expected, :f64), do: 1.0e9

  defp unit(expected, dtype) do
    {digits, least} = if dtype == :f32, do: {23, -126}, else: {52, -1022}
    <<_sign::1, exponent::11, _::52>> = <<expected::float>>
    :math.pow(2, max(exponent - 1023, least) - digits)
  end

  ## References that Erlang does not have

  defp expm1(x) do
    power = :math.exp(x)

    cond do
      power == 1.0 -> x
      power < 1.0e-300 -> -1.0
      # The product below would overflow.
      power > 1.0e17 -> power
      true -> (power - 1) * x / :math.log(power)
    end
  end

  defp log1p(x) do
    sum = 1 + x
    if sum == 1.0, do: x, else: :math.log(sum) * (x / (sum - 1))
  end

  defp cbrt(x) when x == 0, do: x
  defp cbrt(x) when x < 0, do: -cbrt(-x)

  defp cbrt(x) do
    y = :math.pow(x, 1 / 3)
    y - (y - x / y / y) / 3
  end

  defp sigmoid(x) when x >= 0, do: 1 / (1 + :math.exp(-x))
  defp sigmoid(x), do: :math.exp(x) / (1 + :math.exp(x))

  # Newton's method, with the complement where erf is near 1.
  defp erf_inv(x) when x == 0, do: x
  defp erf_inv(x) when x < 0, do: -erf_inv(-x)
  defp erf_inv(x) when x >= 1, do: raise(ArithmeticError)

  defp erf_inv(x) do
    start =
      if x < 0.5, do: x * @half_sqrt_pi, else: 0.9 * :math.sqrt(-:math.log((1 - x) * (1 + x)))

    Enum.reduce(1..12, start, fn _, y ->
      rest = if x < 0.5, do: x - :math.erf(y), else: :math.erfc(y) - (1 - x)
      step = rest * @half_sqrt_pi * :math.exp(y * y)
      y + step / (1 - y * step)
    end)
  end
end
