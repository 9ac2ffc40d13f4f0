defmodule ExCubecl.NxDotTest do
  # Products of tensors, compared with Nx.BinaryBackend.
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  @types [f: 32, f: 64, f: 16, bf: 16] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  setup do
    Nx.default_backend({Backend, host_limit: 0, fallback: :raise})
    :ok
  end

  # Small integers, whose sums of products every type holds.
  defp sample(shape, {kind, _} = type) do
    size = Tuple.product(shape)
    numbers = for i <- 0..(size - 1)//1, do: rem(i * 7, 5) - if(kind == :u, do: 0, else: 2)
    numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
  end

  defp assert_same(what, a, b, fun) do
    ours = fun.(a, b)

    theirs =
      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        fun.(Nx.backend_copy(a, Nx.BinaryBackend), Nx.backend_copy(b, Nx.BinaryBackend))
      end)

    assert {what, ours.type, ours.shape} == {what, theirs.type, theirs.shape}
    assert {what, Nx.to_flat_list(ours)} == {what, Nx.to_flat_list(theirs)}
  end

  test "every type, axes and batches, without the host" do
    for type <- @types do
      a = sample({2, 3, 4}, type)
      assert_same({:matrices, type}, a, sample({4, 5}, type), &Nx.dot/2)
      assert_same({:vectors, type}, sample({7}, type), sample({7}, type), &Nx.dot/2)
      assert_same({:scalar, type}, a, sample({}, type), &Nx.dot(&1, [], &2, []))
      assert_same({:outer, type}, sample({3}, type), sample({2}, type), &Nx.dot(&1, [], &2, []))
      assert_same({:axes, type}, a, sample({4, 3, 5}, type), &Nx.dot(&1, [1, 2], &2, [1, 0]))
      assert_same({:batches, type}, a, a, &Nx.dot(&1, [2], [0], &2, [2], [0]))

      assert_same(
        {:two, type},
        a,
        sample({2, 3, 6}, type),
        &Nx.dot(&1, [], [0, 1], &2, [], [0, 1])
      )

      assert_same({:first, type}, a, sample({2, 5, 3}, type), &Nx.dot(&1, [1], [0], &2, [2], [0]))
    end
  end

  test "merged types" do
    for {a, b} <- [
          {{:u, 8}, {:s, 8}},
          {{:bf, 16}, {:f, 16}},
          {{:s, 16}, {:f, 32}},
          {{:u, 64}, {:s, 8}}
        ],
        do: assert_same({a, b}, sample({3, 4}, a), sample({4, 2}, b), &Nx.dot/2)
  end

  test "integers that floats do not have are multiplied as 64-bit floats" do
    a = Nx.tensor([[16_777_217, 1], [3, -16_777_219]], type: :s64)
    b = Nx.tensor([1.0, 0.0], type: :f32)
    expected = Nx.with_default_backend(Nx.BinaryBackend, fn -> Nx.dot(copy(a), copy(b)) end)
    assert Nx.to_flat_list(Nx.dot(a, b)) == Nx.to_flat_list(expected)
  end

  defp copy(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)
end
