defmodule ExCubecl.Conversion do
  @moduledoc false
  # The documented result of `ExCubecl.Buffer.convert/2` in plain Elixir, implemented in another way: with rational
  # numbers instead of bit fields.

  @fields %{f16: {5, 10}, bf16: {8, 7}, f32: {8, 23}, f64: {11, 52}}

  @doc "The bit patterns of the elements in a binary."
  def patterns(binary, dtype) do
    size = 8 * ExCubecl.DType.size!(dtype)
    for <<bits::size(size)-native <- binary>>, do: bits
  end

  @doc "The binary of elements with these bits."
  def binary(patterns, dtype) do
    size = 8 * ExCubecl.DType.size!(dtype)
    for bits <- patterns, into: <<>>, do: <<bits::size(size)-native>>
  end

  @doc "The value of an element, as `to_list` gives it."
  def value(bits, dtype) when is_map_key(@fields, dtype) do
    {e, m} = @fields[dtype]
    <<sign::1, exponent::size(e), fraction::size(m)>> = <<bits::size(e + m + 1)>>
    top = Integer.pow(2, e) - 1
    bias = div(top, 2)

    case {exponent, fraction, sign} do
      {^top, 0, 0} -> :infinity
      {^top, 0, 1} -> :neg_infinity
      {^top, _, _} -> :nan
      {0, _, _} -> signed(sign, fraction * :math.pow(2, 1 - bias - m))
      _ -> signed(sign, (1 + fraction / Integer.pow(2, m)) * :math.pow(2, exponent - bias))
    end
  end

  def value(bits, dtype) do
    if signed?(dtype) and bits > div(mask(dtype), 2), do: bits - mask(dtype) - 1, else: bits
  end

  defp signed(0, number), do: number
  # A subtraction would lose the sign of zero.
  defp signed(1, number), do: number * -1.0

  @doc "The bits of a value as an element of `dtype`."
  def bits(value, dtype) when is_map_key(@fields, dtype), do: float_bits(value, @fields[dtype])
  def bits(value, dtype), do: Bitwise.band(integer(value, dtype), mask(dtype))

  defp mask(dtype), do: Integer.pow(2, 8 * ExCubecl.DType.size!(dtype)) - 1

  defp integer(:nan, _), do: 0

  defp integer(:infinity, dtype),
    do: if(signed?(dtype), do: div(mask(dtype), 2), else: mask(dtype))

  defp integer(:neg_infinity, dtype),
    do: if(signed?(dtype), do: -div(mask(dtype), 2) - 1, else: 0)

  defp integer(value, dtype) when is_float(value),
    do:
      value
      |> trunc()
      |> max(integer(:neg_infinity, dtype))
      |> min(integer(:infinity, dtype))

  defp integer(value, _), do: value

  defp signed?(dtype), do: match?("s" <> _, to_string(dtype))

  defp float_bits(:nan, {e, m}), do: Bitwise.bsl(2 * Integer.pow(2, e) - 1, m - 1)
  defp float_bits(:infinity, {e, m}), do: Bitwise.bsl(Integer.pow(2, e) - 1, m)

  defp float_bits(:neg_infinity, {e, m}),
    do: float_bits(:infinity, {e, m}) + Integer.pow(2, e + m)

  defp float_bits(value, {e, m}) do
    sign =
      if value < 0 or match?(<<1::1, _::63>>, <<value::float>>),
        do: Integer.pow(2, e + m),
        else: 0

    sign + min(nearest(abs(value), e, m), float_bits(:infinity, {e, m}))
  end

  # A positive number is `numerator / denominator`. Its bits, as an integer, grow with it, so the nearest bits are
  # found by rounding in units of the last place.
  defp nearest(value, e, m) do
    {numerator, denominator} = if is_integer(value), do: {value, 1}, else: Float.ratio(value)
    bias = Integer.pow(2, e - 1) - 1
    exponent = max(log2(numerator, denominator), 1 - bias)
    {n, d} = scale(numerator, denominator, m - exponent)
    units = round_half_even(n, d)

    if units < Integer.pow(2, m),
      do: units,
      else: (exponent + bias - 1) * Integer.pow(2, m) + units
  end

  defp log2(0, _), do: -10_000
  defp log2(n, d) when n >= 2 * d, do: 1 + log2(n, 2 * d)
  defp log2(n, d) when n < d, do: log2(2 * n, d) - 1
  defp log2(_, _), do: 0

  defp scale(n, d, shift) when shift >= 0, do: {n * Integer.pow(2, shift), d}
  defp scale(n, d, shift), do: {n, d * Integer.pow(2, -shift)}

  defp round_half_even(n, d) do
    {whole, rest} = {div(n, d), 2 * rem(n, d)}
    if rest > d or (rest == d and rem(whole, 2) == 1), do: whole + 1, else: whole
  end
end
