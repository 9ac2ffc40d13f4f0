defmodule ExCubecl.NxOrderTest do
  # Sorts, and the indices of minima and maxima, compared with Nx.BinaryBackend.
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  @floats [f: 32, f: 64, f: 16, bf: 16]
  @types @floats ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  setup do
    Nx.default_backend({Backend, host_limit: 0, fallback: :raise})
    :ok
  end

  defp assert_same(what, tensor, fun) do
    host = &Nx.backend_copy(&1, Nx.BinaryBackend)

    [ours, theirs] = [
      fun.(tensor),
      Nx.with_default_backend(Nx.BinaryBackend, fn -> fun.(host.(tensor)) end)
    ]

    for {ours, theirs} <- Enum.zip(results(ours), results(theirs)) do
      assert {what, ours.type, ours.shape, ours.names} ==
               {what, theirs.type, theirs.shape, theirs.names}

      assert {what, Nx.to_binary(ours)} == {what, Nx.to_binary(theirs)}
    end
  end

  defp results(tuple) when is_tuple(tuple), do: Tuple.to_list(tuple)
  defp results(tensor), do: [tensor]

  # 120 elements, many of them equal.
  defp sample({kind, _} = type) do
    numbers = for i <- 0..119, do: rem(i * 7, 23) - if(kind == :u, do: 0, else: 11)
    numbers |> Nx.tensor(type: type, names: [:x]) |> Nx.reshape({4, 5, 6}, names: [:a, :b, nil])
  end

  test "every type, axis and direction" do
    for type <- @types, axis <- [0, 1, 2], direction <- [:asc, :desc] do
      opts = [axis: axis, direction: direction, stable: true]
      assert_same({:sort, type, opts}, sample(type), &Nx.sort(&1, opts))
      assert_same({:argsort, type, opts}, sample(type), &Nx.argsort(&1, opts))
      assert_same({:type, type}, sample(type), &Nx.argsort(&1, opts ++ [type: :u8]))
    end

    for type <- @types,
        k <- [1, 3, 6],
        do: assert_same({:top_k, type, k}, sample(type), &Nx.top_k(&1, k: k))

    assert_raise ArgumentError, fn -> Nx.top_k(sample({:f, 32}), k: 7) end
    assert_raise ArgumentError, fn -> Nx.sort(Nx.tensor(1)) end
  end

  # Rows in which NaN is first, elsewhere, several times or nowhere.
  @special [
    [:nan, 1.0, :infinity, 0.0, -0.0, :nan],
    [2.0, :nan, 1.0, :nan, :neg_infinity, 3.0],
    [-0.0, 0.0, -1.0, -1.0, :infinity, :infinity],
    [:neg_infinity, :nan, :neg_infinity, 1.0, 0.0, :nan],
    [:nan, :nan, :nan, :nan, :nan, :nan]
  ]

  test "NaN, infinities and signed zeros" do
    for type <- @floats, direction <- [:asc, :desc], axis <- [0, 1] do
      special = Nx.tensor(@special, type: type)
      opts = [axis: axis, direction: direction]
      assert_same({type, opts}, special, &Nx.sort(&1, opts))
      assert_same({type, opts}, special, &Nx.argsort(&1, opts))
      assert_same({type, opts}, special, &Nx.top_k(&1, k: 3))
    end
  end

  test "minima and maxima with NaN" do
    # In long rows, NaN is in the first or in later parts of a reduction.
    long = for i <- 0..299, do: if(i in [70, 71, 200], do: :nan, else: rem(i * 37, 101) / 2)

    for type <- @floats,
        name <- [:argmax, :argmin],
        row <- @special ++ [Enum.drop(long, 70), long, Enum.take(long, 60)],
        opts <- [[], [axis: 0, keep_axis: true], [tie_break: :high]] do
      # Nx 0.7 finds NaN only if it is the first element, which the device does not know for the last one.
      fallback = if opts == [tie_break: :high], do: :host, else: :raise
      x = Nx.tensor(row, type: type, backend: {Backend, host_limit: 0, fallback: fallback})
      assert_same({name, type, row, opts}, x, &apply(Nx, name, [&1, opts]))
    end
  end

  test "scalars and strided tensors" do
    for name <- [:argmax, :argmin], do: assert_same(name, Nx.tensor(5), &apply(Nx, name, [&1]))
    turned = &(&1 |> Nx.transpose() |> Nx.slice([1, 0, 0], [4, 5, 3], strides: [2, 1, 1]))

    for call <- [&Nx.sort/1, &Nx.argsort/1, &Nx.top_k/1, &Nx.argmax/1, &Nx.argmin(&1, axis: 1)],
        do: assert_same(call, sample({:f, 32}), &call.(turned.(&1)))
  end

  test "kept axes, read by the next operation" do
    for name <- [:argmax, :argmin], axis <- [0, 1, 2] do
      opts = [axis: axis, keep_axis: true]

      assert_same(
        {name, axis},
        sample({:f, 32}),
        &Nx.take_along_axis(&1, apply(Nx, name, [&1, opts]), axis: axis)
      )
    end
  end

  test "a small top_k stays on the host" do
    x = Nx.tensor([1, 3, 2], backend: {Backend, host_limit: 64})
    {values, indices} = Nx.top_k(x, k: 2)
    assert is_binary(values.data.state) and is_binary(indices.data.state)
    assert {Nx.to_flat_list(values), Nx.to_flat_list(indices)} == {[3, 2], [1, 2]}
  end
end
