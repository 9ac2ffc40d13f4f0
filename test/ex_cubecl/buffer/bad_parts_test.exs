defmodule ExCubecl.BadPartsTest do
  # Views, reads, writes and copies that are out of range: the error has the numbers, and not one byte of
  # the buffer or of its neighbours in the same storage changes.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  @most Integer.pow(2, 64) - 1

  setup do
    whole = ExCubecl.buffer!(Enum.to_list(100..119), [20], :s16)
    buffer = Buffer.view!(whole, 5, [2, 5])
    %{whole: whole, buffer: buffer, bytes: Buffer.read!(whole)}
  end

  test "views past the end", %{buffer: buffer} = context do
    for {offset, shape, count} <- [
          {0, [11], 11},
          {0, [3, 4], 12},
          {1, [10], 10},
          {10, [1], 1},
          {11, [0], 0},
          {9, {2, 1}, 2},
          {Integer.pow(2, 32), [1], 1},
          {Integer.pow(2, 63), [1], 1},
          {@most, [0], 0},
          {@most, [1], 1},
          {@most - 1, [2], 2},
          {5, [Integer.pow(2, 62) - 1], Integer.pow(2, 62) - 1}
        ] do
      refused(Buffer.view(buffer, offset, shape), :out_of_bounds,
        details: [offset: offset, count: count, size: 10],
        says: [offset, count, "10"]
      )
    end

    unchanged(context)
  end

  test "raw bytes past the end", %{buffer: buffer} = context do
    for {offset, length} <- [
          {0, 21},
          {20, 1},
          {21, 0},
          {19, 2},
          {@most, 1},
          {1, @most},
          {@most, @most}
        ] do
      refused(Buffer.slice_bytes(buffer, offset, length), :out_of_bounds,
        details: [offset: offset, count: length, size: 20],
        says: [offset, length, "20"]
      )
    end

    unchanged(context)
  end

  test "reads of a part past the end", %{buffer: buffer} = context do
    for {offset, count} <- [
          {0, 11},
          {10, 1},
          {11, 0},
          {9, 2},
          {@most, 1},
          {1, @most},
          {@most, @most}
        ] do
      refused(Buffer.read_part(buffer, offset, count), :out_of_bounds,
        details: [offset: offset, count: count, size: 10],
        says: [offset, count, "10"]
      )
    end

    unchanged(context)
  end

  test "offsets and counts that are none", %{buffer: buffer} = context do
    for term <- [-1, -Integer.pow(2, 70), 1.0, 0.0, nil, false, :a, "1", [0], {0}, make_ref()] do
      refused(Buffer.view(buffer, term, [1]), :invalid_argument, details: [argument: :offset])

      refused(Buffer.slice_bytes(buffer, term, 1), :invalid_argument, details: [argument: :offset])

      refused(Buffer.slice_bytes(buffer, 0, term), :invalid_argument, details: [argument: :count])

      refused(Buffer.read_part(buffer, term, 1), :invalid_argument, details: [argument: :offset])
      refused(Buffer.read_part(buffer, 0, term), :invalid_argument, details: [argument: :count])

      unless term == nil,
        do:
          refused(Buffer.write(buffer, [1], offset: term), :invalid_argument,
            details: [value: term]
          )
    end

    refused(Buffer.view(buffer, -1, [1]), :invalid_argument, says: ["-1", "non-negative"])
    unchanged(context)
  end

  test "numbers past 64 bits are as far out as any other", %{buffer: buffer} = context do
    for huge <- [@most + 1, Integer.pow(2, 70), Integer.pow(10, 40)] do
      for {call, count, size} <- [
            {&Buffer.view(&1, huge, [2]), 2, 10},
            {&Buffer.slice_bytes(&1, huge, 1), 1, 20},
            {&Buffer.slice_bytes(&1, 0, huge), huge, 20},
            {&Buffer.read_part(&1, huge, 1), 1, 10},
            {&Buffer.read_part(&1, 0, huge), huge, 10},
            {&Buffer.write(&1, [1], offset: huge), 1, 10},
            {&Buffer.write(&1, <<1, 2>>, offset: huge), 1, 10}
          ],
          do: refused(call.(buffer), :out_of_bounds, says: [huge, count, size])
    end

    unchanged(context)
  end

  test "a write of the whole that has another size", %{buffer: buffer} = context do
    for count <- [0, 1, 9, 11, 1000] do
      refused(Buffer.write(buffer, List.duplicate(1, count)), :shape_mismatch,
        details: [expected: 10, actual: count],
        says: ["10", count]
      )
    end

    for size <- [0, 1, 18, 19, 21, 22, 1000] do
      refused(Buffer.write(buffer, :binary.copy(<<1>>, size)), :shape_mismatch,
        details: [expected_bytes: 20, actual_bytes: size],
        says: ["20", size]
      )
    end

    for ragged <- [[[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5], [6, 7, 8, 9]], [[1], [2]], [[], []]],
        do: refused(Buffer.write(buffer, ragged), :shape_mismatch, says: "[2, 5]")

    unchanged(context)
  end

  test "a write of a part past the end", %{buffer: buffer} = context do
    for {offset, count} <- [{0, 11}, {1, 10}, {9, 2}, {10, 1}, {11, 0}, {@most, 1}, {@most, 0}] do
      refused(Buffer.write(buffer, List.duplicate(1, count), offset: offset), :out_of_bounds,
        details: [offset: offset, count: count, size: 10],
        says: [offset, count, "10"]
      )

      refused(
        Buffer.write(buffer, :binary.copy(<<1>>, 2 * count), offset: offset),
        :out_of_bounds,
        details: [offset: offset, count: count, size: 10],
        says: [offset, count, "10"]
      )
    end

    for size <- [1, 3, 19],
        do:
          refused(Buffer.write(buffer, :binary.copy(<<1>>, size), offset: 0), :shape_mismatch,
            says: size
          )

    unchanged(context)
  end

  test "a write of elements that do not fit changes nothing before them",
       %{buffer: buffer} = context do
    for {data, opts, index} <- [
          {[1, 2, 3, 4, 5, 6, 7, 8, 9, 32_768], [], 9},
          {[[1, 2, 3, 4, 5], [6, 7, 8, 9, 1.5]], [], 9},
          {[1, 2, :nan], [offset: 1], 2},
          {[1, nil], [offset: 8], 1},
          {[-32_769], [offset: 9], 0}
        ],
        do:
          refused(Buffer.write(buffer, data, opts), :invalid_value,
            details: [index: index],
            says: index
          )

    for {data, opts} <- [{[1 | 2], []}, {[1 | 2], [offset: 0]}, {[[1, 2, 3, 4, 5] | 1], []}],
        do: refused(Buffer.write(buffer, data, opts), :invalid_argument, says: "improper")

    for data <- [nil, 5, :nan, {1}, %{}, <<1::3>>, self()],
        opts <- [[], [offset: 0]],
        do: refused(Buffer.write(buffer, data, opts), :invalid_argument, details: [value: data])

    unchanged(context)
  end

  test "a fill with something else", %{buffer: buffer} = context do
    for value <- [
          32_768,
          -32_769,
          1.0,
          :nan,
          :infinity,
          nil,
          "1",
          [1],
          {1},
          %{},
          <<1::3>>,
          make_ref()
        ],
        do:
          refused(Buffer.fill(buffer, value), :invalid_value, details: [value: value], says: "s16")

    for value <- [256, -1, 0.5, :nan, nil],
        do:
          refused(Buffer.full([3], :u8, value), :invalid_value,
            details: [value: value, dtype: :u8]
          )

    unchanged(context)
  end

  test "copies of another type or count", %{buffer: buffer} = context do
    for dtype <- ExCubecl.supported_dtypes(), dtype != :s16 do
      other = Buffer.zeros!([10], dtype)

      refused(Buffer.copy(other, buffer), :type_mismatch,
        details: [expected: :s16, actual: dtype],
        says: ["s16", dtype]
      )

      refused(Buffer.copy(buffer, other), :type_mismatch, says: ["s16", dtype, "convert"])
      assert Buffer.read!(other) == Buffer.read!(Buffer.zeros!([10], dtype))
    end

    for count <- [0, 1, 9, 11] do
      other = Buffer.zeros!([count], :s16)

      refused(Buffer.copy(other, buffer), :shape_mismatch,
        details: [expected: 10, actual: count],
        says: ["10", count]
      )

      refused(Buffer.copy(buffer, other), :shape_mismatch, details: [expected: count, actual: 10])
      assert Buffer.read!(other) == :binary.copy(<<0, 0>>, count)
    end

    unchanged(context)
  end

  test "copies within one storage whose places overlap",
       %{whole: whole, buffer: buffer} = context do
    refused(Buffer.copy(buffer, buffer), :overlap, says: "share")
    refused(Buffer.copy(buffer, Buffer.clone!(buffer)), :overlap)
    refused(Buffer.copy(buffer, Buffer.reshape!(buffer, [10])), :overlap)

    for distance <- 1..9, {one, other} <- [{0, distance}, {distance, 0}] do
      [from, to] = for offset <- [one, other], do: Buffer.view!(whole, offset, [10])
      assert Buffer.overlap?(from, to)
      refused(Buffer.copy(from, to), :overlap)
    end

    unchanged(context)
  end

  test "a copy of nothing onto itself is refused or done, and never fails", %{whole: whole} do
    nothing = Buffer.view!(whole, 3, [0])
    refute Buffer.overlap?(nothing, nothing)
    assert Buffer.copy(nothing, nothing) == :ok
  end

  test "another number of elements is no other shape", %{buffer: buffer} = context do
    for {shape, count} <- [{[], 1}, {[9], 9}, {[11], 11}, {{3, 3}, 9}, {[0], 0}, {[10, 0], 0}] do
      refused(Buffer.reshape(buffer, shape), :shape_mismatch,
        details: [expected: count, actual: 10],
        says: [count, "10"]
      )
    end

    unchanged(context)
  end

  test "one element of several, or of none", %{buffer: buffer} do
    refused(Buffer.item(buffer), :shape_mismatch, details: [expected: 1, actual: 10], says: "10")
    refused(Buffer.item(Buffer.zeros!([0], :u8)), :shape_mismatch, details: [actual: 0])
    refused(ExCubecl.item(Buffer.zeros!([2, 1], :u8)), :shape_mismatch, details: [actual: 2])
  end

  test "what was never written cannot be read, by any way, and stays without memory" do
    lazy = Buffer.empty!([10], :s16)
    before = settled()

    for source <- [
          lazy,
          Buffer.view!(lazy, 3, [1]),
          Buffer.slice_bytes!(lazy, 1, 1)
        ] do
      for call <- [
            &Buffer.read/1,
            &Buffer.read_part(&1, 0, 1),
            &Buffer.to_list/1,
            &Buffer.to_flat_list/1,
            &Buffer.duplicate/1,
            &Buffer.convert(&1, :f32),
            &Buffer.convert(&1, &1.dtype),
            &Buffer.transfer(&1, nil),
            &Buffer.read_async/1,
            &Buffer.read_all([&1]),
            &Buffer.copy(&1, Buffer.zeros!(&1.shape, &1.dtype))
          ],
          do: refused(call.(source), :not_allocated, says: "written")
    end

    # Reading no elements of an unwritten buffer is allowed.
    assert Buffer.read_part(lazy, 0, 0) == {:ok, ""}
    assert Buffer.read(Buffer.view!(lazy, 0, [0])) == {:ok, ""}
    refute Buffer.allocated?(lazy)
    eventually(before)
  end

  defp unchanged(%{whole: whole, buffer: buffer, bytes: bytes}) do
    assert Buffer.read!(whole) == bytes
    assert Buffer.read!(buffer) == binary_part(bytes, 10, 20)
  end
end
