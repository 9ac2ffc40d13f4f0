defmodule ExCubecl.Ops.NormalizationTest do
  # Softmax and normalizations, compared with plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1]

  alias ExCubecl.{Ops, View}

  setup do
    :rand.seed(:exsss, {4, 16, 2026})
    :ok
  end

  # A part of the size of the largest result: two roundings of the type, and those of the functions of the device.
  @tolerances %{f64: 1.0e-12, f32: 2.0e-5, f16: 2.0e-3, bf16: 1.6e-2, s32: 2.0e-5, u8: 2.0e-5}

  # 64-bit floats are not there on every device.
  defp types do
    {:ok, %{dtypes: computed}} = Device.info(nil)
    Enum.filter(Map.keys(@tolerances), &(&1 != :f64 or &1 in computed))
  end

  defp random(shape, dtype) do
    low = if dtype == :u8, do: 0, else: -4
    numbers = for _ <- 1..Enum.product(shape)//1, do: Enum.random(low..4)
    ExCubecl.buffer!(numbers, shape, dtype)
  end

  # The results of a function of lists on the rows along an axis, in row-major order.
  defp by_rows(x, axis, function) do
    places = coordinates(x.shape)
    elements = Enum.zip(places, Buffer.to_flat_list!(x))
    rows = Enum.group_by(elements, &List.delete_at(elem(&1, 0), axis), &elem(&1, 1))
    results = Map.new(rows, fn {key, row} -> {key, List.to_tuple(function.(row))} end)
    for at <- places, do: elem(results[List.delete_at(at, axis)], Enum.at(at, axis))
  end

  defp softmax(row) do
    max = Enum.max(row)
    exps = Enum.map(row, &:math.exp(&1 - max))
    sum = Enum.sum(exps)
    Enum.map(exps, &(&1 / sum))
  end

  defp log_softmax(row), do: Enum.map(softmax(row), &:math.log/1)

  defp layer_norm(row, scale, bias) do
    mean = Enum.sum(row) / length(row)
    variance = Enum.sum(Enum.map(row, &((&1 - mean) * (&1 - mean)))) / length(row)

    Enum.zip_with([row, scale, bias], fn [x, scale, bias] ->
      (x - mean) / :math.sqrt(variance + 0.1) * scale + bias
    end)
  end

  defp rms_norm(row, scale) do
    square = Enum.sum(Enum.map(row, &(&1 * &1))) / length(row)
    Enum.zip_with(row, scale, &(&1 / :math.sqrt(square + 0.1) * &2))
  end

  defp assert_close(what, buffer, expected, dtype) do
    found = Buffer.to_flat_list!(buffer)
    largest = Enum.reduce(expected, 1.0, &max(abs(&1), &2))

    for {a, b} <- Enum.zip(found, expected),
        abs(a - b) > @tolerances[dtype] * largest,
        do: flunk("#{inspect(what)}: #{a}, expected #{b}")

    assert length(found) == length(expected)
  end

  test "random shapes, axes, types and views" do
    for _ <- 1..20 do
      shape = for _ <- 1..Enum.random(1..4), do: Enum.random([0, 1, 2, 3, 5, 40])
      dtype = Enum.random(types())
      axis = Enum.random(0..(length(shape) - 1))
      x = random(shape, dtype)
      n = Enum.at(shape, axis)
      [scale, bias] = for _ <- 1..2, do: random([n], Enum.random([:f32, :s32]))
      [scales, biases] = Enum.map([scale, bias], &Buffer.to_flat_list!/1)
      given = Enum.random([x, turned(x, dtype)])
      options = [axis: Enum.random([axis, axis - length(shape)])]
      more = [epsilon: 0.1, scale: scale] ++ options

      for {name, result, function} <- [
            {:softmax, Ops.softmax!(given, options), &softmax/1},
            {:log_softmax, Ops.log_softmax!(given, options), &log_softmax/1},
            {:layer_norm, Ops.layer_norm!(given, [bias: bias] ++ more),
             &layer_norm(&1, scales, biases)},
            {:rms_norm, Ops.rms_norm!(given, more), &rms_norm(&1, scales)}
          ] do
        what = {name, shape, axis, dtype}
        expected_type = if dtype in [:s32, :u8], do: :f32, else: dtype
        assert {what, result.shape, result.dtype} == {what, shape, expected_type}
        assert_close(what, result, by_rows(x, axis, function), dtype)
      end
    end
  end

  # A view with the same elements, where the device can copy the type.
  defp turned(x, :bf16), do: x
  defp turned(x, _dtype), do: x |> Ops.transpose!() |> View.transpose!()

  # One invocation, workgroups of each size, and several launches.
  test "rows of every length" do
    for n <- [1, 32, 33, 256, 257, 1024, 1025, 65_537, 131_073] do
      x = Ops.random_normal!([2, n], n, deviation: 3)
      rows = x |> ExCubecl.to_list!()

      for {name, function} <- [
            softmax: &softmax/1,
            log_softmax: &log_softmax/1,
            layer_norm: &layer_norm(&1, List.duplicate(1, n), List.duplicate(0, n)),
            rms_norm: &rms_norm(&1, List.duplicate(1, n))
          ] do
        options = if name in [:layer_norm, :rms_norm], do: [epsilon: 0.1], else: []
        result = apply(Ops, :"#{name}!", [x, options])
        assert_close({name, n}, result, Enum.flat_map(rows, function), :f32)
      end
    end
  end

  test "infinities and NaN" do
    for n <- [3, 40], dtype <- [:f32, :f16, :bf16] do
      rest = List.duplicate(0, n - 2)
      lowest = List.duplicate(:neg_infinity, n)
      rows = [lowest, [:infinity, 1 | rest], [:nan, 1 | rest], [:neg_infinity, 0 | rest]]
      x = ExCubecl.buffer!(rows, [4, n], dtype)
      part = 1 / (n - 1)

      [all, [first | _], nan, [zero, one | _]] = ExCubecl.to_list!(Ops.softmax!(x))
      assert Enum.uniq(all ++ nan) == [:nan] and first == :nan
      assert zero == 0.0
      assert_in_delta one, part, 0.01
      [_, _, _, [low, log | _]] = ExCubecl.to_list!(Ops.log_softmax!(x))
      assert low == :neg_infinity
      assert_in_delta log, :math.log(part), 0.05
    end
  end

  test "16-bit floats do not overflow" do
    x = ExCubecl.buffer!(Enum.flat_map(1..50, fn _ -> [60_000, -60_000] end), [100], :f16)
    assert Buffer.to_flat_list!(Ops.layer_norm!(x)) |> Enum.uniq() == [1.0, -1.0]
    assert Buffer.to_flat_list!(Ops.rms_norm!(x)) |> Enum.uniq() == [1.0, -1.0]
    [half, zero] = x |> Ops.softmax!() |> Buffer.to_flat_list!() |> Enum.uniq()
    assert_in_delta half, 0.02, 1.0e-4
    assert zero == 0.0
  end

  test "arguments that do not fit" do
    x = Buffer.iota!([2, 3], :f32)

    for name <- [:softmax, :log_softmax, :layer_norm, :rms_norm] do
      call = &apply(Ops, name, [&1, &2])
      refused(call.(x, axis: 2), :invalid_argument, says: "#{name}: invalid axis 2")
      refused(call.(x, axis: :last), :invalid_argument, says: "#{name}: invalid axis")
      refused(call.(Buffer.iota!([], :f32), []), :invalid_argument, says: "#{name}: invalid axis")
      refused(call.(x, axes: [0]), :invalid_argument)
      refused(call.(1.0, []), :invalid_argument)
    end

    for wrong <- [[2], [1], [1, 3], []] do
      refused(Ops.layer_norm(x, scale: Buffer.iota!(wrong, :f32)), :shape_mismatch,
        says:
          "layer_norm: shape #{inspect(wrong)} is not that of a vector along axis 1 of shape [2, 3]"
      )
    end

    refused(Ops.rms_norm(x, bias: 1), :invalid_argument)
    refused(Ops.rms_norm(x, scale: :one), :invalid_argument)

    # No float holds it.
    for option <- [:epsilon, :scale, :bias],
        do: refused(Ops.layer_norm(x, [{option, Integer.pow(10, 400)}]), :invalid_argument)

    refused(Ops.layer_norm(x, epsilon: -1), :invalid_argument, says: "layer_norm: invalid epsilon")
  end
end
