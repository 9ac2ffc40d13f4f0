defmodule ExCubecl.OpsTest do
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.Ops

  defp f32(list, shape), do: ExCubecl.buffer!(list, shape, :f32)
  defp ints(shape, dtype \\ :s32), do: Buffer.iota!(shape, dtype)
  defp list(buffer), do: ExCubecl.to_list!(buffer)

  # Rounds a number to f32, as on the device.
  defp single(number) do
    <<rounded::float-32>> = <<number::float-32>>
    rounded
  end

  test "shapes broadcast" do
    x = f32([1, 2, 3, 4, 5, 6], [2, 3])
    assert list(Ops.add!(x, f32([10, 20, 30], [3]))) == [[11.0, 22.0, 33.0], [14.0, 25.0, 36.0]]
    assert list(Ops.multiply!(x, f32([1, 10], [2, 1]))) == [[1.0, 2.0, 3.0], [40.0, 50.0, 60.0]]

    assert list(Ops.subtract!(f32([1, 2], [2, 1]), f32([1, 2], [1, 2]))) == [
             [0.0, -1.0],
             [1.0, 0.0]
           ]

    assert list(Ops.add!(x, f32([1], [1, 1, 1]))) == [[[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]]
    assert list(Ops.divide!(1, f32([2, 4], [2]))) == [0.5, 0.25]
    assert list(Ops.add!(f32([1], []), f32([2], []))) == 3.0
    refused(Ops.add(x, f32([1, 2], [2])), :shape_mismatch)
    refused(Ops.add(1, 2), :invalid_argument)
    refused(Ops.add(x, :y), :invalid_argument)

    for type <- [:f8, "f32", 1, [1 | 2]], option <- [:as, :dtype] do
      refused(Ops.add(x, x, [{option, type}]), :unsupported_dtype)
      refused(Ops.logical_not(x, [{option, type}]), :unsupported_dtype)
    end
  end

  test "each element-wise operation is the one of its name" do
    {a, b} = {ExCubecl.buffer!([7, -7, 2], [3], :s32), ExCubecl.buffer!([2, 2, 2], [3], :s32)}

    for {name, expected} <- [
          add: [9, -5, 4],
          subtract: [5, -9, 0],
          multiply: [14, -14, 4],
          divide: [3.5, -3.5, 1.0],
          remainder: [1, -1, 0],
          min: [2, -7, 2],
          max: [7, 2, 2],
          equal: [0, 0, 1],
          not_equal: [1, 1, 0],
          less: [0, 1, 0],
          less_equal: [0, 1, 1],
          greater: [1, 0, 0],
          greater_equal: [1, 0, 1]
        ],
        do: assert({name, list(apply(Ops, :"#{name}!", [a, b]))} == {name, expected})

    x = f32([0.3, 0.9], [2])

    for {name, function} <- [
          exp: &:math.exp/1,
          log: &:math.log/1,
          sqrt: &:math.sqrt/1,
          rsqrt: &(1 / :math.sqrt(&1)),
          sin: &:math.sin/1,
          cos: &:math.cos/1,
          tanh: &:math.tanh/1,
          sigmoid: &(1 / (1 + :math.exp(-&1))),
          gelu: &(0.5 * &1 * (1 + :math.erf(&1 / :math.sqrt(2)))),
          negate: &(-&1),
          floor: &:math.floor/1,
          ceil: &:math.ceil/1,
          round: &(round(&1) / 1),
          abs: &abs/1,
          relu: &max(&1, 0.0)
        ] do
      for {seen, number} <- Enum.zip(list(apply(Ops, :"#{name}!", [x])), [0.3, 0.9]),
          do: assert_in_delta(seen, function.(number), 1.0e-4, "#{name}")
    end

    assert list(Ops.pow!(f32([2.0], [1]), 3)) |> hd() |> Float.round(3) == 8.0
    assert_in_delta hd(list(Ops.atan2!(f32([1.0], [1]), 1))), :math.pi() / 4, 1.0e-4
  end

  test "axes in any order, and repeated" do
    x = ints([2, 3, 4])
    nested = list(x)
    assert list(Ops.transpose!(x, axes: [0, 1, 2])) == nested
    turned = list(Ops.transpose!(x))

    for i <- 0..1,
        j <- 0..2,
        k <- 0..3,
        do: assert(at(turned, [k, j, i]) == at(nested, [i, j, k]))

    middle = list(Ops.transpose!(x, axes: [1, 0, 2]))
    for i <- 0..1, j <- 0..2, do: assert(at(middle, [j, i]) == at(nested, [i, j]))
    wide = list(Ops.broadcast_to!(ints([2, 1, 3]), [2, 2, 2, 3]))
    assert at(wide, [1, 1, 0]) == [3, 4, 5]
    refused(Ops.transpose(x, axes: [0, 1]), :invalid_argument)
    refused(Ops.broadcast_to(x, [2, 3]), :shape_mismatch)
    refused(Ops.broadcast_to(x, [2, 3, 5]), :shape_mismatch)
  end

  defp at(nested, indices), do: Enum.reduce(indices, nested, &Enum.at(&2, &1))

  test "concatenate and gather along any axis" do
    {a, b} = {ints([2, 3]), ints([2, 2])}
    assert list(Ops.concatenate!([a, b], axis: 1)) == [[0, 1, 2, 0, 1], [3, 4, 5, 2, 3]]
    assert list(Ops.concatenate!([a, a])) == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]]
    refused(Ops.concatenate([a, b]), :shape_mismatch)
    refused(Ops.concatenate([a, Buffer.iota!([2, 3], :f32)]), :type_mismatch)
    refused(Ops.concatenate([]), :invalid_argument)
    refused(Ops.concatenate([a], axis: 2), :invalid_argument)
    columns = ExCubecl.buffer!([2, 0, -1, 3], [4], :s32)
    assert list(Ops.gather!(a, columns, axis: 1)) == [[2, 0, 0, 0], [5, 3, 0, 0]]
    refused(Ops.gather(a, f32([0.0], [1])), :type_mismatch)
  end

  test "reductions over all and along each axis" do
    x = ints([3, 4, 5])
    nested = list(x)
    flat = List.flatten(nested)
    assert ExCubecl.item!(Ops.sum!(x)) == Enum.sum(flat)
    assert ExCubecl.item!(Ops.reduce_max!(x)) == 59
    assert ExCubecl.item!(Ops.mean!(x)) == 29.5

    assert list(Ops.sum!(x, axis: 0)) ==
             for(
               j <- 0..3,
               do: for(k <- 0..4, do: Enum.sum(for(i <- 0..2, do: at(nested, [i, j, k]))))
             )

    assert list(Ops.sum!(x, axis: 1)) ==
             for(
               i <- 0..2,
               do: for(k <- 0..4, do: Enum.sum(for(j <- 0..3, do: at(nested, [i, j, k]))))
             )

    assert list(Ops.sum!(x, axis: -1)) ==
             for(i <- 0..2, do: for(j <- 0..3, do: Enum.sum(at(nested, [i, j]))))

    assert list(Ops.product!(ints([5], :u8), axis: 0)) == 0
    assert ExCubecl.item!(Ops.sum!(ExCubecl.buffer!([], [0], :f32))) == 0.0
    refused(Ops.reduce_min(ExCubecl.buffer!([], [0], :f32)), :invalid_argument)
    refused(Ops.sum(x, axis: 3), :invalid_argument)
    refused(Ops.sum(x, axis: :all), :invalid_argument)
    refused(Ops.sum(:x), :invalid_argument)
  end

  test "places of the least and the greatest, the first of several" do
    values = for n <- 1..1000, do: rem(n * 7919, 501)
    x = ExCubecl.buffer!(values, [1000], :s32)
    assert ExCubecl.item!(Ops.argmax!(x)) == Enum.find_index(values, &(&1 == Enum.max(values)))
    assert ExCubecl.item!(Ops.argmin!(x)) == Enum.find_index(values, &(&1 == Enum.min(values)))
    rows = ExCubecl.buffer!(values, [10, 100], :s32)

    assert list(Ops.argmax!(rows, axis: 1)) ==
             for(
               row <- Enum.chunk_every(values, 100),
               do: Enum.find_index(row, &(&1 == Enum.max(row)))
             )
  end

  test "a sum of a million floats is as exact as its tree is deep" do
    :rand.seed(:exsss, {1, 2, 3})
    values = for _ <- 1..1_000_000, do: single(:rand.uniform())
    exact = Enum.sum(values)
    seen = ExCubecl.item!(Ops.sum!(f32(values, [1_000_000])))
    assert abs(seen - exact) / exact < 2.0e-6
  end

  test "running sums and products of matrices" do
    x = ints([2, 3])
    assert list(Ops.cumulative_sum!(x)) == [[0, 1, 3], [3, 7, 12]]
    assert list(Ops.cumulative_sum!(x, axis: 0)) == [[0, 1, 2], [3, 5, 7]]
    :rand.seed(:exsss, {1, 2, 4})
    {m, k, n} = {17, 33, 9}
    a = for _ <- 1..m, do: for(_ <- 1..k, do: :rand.uniform(20) - 10)
    b = for _ <- 1..k, do: for(_ <- 1..n, do: :rand.uniform(20) - 10)
    columns = Enum.zip_with(b, & &1)

    expected =
      for row <- a, do: for(column <- columns, do: Enum.sum(Enum.zip_with(row, column, &*/2)))

    for dtype <- [:s32, :f32] do
      product =
        Ops.matmul!(ExCubecl.buffer!(a, [m, k], dtype), ExCubecl.buffer!(b, [k, n], dtype))

      assert Enum.map(list(product), &Enum.map(&1, fn x -> trunc(x) end)) == expected
    end

    refused(Ops.matmul(x, x), :shape_mismatch)
    refused(Ops.matmul(x, ints([2])), :shape_mismatch)
    assert Ops.matmul!(x, Buffer.iota!([3, 2], :f32)).dtype == :f32
  end

  test "random numbers are the same for a seed, others for another, and as they should be" do
    x = list(Ops.random_uniform!([20_000], 1, low: -2, high: 3))
    assert x == list(Ops.random_uniform!([20_000], 1, low: -2, high: 3))
    refute x == list(Ops.random_uniform!([20_000], 2, low: -2, high: 3))
    assert Enum.all?(x, &(&1 >= -2 and &1 < 3))
    tenths = x |> Enum.frequencies_by(&trunc((&1 + 2) * 2)) |> Map.values()
    assert length(tenths) == 10 and Enum.all?(tenths, &(&1 in 1800..2200))
    assert length(Enum.uniq(x)) > 19_900
    y = list(Ops.random_normal!([20_000], 5, mean: 10, deviation: 2))
    mean = Enum.sum(y) / 20_000
    variance = Enum.sum(for v <- y, do: (v - mean) * (v - mean)) / 20_000
    assert_in_delta mean, 10, 0.1
    assert_in_delta variance, 4, 0.2

    for bad <- [1.5, :x, 0x10000000000000000],
        do: refused(Ops.random_uniform([1], bad), :invalid_argument)

    refused(Ops.random_uniform([1], 1, low: :x), :invalid_argument)
    assert list(Ops.random_uniform!([0], 1)) == []
  end

  test "select" do
    pred = ExCubecl.buffer!([1, 0, 7], [3], :u8)
    assert list(Ops.select!(pred, f32([1, 2, 3], [3]), -1)) == [1.0, -1.0, 3.0]
  end

  # Large products of f32 use a library, all others a kernel of ExCubecl.
  test "products of matrices, large and small, are sums of products" do
    for {m, k, n} <- [
          {1, 1, 1},
          {5, 3, 2},
          {33, 64, 31},
          {300, 200, 300},
          {257, 333, 263},
          {3, 100_000, 3},
          {3, 2_000_000, 3}
        ] do
      a = Ops.random_uniform!([m, k], m)
      b = Ops.random_uniform!([k, n], n)
      product = Ops.matmul!(a, b)
      assert product.shape == [m, n]
      rows = Enum.uniq([0, div(m, 2), m - 1])
      columns = Enum.uniq([0, div(n, 3), n - 1])
      transposed = Ops.transpose!(b)

      for row <- rows, column <- columns do
        x = Buffer.view!(a, row * k, [k])
        y = Buffer.view!(transposed, column * k, [k])
        expected = ExCubecl.item!(Ops.sum!(Ops.multiply!(x, y)))
        found = ExCubecl.item!(Buffer.view!(product, row * n + column, [1]))
        assert_in_delta found, expected, 1.0e-5 * k, inspect({m, k, n, row, column})
      end
    end
  end

  test "a product of views at odd places is that of their elements" do
    whole = Ops.random_uniform!([300 * 300 + 1], 3)
    [first, second] = for from <- [0, 1], do: Buffer.view!(whole, from, [300, 300])
    fresh = Buffer.duplicate!(second)

    assert ExCubecl.to_list!(Ops.matmul!(first, second))
           |> close?(ExCubecl.to_list!(Ops.matmul!(first, fresh)))
  end

  defp close?(a, b) do
    pairs = Enum.zip(List.flatten(a), List.flatten(b))
    Enum.all?(pairs, fn {a, b} -> abs(a - b) < 1.0e-3 end)
  end
end
