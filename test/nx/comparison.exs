defmodule ExCubecl.NxComparisonTest do
  # Comparisons of types of which none has all values of both.
  use ExUnit.Case, async: true

  @operations [:equal, :not_equal, :less, :less_equal, :greater, :greater_equal]

  @values %{
    s8: [-128, -1, 0, 1, 127],
    u8: [0, 1, 2, 128, 255],
    s32: [-2_147_483_648, -16_777_217, -1, 0, 16_777_217, 2_147_483_647],
    u32: [0, 1, 16_777_217, 2_147_483_648, 4_294_967_295],
    s64:
      [-9_223_372_036_854_775_808, -9_007_199_254_740_993, -1, 0, 1, 16_777_217] ++
        [9_007_199_254_740_993, 9_223_372_036_854_775_807],
    u64: [0, 1, 9_007_199_254_740_993, 9_223_372_036_854_775_808, 18_446_744_073_709_551_615],
    f16: [-65_504.0, -0.5, 0.0, 1.0, 65_504.0],
    bf16: [-1.0e30, -1.0, 0.0, 0.5, 1.0e30],
    f32:
      [-3.0e38, -9.223372036854775808e18, -0.5, -0.0, 0.5, 1.0, 16_777_216.0] ++
        [9.223372036854775808e18, 1.8446744073709551616e19],
    f64:
      [-1.0e300, -9.223372036854775808e18, -9_007_199_254_740_992.0, -0.25, 0.0, 1.0] ++
        [9_007_199_254_740_992.0, 9.223372036854774784e18, 1.8446744073709551616e19, 1.0e300]
  }

  @bounds [s8: {-128, 127}, u8: {0, 255}, s32: {-2 ** 31, 2 ** 31 - 1}, u32: {0, 2 ** 32 - 1}] ++
            [s64: {-(2 ** 63), 2 ** 63 - 1}, u64: {0, 2 ** 64 - 1}]

  setup do
    Nx.default_backend({ExCubecl.Backend, host_limit: 0, fallback: :raise})
    :ok
  end

  defp results(list, other, a, b) do
    [x, y] = [Nx.tensor(list, type: a), Nx.tensor(other, type: b)]
    x = Nx.new_axis(x, 1)
    for name <- @operations, do: {name, a, b, Nx.to_flat_list(apply(Nx, name, [x, y]))}
  end

  # Erlang compares the values of integers and floats.
  defp expected(list, other, a, b) do
    for name <- @operations,
        do: {name, a, b, for(x <- list, y <- other, do: if(holds?(name, x, y), do: 1, else: 0))}
  end

  defp holds?(:equal, x, y), do: x == y
  defp holds?(:not_equal, x, y), do: x != y
  defp holds?(:less, x, y), do: x < y
  defp holds?(:less_equal, x, y), do: x <= y
  defp holds?(:greater, x, y), do: x > y
  defp holds?(:greater_equal, x, y), do: x >= y

  # As the type rounds them.
  defp rounded(type),
    do: Nx.to_flat_list(Nx.tensor(@values[type], type: type, backend: Nx.BinaryBackend))

  test "all pairs of types" do
    types = Map.keys(@values)

    for a <- types, b <- types do
      [list, other] = for type <- [a, b], do: rounded(type)
      assert results(list, other, a, b) == expected(list, other, a, b)
    end
  end

  test "random numbers near the bounds of the types" do
    seed = System.unique_integer([:positive]) |> tap(&:rand.seed(:exsss, &1))

    for {a, bounds} <- @bounds, {b, other} <- @bounds ++ [f32: nil, f64: nil] do
      list = for _ <- 1..20, do: near(bounds)
      others = for _ <- 1..20, do: near(other || bounds)

      others =
        if other,
          do: others,
          else:
            Nx.to_flat_list(
              Nx.tensor(Enum.map(others, &(&1 / 1)), type: b, backend: Nx.BinaryBackend)
            )

      assert {seed, results(list, others, a, b)} == {seed, expected(list, others, a, b)}
    end
  end

  defp near({least, most}) do
    distance = :rand.uniform(1_024) - 1

    Enum.random([
      least + rem(distance, 128),
      most - rem(distance, 128),
      max(least, min(most, 512 - distance))
    ])
  end

  # The result is an :s64, which does not have all values of :u64.
  defp operations do
    [
      max: &Nx.max/2,
      min: &Nx.min/2,
      quotient: &Nx.quotient(&1, Nx.select(Nx.equal(&2, 0), 3, &2)),
      remainder: &Nx.remainder(&1, Nx.select(Nx.equal(&2, 0), 3, &2)),
      right_shift: &Nx.right_shift(&1, Nx.abs(Nx.remainder(&2, 80))),
      clip: &Nx.clip(&1, &2[0], &2[1]),
      clip_from: &Nx.clip(&1, &2[0], Nx.tensor(18_446_744_073_709_551_000, type: :u64)),
      number: &Nx.max(Nx.min(&1, -5), Nx.remainder(&2, Nx.tensor(2 ** 64 - 7, type: :u64)))
    ]
  end

  test "operations of :u64 and signed integers calculate with the values" do
    seed = System.unique_integer([:positive]) |> tap(&:rand.seed(:exsss, &1))

    for signed <- [:s8, :s32, :s64], {a, b} <- [{:u64, signed}, {signed, :u64}] do
      lists = for type <- [a, b], do: for(_ <- 1..30, do: near(@bounds[type]))

      for {name, fun} <- operations(), compiler <- [nil, ExCubecl.Compiler] do
        assert {seed, name, a, b, mixed(fun, lists, [a, b], compiler)} ==
                 {seed, name, a, b, mixed(fun, lists, [a, b], :host)}
      end
    end
  end

  defp mixed(fun, lists, types, :host) do
    backend = Nx.default_backend(Nx.BinaryBackend)
    result = mixed(fun, lists, types, nil)
    Nx.default_backend(backend)
    result
  end

  defp mixed(fun, lists, types, compiler) do
    tensors = for {list, type} <- Enum.zip(lists, types), do: Nx.tensor(list, type: type)

    result =
      if compiler,
        do: Nx.Defn.jit_apply(fun, tensors, compiler: compiler),
        else: apply(fun, tensors)

    {result.type, Nx.to_flat_list(result)}
  end

  test "numbers, which have no type of their own that has the values of the tensor" do
    x = Nx.tensor([-1, 0, 2, 9_223_372_036_854_775_807], type: :s64)
    y = Nx.tensor([0, 3, 18_446_744_073_709_551_615], type: :u64)
    assert Nx.to_flat_list(Nx.less(x, 1.5)) == [1, 1, 0, 0]
    assert Nx.to_flat_list(Nx.less(1.5, x)) == [0, 0, 1, 1]
    assert Nx.to_flat_list(Nx.less(x, 9.223372036854775808e18)) == [1, 1, 1, 1]
    assert Nx.to_flat_list(Nx.greater(y, -1)) == [1, 1, 1]
    assert Nx.to_flat_list(Nx.greater_equal(y, 3.0)) == [0, 1, 1]

    assert Nx.to_flat_list(Nx.equal(x, Nx.tensor(9_223_372_036_854_775_808, type: :u64))) == [
             0,
             0,
             0,
             0
           ]

    nan = Nx.Constants.nan()
    infinity = Nx.Constants.infinity()
    assert Nx.to_flat_list(Nx.equal(x, nan)) == [0, 0, 0, 0]
    assert Nx.to_flat_list(Nx.not_equal(y, nan)) == [1, 1, 1]
    assert Nx.to_flat_list(Nx.less(x, infinity)) == [1, 1, 1, 1]
    assert Nx.to_flat_list(Nx.greater(y, Nx.negate(infinity))) == [1, 1, 1]
  end
end
