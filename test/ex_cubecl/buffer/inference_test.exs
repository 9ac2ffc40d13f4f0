defmodule ExCubecl.Buffer.InferenceTest do
  # The shape and the element type that follow from nested data.
  use ExCubecl.Case, async: true

  doctest ExCubecl.Buffer.Inference

  defp made({:ok, %Buffer{shape: shape, dtype: dtype} = buffer}),
    do: {shape, dtype, ExCubecl.to_list!(buffer)}

  defp says({:error, error}), do: Exception.message(error)

  test "integers are s32, floats and mixed numbers f32" do
    assert made(ExCubecl.buffer([1, 2, 3])) == {[3], :s32, [1, 2, 3]}
    assert made(ExCubecl.buffer([[1.0, 2.0]])) == {[1, 2], :f32, [[1.0, 2.0]]}
    assert made(ExCubecl.buffer([1, 2.5, 3])) == {[3], :f32, [1.0, 2.5, 3.0]}
    assert made(ExCubecl.buffer([[1], [:nan]])) == {[2, 1], :f32, [[1.0], [:nan]]}
    assert made(ExCubecl.buffer(7)) == {[], :s32, 7}
    assert made(ExCubecl.buffer(:infinity)) == {[], :f32, :infinity}
    assert made(ExCubecl.buffer([])) == {[0], :f32, []}
    assert made(ExCubecl.buffer([[], []])) == {[2, 0], :f32, [[], []]}
    assert made(ExCubecl.buffer([[[1, 2], [3, 4]]])) == {[1, 2, 2], :s32, [[[1, 2], [3, 4]]]}
    assert made(Buffer.new([1, 2])) == {[2], :s32, [1, 2]}
  end

  test "a shape, an element type and options may be given" do
    device = ExCubecl.default_device!()
    assert made(ExCubecl.buffer([1, 2, 3, 4], [2, 2])) == {[2, 2], :s32, [[1, 2], [3, 4]]}
    assert made(ExCubecl.buffer([1, 2], {2, 1})) == {[2, 1], :s32, [[1], [2]]}
    assert made(ExCubecl.buffer([[1, 2]], :u8)) == {[1, 2], :u8, [[1, 2]]}
    assert made(ExCubecl.buffer([1], device: device)) == {[1], :s32, [1]}
    assert made(ExCubecl.buffer([1], :f64, device: device)) == {[1], :f64, [1.0]}
    assert made(ExCubecl.buffer([1.5], {1, 1}, tag: :a)) == {[1, 1], :f32, [[1.5]]}
    assert made(ExCubecl.buffer(5, [])) == {[], :s32, 5}
    assert ExCubecl.buffer!([1], tag: :b).shape == [1]
    assert Buffer.new!([1], :u8, device: device).dtype == :u8
  end

  test "buffer/3 with a shape and an element type infers nothing" do
    assert made(ExCubecl.buffer([1, 2], [2], :f32)) == {[2], :f32, [1.0, 2.0]}
    assert says(ExCubecl.buffer([[1, 2], [3]], [2, 2], :f32)) =~ "but shape [2, 2] needs 2 there"
    assert says(ExCubecl.buffer([1], [1], nil)) =~ "nil is no element type"
    assert says(ExCubecl.buffer([1], [1], [])) =~ "[] is no element type"
  end

  test "a ragged list is an error that names the index where it is ragged" do
    for {data, text} <- [
          {[[1, 2], [3]],
           "the row at index [1] has 1 element, and the first row at this depth has 2"},
          {[[[1], [2]], [[3], [4, 5]]],
           "the row at index [1, 1] has 2 elements, and the first row at this depth has 1"},
          {[[], [1]],
           "the row at index [1] has 1 element, and the first row at this depth has 0"},
          {[[1], 2], "at index [1] is 2, where the first row has a row of 1"},
          {[1, [2]], "at index [1] is [2], where the first row has a number"},
          {[[1, 2], [3, [100]]], "at index [1, 1] is [100], where the first row has a number"},
          {List.duplicate([1], 100) ++ [[1, 100]],
           "the row at index [100] has 2 elements, and the first row at this depth has 1"}
        ] do
      assert says(ExCubecl.buffer(data)) == "buffer: the data is ragged: " <> text
      assert reason(ExCubecl.buffer(data)) == :shape_mismatch
    end
  end

  test "other data is an error that says what is expected" do
    for {data, text} <- [
          {<<1, 2>>,
           "buffer: invalid data <<1, 2>>: expected a nested list, or a shape and an element type behind the binary"},
          {:a,
           "buffer: invalid data :a: expected a list of numbers, nested as the shape, or a number"},
          {[1 | 2], "buffer: the data is an improper list: expected a list that ends with []"},
          {[[1 | 2]], "buffer: the data is an improper list: expected a list that ends with []"},
          {[[1], [1 | 2]],
           "buffer: the data is an improper list: expected a list that ends with []"},
          {[3_000_000_000],
           "buffer: element 0 of the data is 3000000000, which s32 cannot hold: expected an integer from -2147483648 to 2147483647; :s64 holds it"},
          {[1, :b],
           "buffer: element 1 of the data is :b, which f32 cannot hold: expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity"}
        ],
        do: assert(says(ExCubecl.buffer(data)) == text)

    deep = Enum.reduce(1..70, 1, fn _, list -> [list] end)
    assert says(ExCubecl.buffer(deep)) =~ "the shape has 65 axes"
    assert says(ExCubecl.buffer([1], "f32")) =~ "did you mean :f32?"
    assert says(ExCubecl.buffer([1], {:f, 32})) =~ "did you mean :f32?"
    assert says(ExCubecl.buffer([1], tagg: 1)) =~ "invalid option :tagg"
  end
end
