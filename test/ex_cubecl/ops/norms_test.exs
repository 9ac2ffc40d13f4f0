defmodule ExCubecl.Ops.NormsTest do
  # Norms, logarithms of sums of exponentials and standard deviations, compared with plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1]

  alias ExCubecl.Ops

  @tolerances %{f64: 1.0e-12, f32: 2.0e-5, f16: 2.0e-3, bf16: 1.6e-2, s32: 2.0e-5, u8: 2.0e-5}

  setup do
    :rand.seed(:exsss, {5, 16, 2026})
    :ok
  end

  defp norm(list, :infinity), do: list |> Enum.map(&abs/1) |> Enum.max()
  defp norm(list, :neg_infinity), do: list |> Enum.map(&abs/1) |> Enum.min()
  defp norm(list, 0), do: Enum.count(list, &(&1 != 0))

  defp norm(list, order),
    do: :math.pow(Enum.sum(Enum.map(list, &:math.pow(abs(&1), order))), 1 / order)

  defp logsumexp(list), do: :math.log(Enum.sum(Enum.map(list, &:math.exp/1)))

  defp deviation(list) do
    mean = Enum.sum(list) / length(list)
    :math.sqrt(Enum.sum(Enum.map(list, &((&1 - mean) * (&1 - mean)))) / length(list))
  end

  defp compare(x, axes, keep?, name, opts, function) do
    rank = length(x.shape)
    kept = Enum.to_list(0..(rank - 1)//1) -- axes
    pick = fn at -> Enum.map(kept, &Enum.at(at, &1)) end
    elements = Enum.zip(coordinates(x.shape), Buffer.to_flat_list!(x))
    groups = Enum.group_by(elements, &pick.(elem(&1, 0)), &elem(&1, 1))
    result = apply(Ops, :"#{name}!", [x, [axes: axes, keep_axes: keep?] ++ opts])
    expected = for at <- coordinates(pick.(x.shape)), do: function.(groups[at])
    what = {name, opts, x.shape, x.dtype, axes, keep?}
    assert {what, length(result.shape)} == {what, if(keep?, do: rank, else: length(kept))}
    assert {what, Enum.product(result.shape)} == {what, length(expected)}
    largest = Enum.reduce(expected, 1.0, &max(abs(&1), &2))

    for {a, b} <- Enum.zip(Buffer.to_flat_list!(result), expected),
        do: assert_in_delta(a, b, @tolerances[x.dtype] * largest, inspect(what))
  end

  test "random shapes, axes and types" do
    for _ <- 1..15 do
      shape = for _ <- 1..Enum.random(0..4)//1, do: Enum.random([1, 2, 3, 5, 7])
      {:ok, %{dtypes: computed}} = Device.info(nil)
      types = Enum.filter(Map.keys(@tolerances), &(&1 != :f64 or &1 in computed))
      dtype = Enum.random(types)
      low = if dtype == :u8, do: 0, else: -4
      numbers = for _ <- 1..Enum.product(shape), do: Enum.random(low..4)
      x = ExCubecl.buffer!(numbers, shape, dtype)
      axes = for axis <- 0..(length(shape) - 1)//1, :rand.uniform(2) == 1, do: axis
      keep? = Enum.random([true, false])

      for order <- [2, 1, 0, 3, :infinity, :neg_infinity],
          do: compare(x, axes, keep?, :norm, [order: order], &norm(&1, order))

      compare(x, axes, keep?, :logsumexp, [], &logsumexp/1)
      if dtype != :bf16, do: compare(x, axes, keep?, :standard_deviation, [], &deviation/1)
    end
  end

  test "many elements, infinities and no elements" do
    x = Buffer.full!([100_000], :f16, 2)
    assert ExCubecl.item!(Ops.norm!(x, order: :infinity)) == 2.0
    assert ExCubecl.item!(Ops.norm!(Ops.slice!(x, [0], [10_000]))) == 200.0
    assert_in_delta ExCubecl.item!(Ops.logsumexp!(x)), 2 + :math.log(100_000), 0.01
    assert ExCubecl.item!(Ops.standard_deviation!(x)) == 0.0

    rows = [[:neg_infinity, :neg_infinity], [:infinity, -2], [:nan, 3], [1000, :neg_infinity]]
    special = ExCubecl.buffer!(rows, [4, 2], :f32)

    assert ExCubecl.to_list!(Ops.logsumexp!(special, axis: 1)) == [
             :neg_infinity,
             :infinity,
             :nan,
             1000.0
           ]

    assert ExCubecl.to_list!(Ops.norm!(special, axis: 1)) == [
             :infinity,
             :infinity,
             :nan,
             :infinity
           ]

    for {value, result} <- [nan: :nan, infinity: :infinity, neg_infinity: 70.0] do
      x = Buffer.full!([2, 40_000], :f32, :neg_infinity)
      :ok = Buffer.write(Buffer.view!(x, 300, [2]), [70, value])
      assert ExCubecl.to_list!(Ops.logsumexp!(x, axis: 1)) == [result, :neg_infinity]
      assert ExCubecl.item!(Ops.logsumexp!(x)) == result
    end

    none = Buffer.zeros!([2, 0], :f32)
    assert ExCubecl.to_list!(Ops.norm!(none, axis: 1)) == [0.0, 0.0]
    assert ExCubecl.to_list!(Ops.norm!(none, axis: 0)) == []
    assert ExCubecl.to_list!(Ops.logsumexp!(none, axis: 0)) == []
    refused(Ops.logsumexp(none), :invalid_argument, says: "logsumexp")
    refused(Ops.norm(none, order: Integer.pow(10, 400)), :invalid_argument, says: "order")
    refused(Ops.norm(none, order: :infinity), :invalid_argument, says: "norm")
  end

  test "arguments that do not fit" do
    x = Buffer.iota!([2, 3], :f32)
    assert_in_delta ExCubecl.item!(Ops.standard_deviation!(x, ddof: 1)), 1.8708287, 1.0e-5

    for name <- [:norm, :logsumexp, :standard_deviation] do
      call = &apply(Ops, name, [&1, &2])
      refused(call.(x, axes: [0, 2]), :invalid_argument, says: "#{name}: invalid axis 2")
      refused(call.(x, axes: [0, -2]), :invalid_argument, says: "#{name}: invalid axes")
      refused(call.(x, keep_axes: 1), :invalid_argument, says: "#{name}: invalid keep_axes")
      refused(call.(:x, []), :invalid_argument)
    end

    refused(Ops.norm(x, order: :fro), :invalid_argument, says: "norm: invalid order :fro")
    refused(Ops.standard_deviation(x, ddof: -1), :invalid_argument)
  end
end
