defmodule ExCubecl.NxRandomTest do
  # ExCubecl.Random compared with Nx.Random on Nx.BinaryBackend.
  use ExUnit.Case, async: false

  import Bitwise

  alias ExCubecl.{Buffer, Random}

  setup do
    Nx.default_backend(Nx.BinaryBackend)
    :rand.seed(:exsss, {2, 32, 2026})
    :ok
  end

  defp assert_same(what, {buffer, key}, {tensor, nx_key}) do
    assert {what, List.to_tuple(buffer.shape)} == {what, tensor.shape}
    assert {what, Buffer.read!(buffer)} == {what, Nx.to_binary(tensor)}
    assert {what, Tuple.to_list(key)} == {what, Nx.to_flat_list(nx_key)}
  end

  # Two keys of the same random seed, a random shape as a tuple, and it as a list.
  defp random do
    seed = Enum.random([0, 1, :rand.uniform(1_000_000), :rand.uniform(0x7FFFFFFFFFFFFFFF)])
    shape = for _ <- 1..Enum.random(0..3)//1, do: Enum.random(1..9)
    {Random.key!(seed), Nx.Random.key(seed), List.to_tuple(shape), shape}
  end

  test "uniform" do
    for _ <- 1..15, dtype <- [:f32, :f64] do
      {key, nx, shape, list} = random()
      # Nx takes a number for one of 32 bits.
      [low, high] = Enum.sort([Enum.random(-50..50) / 7, Enum.random(-50..50) / 9])
      bound = &Nx.tensor(&1, type: dtype)
      ours = Random.uniform!(key, list, low: low, high: high, dtype: dtype)

      assert_same(
        {dtype, low, high},
        ours,
        Nx.Random.uniform(nx, bound.(low), bound.(high), shape: shape, type: dtype)
      )

      assert_same(
        dtype,
        Random.uniform!(key, list, dtype: dtype),
        Nx.Random.uniform(nx, shape: shape, type: dtype)
      )
    end

    for _ <- 1..5 do
      {key, nx, shape, list} = random()

      assert_same(
        :f16,
        Random.uniform!(key, list, dtype: :f16),
        Nx.Random.uniform(nx, shape: shape, type: :f16)
      )
    end
  end

  test "normal" do
    for _ <- 1..10 do
      {key, nx, shape, list} = random()
      {buffer, next} = Random.normal!(key, list, mean: 1.5, deviation: 3)
      {tensor, nx_next} = Nx.Random.normal(nx, 1.5, 3, shape: shape)
      assert Tuple.to_list(next) == Nx.to_flat_list(nx_next)

      for {a, b} <- Enum.zip(Buffer.to_flat_list!(buffer), Nx.to_flat_list(tensor)),
          do: assert_in_delta(a, b, 2.0e-6 * max(abs(b), 1))
    end
  end

  test "integers" do
    for _ <- 1..6,
        {dtype, limit} <- [
          s8: 100,
          u8: 255,
          s16: 30_000,
          u16: 65_535,
          s32: 2_000_000_000,
          u32: 4_000_000_000,
          s64: 1 <<< 62
        ] do
      {key, nx, shape, list} = random()
      low = if dtype in [:u8, :u16, :u32], do: 0, else: -Enum.random(0..100)
      high = Enum.random([low + 1, div(limit, 3), limit - 1])
      bound = &Nx.tensor(&1, type: if(dtype == :u64, do: :u64, else: :s64))
      ours = Random.integers!(key, list, low..high, dtype: dtype)
      theirs = Nx.Random.randint(nx, bound.(low), bound.(high + 1), shape: shape, type: dtype)
      assert_same({dtype, low, high}, ours, theirs)
    end
  end

  test "split and fold_in" do
    for parts <- 1..5 do
      {key, nx, _, _} = random()

      assert Random.split!(key, parts: parts) |> Enum.flat_map(&Tuple.to_list/1) ==
               Nx.to_flat_list(Nx.Random.split(nx, parts: parts))

      number = :rand.uniform(0x7FFFFFFFFFFFFFFF)

      assert Tuple.to_list(Random.fold_in!(key, number)) ==
               Nx.to_flat_list(Nx.Random.fold_in(nx, Nx.tensor(number, type: :s64)))
    end
  end

  test "shuffle and choice" do
    for _ <- 1..8 do
      {key, nx, _, _} = random()
      shape = for _ <- 1..Enum.random(1..3), do: Enum.random(1..9)
      x = Buffer.iota!(shape, :s32)
      tensor = Nx.iota(List.to_tuple(shape), type: :s32)
      axis = :rand.uniform(length(shape)) - 1
      opts = [axis: axis, independent: Enum.random([true, false])]
      assert_same(opts, Random.shuffle!(key, x, opts), Nx.Random.shuffle(nx, tensor, opts))

      n = Enum.at(shape, axis)
      opts = [axis: axis, samples: :rand.uniform(n), replace: false]
      assert_same(opts, Random.choice!(key, x, opts), Nx.Random.choice(nx, tensor, opts))

      # Nx draws indices of :u32 since 0.9.
      opts = [axis: axis, samples: 5]
      {at, next} = Nx.Random.randint(nx, 0, n, shape: {5}, type: :u32)
      assert_same(opts, Random.choice!(key, x, opts), {Nx.take(tensor, at, axis: axis), next})
    end

    {key, nx, _, _} = random()
    x = Buffer.iota!([1700], :s32)
    assert_same(1700, Random.shuffle!(key, x), Nx.Random.shuffle(nx, Nx.iota({1700}, type: :s32)))

    # Sums of multiples of 1/8 are exact.
    weights = [0.125, 1.0, 0.0, 3.5, 2.25]
    p = ExCubecl.buffer!(weights, [5], :f32)

    for replace <- [true, false], samples <- [1, 4] do
      {key, nx, _, _} = random()
      opts = [samples: samples, replace: replace]
      theirs = Nx.Random.choice(nx, Nx.iota({5}, type: :s32), Nx.tensor(weights), opts)

      assert_same(
        opts,
        Random.choice!(key, Buffer.iota!([5], :s32), [probabilities: p] ++ opts),
        theirs
      )
    end
  end
end
