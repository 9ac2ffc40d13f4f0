defmodule ExCubecl.Ops.ElementWiseTest do
  # Each element-wise operation against plain Elixir, in the types of the device.
  use ExCubecl.Case, async: false

  import Bitwise
  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [values: 2]

  alias ExCubecl.Ops

  @integers [:s8, :u8, :s16, :u16, :s32, :u32, :s64, :u64]

  setup do
    :rand.seed(:exsss, {9, 16, 2026})
    :ok
  end

  defp types(types) do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)
    Enum.filter(types, &(&1 in dtypes))
  end

  defp buffer(list, dtype), do: ExCubecl.buffer!(list, [length(list)], dtype)
  defp flat(buffer), do: Buffer.to_flat_list!(buffer)
  defp bits(type), do: 8 * ExCubecl.DType.size!(type)
  defp unsigned?(type), do: type in [:u8, :u16, :u32, :u64]

  # An integer as its type keeps it.
  defp wrapped(number, type) do
    size = bits(type)

    if unsigned?(type) do
      <<kept::unsigned-size(size)>> = <<number::size(size)>>
      kept
    else
      <<kept::signed-size(size)>> = <<number::size(size)>>
      kept
    end
  end

  defp bit(true), do: 1
  defp bit(false), do: 0

  test "operations on integers, with the limits of every type" do
    for type <- types(@integers), _ <- 1..4 do
      [x, y] = for _ <- 1..2, do: ExCubecl.buffer!(values(type, 40), [40], type)

      for {name, fun} <- [
            bitwise_and: &band/2,
            bitwise_or: &bor/2,
            bitwise_xor: &bxor/2,
            quotient: fn a, b -> if b == 0, do: 0, else: div(a, b) end,
            logical_and: &bit(&1 != 0 and &2 != 0),
            logical_or: &bit(&1 != 0 or &2 != 0),
            logical_xor: &bit(&1 != 0 != (&2 != 0)),
            integer_pow: fn a, b -> if b < 0, do: 0, else: Integer.pow(a, min(b, 300)) end
          ] do
        y = if name == :integer_pow, do: Ops.clip!(y, 0, 100), else: y
        result = apply(Ops, :"#{name}!", [x, y])
        expected = Enum.zip_with(flat(x), flat(y), &wrapped(fun.(&1, &2), type))
        assert {name, type, flat(result)} == {name, type, expected}
      end

      for {name, fun} <- [
            bitwise_not: &bnot/1,
            logical_not: &bit(&1 == 0),
            population_count: &ones(&1, type),
            count_leading_zeros: &leading(&1, type),
            sign: fn x -> if x > 0, do: 1, else: if(x < 0, do: -1, else: 0) end,
            is_nan: fn _ -> 0 end
          ] do
        result = apply(Ops, :"#{name}!", [x])

        assert {name, type, flat(result)} ==
                 {name, type, Enum.map(flat(x), &wrapped(fun.(&1), type))}
      end
    end
  end

  defp digits(x, type), do: for(<<(digit::1 <- <<x::size(bits(type))>>)>>, do: digit)
  defp ones(x, type), do: Enum.sum(digits(x, type))
  defp leading(x, type), do: x |> digits(type) |> Enum.take_while(&(&1 == 0)) |> length()

  test "shifts by any distance" do
    for type <- types(@integers) do
      x = ExCubecl.buffer!(values(type, 30), [30], type)
      most = bits(type)
      least = if unsigned?(type), do: 0, else: -most - 1

      for distance <- [0, 1, 3, most - 1, most, most + 5, least, max(least, -2)] do
        left = Enum.map(flat(x), &wrapped(bsl(&1, distance), type))
        right = Enum.map(flat(x), &wrapped(bsr(&1, distance), type))
        assert {type, distance, flat(Ops.left_shift!(x, distance))} == {type, distance, left}
        assert {type, distance, flat(Ops.right_shift!(x, distance))} == {type, distance, right}
      end
    end

    refused(Ops.left_shift(buffer([1.0], :f32), 1), :type_mismatch, says: "kernel left_shift")
    refused(Ops.integer_pow(buffer([2], :s32), 1.5), :type_mismatch, says: "integer_pow")
    refused(Ops.population_count(buffer([1.0], :f32)), :type_mismatch, says: "population_count")

    refused(Ops.count_leading_zeros(buffer([1.0], :f32)), :type_mismatch,
      says: "count_leading_zeros"
    )

    refused(Ops.right_shift(1, 2), :invalid_argument, says: "kernel right_shift")
  end

  test "functions of floats are near those of Erlang" do
    inside = for n <- -19..19, do: n / 20
    wide = for n <- -30..30, do: n / 4
    above = for n <- 0..40, do: 1 + n * n / 8

    for {name, points, fun} <- [
          {:expm1, wide ++ [1.0e-6, -1.0e-7], &expm1/1},
          {:log1p, above, &:math.log(1 + &1)},
          {:cbrt, wide,
           fn x -> if x < 0, do: -:math.pow(-x, 1 / 3), else: :math.pow(x, 1 / 3) end},
          {:tan, inside, &:math.tan/1},
          {:asin, inside, &:math.asin/1},
          {:acos, inside, &:math.acos/1},
          {:atan, wide, &:math.atan/1},
          {:sinh, wide, &:math.sinh/1},
          {:cosh, wide, &:math.cosh/1},
          {:asinh, wide ++ [1.0e6, -1.0e7], &:math.asinh/1},
          {:acosh, above ++ [1.0e6], &:math.acosh/1},
          {:atanh, inside, &:math.atanh/1},
          {:erf, wide, &:math.erf/1},
          {:erfc, wide, &:math.erfc/1}
        ] do
      points = points |> buffer(:f32) |> flat()
      found = apply(Ops, :"#{name}!", [buffer(points, :f32)])

      for {x, y} <- Enum.zip(points, flat(found)) do
        expected = fun.(x)
        # That of the driver.
        error = if name == :atan, do: 3.0e-5, else: 3.0e-6

        assert abs(y - expected) <= error * abs(expected) + 1.0e-37,
               inspect({name, x, y, expected})
      end
    end

    back = flat(Ops.erf_inv!(buffer(inside ++ [0.999, -0.9999], :f32)))

    for {x, y} <- Enum.zip(inside ++ [0.999, -0.9999], back),
        do: assert_in_delta(:math.erf(y), x, 1.0e-6)
  end

  # The series near 0, where the difference cancels.
  defp expm1(x) when abs(x) < 1.0e-3, do: x + x * x / 2 + x * x * x / 6
  defp expm1(x), do: :math.exp(x) - 1

  test "NaN, infinities, signed zeros and the ends of domains" do
    special = [:nan, :infinity, :neg_infinity, -0.0, 0.0]

    for {name, expected} <- [
          expm1: [:nan, :infinity, -1.0, -0.0, 0.0],
          cbrt: [:nan, :infinity, :neg_infinity, -0.0, 0.0],
          asinh: [:nan, :infinity, :neg_infinity, -0.0, 0.0],
          erfc: [:nan, 0.0, 2.0, 1.0, 1.0],
          sign: [:nan, 1.0, -1.0, -0.0, 0.0],
          relu: [:nan, :infinity, 0.0, 0.0, 0.0]
        ] do
      found = flat(apply(Ops, :"#{name}!", [buffer(special, :f32)]))
      for {a, b} <- Enum.zip(found, expected), do: assert(close?(a, b), inspect({name, found}))
    end

    assert flat(Ops.erf_inv!(buffer([1.0, -1.0, :nan], :f32))) == [:infinity, :neg_infinity, :nan]
    assert flat(Ops.is_nan!(buffer(special, :f32))) == [1, 0, 0, 0, 0]
    assert flat(Ops.is_infinity!(buffer(special, :f32))) == [0, 1, 1, 0, 0]
    assert flat(Ops.clip!(buffer(special, :f32), -1, 1)) |> Enum.take(3) == [:nan, 1.0, -1.0]
    assert flat(Ops.asin!(buffer([-0.0, 2.0], :f32))) |> Enum.at(1) == :nan

    for name <- [:asin, :acos, :cbrt, :erfc, :erf_inv, :expm1, :asinh, :acosh, :atanh, :sigmoid],
        type <- types([:f16, :bf16]),
        do: assert({name, apply(Ops, :"#{name}!", [buffer([0.5], type)]).dtype} == {name, type})

    assert flat(Ops.acosh!(buffer([0.5, 1.0], :f32))) == [:nan, 0.0]
  end

  defp close?(a, b) when is_float(a) and is_float(b), do: abs(a - b) < 1.0e-6
  defp close?(a, b), do: a == b

  test "clip and select broadcast their operands" do
    x = Buffer.iota!([2, 3], :s32)
    low = buffer([1, 1, 4], :s32)
    assert Buffer.to_list!(Ops.clip!(x, low, 4)) == [[1, 1, 4], [3, 4, 4]]
    rows = ExCubecl.buffer!([1, 0], [2, 1], :u8)
    assert Buffer.to_list!(Ops.select!(rows, x, -1)) == [[0, 1, 2], [-1, -1, -1]]
    assert Ops.clip(x, 0, 1, into: x) == :ok
    assert flat(x) == [0, 1, 1, 1, 1, 1]

    refused(Ops.clip(x, buffer([1, 2], :s32), 3), :shape_mismatch,
      says: "clip: shapes [2, 3] and [2] cannot be broadcast: axis 1 has 3 and 2"
    )
  end
end
