defmodule ExCubecl.NxSemanticsTest do
  # Results of which other backends get some wrong, with small tensors on the host and with all on the device.
  use ExUnit.Case, async: false

  # Of random bits, so that all exponents occur, and by the least number.
  test "reduce and window_reduce begin with an element of another tensor" do
    x = Nx.iota({2, 3})
    first = Nx.tensor([7, -100, 3])[1]
    sum = fn a, b -> Nx.add(a, b) end
    assert Nx.to_flat_list(Nx.reduce(x, first, [axes: [1]], sum)) == [-97, -88]
    assert Nx.to_flat_list(Nx.window_reduce(x, first, {1, 3}, sum)) == [-97, -88]
  end

  test "the remainder of 64-bit floats is exact" do
    seed = System.unique_integer([:positive]) |> tap(&:rand.seed(:exsss, &1))
    by_least = for _ <- 1..500, do: {any_float(), 5.0e-324}
    near = for _ <- 1..500, do: {(:rand.uniform() - 0.5) * 1.0e6, :rand.uniform() - 0.5}
    pairs = by_least ++ near ++ for(_ <- 1..2_000, do: {any_float(), any_float()})
    {xs, ys} = Enum.unzip(for {x, y} <- pairs, y != 0, do: {x, y})

    [a, b] =
      for list <- [xs, ys],
          do: Nx.tensor(list, type: :f64, backend: {ExCubecl.Backend, fallback: :raise})

    bits = Nx.to_binary(Nx.remainder(a, b))

    for {x, y, <<found::binary>>} <- Enum.zip([xs, ys, for(<<f::binary-8 <- bits>>, do: f)]),
        do: assert({seed, x, y, found} == {seed, x, y, <<:math.fmod(x, y)::float-native-64>>})
  end

  defp any_float do
    case :rand.bytes(8) do
      <<x::float-64>> -> x
      _ -> any_float()
    end
  end

  for limit <- [0, 64] do
    describe "host_limit: #{limit}" do
      setup do
        Nx.default_backend({ExCubecl.Backend, host_limit: unquote(limit)})
        :ok
      end

      test "sorting of unsigned and of the lowest values" do
        assert sorted([3, 0, 200, 1], :u8, :desc) == [200, 3, 1, 0]
        assert sorted([3, 0, -128, 127], :s8, :desc) == [127, 3, 0, -128]
        assert sorted([3, 0, -128, 127], :s8, :asc) == [-128, 0, 3, 127]
        # NaN is behind all numbers.
        assert sorted([:nan, 1.0, :infinity, :neg_infinity], :f32, :asc) ==
                 [:neg_infinity, 1.0, :infinity, :nan]
      end

      test "integer division" do
        assert list(Nx.remainder(int([-4, 5, -5, 7]), int([2, -3, 3, 2]))) == [0, 2, -2, 1]
        assert list(Nx.quotient(int([-7, 7, -7]), int([2, -2, -2]))) == [-3, -3, 3]

        for name <- [:quotient, :remainder],
            do:
              assert_raise(ArithmeticError, fn -> apply(Nx, name, [int([1, 2]), int([1, 0])]) end)
      end

      test "the lowest integer has no magnitude and no negative" do
        lowest = Nx.tensor([-128, 5], type: :s8)
        assert list(Nx.abs(lowest)) == [-128, 5]
        assert list(Nx.negate(lowest)) == [-128, -5]
      end

      test "roots and quotients" do
        assert list(Nx.cbrt(float([-8.0, 27.0, 0.0]))) == [-2.0, 3.0, 0.0]
        third = Nx.divide(Nx.tensor([1.0, 2.0], type: :f64), Nx.tensor([3.0, 3.0], type: :f64))
        assert list(third) == [0.3333333333333333, 0.6666666666666666]
      end

      test "integers are exact" do
        assert Nx.to_number(Nx.dot(int([16_777_217, 1]), int([1, 0]))) == 16_777_217
        most = 18_446_744_073_709_551_615
        assert Nx.to_number(Nx.tensor(most, type: :u64)) == most
        assert list(Nx.max(Nx.tensor([most, 1], type: :u64), 2)) == [most, 2]

        assert list(Nx.pow(int([3, -2, 0]), int([30, 31, 0]))) == [
                 205_891_132_094_649,
                 -2_147_483_648,
                 1
               ]

        assert_raise ArithmeticError, fn -> Nx.pow(int([2, 3]), int([1, -1])) end
      end

      test "bits" do
        bytes = Nx.tensor([0, 1, 255, 128], type: :u8)
        assert list(Nx.population_count(bytes)) == [0, 1, 8, 1]
        assert list(Nx.count_leading_zeros(bytes)) == [8, 7, 0, 0]
        assert list(Nx.left_shift(int([1, 3]), int([62, 100]))) == [4_611_686_018_427_387_904, 0]
        assert list(Nx.right_shift(int([-8, 8]), int([100, 2]))) == [-1, 2]
        assert_raise ArgumentError, fn -> Nx.left_shift(int([1, 3]), int([1, -1])) end
      end

      test "reads out of bounds raise, and dynamic slices are clamped" do
        x = int([10, 11, 12, 13])

        for index <- [-1, 4] do
          assert_raise ArgumentError, fn -> Nx.take(x, int([index])) end
          assert_raise ArgumentError, fn -> Nx.gather(x, Nx.reshape(int([index]), {1, 1})) end
        end

        assert list(Nx.slice(x, [Nx.tensor(-1)], [2])) == [10, 11]
        assert list(Nx.slice(x, [Nx.tensor(3)], [2])) == [12, 13]
        assert list(Nx.put_slice(x, [Nx.tensor(9)], int([0, 1]))) == [10, 11, 0, 1]
      end

      test "the last of several writes of an element is kept" do
        target = int([0, 0, 0])
        indices = Nx.tensor([[1], [1], [2]])
        assert list(Nx.indexed_put(target, indices, int([5, 6, 7]))) == [0, 6, 7]
        assert list(Nx.indexed_add(target, indices, int([5, 6, 7]))) == [0, 11, 7]
      end

      test "a scalar on the device with a tensor whose elements are all the same" do
        one = Nx.sum(Nx.iota({100})) |> Nx.greater(0)
        twos = Nx.broadcast(2, {3})
        assert Nx.to_flat_list(Nx.add(one, twos)) == [3, 3, 3]
        assert Nx.to_flat_list(Nx.select(one, twos, Nx.broadcast(5, {3}))) == [2, 2, 2]
        assert Nx.shape(Nx.add(Nx.new_axis(one, 0), Nx.broadcast(2, {2, 1, 3}))) == {2, 1, 3}
      end

      test "conversion to integers" do
        odd = float([300.7, -300.7, 1.0e10, -0.5])
        assert list(Nx.as_type(odd, :u8)) == [44, 212, 0, 0]
        assert list(Nx.as_type(odd, :s64)) == [300, -300, 10_000_000_000, 0]
        special = float([:nan, :infinity, :neg_infinity])
        assert list(Nx.as_type(special, :s8)) == [0, 127, -128]
        assert list(Nx.as_type(special, :u32)) == [0, 4_294_967_295, 0]
      end

      test "rounding is half away from zero" do
        assert list(Nx.round(float([0.5, -0.5, 2.5, -2.5, 0.4]))) == [1.0, -1.0, 3.0, -3.0, 0.0]
      end

      # Nx.BinaryBackend raises, does not return, or has another result for some of these.
      test "infinities and NaN" do
        x = float([:infinity, :neg_infinity, :nan, -2.5])

        for {name, expected} <- [
              sign: [1.0, -1.0, :nan, -1.0],
              ceil: [:infinity, :neg_infinity, :nan, -2.0],
              floor: [:infinity, :neg_infinity, :nan, -3.0],
              round: [:infinity, :neg_infinity, :nan, -3.0],
              log: [:infinity, :nan, :nan, :nan],
              log1p: [:infinity, :nan, :nan, :nan],
              atanh: [:nan, :nan, :nan, :nan]
            ] do
          assert {name, list(apply(Nx, name, [x]))} == {name, expected}
          one = for i <- 0..3, do: Nx.to_number(apply(Nx, name, [x[i]]))
          assert {name, one} == {name, expected}
          assert {name, list(apply(Nx, name, [Nx.broadcast(x[2], {2})]))} == {name, [:nan, :nan]}
        end

        assert [1.0, -1.0, :nan, _] = list(Nx.tanh(x))
        assert list(Nx.remainder(x, 2)) == [:nan, :nan, :nan, -0.5]
        assert list(Nx.remainder(1.5, x)) == [1.5, 1.5, :nan, 1.5]
        assert list(Nx.remainder(float([1.5]), 0.0)) == [:nan]
        assert [one, _, :nan, _] = list(Nx.atan2(1.0, x))
        assert one == 0.0
        assert list(Nx.atan2(float([:nan]), 1.0)) == [:nan]
        assert list(Nx.phase(float([:nan, 1.0]))) == [:nan, 0.0]
      end

      test "minima, maxima and their indices" do
        x = float([1.0, :nan, 3.0])
        assert {Nx.to_number(Nx.reduce_max(x)), Nx.to_number(Nx.reduce_min(x))} == {:nan, :nan}
        assert list(Nx.max(x, float([:nan, 2.0, 2.0]))) == [:nan, :nan, 3.0]
        ties = int([2, 1, 2, 1])
        assert Nx.to_number(Nx.argmax(ties)) == 0
        assert Nx.to_number(Nx.argmax(ties, tie_break: :high)) == 2
        assert Nx.to_number(Nx.argmin(ties, tie_break: :high)) == 3
      end

      test "functions of the caller" do
        # The function is given scalars of the default type of integers, which depends on the version.
        x = float([1.0, 2.0, 3.0, 4.0])
        assert Nx.to_number(Nx.reduce(x, 0.0, &Nx.add/2)) == 10.0
        assert list(Nx.window_reduce(x, 0.0, {2}, &Nx.add/2)) == [3.0, 5.0, 7.0]
      end

      test "convolution with groups of the batch" do
        conv = fn backend ->
          [input, kernel] =
            for {shape, type} <- [{{4, 1, 3, 3}, :f32}, {{2, 1, 2, 2}, :f32}],
                do: Nx.iota(shape, type: type, backend: backend)

          Nx.to_flat_list(Nx.conv(input, kernel, batch_group_size: 2))
        end

        expected = Nx.with_default_backend(Nx.BinaryBackend, fn -> conv.(Nx.BinaryBackend) end)
        assert conv.({ExCubecl.Backend, host_limit: unquote(limit)}) == expected
      end
    end
  end

  defp list(tensor), do: Nx.to_flat_list(tensor)
  defp int(list), do: Nx.tensor(list, type: :s64)
  defp float(list), do: Nx.tensor(list, type: :f32)

  defp sorted(list, type, direction),
    do: list |> Nx.tensor(type: type) |> Nx.sort(direction: direction) |> Nx.to_flat_list()
end
