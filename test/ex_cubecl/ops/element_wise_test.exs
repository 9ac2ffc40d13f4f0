defmodule ExCubecl.Ops.ElementWiseTest do
  # Each element-wise operation against plain Elixir, in the types of the device.
  use ExCubecl.Case, async: true

  import Bitwise
  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [values: 2]

  alias ExCubecl.{Ops, Ulp}

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

  test "as_type converts as Nx does: floats keep the low bits of their integer" do
    for from <- types([:f16, :f32, :f64]), to <- types(@integers) do
      special = [:nan, :infinity, :neg_infinity, -0.0, 0.9, -0.9, 2.5, -2.5]

      large =
        for n <- [7, 8, 15, 16, 31, 32, 33, 63, 64, 70],
            sign <- [-1, 1],
            do: sign * (:math.pow(2, n) + :rand.uniform(9))

      x = Buffer.convert!(buffer(special ++ large, :f64), from)
      found = flat(Ops.as_type!(x, to))

      expected =
        for value <- flat(x) do
          case value do
            :nan ->
              0

            :infinity ->
              wrapped(if(unsigned?(to), do: -1, else: Integer.pow(2, bits(to) - 1) - 1), to)

            :neg_infinity ->
              if(unsigned?(to), do: 0, else: -Integer.pow(2, bits(to) - 1))

            number ->
              wrapped(trunc(number), to)
          end
        end

      assert {from, to, found} == {from, to, expected}
    end

    assert flat(Ops.as_type!(buffer([300, -1], :s32), :u8)) == [44, 255]
    assert flat(Ops.as_type!(buffer([1.5], :f32), :f64)) == [1.5]
    x = buffer([1.5, 2.5], :f32)
    into = Buffer.empty!([2], :u8)
    assert Ops.as_type(x, :u8, into: into) == :ok
    assert flat(into) == [1, 2]
    # No kernel writes a type that the device only stores.
    halves = buffer([1.5, -3.0], :f32)
    assert flat(Ops.as_type!(halves, :bf16)) == [1.5, -3.0]

    assert Buffer.to_list!(Ops.as_type!(Ops.transpose!(Buffer.reshape!(halves, [1, 2])), :bf16)) ==
             [[1.5], [-3.0]]

    into = buffer([0, 0], :bf16)
    assert Ops.as_type(halves, :bf16, into: into) == :ok
    assert flat(into) == [1.5, -3.0]
    refused(Ops.as_type(x, :float), :unsupported_dtype)
    refused(Ops.as_type(1, :u8), :invalid_argument)
    refused(Ops.as_type(x, :u8, 5), :invalid_argument)
  end

  test "powers of integers are integers" do
    assert Ops.pow!(buffer([2, -3], :s32), buffer([10, 3], :s32)) |> flat() == [1024, -27]
    assert %{dtype: :s16} = Ops.pow!(buffer([2], :u8), buffer([3], :s8))
    assert %{dtype: :f32} = Ops.pow!(buffer([2], :s32), 0.5)
    assert flat(Ops.pow!(buffer([3], :s64), 39)) == [4_052_555_153_018_976_267]
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

    # A type with which devices may not calculate.
    for name <- [:bitwise_not, :population_count, :count_leading_zeros] do
      refused(apply(Ops, name, [buffer([1.0], :bf16)]), :type_mismatch, says: "kernel #{name}")
    end

    for name <- [:bitwise_and, :left_shift, :integer_pow, :quotient] do
      error = refused(apply(Ops, name, [buffer([1.0], :bf16), 1]), :type_mismatch)
      assert error.details.kernel == name
    end

    refused(Ops.right_shift(1, 2), :invalid_argument, says: "kernel right_shift")
  end

  test "functions of floats are right to a unit in the last place" do
    # Numbers of every exponent, and more of those where functions bend.
    patterns = for _ <- 1..600, do: <<:rand.uniform(0x1_0000_0000) - 1::32>>
    any = for <<x::float-32>> <- patterns, do: x

    middle =
      for _ <- 1..600,
          do: (:rand.uniform() - 0.5) * Enum.at([1, 2, 4, 30, 200], :rand.uniform(5) - 1)

    for {name, reference} <- Ulp.references(), type <- types([:f32, :f64]) do
      # The references have errors too.
      most = if type == :f32, do: 1.0, else: 6.0
      {error, x, y} = Ulp.worst(name, reference, type, middle ++ any)
      assert error <= most, inspect({name, type, error, x, y})
    end
  end

  test "functions of 16-bit floats are those of 32 bits, rounded once" do
    for type <- types([:f16, :bf16]), name <- [:gelu | Keyword.keys(Ulp.references())] do
      x = buffer(for(n <- -40..40, do: n / 8), type)
      wide = apply(Ops, :"#{name}!", [Buffer.convert!(x, :f32)])
      found = apply(Ops, :"#{name}!", [x])
      assert {name, type, flat(found)} == {name, type, flat(Buffer.convert!(wide, type))}
      assert apply(Ops, :"#{name}!", [x, [dtype: :f32]]).dtype == :f32
    end
  end

  test "powers and angles are right to a unit in the last place" do
    size = fn -> :math.exp((:rand.uniform() - 0.5) * 20) end
    x = for _ <- 1..400, do: size.()
    y = for _ <- 1..400, do: (:rand.uniform() - 0.5) * 16

    for type <- types([:f32, :f64]), {name, fun} <- [pow: &:math.pow/2, atan2: &:math.atan2/2] do
      [a, b] = if name == :pow, do: [x, y], else: [y, x]
      [a, b] = [buffer(a, type), buffer(b, type)]
      pairs = Enum.zip(flat(a), flat(b)) |> Map.new(&{elem(&1, 0), elem(&1, 1)})
      reference = fn a -> fun.(a, pairs[a]) end
      error = Ulp.worst_of(flat(a), flat(apply(Ops, :"#{name}!", [a, b])), reference, type)
      assert elem(error, 0) <= if(type == :f32, do: 1.0, else: 6.0), inspect({name, type, error})
    end
  end

  # Devices may take subnormal numbers for zero.
  test "angles and remainders of numbers of every exponent" do
    for {type, least} <- [f32: 1.2e-38, f64: 2.3e-308], type in types([:f32, :f64]) do
      normal? = &(is_float(&1) and abs(&1) >= least)
      bits = 8 * ExCubecl.DType.size!(type)
      pattern = fn -> <<:rand.uniform(2 ** bits) - 1::size(bits)-native>> end
      any = fn -> for(_ <- 1..3_000, do: pattern.()) |> IO.iodata_to_binary() end
      [a, b] = for _ <- 1..2, do: Buffer.new!(any.(), [3_000], type)
      numbers = Enum.zip([flat(a), flat(b), flat(Ops.atan2!(a, b)), flat(Ops.remainder!(a, b))])
      numbers = Enum.filter(numbers, fn {a, b, _, _} -> normal?.(a) and normal?.(b) end)
      assert length(numbers) > 2_000
      most = if type == :f32, do: 1.0, else: 6.0

      for {a, b, angle, rest} <- numbers do
        if normal?.(:math.atan2(a, b)) do
          {error, _, _} = Ulp.worst_of([a], [angle], &:math.atan2(&1, b), type)
          assert error <= most, inspect({type, a, b, angle})
        end

        expected = :math.fmod(a, b)
        if normal?.(expected), do: assert({type, a, b, rest} == {type, a, b, expected})
      end
    end
  end

  test "powers and angles of special numbers, as in C" do
    for {a, b, power} <- [
          {0.0, 0.0, 1.0},
          {:nan, 0.0, 1.0},
          {1.0, :nan, 1.0},
          {-1.0, :infinity, 1.0},
          {2.0, :infinity, :infinity},
          {0.5, :infinity, 0.0},
          {0.5, :neg_infinity, :infinity},
          {0.0, -1.0, :infinity},
          {-0.0, -3.0, :neg_infinity},
          {:neg_infinity, 3.0, :neg_infinity},
          {:neg_infinity, -2.0, 0.0},
          {-2.0, 3.0, -8.0},
          {-2.0, 2.0, 4.0},
          {-2.0, 0.5, :nan},
          {:nan, 1.0, :nan},
          {3.0e38, 3.0e38, :infinity},
          {1.0e-38, 3.0e38, 0.0},
          {2.0, -149.0, :math.pow(2, -149)}
        ],
        type <- types([:f32, :f64]),
        do:
          assert(
            {type, a, b, flat(Ops.pow!(buffer([a], type), buffer([b], type)))} ==
              {type, a, b, [power]}
          )

    pi = :math.pi()

    for {y, x, angle} <- [
          {0.0, 0.0, 0.0},
          {0.0, -0.0, pi},
          {-0.0, -1.0, -pi},
          {:infinity, :infinity, pi / 4},
          {:infinity, :neg_infinity, 3 * pi / 4},
          {1.0, :neg_infinity, pi},
          {:neg_infinity, 1.0, -pi / 2},
          {1.0e-40, 1.0e-40, pi / 4},
          {3.0e38, -3.0e38, 3 * pi / 4},
          {:nan, 1.0, :nan},
          {1.0, :nan, :nan}
        ] do
      [found] = flat(Ops.atan2!(buffer([y], :f32), buffer([x], :f32)))

      assert if(angle == :nan, do: found == :nan, else: abs(found - angle) < 2.0e-7),
             inspect({y, x, found})
    end
  end

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
