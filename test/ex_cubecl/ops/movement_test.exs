defmodule ExCubecl.Ops.MovementTest do
  # Operations that move elements, compared with plain Elixir on random shapes.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1, position: 2, shape: 1]

  alias ExCubecl.Ops

  setup do
    :rand.seed(:exsss, {4, 16, 2026})
    :ok
  end

  defp flat(buffer), do: Buffer.to_flat_list!(buffer)
  defp ints(shape), do: Buffer.iota!(shape, :s32)
  defp each(shape, fun), do: for(at <- coordinates(shape), do: fun.(at))
  defp axes(shape), do: Enum.to_list(0..(length(shape) - 1)//1)

  test "slices, with steps and dynamic starts" do
    for _ <- 1..60 do
      shape = shape(Enum.random(0..4))
      starts = for n <- shape, do: Enum.random(0..n)
      lengths = for {n, start} <- Enum.zip(shape, starts), do: Enum.random(0..(n - start))
      steps = for _ <- shape, do: Enum.random(1..3)

      given =
        for start <- starts,
            do: if(:rand.uniform(2) == 1, do: start, else: ExCubecl.buffer!([start], [], :s64))

      result = Ops.slice!(ints(shape), given, lengths, strides: steps)
      counts = for {length, step} <- Enum.zip(lengths, steps), do: div(length + step - 1, step)
      assert result.shape == counts

      assert flat(result) ==
               each(counts, fn at ->
                 [starts, steps, at]
                 |> Enum.zip_with(fn [start, step, at] -> start + step * at end)
                 |> position(shape)
               end)
    end

    x = ints([5])

    for {start, first} <- [{-3, 0}, {9, 3}],
        do: assert(flat(Ops.slice!(x, [scalar(start)], [2])) == [first, first + 1])

    refused(Ops.slice(x, [4], [2]), :out_of_bounds,
      says: "slice: a range of 2 from 4 on is not inside of axis 0"
    )

    refused(Ops.slice(x, [-1], [2]), :invalid_argument, says: "slice: invalid starts")
    refused(Ops.slice(x, [0, 0], [2]), :invalid_argument, says: "slice: invalid starts")
    refused(Ops.slice(x, [0], [-2]), :invalid_argument, says: "slice: invalid lengths")

    refused(Ops.slice(x, [0], [2], strides: [0]), :invalid_argument,
      says: "slice: invalid strides"
    )

    refused(Ops.slice(x, [ints([2])], [2]), :shape_mismatch)
    refused(Ops.slice(x, [ExCubecl.buffer!([0.5], [], :f32)], [2]), :invalid_argument)
  end

  defp scalar(number), do: ExCubecl.buffer!([number], [1], :s32)

  test "put_slice" do
    for _ <- 1..40 do
      shape = shape(Enum.random(0..4))
      starts = for n <- shape, do: Enum.random(0..n)
      lengths = for {n, start} <- Enum.zip(shape, starts), do: Enum.random(0..(n - start))
      source = Ops.subtract!(-1, ints(lengths))

      expected =
        each(shape, fn at ->
          within = for {at, start} <- Enum.zip(at, starts), do: at - start
          inside? = Enum.all?(Enum.zip(within, lengths), fn {at, n} -> at >= 0 and at < n end)
          if inside?, do: -1 - position(within, lengths), else: position(at, shape)
        end)

      assert flat(Ops.put_slice!(ints(shape), starts, source)) == expected
    end

    x = ints([3])

    assert flat(Ops.put_slice!(x, [scalar(7)], ExCubecl.buffer!([1.5], [1], :f32))) == [
             0.0,
             1.0,
             1.5
           ]

    assert flat(x) == [0, 1, 2]
    refused(Ops.put_slice(x, [3], ints([1])), :out_of_bounds, says: "put_slice")

    refused(Ops.put_slice(x, [0], ints([1, 1])), :shape_mismatch,
      says: "put_slice: shapes [3] and [1, 1]"
    )
  end

  test "pad with low, high and interior, also negative" do
    for _ <- 1..80 do
      shape = shape(Enum.random(0..3))
      config = for _ <- shape, do: {Enum.random(-3..3), Enum.random(-3..3), Enum.random(0..2)}

      lengths =
        for {n, {low, high, inner}} <- Enum.zip(shape, config),
            do: n + max(n - 1, 0) * inner + low + high

      if Enum.any?(lengths, &(&1 < 0)) do
        refused(Ops.pad(ints(shape), -1, config), :invalid_argument, says: "pad: invalid padding")
      else
        result = Ops.pad!(ints(shape), -1, config)
        assert {config, result.shape} == {config, lengths}

        expected =
          each(lengths, fn at ->
            from = for {at, {low, _, inner}} <- Enum.zip(at, config), do: {at - low, inner + 1}

            hit? =
              Enum.all?(Enum.zip(from, shape), fn {{at, step}, n} ->
                at >= 0 and rem(at, step) == 0 and div(at, step) < n
              end)

            if hit?,
              do: position(Enum.map(from, fn {at, step} -> div(at, step) end), shape),
              else: -1
          end)

        assert {shape, config, flat(result)} == {shape, config, expected}
      end
    end

    refused(Ops.pad(ints([2]), 0, [{0, 0, -1}]), :invalid_argument, says: "pad")
    refused(Ops.pad(ints([2]), 0, [{0, 0}]), :invalid_argument)
    refused(Ops.pad(ints([2]), 0, []), :invalid_argument)
  end

  test "reverse, tile, stack, concatenate and split" do
    for _ <- 1..40 do
      shape = shape(Enum.random(1..4))
      x = ints(shape)
      axis = Enum.random(axes(shape))
      n = Enum.at(shape, axis)
      turned = Ops.reverse!(x, axis: axis - length(shape))

      assert flat(turned) ==
               each(shape, &position(List.update_at(&1, axis, fn at -> n - 1 - at end), shape))

      counts = for _ <- shape, do: Enum.random(0..2)
      tiled = Ops.tile!(x, [2 | counts])
      assert tiled.shape == [2 | Enum.zip_with(counts, shape, &*/2)]

      assert flat(tiled) ==
               each(tiled.shape, fn [_ | at] ->
                 at |> Enum.zip_with(shape, &rem/2) |> position(shape)
               end)

      both = Ops.concatenate!([x, turned], axis: axis)
      assert Enum.map(Ops.split!(both, 2, axis: axis), &flat/1) == [flat(x), flat(turned)]
      [a, b] = Ops.split!(both, [0, 2 * n], axis: axis)
      assert {a.shape, flat(b)} == {List.replace_at(shape, axis, 0), flat(both)}
      stacked = Ops.stack!([x, turned], axis: axis)
      assert stacked.shape == List.insert_at(shape, axis, 2)
      list = [flat(x), flat(turned)]

      assert flat(stacked) ==
               each(stacked.shape, fn at ->
                 {which, at} = List.pop_at(at, axis)
                 Enum.at(Enum.at(list, which), position(at, shape))
               end)
    end

    x = ints([2, 3])

    refused(Ops.stack([x, ints([3, 2])]), :shape_mismatch, says: "stack: shapes [2, 3] and [3, 2]")

    refused(Ops.stack([x, Buffer.iota!([2, 3], :f32)]), :type_mismatch)
    refused(Ops.stack([x], axis: 3), :invalid_argument, says: "stack: invalid axis 3")
    refused(Ops.split(x, 2, axis: 1), :invalid_argument, says: "split: invalid parts 2")
    refused(Ops.split(x, [1, 3], axis: 1), :invalid_argument, says: "split")
    refused(Ops.reverse(x, axes: [0, 0]), :invalid_argument, says: "reverse: invalid axes")
    refused(Ops.tile(x, [-1]), :invalid_shape)
  end

  test "eye and iota" do
    assert Buffer.to_list!(Ops.eye!(2, :u8)) == [[1, 0], [0, 1]]
    assert Buffer.to_list!(Ops.eye!({3, 2}, :f32)) == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert Ops.eye!([0, 2], :f32).shape == [0, 2]
    refused(Ops.eye([2], :f32), :invalid_argument, says: "eye")
    shape = [2, 3, 4]

    for axis <- 0..2,
        do: assert(flat(Ops.iota!(shape, :s32, axis: axis)) == each(shape, &Enum.at(&1, axis)))

    assert flat(Ops.iota!([2, 2], :f32)) == [0.0, 1.0, 2.0, 3.0]
    refused(Ops.iota([2], :f32, axis: 1), :invalid_argument, says: "iota: invalid axis 1")
  end

  test "cumulative operations in both directions" do
    for _ <- 1..20 do
      shape = for _ <- 1..Enum.random(1..3), do: Enum.random([0, 1, 3, 70, 130])
      shape = if Enum.product(shape) > 30_000, do: Enum.take(shape, 2), else: shape
      list = for _ <- 1..Enum.product(shape)//1, do: Enum.random(-9..9)
      x = ExCubecl.buffer!(list, shape, :s64)
      axis = Enum.random(axes(shape))
      elements = Enum.zip(coordinates(shape), list)
      rows = Enum.group_by(elements, &List.delete_at(elem(&1, 0), axis), &elem(&1, 1))

      for {name, fun} <- [sum: &+/2, product: &wrapped/2, min: &min/2, max: &max/2],
          reverse <- [false, true] do
        scans =
          Map.new(rows, fn {at, row} ->
            row = if reverse, do: Enum.reverse(row), else: row
            row = Enum.scan(row, fun)
            {at, List.to_tuple(if reverse, do: Enum.reverse(row), else: row)}
          end)

        result = apply(Ops, :"cumulative_#{name}!", [x, [axis: axis, reverse: reverse]])

        expected =
          each(shape, fn at -> elem(scans[List.delete_at(at, axis)], Enum.at(at, axis)) end)

        assert {name, reverse, flat(result)} == {name, reverse, expected}
      end
    end

    ones = Buffer.full!([5000], :f16, 1)

    assert ones |> Ops.cumulative_sum!(reverse: true) |> Ops.reduce_max!() |> Buffer.item!() ==
             5000.0

    refused(Ops.cumulative_max(ones, axis: 1), :invalid_argument,
      says: "cumulative_max: invalid axis 1"
    )

    refused(Ops.cumulative_min(ones, reverse: 1), :invalid_argument, says: "cumulative_min")
  end

  # As 64-bit integers multiply.
  defp wrapped(a, b) do
    <<product::signed-64>> = <<a * b::64>>
    product
  end

  test "take and take_along_axis" do
    x = ints([3, 4])
    at = ExCubecl.buffer!([[2, 0], [-1, 9]], [2, 2], :s64)

    assert Buffer.to_list!(Ops.take!(x, at)) == [
             [[8, 9, 10, 11], [0, 1, 2, 3]],
             [[0, 0, 0, 0], [0, 0, 0, 0]]
           ]

    assert Ops.take!(x, at, axis: 1).shape == [3, 2, 2]

    refused(Ops.take(x, at, check: true), :out_of_bounds,
      says: "take: index -1 at position [1, 0]"
    )

    columns = ExCubecl.buffer!([[3, 0], [1, 1], [2, 7]], [3, 2], :u8)
    assert Buffer.to_list!(Ops.take_along_axis!(x, columns, axis: 1)) == [[3, 0], [5, 5], [10, 0]]

    refused(Ops.take_along_axis(x, columns, axis: 1, check: true), :out_of_bounds, says: "index 7")

    refused(Ops.take_along_axis(x, columns), :shape_mismatch, says: "take_along_axis: shapes")
    refused(Ops.gather(x, ExCubecl.buffer!([4], [1], :s32), axis: 1, check: true), :out_of_bounds)
    refused(Ops.take(x, at, check: 1), :invalid_argument)
  end
end
