defmodule ExCubecl.FacadeTest do
  # The guide's five calls: every type and every form of data is read back unchanged.
  use ExCubecl.Case, async: false

  @floats [0.0, 1.0, -2.5, :nan, :infinity, :neg_infinity]
  @bounds [
    s8: [-128, 127],
    s16: [-32_768, 32_767],
    s32: [-2_147_483_648, 2_147_483_647],
    s64: [-9_223_372_036_854_775_808, 9_223_372_036_854_775_807],
    u8: [0, 255],
    u16: [0, 65_535],
    u32: [0, 4_294_967_295],
    u64: [0, 18_446_744_073_709_551_615]
  ]

  for dtype <- [:f16, :bf16, :f32, :f64] do
    test "#{dtype} takes numbers, NaN and infinities" do
      buffer = ExCubecl.buffer!(@floats, [6], unquote(dtype))
      assert ExCubecl.to_list!(buffer) == @floats
      assert ExCubecl.dtype(buffer) == {:ok, unquote(to_string(dtype))}
    end
  end

  for {dtype, bounds} <- @bounds do
    test "#{dtype} takes its bounds and nothing beyond" do
      [low, high] = unquote(bounds)
      assert ExCubecl.to_list!(ExCubecl.buffer!([low, high], [2], unquote(dtype))) == [low, high]

      for {value, index} <- [{low - 1, 0}, {high + 1, 1}] do
        data = List.replace_at([low, high], index, value)
        assert {:error, error} = ExCubecl.buffer(data, [2], unquote(dtype))
        assert %{reason: :invalid_value, details: %{index: ^index, value: ^value}} = error
      end
    end
  end

  test "the sign of zero, subnormal numbers and the rounding of f32 are exact" do
    data = [-0.0, 1.0e-45, 16_777_217, 3.402823669209385e38, 0.1]
    expected = for x <- [-0.0, 1.401298464324817e-45, 1.6777216e7], do: <<x::float-32-native>>
    read = ExCubecl.read!(ExCubecl.buffer!(data, [5], :f32))
    assert binary_part(read, 0, 12) == IO.iodata_to_binary(expected)
    assert ExCubecl.to_list!(ExCubecl.buffer!(data, [5], :f32)) |> Enum.at(3) == :infinity
  end

  test "a float just above a tie is rounded up in 16 bits" do
    assert ExCubecl.read!(
             ExCubecl.buffer!([1.0 + :math.pow(2, -11) + :math.pow(2, -40)], [1], :f16)
           ) == <<1, 0x3C>>
  end

  test "a flat list, a nested list and a binary make the same buffer" do
    flat = Enum.to_list(1..24)
    nested = flat |> Enum.chunk_every(4) |> Enum.chunk_every(3)
    binary = for x <- flat, into: <<>>, do: <<x::16-native>>

    for data <- [flat, nested, binary] do
      buffer = ExCubecl.buffer!(data, [2, 3, 4], :s16)
      assert ExCubecl.read!(buffer) == binary
      assert ExCubecl.to_list!(buffer) == nested
      assert ExCubecl.to_flat_list!(buffer) == flat
    end
  end

  test "tuples are shapes, [] is a scalar and zero-sized dimensions work" do
    assert ExCubecl.shape(ExCubecl.buffer!([1, 2], {2, 1}, :u8)) == {:ok, [2, 1]}
    assert ExCubecl.to_list(ExCubecl.buffer!(2.5, [], :f32)) == {:ok, 2.5}
    assert ExCubecl.item(ExCubecl.buffer!([7], [], :u8)) == {:ok, 7}

    for {shape, list} <- [{[0], []}, {[3, 0], [[], [], []]}, {[0, 3], []}, {[2, 0, 2], [[], []]}] do
      buffer = ExCubecl.buffer!([], shape, :f64)
      assert {ExCubecl.read!(buffer), ExCubecl.size!(buffer)} == {"", 0}
      assert ExCubecl.to_list!(buffer) == list
    end
  end

  test "large and odd sizes come back unchanged" do
    for bytes <- [1, 3, 255, 16_384, 16_385, 65_537, 1_048_576, 9_000_001] do
      data = :crypto.strong_rand_bytes(bytes)
      assert ExCubecl.read!(ExCubecl.buffer!(data, [bytes], :u8)) == data
    end
  end
end
