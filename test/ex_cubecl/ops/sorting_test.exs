defmodule ExCubecl.Ops.SortingTest do
  # Sorts of random shapes and views, compared with those of Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided

  alias ExCubecl.{DType, Ops}

  @lengths [0, 1, 2, 3, 7, 8, 9, 16, 17, 40, 64, 65, 130, 300]

  setup do
    :rand.seed(:exsss, {16, 5, 2026})
    :ok
  end

  # NaN and infinities as numbers in their order; 0.0 and -0.0 are equal.
  defp key(:neg_infinity), do: {0, 0}
  defp key(:infinity), do: {2, 0}
  defp key(:nan), do: {3, 0}
  defp key(number), do: {1, if(number == 0, do: 0, else: number)}

  defp sorted(list, direction), do: Enum.sort_by(list, &key(elem(&1, 0)), direction)

  # -0.0 and 0.0 match each other in Elixir 1.14, so floats are compared by their bits.
  defp bits(list), do: Enum.map(list, &if(is_float(&1), do: <<&1::float>>, else: &1))
  defp flat(buffer), do: buffer |> Buffer.to_flat_list!() |> bits()

  # The elements of a shape, along an axis: a list of lines, whose order is that of the other coordinates.
  defp lines(elements, shape, axis) do
    coordinates(shape)
    |> Enum.zip(elements)
    |> Enum.group_by(&List.delete_at(elem(&1, 0), axis), &elem(&1, 1))
  end

  # The elements of lines in row-major order.
  defp joined(lines, shape, axis) do
    for at <- coordinates(shape) do
      {along, others} = List.pop_at(at, axis)
      Enum.at(lines[others], along)
    end
  end

  defp tensor(dtype) do
    if :rand.uniform(2) == 1 do
      view(dtype, shape(Enum.random(1..6)))
    else
      rank = Enum.random(1..3)
      axis = Enum.random(1..rank)

      shape =
        for at <- 1..rank,
            do: if(at == axis, do: Enum.random(@lengths), else: Enum.random([1, 2, 3]))

      view(dtype, shape)
    end
  end

  test "sort, argsort and top_k of all types along any axis of views" do
    for dtype <- DType.all(), _ <- 1..12 do
      {view, shape, elements} = tensor(dtype)
      # Other views have no axis left.
      if shape != [] do
        axis = Enum.random(0..(length(shape) - 1))
        direction = Enum.random([:asc, :desc])
        given = Enum.random([axis, axis - length(shape)])
        n = Enum.at(shape, axis)
        what = {dtype, shape, axis, direction}
        indexed = lines(elements, shape, axis)

        indexed =
          Map.new(indexed, fn {at, line} -> {at, sorted(Enum.with_index(line), direction)} end)

        expected = joined(indexed, shape, axis)
        opts = [axis: given, direction: direction]

        result = Ops.sort!(view, opts)
        assert {what, result.shape, result.dtype} == {what, shape, dtype}
        assert {what, flat(result)} == {what, bits(Enum.map(expected, &elem(&1, 0)))}

        index = Enum.random([:s32, :s64])
        result = Ops.argsort!(view, [dtype: index] ++ opts)
        assert {what, result.shape, result.dtype} == {what, shape, index}
        assert {what, flat(result)} == {what, Enum.map(expected, &elem(&1, 1))}

        k = Enum.random(Enum.uniq([0, min(1, n), min(3, n), min(20, n), n]))
        top = List.replace_at(shape, axis, k)
        greatest = lines(elements, shape, axis)

        greatest =
          Map.new(greatest, fn {at, line} -> {at, sorted(Enum.with_index(line), :desc)} end)

        expected = joined(greatest, top, axis)
        {values, indices} = Ops.top_k!(view, k, axis: given, dtype: index)
        assert {what, k, values.shape, values.dtype} == {what, k, top, dtype}
        assert {what, k, indices.shape, indices.dtype} == {what, k, top, index}
        assert {what, k, flat(values)} == {what, k, bits(Enum.map(expected, &elem(&1, 0)))}
        assert {what, k, flat(indices)} == {what, k, Enum.map(expected, &elem(&1, 1))}
      end
    end
  end

  test "indices of minima and maxima of all types, in both types of indices" do
    for dtype <- DType.all(), _ <- 1..6 do
      {view, shape, elements} = tensor(dtype)
      axes = for {length, axis} <- Enum.with_index(shape), length > 0, do: axis

      if axes != [] do
        axis = Enum.random(axes)
        others = List.delete_at(shape, axis)
        groups = lines(elements, shape, axis)

        for name <- [:argmin, :argmax] do
          {tie, index} = {Enum.random([:low, :high]), Enum.random([:s32, :s64])}
          result = apply(Ops, :"#{name}!", [view, [axis: axis, tie_break: tie, dtype: index]])
          expected = for at <- coordinates(others), do: place(groups[at], name, tie)
          assert {name, dtype, shape, result.shape} == {name, dtype, shape, others}
          assert {name, dtype, shape, result.dtype} == {name, dtype, shape, index}
          assert {name, dtype, shape, tie, flat(result)} == {name, dtype, shape, tie, expected}
        end
      end
    end

    refused(Ops.argmax(Buffer.zeros!([2], :s32), dtype: :u8), :invalid_argument,
      says: "argmax: invalid dtype"
    )
  end

  # NaN, which is the greatest element of a sort, is the minimum too.
  defp place(line, name, tie) do
    keys = Enum.map(line, &key/1)
    extreme = if :nan in line or name == :argmax, do: Enum.max(keys), else: Enum.min(keys)
    indices = for {^extreme, at} <- Enum.with_index(keys), do: at
    if tie == :low, do: hd(indices), else: List.last(indices)
  end

  test "distinct elements" do
    for dtype <- DType.all(), _ <- 1..6 do
      {view, shape, elements} = tensor(dtype)
      expected = elements |> Enum.map(&{&1}) |> sorted(:asc) |> Enum.dedup_by(&key(elem(&1, 0)))
      result = Ops.unique!(view)
      assert {dtype, result.dtype, result.shape} == {dtype, dtype, [length(expected)]}

      assert {dtype, shape, flat(result)} ==
               {dtype, shape, bits(Enum.map(expected, &elem(&1, 0)))}
    end
  end

  test "long lines, and many short ones" do
    for {shape, range} <- [
          {[30_000], 100_000},
          {[30_000], 5},
          {[400, 100], 1_000},
          {[3, 5_000], 50}
        ] do
      n = List.last(shape)
      list = for _ <- 1..Enum.product(shape), do: :rand.uniform(range) - div(range, 2)
      x = ExCubecl.buffer!(list, shape, :s32)
      sorted = for line <- Enum.chunk_every(list, n), do: Enum.sort(line)
      assert Buffer.to_flat_list!(Ops.sort!(x)) == Enum.concat(sorted)
      places = Buffer.to_flat_list!(Ops.argsort!(x, direction: :desc))

      expected =
        for line <- Enum.chunk_every(list, n),
            {_, place} <- Enum.sort_by(Enum.with_index(line), &elem(&1, 0), :desc),
            do: place

      assert places == expected
      {values, _} = Ops.top_k!(x, 70)

      assert Buffer.to_flat_list!(values) ==
               Enum.flat_map(sorted, &(&1 |> Enum.reverse() |> Enum.take(70)))

      assert Buffer.to_flat_list!(Ops.unique!(x)) == Enum.uniq(Enum.sort(list))
    end
  end

  # NaN of any sign and payload is one value, and stays as it is.
  test "bits of NaN and zeros" do
    words = [0x7FC00001, 0x80000000, 0xFFC00000, 0x00000000, 0x3F800000, 0xFF800000, 0x80000000]
    x = ExCubecl.buffer!(for(word <- words, into: <<>>, do: <<word::32-native>>), [7], :f32)
    read = fn buffer -> for <<word::32-native <- Buffer.read!(buffer)>>, do: word end

    assert read.(Ops.sort!(x)) ==
             [0xFF800000, 0x80000000, 0x00000000, 0x80000000, 0x3F800000, 0x7FC00001, 0xFFC00000]

    assert read.(Ops.sort!(x, direction: :desc)) ==
             [0x7FC00001, 0xFFC00000, 0x3F800000, 0x80000000, 0x00000000, 0x80000000, 0xFF800000]

    distinct = [0xFF800000, 0x80000000, 0x3F800000, 0x7FC00001]
    assert read.(Ops.unique!(x)) == distinct
    # In many chunks.
    assert read.(Ops.unique!(Ops.tile!(x, [1_000]))) == distinct
  end

  test "the input stays as it is" do
    x = ExCubecl.buffer!([3, 1, 2], [3], :s32)
    for call <- [&Ops.sort!/1, &Ops.argsort!/1, &Ops.top_k!(&1, 2), &Ops.unique!/1], do: call.(x)
    assert Buffer.to_list!(x) == [3, 1, 2]
    assert Buffer.to_list!(Ops.sort!(ExCubecl.buffer!([7], [1], :f64))) == [7.0]
  end

  test "refused arguments" do
    x = ExCubecl.buffer!([[1, 2, 3]], [1, 3], :s32)
    scalar = ExCubecl.buffer!([1], [], :s32)

    for {name, call} <- [sort: &Ops.sort/2, argsort: &Ops.argsort/2, top_k: &Ops.top_k(&1, 1, &2)] do
      refused(call.(scalar, []), :invalid_argument, says: "#{name}: invalid axis")
      refused(call.(x, axis: 2), :invalid_argument, says: "#{name}: invalid axis 2")
      refused(call.(x, axis: -3), :invalid_argument, says: "#{name}: invalid axis -3")
      refused(call.(x, axis: :x), :invalid_argument, says: "#{name}: invalid axis")
      refused(call.(x, axes: [0]), :invalid_argument, says: "axes")
      refused(call.(x, :axis), :invalid_argument)
      refused(call.(:x, []), :invalid_argument)
    end

    for {name, call} <- [sort: &Ops.sort/2, argsort: &Ops.argsort/2] do
      refused(call.(x, direction: :up), :invalid_argument, says: "#{name}: invalid direction")
      refused(call.(x, stable: 1), :invalid_argument, says: "#{name}: invalid stable")
    end

    refused(Ops.sort(x, dtype: :s64), :invalid_argument)
    refused(Ops.argsort(x, dtype: :f32), :invalid_argument, says: "argsort: invalid dtype")
    refused(Ops.top_k(x, 1, dtype: :u8), :invalid_argument, says: "top_k: invalid dtype")

    for k <- [4, -1, 1.0, nil],
        do: refused(Ops.top_k(x, k), :invalid_argument, says: "top_k: invalid k")

    refused(Ops.unique([1]), :invalid_argument)
    refused(Ops.sort(Buffer.empty!([3], :f32)), :not_allocated)
  end
end
