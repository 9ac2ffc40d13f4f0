defmodule ExCubecl.RandomTest do
  # The expected numbers were recorded from Nx.Random of Nx 0.7.2 on Nx.BinaryBackend, long ones as checksums of their bytes; samples with
  # replacement are those since Nx 0.9, which draws indices of :u32.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.{Ops, Random}
  alias ExCubecl.Random.Threefry

  defp list({buffer, _key}), do: Buffer.to_flat_list!(buffer)
  defp checksum({buffer, _key}), do: buffer |> Buffer.read!() |> :erlang.crc32()

  test "keys, as in Nx.Random" do
    assert Random.key!(999_999_999_999) == {232, 3_567_587_327}
    assert Random.key!(-12) == {0xFFFFFFFF, 0xFFFFFFF4}
    assert Random.key!(0xFFFFFFFFFFFFFFFF) == Random.key!(-1)
    key = Random.key!(1701)
    assert Random.split!(key) == [{56_197_195, 1_801_093_307}, {961_309_823, 1_704_866_707}]

    assert Random.split!(key, parts: 3) == [
             {927_208_350, 3_916_705_582},
             {1_835_323_421, 676_898_860},
             {3_164_047_411, 4_010_691_890}
           ]

    assert Random.fold_in!(Random.key!(42), 99) == {2_015_327_502, 1_351_855_566}
    # The test vectors of the authors of Threefry.
    assert Threefry.hash({0, 0}, {0, 0}) == {0x6B200159, 0x99BA4EFE}
    ones = {0xFFFFFFFF, 0xFFFFFFFF}
    assert Threefry.hash(ones, ones) == {0x1CB996FC, 0xBB002BE7}
  end

  test "each draw returns the next key" do
    key = Random.key!(1701)
    next = hd(Random.split!(key))

    for draw <- [
          Random.uniform!(key, []),
          Random.normal!(key, [3]),
          Random.integers!(key, [], 0..1)
        ] do
      assert {%Buffer{}, ^next} = draw
    end
  end

  test "uniform floats" do
    key = Random.key!(1701)

    assert list(Random.uniform!(key, [5])) ==
             [0.7114982604980469, 0.4310096502304077, 0.10059869289398193] ++
               [0.8647645711898804, 0.9806685447692871]

    assert list(Random.uniform!(key, [3], dtype: :f64)) ==
             [0.7114983205368659, 0.43100965884064046, 0.5485493424345516]

    for {dtype, low, high, expected} <- [
          {:f32, 0.0, 1.0, 4_251_045_474},
          {:f32, -2, 3, 302_286_861},
          {:f64, 0.0, 1.0, 3_675_796_880},
          {:f64, -2, 3, 100_558_707},
          {:f16, 0.0, 1.0, 1_108_385_671},
          {:bf16, 0.0, 1.0, 1_770_063_215}
        ] do
      draw = Random.uniform!(key, {7, 143}, low: low, high: high, dtype: dtype)
      assert elem(draw, 0).shape == [7, 143]
      assert {dtype, low, checksum(draw)} == {dtype, low, expected}
    end
  end

  test "normal floats" do
    key = Random.key!(42)

    for {opts, expected} <- [
          {[shape: [6]],
           [-0.5533879399299622, 0.9442830085754395, 0.14538097381591797] ++
             [-0.5769758224487305, 1.1251860857009888, 1.0788847208023071]},
          {[shape: [3], mean: 10, deviation: 2],
           [8.864899635314941, 10.5687837600708, 8.135878562927246]}
        ] do
      {shape, opts} = Keyword.pop!(opts, :shape)

      for {a, b} <- Enum.zip(list(Random.normal!(key, shape, opts)), expected),
          do: assert_in_delta(a, b, 1.0e-6 * max(abs(b), 1))
    end

    for dtype <- [:f16, :bf16, :f32, :f64] do
      numbers = list(Random.normal!(key, [20_000], mean: 3, deviation: 2, dtype: dtype))
      mean = Enum.sum(numbers) / 20_000
      variance = Enum.sum(for x <- numbers, do: (x - mean) ** 2) / 20_000
      assert_in_delta mean, 3, 0.05
      assert_in_delta variance, 4, 0.15
    end
  end

  test "integers of every type" do
    key = Random.key!(1701)

    for {dtype, range, expected} <- [
          {:u8, 0..99, 1_470_595_928},
          {:s8, -100..100, 2_727_273_983},
          {:s16, -3..3000, 1_607_224_368},
          {:u16, 5..60_000, 3_962_164_383},
          {:s32, 1..99, 3_590_787_354},
          {:s32, -100_000..100_000, 4_139_383_025},
          {:s32, -2_000_000_000..2_000_000_000, 3_796_504_201},
          {:u32, 1..4_294_967_290, 3_371_022_877},
          {:s64, 0..100, 2_340_327_562},
          {:u64, 7..10_000_000_000, 1_468_738_904},
          {:s64, -5..5_000_000_000_000_000_000, 1_285_167_087}
        ] do
      draw = Random.integers!(key, [7, 143], range, dtype: dtype)
      assert {dtype, range, checksum(draw)} == {dtype, range, expected}
      assert Enum.all?(list(draw), &(&1 in range))
    end

    assert list(Random.integers!(key, [4], 7..7)) == [7, 7, 7, 7]
    assert list(Random.integers!(key, [2, 0], 0..9)) == []
  end

  test "shuffles" do
    key = Random.key!(1701)
    assert list(Random.shuffle!(key, Buffer.iota!([8], :s32))) == [3, 0, 7, 6, 2, 4, 1, 5]
    matrix = Buffer.iota!([3, 4], :u8)

    assert list(Random.shuffle!(key, matrix, axis: 1)) == [0, 1, 3, 2, 4, 5, 7, 6, 8, 9, 11, 10]

    assert list(Random.shuffle!(key, matrix, axis: -1, independent: true)) ==
             [0, 2, 1, 3, 7, 6, 4, 5, 9, 8, 11, 10]

    # Two rounds.
    assert checksum(Random.shuffle!(key, Buffer.iota!([3000], :s32))) == 3_505_444_286
    # None.
    assert Random.shuffle!(key, Buffer.iota!([1, 2], :s32), axis: 0) |> elem(1) == key

    for dtype <- ExCubecl.DType.all(),
        shape <- [[0, 2], [3, 0], [5, 2]],
        independent <- [true, false] do
      {shuffled, _} = Random.shuffle!(key, Buffer.iota!(shape, dtype), independent: independent)
      assert {shuffled.shape, shuffled.dtype} == {shape, dtype}

      assert Enum.sort(Buffer.to_flat_list!(shuffled)) ==
               Buffer.to_flat_list!(Buffer.iota!(shape, dtype))
    end
  end

  # The sizes are those of one tile, of tiles by counting, and of tiles in registers.
  test "shuffles of vectors and of views move elements of each type to the same places" do
    key = Random.key!(9)

    for n <- [2, 100, 1000, 9001] do
      order = list(Random.shuffle!(key, Buffer.iota!([n], :s32)))
      assert Enum.sort(order) == Enum.to_list(0..(n - 1))

      for dtype <- ExCubecl.DType.all() do
        x = Ops.remainder!(Buffer.iota!([n], :s32), 97) |> Ops.as_type!(dtype)
        values = x |> Buffer.to_flat_list!() |> List.to_tuple()
        view = ExCubecl.View.reverse!(ExCubecl.View.of!(x), axes: [0])
        moved = Enum.map(order, &elem(values, &1))
        assert list(Random.shuffle!(key, x)) == moved

        assert list(Random.shuffle!(key, view)) ==
                 Enum.map(order, &elem(values, n - 1 - &1))
      end
    end
  end

  test "samples" do
    key = Random.key!(1701)
    x = Buffer.iota!([8], :s32)
    weights = ExCubecl.buffer!([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1], [8], :f32)

    for {opts, expected} <- [
          {[], [5, 2, 6, 0, 5]},
          {[replace: false], [3, 0, 7, 6, 2]},
          {[probabilities: weights], [2, 5, 6, 1, 0]},
          {[probabilities: weights, replace: false], [5, 1, 6, 4, 2]}
        ],
        do: assert({opts, list(Random.choice!(key, x, [samples: 5] ++ opts))} == {opts, expected})

    rows =
      Random.choice!(key, ExCubecl.View.transpose!(Buffer.iota!([2, 8], :s64)),
        axis: 0,
        samples: 5
      )

    assert list(rows) == Enum.flat_map([5, 2, 6, 0, 5], &[&1, &1 + 8])
    assert [_] = list(Random.choice!(key, Buffer.iota!([2, 2], :bf16)))

    # What has the probability 0 is not drawn, and others as often as they should be.
    weights = ExCubecl.buffer!([0, 1, 3, 0], [4], :f16)

    drawn =
      list(Random.choice!(key, Buffer.iota!([4], :u8), samples: 20_000, probabilities: weights))

    counts = Enum.frequencies(drawn)
    assert Enum.sort(Map.keys(counts)) == [1, 2]
    assert counts[1] in 4700..5300
  end

  test "arguments of shuffles and samples that do not fit are refused" do
    key = Random.key!(1)
    x = Buffer.iota!([3], :s32)
    refused(Random.shuffle(key, x, axis: 1), :invalid_argument, says: "shuffle: invalid axis")

    refused(Random.shuffle(key, x, independent: 1), :invalid_argument,
      says: "shuffle: invalid independent"
    )

    refused(Random.shuffle(:key, x), :invalid_argument)
    refused(Random.shuffle(key, :x), :invalid_argument)
    refused(Random.shuffle(key, Buffer.iota!([], :s32)), :invalid_argument)

    for bad <- [0, -1, 1.5],
        do:
          refused(Random.choice(key, x, samples: bad), :invalid_argument,
            says: "choice: invalid samples"
          )

    refused(Random.choice(key, x, samples: 4, replace: false), :invalid_argument,
      says: "without replacement"
    )

    refused(Random.choice(key, Buffer.iota!([0], :s32)), :invalid_argument, says: "choice")
    refused(Random.choice(key, x, axis: 1), :invalid_argument, says: "choice: invalid axis")

    refused(Random.choice(key, x, replace: nil), :invalid_argument,
      says: "choice: invalid replace"
    )

    refused(Random.choice(key, x, probabilities: Buffer.iota!([2], :f32)), :shape_mismatch,
      says: "choice"
    )

    refused(Random.choice(key, x, probabilities: x), :invalid_argument,
      says: "choice: invalid probabilities"
    )

    refused(Random.choice(key, x, size: 1), :invalid_argument)
  end

  test "arguments that do not fit are refused" do
    key = Random.key!(1)

    for bad <- [1.5, :x, 0x10000000000000000],
        do: refused(Random.key(bad), :invalid_argument, says: "seed")

    for bad <- [1, {1}, {1, -1}, {1, 0x100000000}],
        do: refused(Random.uniform(bad, []), :invalid_argument, says: "key")

    for bad <- [0, 1.0, 1_000_001], do: refused(Random.split(key, parts: bad), :invalid_argument)
    # Neither a range nor a type, and numbers of which the type, or their difference, is none.
    for bad <- [{}, %{}, [1 | 2], [-1], self()],
        do: refused(Random.integers(key, [2], 3, dtype: bad), :unsupported_dtype)

    for dtype <- [:f32, :f64], name <- [:low, :high] do
      opts = [{name, Integer.pow(10, 400)}, dtype: dtype]
      refused(Random.uniform(key, [2], opts), :invalid_argument, says: "#{name}")
    end

    refused(
      Random.uniform(key, [2], low: -1.0e308, high: 1.0e308, dtype: :f64),
      :invalid_argument,
      says: "high"
    )

    refused(Random.normal(key, [2], mean: Integer.pow(10, 400), dtype: :f64), :invalid_argument)
    refused(Random.fold_in(key, 1.0), :invalid_argument)
    refused(Random.fold_in(:key, 1), :invalid_argument)
    refused(Random.uniform(key, [-1]), :invalid_shape)

    refused(Random.uniform(key, [1], dtype: :s32), :invalid_argument,
      says: "uniform: invalid dtype"
    )

    refused(Random.uniform(key, [1], low: :x), :invalid_argument, says: "low")
    refused(Random.uniform(key, [1], high: 1.0e300), :invalid_argument, says: "high")
    refused(Random.uniform(key, [1], low: -3.0e38, high: 3.0e38), :invalid_argument, says: "high")
    refused(Random.uniform(key, [1], mean: 1), :invalid_argument)
    refused(Random.uniform(key, [1], device: {:vulkan, 900}), :unknown_device)
    refused(Random.normal(key, [1], deviation: nil), :invalid_argument, says: "deviation")

    for {range, opts} <- [
          {0..256, [dtype: :u8]},
          {0..255, [dtype: :u8]},
          {-1..3, [dtype: :u8]},
          {3..1//1, []},
          {0..9//2, []},
          {5, []}
        ],
        do:
          refused(Random.integers(key, [1], range, opts), :invalid_argument,
            says: "integers: invalid range"
          )

    refused(Random.integers(key, [1], 0..9, dtype: :f32), :invalid_argument, says: "invalid dtype")

    refused(Random.integers(key, [1], 0..9, dtype: :x), :unsupported_dtype)
  end

  test "the draws of Ops are those of the key of the seed" do
    for seed <- [-1, 7, 1_000_000_000_000] do
      key = Random.key!(seed)
      draw = elem(Random.uniform!(key, [101], low: -1), 0)
      assert Buffer.read!(Ops.random_uniform!([101], seed, low: -1)) == Buffer.read!(draw)
      draw = elem(Random.normal!(key, [101], dtype: :f16), 0)
      assert Buffer.read!(Ops.random_normal!([101], seed, dtype: :f16)) == Buffer.read!(draw)
    end
  end
end
