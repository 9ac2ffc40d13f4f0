defmodule ExCubecl.ConvertTest do
  # Conversion against its definition in convert/2, written down once more in plain Elixir.
  use ExCubecl.Case, async: false

  @fields %{f16: {5, 10}, bf16: {8, 7}, f32: {8, 23}, f64: {11, 52}}
  @integers [
              0,
              1,
              -1,
              2,
              127,
              128,
              -128,
              -129,
              255,
              256,
              300,
              32_767,
              32_768,
              65_535,
              65_536,
              16_777_217,
              2_147_483_647
            ] ++
              [
                2_147_483_648,
                -2_147_483_648,
                4_294_967_295,
                9_007_199_254_740_993,
                9_223_372_036_854_775_807
              ]
  @floats [
            0.0,
            -0.0,
            0.5,
            -0.5,
            0.999,
            1.0,
            -1.0,
            1.5,
            2.5,
            300.7,
            -300.7,
            65_504.0,
            65_520.0,
            1.0e10,
            -1.0e10,
            1.0e30
          ] ++
            [
              1.0e-8,
              5.96e-8,
              6.1e-5,
              1.0e-40,
              3.4e38,
              :nan,
              :infinity,
              :neg_infinity,
              4_294_967_296.0,
              1.0009765625
            ]

  for source <- ExCubecl.DType.all() do
    test "#{source} to every other type" do
      source = unquote(source)
      values = if is_map_key(@fields, source), do: @floats, else: fitting(source)
      buffer = ExCubecl.buffer!(values, [length(values)], source)
      exact = ExCubecl.to_list!(buffer)

      for target <- ExCubecl.DType.all() do
        # At an odd place of a larger storage, so that offsets count.
        shifted = Buffer.zeros!([length(values) + 1], source) |> Buffer.view!(1, [length(values)])
        :ok = Buffer.copy(buffer, shifted)
        expected = Enum.map(exact, &bits(&1, target))
        assert {target, patterns(Buffer.convert!(buffer, target))} == {target, expected}
        assert {target, patterns(Buffer.convert!(shifted, target))} == {target, expected}
      end
    end
  end

  test "to the same type every bit stays" do
    nan = <<0x7FA00001::32-native>>
    assert Buffer.read!(Buffer.convert!(ExCubecl.buffer!(nan, [1], :f32), :f32)) == nan
  end

  test "a lazy buffer cannot be converted" do
    assert reason(Buffer.convert(Buffer.empty!([2], :f32), :u8)) == :not_allocated
  end

  test "on the device it is far faster than reading, converting in Elixir and writing" do
    count = 4_194_304
    buffer = Buffer.full!([count], :f32, -7.25)

    binary = fn ->
      for <<x::float-32-native <- Buffer.read!(buffer)>>, into: <<>>, do: <<trunc(x)::32-native>>
    end

    {elixir, written} = :timer.tc(fn -> ExCubecl.buffer!(binary.(), [count], :s32) end)

    device =
      for _ <- 1..5,
          do: :timer.tc(fn -> Buffer.convert!(buffer, :s32) |> tap(&Buffer.synchronize/1) end)

    {fastest, converted} = Enum.min(device)
    assert Buffer.read!(converted) == Buffer.read!(written)
    assert elixir > 5 * fastest
  end

  defp fitting(dtype),
    do: Enum.filter(@integers, &match?({:ok, _}, ExCubecl.buffer([&1], [1], dtype)))

  defp patterns(buffer) do
    size = 8 * ExCubecl.DType.size(buffer.dtype)
    for <<bits::size(size)-native <- Buffer.read!(buffer)>>, do: bits
  end

  # The bits of a value as an element of `dtype`.
  defp bits(value, dtype) when is_map_key(@fields, dtype), do: float_bits(value, @fields[dtype])
  defp bits(value, dtype), do: Bitwise.band(integer(value, dtype), mask(dtype))

  defp mask(dtype), do: Integer.pow(2, 8 * ExCubecl.DType.size(dtype)) - 1

  defp integer(:nan, _), do: 0

  defp integer(:infinity, dtype),
    do: if(signed?(dtype), do: div(mask(dtype), 2), else: mask(dtype))

  defp integer(:neg_infinity, dtype),
    do: if(signed?(dtype), do: -div(mask(dtype), 2) - 1, else: 0)

  defp integer(value, _), do: trunc(value)

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

  # A positive number is `numerator / denominator`; its bits grow with it, so the nearest are found
  # by rounding in units of the last place.
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
