defmodule ExCubecl.NxTypePairsTest do
  # Operations of one type and of each two types, with the values at their limits, against Nx.BinaryBackend. NX_TYPE_PAIRS is the number of random
  # cases, or `all`.
  use ExUnit.Case, async: true

  @values %{
    s8: [-128, -127, -1, 0, 1, 2, 7, 8, 127],
    u8: [0, 1, 2, 7, 8, 127, 128, 255],
    s16: [-32_768, -129, -1, 0, 1, 16, 15, 32_767],
    u16: [0, 1, 15, 16, 32_767, 32_768, 65_535],
    s32: [-2_147_483_648, -32_769, -1, 0, 1, 31, 32, 2_147_483_647],
    u32: [0, 1, 31, 32, 2_147_483_647, 2_147_483_648, 4_294_967_295],
    s64: [-(2 ** 63), -2_147_483_649, -1, 0, 1, 63, 64, 2 ** 63 - 1],
    u64: [0, 1, 63, 64, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1],
    f16: [-65_504.0, -1.5, -0.0, 0.0, 0.5, 1.0, 2.5, 65_504.0],
    bf16: [-1.0e30, -1.5, -0.0, 0.0, 0.5, 1.0, 2.5, 1.0e30],
    f32: [-3.0e38, -1.5, -0.0, 0.0, 0.5, 1.0, 2.5, 3.0e38],
    f64: [-1.0e300, -1.5, -0.0, 0.0, 0.5, 1.0, 2.5, 1.0e300]
  }

  # Nx.BinaryBackend cuts off the digits that :bf16 does not have.
  @tolerance %{{:f, 64} => 1.0e-6, {:f, 32} => 1.0e-5, {:f, 16} => 2.0e-3, {:bf, 16} => 1.6e-2}

  defp one_type do
    [
      negate: &Nx.negate/1,
      abs: &Nx.abs/1,
      sign: &Nx.sign/1,
      bitwise_not: &Nx.bitwise_not/1,
      population_count: &Nx.population_count/1,
      count_leading_zeros: &Nx.count_leading_zeros/1,
      floor: &Nx.floor/1,
      ceil: &Nx.ceil/1,
      round: &Nx.round/1,
      logical_not: &Nx.logical_not/1,
      exp: &Nx.exp(Nx.clip(&1, 0, 5)),
      tanh: &Nx.tanh/1,
      atan: &Nx.atan/1,
      sqrt: &Nx.sqrt(Nx.abs(&1)),
      sigmoid: &Nx.sigmoid(Nx.clip(&1, 0, 5)),
      sum: &Nx.sum/1,
      product: &Nx.product(small(&1)),
      mean: &Nx.mean/1,
      reduce_max: &Nx.reduce_max/1,
      reduce_min: &Nx.reduce_min/1,
      argmax: &Nx.argmax/1,
      argmin: &Nx.argmin(&1, tie_break: :high),
      all: &Nx.all/1,
      any: &Nx.any/1,
      cumulative_sum: &Nx.cumulative_sum(small(&1)),
      cumulative_product: &Nx.cumulative_product(small(&1)),
      cumulative_max: &Nx.cumulative_max(&1, reverse: true),
      cumulative_min: &Nx.cumulative_min/1,
      sort: &Nx.sort(&1, direction: :desc),
      argsort: &Nx.argsort/1,
      reverse: &Nx.reverse/1,
      window_sum: &Nx.window_sum(&1, {3}),
      window_max: &Nx.window_max(&1, {3}, padding: :same),
      window_min: &Nx.window_min(&1, {2}, strides: [2]),
      window_product: &Nx.window_product(&1, {2}),
      variance: &Nx.variance(&1[1..5]),
      diff: &Nx.diff/1,
      tile: &Nx.tile(&1, [2]),
      square: &Nx.dot(Nx.new_axis(&1, 1), Nx.new_axis(&1, 0)),
      times: &Nx.multiply(&1, 3),
      plus: &Nx.add(&1, 100)
    ]
  end

  defp two_types do
    [
      add: &Nx.add/2,
      subtract: &Nx.subtract/2,
      multiply: &Nx.multiply/2,
      divide: &Nx.divide(&1, divisor(&2)),
      max: &Nx.max/2,
      min: &Nx.min/2,
      quotient: &Nx.quotient(&1, divisor(&2)),
      remainder: &Nx.remainder(&1, divisor(&2)),
      atan2: &Nx.atan2/2,
      pow: &Nx.pow(&1, same_type(Nx.clip(&2, 0, 5), &2)),
      bitwise_and: &Nx.bitwise_and/2,
      bitwise_or: &Nx.bitwise_or/2,
      bitwise_xor: &Nx.bitwise_xor/2,
      left_shift: &Nx.left_shift(&1, distance(&2)),
      right_shift: &Nx.right_shift(&1, distance(&2)),
      equal: &Nx.equal/2,
      not_equal: &Nx.not_equal/2,
      greater: &Nx.greater/2,
      less: &Nx.less/2,
      greater_equal: &Nx.greater_equal/2,
      less_equal: &Nx.less_equal/2,
      logical_and: &Nx.logical_and/2,
      logical_or: &Nx.logical_or/2,
      logical_xor: &Nx.logical_xor/2,
      select: &Nx.select(Nx.greater(&1, &2), &1, &2),
      clip: &Nx.clip(&1, flat(&2)[1], flat(&2)[4]),
      concatenate: &Nx.concatenate([flat(&1), flat(&2)]),
      put_slice: &Nx.put_slice(flat(&1), [1], flat(&2)[0..2]),
      indexed_add: &Nx.indexed_add(flat(&1), Nx.tensor([[0], [1], [0]]), flat(&2)[0..2]),
      indexed_put: &Nx.indexed_put(flat(&1), Nx.tensor([[0], [1]]), flat(&2)[3..4]),
      dot: &Nx.dot(flat(&1)[1..5], flat(&2)[1..5]),
      reduce: &Nx.reduce(flat(&1), flat(&2)[3], fn x, y -> Nx.max(x, y) end),
      as_type: &Nx.as_type(&1, &2.type)
    ]
  end

  # The order of floats decides what overflows.
  defp small(%{type: {:s, _}} = t), do: t
  defp small(%{type: {:u, _}} = t), do: t
  defp small(t), do: Nx.clip(t, -3, 3)

  defp flat(t), do: Nx.flatten(t)
  defp same_type(t, %{type: type}), do: Nx.as_type(t, type)
  defp divisor(t), do: Nx.select(Nx.equal(t, 0), Nx.as_type(1, t.type), t)
  defp distance(t), do: t |> Nx.abs() |> Nx.clip(0, 70) |> same_type(t)

  test "values at the limits of types" do
    seed = System.unique_integer([:positive]) |> tap(&:rand.seed(:exsss, &1))
    types = @values |> Map.keys() |> Enum.sort()
    one = for {name, fun} <- one_type(), a <- types, do: {name, fun, [a]}
    two = for {name, fun} <- two_types(), a <- types, b <- types, do: {name, fun, [a, b]}

    cases =
      case System.get_env("NX_TYPE_PAIRS") || "150" do
        "all" -> one ++ two
        count -> Enum.take_random(one ++ two, String.to_integer(count))
      end

    wrong =
      for {name, fun, types} <- cases,
          expected = result(Nx.BinaryBackend, fun, types),
          # It raises where a float overflows.
          not match?({:raised, ArithmeticError, _}, expected),
          given = result({ExCubecl.Backend, host_limit: 0}, fun, types),
          not close?(given, expected),
          do: {name, types, given, expected}

    assert {seed, length(wrong), Enum.take(wrong, 10)} == {seed, 0, []}
  end

  defp result(backend, fun, types) do
    Nx.default_backend(backend)
    tensors = for type <- types, do: Nx.tensor(@values[type], type: type)

    tensors =
      case tensors do
        [a] -> [a]
        [a, b] -> [Nx.new_axis(a, 1), Nx.new_axis(b, 0)]
      end

    result = apply(fun, tensors)
    {result.type, result.shape, Nx.to_flat_list(result)}
  rescue
    error -> {:raised, error.__struct__, Exception.message(error)}
  end

  defp close?({:raised, error, _}, {:raised, error, _}), do: true

  defp close?({type, shape, given}, {type, shape, expected}) do
    most = @tolerance[type] || 0

    Enum.zip(given, expected)
    |> Enum.all?(fn {x, y} ->
      x == y or (is_number(x) and is_number(y) and abs(x - y) <= most * abs(y) + 1.0e-30)
    end)
  end

  defp close?(_given, _expected), do: false
end
