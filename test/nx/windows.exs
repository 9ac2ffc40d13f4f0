defmodule ExCubecl.NxWindowsTest do
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  @types [f: 32, f: 64, f: 16, bf: 16] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  setup do
    Nx.default_backend({Backend, host_limit: 0})
    :ok
  end

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  # The result on the device is that of Nx.BinaryBackend, and the host ran these operations.
  defp assert_same(what, tensors, fun, on_host \\ []) do
    before = Backend.fallbacks()
    ours = fun |> apply(tensors) |> host()

    fallbacks =
      for {{name, _, _} = key, n} <- Backend.fallbacks(), n != Map.get(before, key, 0), do: name

    theirs =
      Nx.with_default_backend(Nx.BinaryBackend, fn -> apply(fun, Enum.map(tensors, &host/1)) end)

    assert {what, Enum.sort(Enum.uniq(fallbacks))} == {what, on_host}

    assert {what, ours.type, ours.shape, ours.names} ==
             {what, theirs.type, theirs.shape, theirs.names}

    assert {what, Nx.to_flat_list(ours)} == {what, Nx.to_flat_list(theirs)}
  end

  # Small integers, so that sums and products are exact in every type.
  defp sample(shape, {kind, _} = type) do
    numbers = for i <- 1..Tuple.product(shape), do: rem(i * 7, 5) - if(kind == :u, do: 0, else: 2)
    numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
  end

  # The type that Nx gives integers, which differs between its versions.
  defp integers, do: Nx.type(Nx.tensor(1))

  test "windows of every type" do
    for type <- @types, name <- [:window_sum, :window_product, :window_max, :window_min] do
      x = sample({3, 6, 5}, type)

      for opts <- [
            [],
            [strides: [1, 2, 2], padding: :same],
            [padding: [{0, 1}, {2, 1}, {1, 0}], window_dilations: [1, 2, 1]]
          ],
          do: assert_same({name, type, opts}, [x], &apply(Nx, name, [&1, {2, 2, 3}, opts]))
    end

    special = Nx.tensor([:nan, 1.0, :infinity, :neg_infinity, -0.0, 0.0, 2.0], type: :f32)

    for name <- [:window_sum, :window_product, :window_max, :window_min],
        do: assert_same(name, [special], &apply(Nx, name, [&1, {2}, []]))
  end

  test "convolutions" do
    for type <- @types do
      x = sample({4, 4, 6, 5}, type)
      k = sample({4, 4, 3, 2}, type)

      for opts <- [
            [],
            [strides: [2, 1], padding: :same],
            [padding: [{2, 1}, {-1, 1}], input_dilation: [2, 1], kernel_dilation: [1, 2]],
            [batch_group_size: 2],
            [
              input_permutation: [1, 0, 3, 2],
              kernel_permutation: [1, 0, 2, 3],
              output_permutation: [0, 3, 1, 2]
            ]
          ],
          do: assert_same({type, opts}, [x, k], &Nx.conv(&1, &2, opts))

      groups = sample({4, 2, 3, 2}, type)
      assert_same({type, :groups}, [x, groups], &Nx.conv(&1, &2, feature_group_size: 2))
    end

    x = sample({2, 3, 7}, {:f, 32})
    assert_same(:mixed, [x, sample({2, 3, 2}, {:s, 32})], &Nx.conv/2)
    volume = sample({1, 2, 3, 4, 5}, {:f, 32})
    assert_same(:volume, [volume, sample({3, 2, 2, 2, 2}, {:f, 32})], &Nx.conv/2)
  end

  test "sources scattered to the extreme elements of windows" do
    # Other types, and padding in old versions, fail in Nx.BinaryBackend.
    integers = integers()
    x = sample({4, 6}, integers)
    source = sample({2, 2}, integers)
    opts = [strides: [2, 3], padding: :valid]

    for name <- [:window_scatter_max, :window_scatter_min] do
      assert_same(name, [x, source], &apply(Nx, name, [&1, &2, 0, {2, 3}, opts]))
      floats = [Nx.as_type(x, :f32), Nx.as_type(source, :f32)]
      assert_same({name, :f32}, floats, &apply(Nx, name, [&1, &2, 0, {2, 3}, opts]))
      overlapping = [x, sample({3, 5}, integers)]
      assert_same({name, :overlap}, overlapping, &apply(Nx, name, [&1, &2, 1, {2, 2}, []]))
    end
  end

  test "reductions with a function of the caller" do
    x = sample({3, 4, 5}, {:f, 32})
    whole = sample({3, 4, 5}, integers())
    # The order of the arguments and of the elements is visible.
    digits = fn x, acc -> Nx.add(Nx.multiply(acc, 3), x) end
    assert_same(:all, [whole], &Nx.reduce(&1, 7, digits))
    assert_same(:axes, [whole], &Nx.reduce(&1, 7, [axes: [2, 0]], digits))
    assert_same(:keep_axes, [whole], &Nx.reduce(&1, 7, [axes: [1], keep_axes: true], digits))
    assert_same(:floats, [x], &Nx.reduce(&1, 0.5, [axes: [1]], digits))
    assert_same(:integer, [x], &Nx.reduce(&1, 1, [axes: [1]], digits))

    assert_same(
      :type,
      [x],
      &Nx.reduce(&1, 0, [axes: [1], type: :f64], fn x, acc -> Nx.add(Nx.as_type(x, :f64), acc) end)
    )

    for {name, fun} <- [
          max: &Nx.max/2,
          select: fn x, acc -> Nx.select(Nx.greater(x, 0), Nx.subtract(acc, x), acc) end,
          logical: fn x, acc ->
            Nx.add(acc, Nx.logical_and(Nx.not_equal(x, 1), Nx.less_equal(x, acc)))
          end,
          abs: fn x, acc -> x |> Nx.abs() |> Nx.add(acc) |> Nx.negate() |> Nx.reshape({}) end,
          last: fn x, _acc -> x end
        ],
        do: assert_same(name, [whole], &Nx.reduce(&1, 2, [axes: [0]], fun))

    assert_same(
      :quotient,
      [x],
      &Nx.reduce(&1, 2.0, fn x, acc -> Nx.divide(Nx.floor(x), Nx.add(Nx.abs(acc), 2.0)) end)
    )
  end

  if {:map, 4} in Nx.Backend.behaviour_info(:callbacks) do
    test "functions of each element" do
      for type <- @types do
        x = sample({3, 50}, type)
        on_host = if type == {:bf, 16}, do: [:map], else: []
        assert_same(type, [x], &Nx.map(&1, fn x -> Nx.add(Nx.multiply(x, x), x) end), on_host)
      end

      x = sample({3, 50}, integers())
      assert_same(:type, [x], &Nx.map(&1, [type: :f32], fn x -> Nx.negate(x) end))
      assert_same(:float, [Nx.as_type(x, :f32)], &Nx.map(&1, fn x -> Nx.divide(x, 2.0) end))
      assert_same(:mixed, [x], &Nx.map(&1, [type: :f32], fn x -> Nx.divide(x, 3.0) end))
      assert_same(:list, [x], &Nx.map(&1, fn x -> Nx.sum(Nx.stack([x, x])) end), [:map])
    end
  end

  test "functions that are no expressions of scalars run on the host" do
    x = sample({3, 4}, integers())
    branch = fn x, acc -> if Nx.to_number(x) > 0, do: Nx.add(x, acc), else: acc end
    assert_same(:branch, [x], &Nx.reduce(&1, 0, branch), [:reduce])
    sorted = fn x, acc -> Nx.stack([x, acc]) |> Nx.sum() end
    assert_same(:stack, [x], &Nx.reduce(&1, 0, [axes: [0]], sorted), [:reduce])
    small = sample({100}, {:u, 8})
    assert_raise ArgumentError, fn -> Nx.reduce(small, 0, fn x, _ -> Nx.as_type(x, :f32) end) end
    assert_raise RuntimeError, fn -> Nx.reduce(small, 0, fn _, _ -> raise "no" end) end
  end

  test "functions over windows" do
    x = sample({4, 6}, {:f, 32})
    digits = fn x, acc -> Nx.add(Nx.multiply(acc, 3), x) end
    assert_same(:floats, [x], &Nx.window_reduce(&1, 0.5, {2, 3}, digits))
    opts = [padding: :same, strides: [1, 2], window_dilations: [2, 1]]
    assert_same(:options, [x], &Nx.window_reduce(&1, 2, {2, 3}, opts, digits))

    assert_same(
      :max,
      [x],
      &Nx.window_reduce(&1, :neg_infinity, {2, 2}, fn x, acc -> Nx.max(x, acc) end)
    )
  end

  test "functions of numerical definitions" do
    x = sample({4, 60}, {:f, 32})
    sum = &Nx.reduce(&1, 0.0, [axes: [1]], fn x, acc -> Nx.add(x, acc) end)
    assert_same(:jit, [x], Nx.Defn.jit(sum))
    windows = &Nx.window_reduce(&1, 0.0, {2, 2}, fn x, acc -> Nx.add(Nx.multiply(x, 2), acc) end)
    assert_same(:windows, [x], Nx.Defn.jit(windows))
  end
end
