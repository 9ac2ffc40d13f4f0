defmodule ExCubecl.BadDataTest do
  # Every kind of data, shape, type, device and option that cannot become a buffer.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  @max_63 Integer.pow(2, 63) - 1

  setup do
    witness = keep(ExCubecl.buffer!([0.5, :nan, -3.0], [3], :f32))
    bytes = Buffer.read!(witness)
    before = settled()

    %{witness: witness, bytes: bytes, before: before}
  end

  defp nothing_happened(%{witness: witness, bytes: bytes, before: before}) do
    assert Buffer.read!(witness) == bytes
    eventually(before)
  end

  test "a flat list of the wrong length names both lengths", context do
    for {data, shape, dtype, expected} <- [
          {[1.0, 2.0], [3], :f32, 3},
          {[1, 2, 3, 4], [3], :u8, 3},
          {[], [1], :s64, 1},
          {[], [], :u8, 1},
          {[1, 2], [], :u8, 1},
          {[1], [0], :f64, 0},
          {[1], [4, 0], :f16, 0},
          {Enum.to_list(1..1000), [1001], :s16, 1001},
          {Enum.to_list(1..1000), [999], :s16, 999},
          {Enum.to_list(1..50), [7, 7], :bf16, 49}
        ] do
      refused(ExCubecl.buffer(data, shape, dtype), :shape_mismatch,
        details: [expected: expected, actual: length(data), shape: shape],
        says: [expected, length(data), ExCubecl.Error.Text.show(shape)]
      )
    end

    nothing_happened(context)
  end

  test "a binary of the wrong size names both sizes", context do
    for dtype <- ExCubecl.supported_dtypes(), wrong <- [-1, 1, 8] do
      expected = 5 * ExCubecl.DType.size!(dtype)
      binary = :binary.copy(<<1>>, expected + wrong)

      refused(ExCubecl.buffer(binary, [5], dtype), :shape_mismatch,
        details: [expected_bytes: expected, actual_bytes: expected + wrong],
        says: [expected, expected + wrong]
      )
    end

    refused(ExCubecl.buffer(<<>>, [2], :u16), :shape_mismatch, details: [expected_bytes: 4])
    refused(ExCubecl.buffer(<<0>>, [0], :u16), :shape_mismatch, details: [expected_bytes: 0])
    refused(ExCubecl.buffer("abc", [], :u8), :shape_mismatch, details: [expected_bytes: 1])
    nothing_happened(context)
  end

  test "a ragged nested list names the depth and the row", context do
    for {data, shape, depth, expected, actual} <- [
          {[[1, 2]], [2, 2], 0, 2, 1},
          {[[1, 2], [3, 4], [5, 6]], [2, 2], 0, 2, 3},
          {[[1, 2], [3]], [2, 2], 1, 2, 1},
          {[[1, 2], [3, 4, 5]], [2, 2], 1, 2, 3},
          {[[1, 2], []], [2, 2], 1, 2, 0},
          {[[[1], [2]]], [2, 2, 1], 0, 2, 1},
          {[[[1], [2]], [[3]]], [2, 2, 1], 1, 2, 1},
          {[[[1], [2]], [[3], [4, 5]]], [2, 2, 1], 2, 1, 2},
          {[[[1], [2]], [[3], []]], [2, 2, 1], 2, 1, 0},
          {[[[[1, 2]]], [[[3]]]], [2, 1, 1, 2], 3, 2, 1},
          {[[], [], []], [2, 0], 0, 2, 3},
          {[[1]], [1, 0], 1, 0, 1},
          {[[], []], [0, 2], 0, 0, 2}
        ] do
      refused(ExCubecl.buffer(data, shape, :u8), :shape_mismatch,
        details: [depth: depth, expected: expected, actual: actual, shape: shape],
        says: ["depth #{depth}", actual, ExCubecl.Error.Text.show(shape)]
      )
    end

    nothing_happened(context)
  end

  test "a number where a row belongs, and a row where a number belongs", context do
    # The number would fit its type: the message must not say otherwise.
    for data <- [[[1, 2], 3], [1, [2, 3]], [[1, 2], [3, [4]]], [[[1, 2]], [[3, 4]]]] do
      assert {:error, error} = ExCubecl.buffer(data, [2, 2], :u8)
      assert error.reason in [:shape_mismatch, :invalid_value]
      refute Exception.message(error) =~ "is 3, which u8 cannot hold"
    end

    nothing_happened(context)
  end

  test "data that is neither a list nor a binary", context do
    for data <- [nil, :nan, 1, 1.5, {1, 2}, %{}, 1..2, self(), make_ref(), &is_atom/1, <<1::3>>] do
      refused(ExCubecl.buffer(data, [2], :f32), :invalid_argument,
        details: [argument: :data, value: data]
      )
    end

    # A scalar takes a number or one of three atoms, not just any atom.
    for data <- [nil, true, :inf, :foo, {1}, %{}],
        do: refused(ExCubecl.buffer(data, [], :f32), :invalid_argument, details: [value: data])

    nothing_happened(context)
  end

  test "improper lists, flat and nested, at each place", context do
    for {data, shape} <- [
          {[1 | 2], [1]},
          {[1 | 2], [2]},
          {[1, 2 | 3], [2]},
          {[1, 2, 3 | :nan], [3]},
          {[1 | 2], [2, 2]},
          {[[1, 2] | 3], [2, 2]},
          {[[1, 2] | 3], [1, 2]},
          {[[1 | 2], [3, 4]], [2, 2]},
          {[[1, 2], [3 | 4]], [2, 2]},
          {[[1, 2], [3, 4 | 5]], [2, 2]},
          {[[[1], [2 | 3]]], [1, 2, 1]},
          {[[[1] | 2]], [1, 2, 1]}
        ] do
      refused(ExCubecl.buffer(data, shape, :u8), :invalid_argument,
        details: [argument: :data],
        says: "improper"
      )
    end

    nothing_happened(context)
  end

  test "integers out of range name the index, the value and the range", context do
    for dtype <- [:s8, :s16, :s32, :s64, :u8, :u16, :u32, :u64] do
      bits = 8 * ExCubecl.DType.size!(dtype)
      signed = match?("s" <> _, to_string(dtype))
      low = if signed, do: -Integer.pow(2, bits - 1), else: 0
      high = if signed, do: Integer.pow(2, bits - 1) - 1, else: Integer.pow(2, bits) - 1

      for value <- [
            low - 1,
            high + 1,
            -Integer.pow(2, 64),
            Integer.pow(2, 64),
            Integer.pow(10, 40)
          ],
          {index, data} <- [{0, [value, 1, 2]}, {2, [1, high, value]}, {1, [low, value, high]}] do
        refused(ExCubecl.buffer(data, [3], dtype), :invalid_value,
          details: [index: index, value: value, dtype: dtype],
          says: ["element #{index} ", value, dtype, "#{low} to #{high}"]
        )
      end
    end

    nothing_happened(context)
  end

  test "the index counts through a nested list, also far in", context do
    refused(ExCubecl.buffer([[1, 2], [3, 256]], [2, 2], :u8), :invalid_value, details: [index: 3])

    data = List.replace_at(Enum.map(1..100_000, &rem(&1, 100)), 77_777, 1.5)
    refused(ExCubecl.buffer(data, [100_000], :s8), :invalid_value, details: [index: 77_777])

    nested = Enum.chunk_every(data, 100)
    refused(ExCubecl.buffer(nested, [1000, 100], :s8), :invalid_value, details: [index: 77_777])
    nothing_happened(context)
  end

  test "floats and special values do not go into integers", context do
    for dtype <- [:s8, :s16, :s32, :s64, :u8, :u16, :u32, :u64],
        value <- [1.0, -0.0, 1.5, 1.0e300, :nan, :infinity, :neg_infinity] do
      refused(ExCubecl.buffer([1, value], [2], dtype), :invalid_value,
        details: [index: 1, value: value, dtype: dtype],
        says: ["element 1", inspect(value), dtype]
      )
    end

    nothing_happened(context)
  end

  test "what is no number does not go into any type", context do
    junk = [
      nil,
      true,
      :inf,
      :NaN,
      :"-infinity",
      "1",
      <<1::3>>,
      {1},
      %{},
      [1],
      [],
      self(),
      make_ref()
    ]

    for dtype <- ExCubecl.supported_dtypes(), value <- junk do
      refused(ExCubecl.buffer([1, 2, value], [3], dtype), :invalid_value,
        details: [index: 2, value: value, dtype: dtype]
      )
    end

    for dtype <- [:f16, :bf16, :f32, :f64], value <- [Integer.pow(2, 64), -Integer.pow(2, 64)] do
      refused(ExCubecl.buffer([value], [1], dtype), :invalid_value, details: [value: value])
    end

    nothing_happened(context)
  end

  test "shapes that are none, for every function that takes one", %{witness: witness} = context do
    too_many = [
      [Integer.pow(2, 62), 8],
      {Integer.pow(2, 62), 8},
      [Integer.pow(2, 32), Integer.pow(2, 32)],
      [@max_63, 2],
      [3, 5, Integer.pow(2, 61)],
      [@max_63, @max_63, @max_63],
      [@max_63 + 1],
      [0, @max_63 + 1],
      [Integer.pow(10, 40)]
    ]

    none = [
      nil,
      3,
      2.0,
      :a,
      "3",
      %{},
      self(),
      [-1],
      {-1},
      [2, -1],
      [2.0],
      {2.0},
      [nil],
      [:a],
      [[2]]
    ]

    beside_zero = [[0, -1], [-1, 0], [0, nil], [0 | 1], [1 | 2]]

    for shape <- too_many ++ none ++ beside_zero,
        call <- [
          &ExCubecl.buffer([], &1, :f32),
          &ExCubecl.buffer(<<>>, &1, :f32),
          &Buffer.empty(&1, :f32),
          &Buffer.empty(&1, :f32, lazy: false),
          &Buffer.zeros(&1, :f32),
          &Buffer.full(&1, :f32, 1),
          &Buffer.iota(&1, :f32),
          &Buffer.view(witness, 0, &1)
        ] do
      says = if shape in too_many, do: "2^63", else: "list or tuple"
      refused(call.(shape), :invalid_shape, says: says)
    end

    # `reshape/2` finds one length that is -1.
    for shape <- (too_many ++ none ++ beside_zero) -- [[-1], {-1}, [2, -1], [0, -1], [-1, 0]] do
      says = if shape in too_many, do: "2^63", else: "list or tuple"
      refused(Buffer.reshape(witness, shape), :invalid_shape, says: says)
    end

    nothing_happened(context)
  end

  test "a number of bytes that overflows though the number of elements does not", context do
    # 2^61 elements of four bytes are 2^63; of eight they would be 0 modulo 2^64.
    for {dtype, bits} <- [f32: 61, u16: 62, f64: 60, s64: 61],
        do: refused(Buffer.empty([Integer.pow(2, bits)], dtype), :invalid_shape, says: "2^63")

    nothing_happened(context)
  end

  test "types that do not exist", %{witness: witness} = context do
    for dtype <- [
          :f8,
          :F32,
          :float32,
          "f32",
          ~c"f32",
          nil,
          true,
          32,
          1.0,
          {:f, 32},
          %{},
          [],
          self()
        ],
        call <- [
          &ExCubecl.buffer([1], [1], &1),
          &Buffer.empty([1], &1),
          &Buffer.zeros([1], &1),
          &Buffer.full([1], &1, 1),
          &Buffer.iota([1], &1),
          &Buffer.convert(witness, &1),
          &ExCubecl.DType.size/1
        ] do
      refused(call.(dtype), :unsupported_dtype,
        details: [dtype: dtype],
        says: [ExCubecl.Error.Text.show(dtype), ":bf16", ":u64"]
      )
    end

    nothing_happened(context)
  end

  test "devices that do not exist, wherever one is named", %{witness: witness} = context do
    {:ok, devices} = ExCubecl.devices()
    known = Enum.map(devices, & &1.id)

    for device <- [
          {:vulkan, 99},
          {:opencl, 0},
          {:vulkan, -1},
          {:vulkan, 1.0},
          {:vulkan, Integer.pow(2, 40)},
          {:vulkan, 0, 1},
          {"vulkan", 0},
          {},
          "nope",
          "vulkan",
          "vulkan:",
          "vulkan:0x",
          "vulkan:-1",
          "vulkan:99",
          ":vulkan:0",
          " vulkan:0",
          "",
          <<255, 254>>,
          :gpu,
          5,
          [1],
          %{},
          self()
        ],
        call <- [
          &ExCubecl.buffer([1], [1], :u8, device: &1),
          &Buffer.empty([1], :u8, device: &1),
          &Buffer.zeros([1], :u8, device: &1),
          &Buffer.full([1], :u8, 1, device: &1),
          &Buffer.iota([1], :u8, device: &1),
          &Buffer.transfer(witness, &1),
          &Device.info/1,
          &Device.synchronize/1,
          &Device.reset/1,
          &Memory.usage(device: &1),
          &Memory.total(device: &1),
          &Memory.trim(device: &1),
          &Memory.reset_peak(device: &1),
          &Memory.set_limit(5, device: &1),
          &Memory.set_limit(nil, device: &1)
        ] do
      {runtime, index} = hd(known)

      refused(call.(device), :unknown_device, details: [known: known], says: "#{runtime}:#{index}")
    end

    refused(Device.info({:vulkan, 99}), :unknown_device, says: "vulkan:99")
    nothing_happened(context)
  end

  test "one byte more than the device takes names both numbers", context do
    {:ok, %{max_buffer_size: most}} = ExCubecl.device_info()

    for call <- [
          &Buffer.empty([&1], :u8),
          &Buffer.empty([&1], :u8, lazy: false),
          &Buffer.zeros([&1], :u8),
          &Buffer.full([&1], :s8, 1),
          &Buffer.iota([&1], :u8)
        ],
        count <- [most + 1, 2 * most, Integer.pow(2, 40), Integer.pow(2, 62)] do
      refused(call.(count), :too_large,
        details: [requested: count, limit: most],
        says: [count, most]
      )
    end

    nothing_happened(context)
  end

  test "options that do not exist", %{witness: witness} = context do
    for opts <- [
          [devise: 1],
          [lazy: true, devise: 1],
          :device,
          [1],
          nil,
          %{},
          "x",
          [{"device", 1}]
        ],
        call <- [
          &ExCubecl.buffer([1], [1], :u8, &1),
          &Buffer.empty([1], :u8, &1),
          &Buffer.zeros([1], :u8, &1),
          &Buffer.full([1], :u8, 1, &1),
          &Buffer.iota([1], :u8, &1),
          &Buffer.write(witness, [1, 2, 3], &1)
        ] do
      refused(call.(opts), :invalid_argument, says: "expected")
    end

    refused(ExCubecl.buffer([1], [1], :u8, devise: 1), :invalid_argument,
      says: [":devise", ":device"]
    )

    refused(ExCubecl.buffer([1], [1], :u8, lazy: true), :invalid_argument, says: ":lazy")
    refused(ExCubecl.buffer([1], [1], :u8, [{:device, nil} | 1]), :invalid_argument)

    for lazy <- [nil, 1, "true"],
        do: refused(Buffer.empty([1], :u8, lazy: lazy), :invalid_argument)

    nothing_happened(context)
  end
end
