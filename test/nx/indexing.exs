defmodule ExCubecl.NxIndexingTest do
  # Reads and writes at indices, compared with Nx.BinaryBackend; none may run on the host.
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  @types [f: 32, f: 64, f: 16, bf: 16] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})
  @indices for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  setup do
    Nx.default_backend({Backend, host_limit: 0})
    before = Backend.fallbacks()
    on_exit(fn -> assert Backend.fallbacks() == before end)
  end

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  defp assert_same(what, tensors, fun) do
    ours = fun |> apply(tensors) |> host()

    theirs =
      Nx.with_default_backend(Nx.BinaryBackend, fn -> apply(fun, Enum.map(tensors, &host/1)) end)

    assert {what, ours.type, ours.shape, ours.names, Nx.to_binary(ours)} ==
             {what, theirs.type, theirs.shape, theirs.names, Nx.to_binary(theirs)}
  end

  defp sample(type, shape) do
    numbers = for i <- 0..(Tuple.product(shape) - 1), do: rem(i * 7, 23)
    numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
  end

  test "gather, take and take_along_axis" do
    for type <- @types do
      x = sample(type, {4, 5, 6})
      index = Enum.random(@indices)
      at = Nx.tensor([[3, 0], [1, 3]], type: index)
      assert_same({:gather, type}, [x, at], &Nx.gather(&1, &2))
      assert_same({:gather, type, index}, [x, at], &Nx.gather(&1, &2, axes: [0, 2]))
      assert_same({:take, type, index}, [x, at], &Nx.take(&1, &2, axis: 1))
      along = Nx.tensor([2, 0, 3, 1, 1, 0], type: index)
      along = Nx.broadcast(along, {4, 2, 6})
      assert_same({:along, type, index}, [x, along], &Nx.take_along_axis(&1, &2, axis: 1))
    end
  end

  test "indexed_put, with duplicates" do
    for type <- @types, other <- [type, {:f, 32}, {:s, 16}] do
      x = sample(type, {3, 4, 5})
      at = Nx.tensor([[2, 4], [0, 1], [2, 4]], type: Enum.random(@indices))
      rows = sample(other, {3, 4})
      assert_same({:put, type, other}, [x, at, rows], &Nx.indexed_put(&1, &2, &3, axes: [0, 2]))
    end
  end

  test "indexed_add, with duplicates" do
    for type <- @types, other <- [type, {:f, 32}, {:s, 16}, {:s, 64}] do
      x = sample(type, {3, 4, 5})
      at = Nx.tensor([[2, 4], [0, 1], [2, 4], [2, 4]], type: Enum.random(@indices))
      rows = sample(other, {4, 4})
      assert_same({:add, type, other}, [x, at, rows], &Nx.indexed_add(&1, &2, &3, axes: [0, 2]))
    end

    large = Nx.tensor([16_777_217, 3])
    assert_same(:large, [large, Nx.tensor([[0], [0]]), Nx.tensor([1.5, 1.0])], &Nx.indexed_add/3)
  end

  test "updates that are smaller than the addressed slices" do
    at = Nx.tensor([[2], [0], [2]])
    pairs = Nx.tensor([[2, 4], [0, 1], [2, 4]])

    for type <- [{:f, 32}, {:s, 16}, {:c, 64}], name <- [:indexed_put, :indexed_add] do
      x = sample(type, {3, 4, 5})

      for {at, axes, shape} <- [
            {at, [0], {3, 2, 3}},
            {at, [0], {3, 4, 2}},
            {at, [1], {3, 1, 5}},
            {at, [2], {3, 2, 1}},
            {pairs, [0, 2], {3, 3}}
          ] do
        fun = &apply(Nx, name, [&1, &2, &3, [axes: axes]])
        assert_same({name, type, axes, shape}, [x, at, sample(type, shape)], fun)
      end
    end
  end

  test "an index out of bounds raises as in Nx.BinaryBackend" do
    x = sample({:f, 32}, {4, 5, 6})

    # Indices on the device, and in host memory.
    for limit <- [0, 64],
        options = {Backend, host_limit: limit},
        bad = Nx.tensor([[1, 2], [3, 7]], backend: options),
        along = Nx.broadcast(Nx.tensor([0, -1], backend: options), {4, 5, 2}),
        {tensors, fun} <- [
          {[x, bad], &Nx.gather/2},
          {[x, bad], &Nx.gather(&1, &2, axes: [0, 2])},
          {[x, bad], &Nx.take(&1, &2, axis: 2)},
          {[x, along], &Nx.take_along_axis(&1, &2, axis: 2)},
          {[x, bad, sample({:f, 32}, {2, 6})], &Nx.indexed_put/3},
          {[x, bad, sample({:f, 32}, {2, 6})], &Nx.indexed_add/3},
          {[x, bad, sample({:f, 32}, {2, 5})], &Nx.indexed_put(&1, &2, &3, axes: [0, 2])}
        ] do
      messages =
        for {backend, tensors} <- [
              {Nx.default_backend(), tensors},
              {Nx.BinaryBackend, Enum.map(tensors, &host/1)}
            ] do
          call = fn -> Nx.with_default_backend(backend, fn -> apply(fun, tensors) end) end
          Exception.message(assert_raise ArgumentError, call)
        end

      assert [same, same] = messages
    end
  end
end
