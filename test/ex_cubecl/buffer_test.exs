defmodule ExCubecl.BufferTest do
  # Which storage buffers share and which they do not.
  use ExCubecl.Case, async: false

  test "a lazy buffer takes no memory before its first write, fill or copy" do
    before = settled()

    for first <- [
          &Buffer.write(&1, [1], offset: 3),
          &Buffer.fill(&1, 1),
          &Buffer.copy(Buffer.zeros!([10], :u8), &1)
        ] do
      lazy = Buffer.empty!([10], :u8)
      view = Buffer.view!(Buffer.view!(lazy, 2, [8]), 1, [2])
      refute Buffer.allocated?(lazy)
      assert reason(Buffer.read(view)) == :not_allocated
      assert :ok = first.(lazy)
      assert Buffer.allocated?(view)
      assert {:ok, <<_, _>>} = Buffer.read(view)
    end

    eventually(before)
  end

  test "fresh memory reads as zeros, whatever was there before" do
    for bytes <- [100, 5_000_000] do
      for _ <- 1..8, do: Buffer.full!([bytes], :u8, 0xAB)
      :erlang.garbage_collect()
      :erlang.yield()
      zeros = :binary.copy(<<0>>, bytes)
      for _ <- 1..4, do: assert(Buffer.read!(Buffer.empty!([bytes], :u8, lazy: false)) == zeros)
      partly = Buffer.empty!([bytes], :u8)
      :ok = Buffer.write(partly, <<1>>, offset: bytes - 1)
      assert Buffer.read!(partly) == binary_part(zeros, 1, bytes - 1) <> <<1>>
    end
  end

  test "a view shares its bytes at any offset, and a view of a view counts from the inner start" do
    buffer = ExCubecl.buffer!(Enum.to_list(0..99), [100], :u8)
    inner = buffer |> Buffer.view!(7, [50]) |> Buffer.view!(3, [2, 5])
    assert ExCubecl.to_list!(inner) == [[10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]
    :ok = Buffer.write(inner, Enum.to_list(200..209))
    assert Buffer.read_part!(buffer, 9, 3) == <<9, 200, 201>>
    assert Buffer.same_storage?(inner, buffer)
    assert Buffer.total_size!(inner) == 100
    assert ExCubecl.size(inner) == {:ok, 10}
  end

  test "every handle has an id of its own, and those of one storage share its id" do
    buffer = Buffer.zeros!([4], :f32)

    handles = [
      buffer,
      Buffer.clone!(buffer),
      Buffer.view!(buffer, 0, [4]),
      Buffer.reshape!(buffer, [2, 2]),
      Buffer.slice_bytes!(buffer, 1, 2)
    ]

    assert handles |> Enum.map(&Buffer.id!/1) |> Enum.uniq() |> length() == 5
    assert handles |> Enum.map(&Buffer.storage_id!/1) |> Enum.uniq() |> length() == 1
    assert Buffer.ref_count!(buffer) >= 5
    copy = Buffer.duplicate!(buffer)
    refute Buffer.same_storage?(copy, buffer)
    refute Buffer.overlap?(copy, buffer)
  end

  test "raw bytes are those of the elements" do
    buffer = ExCubecl.buffer!([1.0, -2.0], [2], :f32)
    slice = Buffer.slice_bytes!(buffer, 3, 4)
    <<_::24, expected::binary-4, _::8>> = Buffer.read!(buffer)
    assert Buffer.read!(slice) == expected
    assert ExCubecl.dtype(slice) == {:ok, "u8"}
  end

  test "bitcast views the same bytes as another type, as ndarray.view of NumPy" do
    buffer = ExCubecl.buffer!([[1.0, -0.0], [:infinity, 2.0]], [2, 2], :f32)
    bits = Buffer.bitcast!(buffer, :u32)
    assert ExCubecl.to_list!(bits) == [[0x3F800000, 0x80000000], [0x7F800000, 0x40000000]]
    assert Buffer.same_storage?(bits, buffer)
    :ok = Buffer.write(bits, [0x3F800000], offset: 1)
    assert ExCubecl.to_list!(buffer) == [[1.0, 1.0], [:infinity, 2.0]]

    for {dtype, shape} <- [
          s32: [2, 2],
          u16: [2, 4],
          bf16: [2, 4],
          s8: [2, 8],
          f64: [2, 1],
          u64: [2, 1]
        ] do
      view = Buffer.bitcast!(buffer, dtype)
      assert {view.dtype, view.shape} == {dtype, shape}
      assert Buffer.read!(view) == Buffer.read!(buffer)
    end

    assert Buffer.bitcast!(Buffer.view!(buffer, 2, []), :s32) |> ExCubecl.item!() == 0x7F800000
    assert Buffer.bitcast!(Buffer.empty!([3, 0], :f32), :f64).shape == [3, 0]
    inner = buffer |> Buffer.slice_bytes!(8, 8) |> Buffer.bitcast!(:f32)
    assert ExCubecl.to_list!(ExCubecl.Ops.add!(inner, 1)) == [:infinity, 3.0]
  end

  test "bitcast refuses parts of elements" do
    buffer = ExCubecl.buffer!([1, 2, 3], [3], :u16)
    bytes = Buffer.slice_bytes!(buffer, 1, 4)

    for {result, reason, says} <- [
          {Buffer.bitcast(buffer, :f32), :shape_mismatch,
           "the last axis of shape [3] has elements of 2 bytes"},
          {Buffer.bitcast(Buffer.view!(buffer, 0, []), :u8), :shape_mismatch,
           "a scalar of 2 bytes is no u8"},
          {Buffer.bitcast(bytes, :f32), :invalid_argument, "starts at byte 1 of its storage"},
          {Buffer.bitcast(buffer, :float), :unsupported_dtype, "float"}
        ] do
      assert {:error, error} = result

      assert {error.reason, Exception.message(error) =~ says} == {reason, true},
             Exception.message(error)
    end

    huge = Buffer.empty!([0, 0x7FFF_FFFF_FFFF_FFFF], :u8)
    assert {:error, %{reason: :shape_mismatch}} = Buffer.bitcast(huge, :u16)
  end

  test "a write replaces just its part, as list, nested list or binary" do
    buffer = Buffer.zeros!([2, 3], :s16)
    :ok = Buffer.write(buffer, [[1, 2, 3], [4, 5, 6]])
    :ok = Buffer.write(buffer, [-1], offset: 5)
    :ok = Buffer.write(buffer, <<7::16-native, 8::16-native>>, offset: 1)
    assert ExCubecl.to_list!(buffer) == [[1, 7, 8], [4, 5, -1]]
    assert Buffer.write(buffer, [], offset: 6) == :ok
  end

  test "a copy goes between any two places, also of one storage" do
    bytes = for i <- 0..255, into: <<>>, do: <<i>>
    buffer = ExCubecl.buffer!(bytes, [256], :u8)

    for {from, to, count} <- [{0, 128, 64}, {1, 200, 13}, {5, 100, 3}, {250, 10, 6}] do
      expected = Buffer.read!(Buffer.view!(buffer, from, [count]))
      :ok = Buffer.copy(Buffer.view!(buffer, from, [count]), Buffer.view!(buffer, to, [count]))
      assert Buffer.read!(Buffer.view!(buffer, to, [count])) == expected
    end

    {:ok, id} = Buffer.device(buffer)
    assert Buffer.read!(Buffer.transfer!(buffer, id)) == Buffer.read!(buffer)
  end

  test "fill and full set every element of every type" do
    for dtype <- ExCubecl.supported_dtypes() do
      buffer = Buffer.full!([11], dtype, 1)
      :ok = Buffer.fill(Buffer.view!(buffer, 3, [5]), 7)
      assert Enum.map(ExCubecl.to_list!(buffer), &trunc/1) == [1, 1, 1, 7, 7, 7, 7, 7, 1, 1, 1]
    end
  end

  test "iota counts in every type, around the end of an integer type" do
    for dtype <- ExCubecl.supported_dtypes(),
        do:
          assert(
            Enum.map(ExCubecl.to_list!(Buffer.iota!([5], dtype)), &trunc/1) == [0, 1, 2, 3, 4]
          )

    assert Buffer.read_part!(Buffer.iota!([300], :u8), 254, 4) == <<254, 255, 0, 1>>
    assert Buffer.item!(Buffer.view!(Buffer.iota!([70_000], :bf16), 257, [1])) == 256.0
  end

  test "several buffers are read together" do
    buffers = for i <- 1..20, do: Buffer.full!([i], :u8, i)
    assert Buffer.read_all!(buffers) == for(i <- 1..20, do: :binary.copy(<<i>>, i))
    assert Buffer.read_all([]) == {:ok, []}
  end

  test "only CUDA has addresses" do
    buffer = Buffer.zeros!([1], :f32)
    {:ok, {runtime, _}} = Buffer.device(buffer)

    if runtime != :cuda do
      assert reason(Buffer.pointer(buffer)) == :unsupported
      assert reason(Buffer.copy_from_pointer(buffer, 4096)) == :unsupported
      assert ExCubecl.to_list!(buffer) == [0.0]
    end

    for bad <- [-1, 1.0, nil, 0x1_0000_0000_0000_0000],
        do: assert(reason(Buffer.copy_from_pointer(buffer, bad)) == :invalid_argument)

    assert Buffer.synchronize(buffer) == :ok
    assert Buffer.synchronize(buffer.device) == :ok
    assert reason(Buffer.synchronize(:nonsense)) == :invalid_argument
  end
end
