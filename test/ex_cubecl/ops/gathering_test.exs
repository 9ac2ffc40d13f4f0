defmodule ExCubecl.Ops.GatheringTest do
  # Reads at indices, compared with plain Elixir on random shapes, types and indices.
  use ExCubecl.Case, async: true

  import ExCubecl.Indexing
  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1, position: 2, shape: 1, values: 2]

  alias ExCubecl.Ops

  @dtypes ExCubecl.DType.all()

  setup do
    :rand.seed(:exsss, {16, 1, 2026})
    :ok
  end

  defp random(dtype, shape),
    do: ExCubecl.buffer!(values(dtype, Enum.product(shape)), shape, dtype)

  # The bytes of a result, whose elements are those of the source at some positions, or zeros.
  defp assert_read(what, result, source, shape, positions) do
    assert {what, result.shape, result.dtype} == {what, shape, source.dtype}
    zero = :binary.copy(<<0>>, ExCubecl.DType.size!(source.dtype))
    known = List.to_tuple(elements(source))
    expected = for at <- positions, do: if(at, do: elem(known, at), else: zero)
    assert {what, elements(result)} == {what, expected}
  end

  test "gather_nd of every type, with any axes and types of indices" do
    for dtype <- @dtypes, _ <- 1..8 do
      shape = shape(Enum.random(0..6))
      axes = axes(shape)
      batch = shape(Enum.random(0..3))
      {indices, vectors} = vectors(batch, shape, axes, true)
      source = random(dtype, shape)
      rest = Enum.to_list(0..(length(shape) - 1)//1) -- axes
      result = Ops.gather_nd!(source, indices, axes: axes)
      expected = batch ++ Enum.map(rest, &Enum.at(shape, &1))
      positions = positions(vectors, shape, axes)
      assert_read({dtype, shape, axes, batch, vectors}, result, source, expected, positions)
    end
  end

  test "take and gather along any axis" do
    for dtype <- @dtypes, _ <- 1..6 do
      shape = shape(Enum.random(1..5))
      axis = :rand.uniform(length(shape)) - 1
      {indices, numbers} = indices(shape(Enum.random(0..3)), Enum.at(shape, axis), true)
      source = random(dtype, shape)
      {before, [n | behind]} = Enum.split(shape, axis)

      positions =
        for outer <- coordinates(before), at <- numbers, inner <- coordinates(behind) do
          if at in 0..(n - 1)//1, do: position(outer ++ [at] ++ inner, shape)
        end

      what = {dtype, shape, axis, numbers}
      taken = Ops.take!(source, indices, axis: axis - length(shape))
      assert_read(what, taken, source, before ++ indices.shape ++ behind, positions)
      gathered = Ops.gather!(source, indices, axis: axis)
      assert_read(what, gathered, source, before ++ [length(numbers)] ++ behind, positions)
    end
  end

  test "take_along_axis along any axis" do
    for dtype <- @dtypes, _ <- 1..6 do
      shape = shape(Enum.random(1..5))
      axis = :rand.uniform(length(shape)) - 1
      to = List.replace_at(shape, axis, Enum.random(0..4))
      {indices, numbers} = indices(to, Enum.at(shape, axis), true)
      source = random(dtype, shape)

      positions =
        for {at, index} <- Enum.zip(coordinates(to), numbers),
            do:
              if(index in 0..(Enum.at(shape, axis) - 1)//1,
                do: position(List.replace_at(at, axis, index), shape)
              )

      taken = Ops.take_along_axis!(source, indices, axis: axis)
      assert_read({dtype, shape, axis, numbers}, taken, source, to, positions)
    end
  end

  test "views are read through their strides" do
    for _ <- 1..40 do
      {view, shape, _} = ExCubecl.Strided.view(:s32, shape(Enum.random(1..4)))
      axes = axes(shape)
      {indices, _} = vectors([3], shape, axes, true)
      copy = ExCubecl.View.to_buffer!(view)
      read = &elements(Ops.gather_nd!(&1, indices, axes: axes))
      assert {shape, axes, read.(view)} == {shape, axes, read.(copy)}

      if shape != [] do
        {indices, _} = indices([2, 2], hd(shape), true)
        columns = ExCubecl.View.transpose!(indices)

        assert elements(Ops.take!(view, columns)) ==
                 elements(Ops.take!(copy, ExCubecl.View.to_buffer!(columns)))
      end
    end
  end

  test "with check, the first index out of bounds is an error, with its position and axis" do
    x = ExCubecl.Buffer.iota!([2, 300, 4], :s32)

    for dtype <- [:s8, :s16, :s32, :s64] do
      indices = ExCubecl.buffer!([0, 1, 1, 3, -1, 0, 9, 9], [2, 2, 2], dtype)

      refused(Ops.gather_nd(x, indices, axes: [0, 2], check: true), :out_of_bounds,
        details: %{index: -1, position: [1, 0, 0], axis: 0, size: 2},
        says:
          "gather_nd: index -1 at position [1, 0, 0] of the indices is outside of axis 0, which has 2 elements"
      )
    end

    for dtype <- [:u8, :u16, :u32, :u64] do
      indices = ExCubecl.buffer!([1, 3, 2, 4], [4], dtype)

      refused(Ops.take(x, indices, axis: 2, check: true), :out_of_bounds,
        details: %{index: 4, position: [3], axis: 2, size: 4}
      )

      assert Ops.take!(x, indices, axis: 1, check: true).shape == [2, 4, 4]
    end

    far = ExCubecl.buffer!([4_294_967_296], [1], :u64)
    refused(Ops.take(x, far, check: true), :out_of_bounds, details: %{index: 4_294_967_296})
    assert Buffer.to_flat_list!(Ops.take!(Buffer.iota!([3], :u8), far)) == [0]
    none = ExCubecl.buffer!([], [0, 1], :s32)
    assert Ops.gather_nd!(x, none, check: true).shape == [0, 300, 4]
  end

  test "arguments that do not fit are refused" do
    x = ExCubecl.Buffer.iota!([2, 3], :s32)
    at = ExCubecl.buffer!([[0, 1]], [1, 2], :s32)
    refused(Ops.gather_nd(x, at, axes: [0]), :invalid_argument, says: "gather_nd: invalid axes")
    refused(Ops.gather_nd(x, at, axes: [0, 0]), :invalid_argument, says: "at most once")

    refused(Ops.gather_nd(x, at, axes: [0, 2]), :invalid_argument, says: "gather_nd: invalid axis")

    refused(Ops.gather_nd(x, at, axes: :all), :invalid_argument, says: "a list of axes")
    refused(Ops.gather_nd(x, at, axis: 0), :invalid_argument)
    refused(Ops.gather_nd(x, at, check: 1), :invalid_argument, says: "gather_nd: invalid check")
    refused(Ops.gather_nd(x, :no), :invalid_argument)
    refused(Ops.gather_nd(x, ExCubecl.buffer!([1.0], [1], :f32)), :type_mismatch)
    deep = ExCubecl.buffer!([[0, 1, 2]], [1, 3], :s32)

    refused(Ops.gather_nd(x, deep), :shape_mismatch,
      says: "gather_nd: shape [2, 3] has fewer axes"
    )

    scalar = ExCubecl.buffer!([0], [], :s32)
    refused(Ops.gather_nd(x, scalar), :shape_mismatch, says: "gather_nd")
    refused(Ops.take(scalar, at), :invalid_argument, says: "take: invalid axis")
  end

  test "one_hot" do
    for dtype <- @dtypes, _ <- 1..3 do
      shape = shape(Enum.random(0..4))
      length = Enum.random(0..5)
      {indices, numbers} = indices(shape, length, true)
      axis = Enum.random(0..length(shape))
      result = Ops.one_hot!(indices, length, axis: axis, dtype: dtype)
      assert {result.shape, result.dtype} == {List.insert_at(shape, axis, length), dtype}
      at = shape |> coordinates() |> Enum.zip(numbers) |> Map.new()

      expected =
        for to <- coordinates(result.shape),
            do: if(at[List.delete_at(to, axis)] == Enum.at(to, axis), do: 1, else: 0)

      assert Buffer.to_flat_list!(result) == expected
    end

    x = ExCubecl.buffer!([0, 3], [2], :s64)
    assert Ops.one_hot!(x, 4).dtype == :u8

    refused(Ops.one_hot(x, 3, check: true), :out_of_bounds,
      says: "one_hot: index 3",
      details: %{size: 3}
    )

    refused(Ops.one_hot(x, -1), :invalid_argument, says: "one_hot: invalid length")
    refused(Ops.one_hot(x, 3, axis: 2), :invalid_argument, says: "one_hot: invalid axis")
    refused(Ops.one_hot(x, 3, dtype: :f8), :unsupported_dtype)
    refused(Ops.one_hot(ExCubecl.buffer!([0.5], [1], :f16), 3), :type_mismatch)
  end
end
