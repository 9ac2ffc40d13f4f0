defmodule ExCubecl.ConvertTest do
  # Compares conversion with its definition in convert/2, implemented again in plain Elixir.
  use ExCubecl.Case, async: true

  alias ExCubecl.Conversion

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
    @tag source: source
    test "#{source} to every other type", %{source: source} do
      values = if source in [:f16, :bf16, :f32, :f64], do: @floats, else: fitting(source)
      buffer = ExCubecl.buffer!(values, [length(values)], source)
      exact = ExCubecl.to_list!(buffer)

      for target <- ExCubecl.DType.all() do
        # At an odd offset in a larger storage, so that offsets are tested.
        shifted = Buffer.zeros!([length(values) + 1], source) |> Buffer.view!(1, [length(values)])
        :ok = Buffer.copy(buffer, shifted)
        expected = Enum.map(exact, &Conversion.bits(&1, target))
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

  test "four million elements are those that Elixir makes of them" do
    count = 4_194_304
    floats = Buffer.read!(Buffer.full!([count], :f32, -7.25))
    expected = for <<x::float-32-native <- floats>>, into: <<>>, do: <<trunc(x)::32-native>>
    converted = Buffer.convert!(ExCubecl.buffer!(floats, [count], :f32), :s32)
    assert Buffer.read!(converted) == expected
  end

  defp fitting(dtype),
    do: Enum.filter(@integers, &match?({:ok, _}, ExCubecl.buffer([&1], [1], dtype)))

  defp patterns(buffer), do: Conversion.patterns(Buffer.read!(buffer), buffer.dtype)
end
