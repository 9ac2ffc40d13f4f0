defmodule ExCubecl.NumberTest do
  # Numeric results: NaN, the ends of each type, casts and stores, long sums. Random programs over all types are
  # compared with an evaluation of the same rules in Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.{Conversion, Kernel, NumpyCases, Ops, TypedModel, TypedPrograms}

  require Kernel

  @ends %{
    u8: {0, 255},
    s8: {-128, 127},
    u16: {0, 65_535},
    s16: {-32_768, 32_767},
    u32: {0, 4_294_967_295},
    s32: {-2_147_483_648, 2_147_483_647},
    u64: {0, 18_446_744_073_709_551_615},
    s64: {-9_223_372_036_854_775_808, 9_223_372_036_854_775_807}
  }

  setup_all do
    {:ok, info} = Device.info(nil)
    types = Enum.filter(ExCubecl.DType.all(), &(&1 in info.dtypes))
    {:ok, types: types, exact: TypedPrograms.exact?(info)}
  end

  defp floats(types), do: Enum.filter(types, &(&1 in [:f16, :bf16, :f32, :f64]))
  defp buffer(list, type), do: ExCubecl.buffer!(list, [length(list)], type)

  defp made(name, buffer) do
    {:ok, result} = apply(Ops, name, [buffer])
    result
  end

  defp list(buffer), do: ExCubecl.to_list!(buffer)
  defp run(kernel, args), do: list(Kernel.run!(kernel, args))

  test "NaN wins in min, max and what is made of them", %{types: types} do
    least = Kernel.kernel(fn a, b -> min(a, b) end)
    most = Kernel.kernel(fn a, b -> max(a, b) end)
    clamp = Kernel.kernel(fn x -> min(max(x, 0), 2) end)
    a = [:nan, 1.0, :nan, :neg_infinity, 3.0]
    b = [1.0, :nan, :nan, :infinity, -3.0]

    for type <- floats(types) do
      [x, y] = for list <- [a, b], do: buffer(list, type)
      assert {type, run(least, [x, y])} == {type, [:nan, :nan, :nan, :neg_infinity, -3.0]}
      assert {type, run(most, [x, y])} == {type, [:nan, :nan, :nan, :infinity, 3.0]}
      assert list(Ops.min!(x, y)) == [:nan, :nan, :nan, :neg_infinity, -3.0]
      assert list(Ops.max!(x, 2)) == [:nan, 2.0, :nan, 2.0, 3.0]
      assert list(Ops.relu!(x)) == [:nan, 1.0, :nan, 0.0, 3.0]
      assert run(clamp, [x]) == [:nan, 1.0, :nan, 0.0, 2.0]

      for at <- [0, 70, 199] do
        long = List.duplicate(1.0, 200) |> List.replace_at(at, :nan) |> buffer(type)

        for name <- [:reduce_min, :reduce_max],
            do: assert(ExCubecl.item!(made(name, long)) == :nan)

        # The index of the first NaN, as in NumPy.
        for name <- [:argmin, :argmax], do: assert(ExCubecl.item!(made(name, long)) == at)
      end
    end

    {:ok, _} = ExCubecl.run_kernel("relu", [buffer([:nan], :f32)], out = buffer([0.0], :f32))
    assert list(out) == [:nan]
  end

  test "of two zeros, min and max return the first" do
    least = Kernel.kernel(fn a, b -> min(a, b) end)
    [minus, plus] = for zero <- [-0.0, 0.0], do: buffer([zero], :f32)
    bits = &Conversion.patterns(Buffer.read!(Kernel.run!(least, &1)), :f32)
    assert {bits.([minus, plus]), bits.([plus, minus])} == {[0x8000_0000], [0]}
  end

  test "a choice between a constant and what a driver makes one keeps both", %{types: types} do
    floats = [
      Kernel.kernel(fn x, n -> if x > 1, do: cast(bxor(n, n), :f32), else: -1.0 end),
      Kernel.kernel(fn x, n ->
        zero = cast(bxor(n, n), :f32)
        if x <= 1, do: zero = -1.0
        zero
      end)
    ]

    if :s32 in types do
      n = buffer([7, 7], :s32)

      for kernel <- floats do
        out = Kernel.run!(kernel, [buffer([2.0, 0.0], :f32), n])
        assert Conversion.patterns(Buffer.read!(out), :f32) == [0, 0xBF80_0000]
      end

      integers = Kernel.kernel(fn x, n -> if x > 1, do: bxor(n, n), else: -1_082_130_432 end)
      out = Kernel.run!(integers, [buffer([2.0, 0.0], :f32), n])
      assert ExCubecl.to_list!(out) == [0, -1_082_130_432]
    end
  end

  # Mesa's drivers exchanged zeros in choices between 0.0 and -1.0 or 1.0 and -0.0, and integers with their bits.
  test "a choice between constants keeps them", %{types: types} do
    words = [f16: :u16, f16: :s16, f32: :u32, f32: :s32, f64: :u64, f64: :s64]

    for {float, word} <- words,
        float in types,
        word in types,
        a <- [0.0, -0.0, 1.0, -1.0],
        b <- [0.0, -0.0, 1.0, -1.0] do
      numbers = buffer([a, b], float)

      assert {float, a, b, Buffer.read!(chosen(a, b, float))} ==
               {float, a, b, Buffer.read!(numbers)}

      # The integers that have the bits of these floats.
      [m, n] = list(Buffer.bitcast!(numbers, word))
      assert {word, m, n, list(chosen(m, n, word))} == {word, m, n, [m, n]}
    end
  end

  # The first number where a condition is true, and the second where it is false.
  defp chosen(a, b, type) do
    cast = fn number -> quote(do: cast(unquote(number), unquote(type))) end
    body = quote(do: if(x > 1, do: unquote(cast.(a)), else: unquote(cast.(b))))
    Kernel.run!(NumpyCases.kernel_of([:x], body), [buffer([2, 0], :s32)])
  end

  test "NaN is unequal to all, however it is asked", %{types: types} do
    for type <- floats(types) do
      x = buffer([:nan, 1.0], type)
      y = buffer([:nan, :nan], type)

      for {kernel, expected} <- [
            {Kernel.kernel(fn x, y -> x == y end), [0, 0]},
            {Kernel.kernel(fn x, y -> x != y end), [1, 1]},
            {Kernel.kernel(fn x, y -> not (x < y) end), [1, 1]},
            {Kernel.kernel(fn x, y -> not (x >= y) end), [1, 1]},
            {Kernel.kernel(fn x, y -> x > y and x > 0 end), [0, 0]},
            {Kernel.kernel(fn x, y -> if x < y, do: 1, else: 0 end), [0, 0]},
            {Kernel.kernel(fn x, y -> if nan?(x) and nan?(y), do: 1, else: 0 end), [1, 0]}
          ],
          do: assert({type, run(kernel, [x, y])} == {type, expected})

      chosen = Kernel.kernel(fn x -> if x < 0, do: 0, else: x end)
      assert run(chosen, [x]) == [:nan, 1.0]
    end
  end

  test "floats are not taken for real numbers", %{types: types} do
    for type <- floats(types) do
      x = buffer([:infinity, :nan, -0.0], type)
      assert run(Kernel.kernel(fn x -> x - x end), [x]) == [:nan, :nan, 0.0]
      assert run(Kernel.kernel(fn x -> x * 0 end), [x]) == [:nan, :nan, -0.0]
      plus = Kernel.run!(Kernel.kernel(fn x -> x + 0 end), [buffer([-0.0], type)])
      assert Conversion.patterns(Buffer.read!(plus), type) == [0]
    end

    a = buffer([1.0e8], :f32)
    b = buffer([0.3], :f32)
    assert run(Kernel.kernel(fn a, b -> b + a - a end), [a, b]) == [0.0]
    assert run(Kernel.kernel(fn b -> b + 1.0e8 - 1.0e8 end), [b]) == [0.0]
    assert run(Kernel.kernel(fn x -> rem(x, 3) end), [buffer([1.0e10], :f32)]) == [1.0]
    assert run(Kernel.kernel(fn x -> rem(3, x) end), [buffer([:infinity], :f32)]) == [3.0]
    assert run(Kernel.kernel(fn x -> x ** 0 end), [buffer([0.0, :nan], :f32)]) == [1.0, 1.0]
    assert run(Kernel.kernel(fn x -> log1p(x) end), [buffer([0.0, 2.0e-30], :f32)]) |> hd() == 0.0
    [small] = run(Kernel.kernel(fn x -> log1p(x) end), [buffer([1.0e-10], :f32)])
    assert_in_delta small, 1.0e-10, 1.0e-16
  end

  test "casts, stores and convert hold floats within each type, and NaN is 0", %{types: types} do
    cast =
      for type <- Map.keys(@ends),
          into: %{},
          do: {type, NumpyCases.kernel_of([:x], {:cast, [], [{:x, [], nil}, type]})}

    store = Kernel.kernel(fn x, out -> out[index()] = x[index()] end)
    values = [3.0e10, -3.0e10, :infinity, :neg_infinity, :nan, 2.9, -2.9, -0.0]

    for from <- floats(types), {to, {low, high}} <- @ends, to in types do
      input = if from == :f16, do: [:infinity, :neg_infinity | Enum.drop(values, 2)], else: values
      x = buffer(input, from)
      held = &(&1 |> trunc() |> max(low) |> min(high))

      expected =
        for value <- list(x) do
          case value do
            :infinity -> high
            :neg_infinity -> low
            :nan -> 0
            number -> held.(number)
          end
        end

      out = Buffer.empty!([8], to)
      assert {from, to, run(cast[to], [x])} == {from, to, expected}
      assert Kernel.run(store, [x, out]) == :ok
      assert {from, to, list(out)} == {from, to, expected}
      assert {from, to, list(Buffer.convert!(x, to))} == {from, to, expected}
    end
  end

  test "integers keep their low bits in casts, stores and convert", %{types: types} do
    store = Kernel.kernel(fn x, out -> out[index()] = x[index()] end)

    for {from, {low, high}} <- @ends, to <- Map.keys(@ends), from in types and to in types do
      values = Enum.filter([low, high, 300, -1, 127, 128, 0], &(&1 in low..high))
      x = buffer(values, from)
      expected = Enum.map(values, &(&1 |> Conversion.bits(to) |> Conversion.value(to)))
      out = Buffer.empty!([length(values)], to)
      kernel = NumpyCases.kernel_of([:x], {:cast, [], [{:x, [], nil}, to]})
      assert {from, to, run(kernel, [x])} == {from, to, expected}
      assert Kernel.run(store, [x, out]) == :ok
      assert {from, to, list(out)} == {from, to, expected}
      assert {from, to, list(Buffer.convert!(x, to))} == {from, to, expected}
    end
  end

  test "integers become the nearest float, in casts as in convert", %{types: types} do
    for {from, {low, high}} <- @ends, from in types, to <- floats(types) do
      near = [low, low + 1, high, high - 1, 16_777_217, 65_519, 65_520, 2049, 100, 0]
      x = near |> Enum.filter(&(&1 in low..high)) |> buffer(from)
      kernel = NumpyCases.kernel_of([:x], {:cast, [], [{:x, [], nil}, to]})
      assert {from, to, run(kernel, [x])} == {from, to, list(Buffer.convert!(x, to))}
      # The cast as a part of a larger expression.
      difference = NumpyCases.kernel_of([:x], difference(to))

      assert {from, to, run(difference, [x])} ==
               {from, to, Enum.map(list(Buffer.convert!(x, to)), &less_itself/1)}
    end
  end

  defp difference(to) do
    cast = {:cast, [], [{:x, [], nil}, to]}
    {:-, [], [{:max, [], [cast, cast]}, cast]}
  end

  # The value of max(x, x) - x.
  defp less_itself(x), do: if(is_atom(x), do: :nan, else: 0.0)

  # Mesa 22 took a negative 32-bit integer that was widened to 64 bits for a large positive one.
  test "wide integers are compared with constants by their sign", %{types: types} do
    kernels = [
      {Kernel.kernel(fn x -> cast(x, :s64) >= 0 end), [0, 1, 0, 1]},
      {Kernel.kernel(fn x -> cast(x, :s64) < -1 end), [1, 0, 1, 0]},
      {Kernel.kernel(fn x -> -1 < cast(x, :s64) end), [0, 1, 0, 1]},
      {Kernel.kernel(fn x -> cast(x, :s64) >= cast(band(x, 0), :s64) end), [0, 1, 0, 1]}
    ]

    if :s64 in types do
      for type <- [:s8, :s16, :s32, :s64], type in types, {kernel, expected} <- kernels do
        assert {type, run(kernel, [buffer([-5, 3, -100, 0], type)])} == {type, expected}
      end
    end
  end

  test "a number that is written has to fit, and cast makes it" do
    x = buffer([1], :u8)
    out = Buffer.zeros!([1], :u8)
    whole = Kernel.kernel(fn out -> out[index()] = 7.0 end)
    assert {Kernel.run(whole, [out]), list(out)} == {:ok, [7]}
    given = Kernel.kernel(fn n, out -> out[index()] = n end)
    assert {Kernel.run(given, [8.0, out]), list(out)} == {:ok, [8]}

    for {kernel, words} <- [
          {Kernel.kernel(fn out -> out[index()] = 300 end), "300 does not fit u8"},
          {Kernel.kernel(fn out -> out[index()] = 2.5 end),
           "2.5 does not fit u8: use cast(2.5, :u8)"}
        ],
        do: refused(Kernel.run(kernel, [out]), :type_mismatch, says: words)

    number = "(fn x -> x - #{String.duplicate("7", 10_001)} end)"
    {long, _} = Code.eval_string("require ExCubecl.Kernel; ExCubecl.Kernel.kernel" <> number)
    says = "a number of 10001 digits does not fit f32"
    refused(Kernel.run(long, [buffer([1], :f32)]), :type_mismatch, says: says)

    for n <- [300, 2.5, -1, -1.0, :nan],
        do: refused(Kernel.run(given, [n, out]), :invalid_value, says: "argument 1")

    for n <- [300, 2.5, -1], do: refused(Buffer.fill(out, n), :invalid_value)
    refused(Kernel.run(Kernel.kernel(fn x -> x / 2 end), [x], into: out), :type_mismatch)

    assert run(Kernel.kernel(fn x -> x - x + cast(300, :u8) end), [x]) == [44]
    assert run(Kernel.kernel(fn x -> cast(3.0e10, :s32) + x - x end), [x]) == [2_147_483_647]
    cast = Kernel.kernel(fn x, n -> cast(n, :s8) + cast(x, :s8) end)

    for {n, sum} <- [{300, 45}, {2.9, 3}, {-1.0e9, -127}, {-129, -128}],
        do: assert(run(cast, [x, n]) == [sum])
  end

  test "means and sums of narrow floats are calculated with 32 bits", %{types: types} do
    for type <- [:f16, :bf16], type in types do
      ones = Buffer.full!([100_000], type, 1)
      assert {type, ExCubecl.item!(Ops.mean!(ones))} == {type, 1.0}
      assert ExCubecl.item!(Ops.mean!(Buffer.full!([2000], type, 100))) == 100.0
      assert list(Ops.mean!(Buffer.full!([3, 1000], type, 100), axis: 1)) == [100.0, 100.0, 100.0]
      # An f16 has no odd numbers above 2048: a sum in 16 bits would lose the ones.
      assert ExCubecl.item!(Ops.sum!(Buffer.full!([4096], type, 1))) == 4096.0
      assert list(Ops.cumulative_sum!(Buffer.full!([4096], type, 1))) |> List.last() == 4096.0
      matrix = Buffer.full!([1, 4096], type, 1)
      assert list(Ops.matmul!(matrix, Ops.transpose!(matrix))) == [[4096.0]]
    end

    if :f16 in types,
      do: assert(ExCubecl.item!(Ops.sum!(Buffer.full!([2000], :f16, 100))) == :infinity)
  end

  test "sums and products of integers are 64 bits wide from the first element on", %{types: types} do
    if :s64 in types do
      high = 2_147_483_647
      assert ExCubecl.item!(Ops.sum!(buffer([high, high, 1], :s32))) == 2 * high + 1
      assert ExCubecl.item!(Ops.product!(buffer([high, high], :s32))) == high * high
      assert ExCubecl.item!(Ops.sum!(buffer([4_294_967_295, 1], :u32))) == 4_294_967_296
    end
  end

  test "constants are of their type, also where they are calculated with before the kernel runs" do
    high =
      Kernel.kernel(fn x -> if cast(2_147_483_647, :s32) + cast(1, :s32) < 0, do: x, else: 0 end)

    assert run(high, [buffer([1], :s32)]) == [1]

    kept =
      Kernel.kernel(fn x, out ->
        s = 2_147_483_647
        s = s + 1
        out[index()] = if s < 0, do: x[index()], else: 0
      end)

    out = Buffer.zeros!([1], :s32)
    Kernel.run!(kept, [buffer([5], :s32), out])
    assert list(out) == [5]
    ones = Kernel.kernel(fn x -> x + count_ones(cast(-1, :s32)) end)
    assert run(ones, [buffer([0], :s32)]) == [32]

    lost =
      Kernel.kernel(fn x ->
        x + (cast(16_777_216.0, :f32) + cast(1.0, :f32) - cast(16_777_216.0, :f32))
      end)

    assert run(lost, [buffer([0.0], :f32)]) == [0.0]
  end

  # CubeCL's optimizer moved a part of the conversion to a block without its operand, and panicked.
  test "conversions in branches compile" do
    a = buffer(Enum.map(1..16, &(&1 / 4)), :f32)
    b = buffer(Enum.map(1..16, &(&1 * 1.0)), :f64)

    kernel =
      Kernel.kernel(fn a, b, out ->
        i = index()
        t = 0.0

        if a[i] > 1.0 do
          if a[i] != 3.0, do: t = cast(b[i], :u8)
        else
          if b[i] != 2.0, do: t = 1.0
        end

        out[i] = cast(b[i], :u8) + t
      end)

    out = Buffer.zeros!([16], :f64)
    assert Kernel.run(kernel, [a, b, out]) == :ok

    assert list(out) ==
             [2.0, 2.0, 4.0, 5.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 22.0, 12.0] ++
               [26.0, 28.0, 30.0, 32.0]
  end

  # The results of random programs are compared bit for bit, except for the payload of NaN.
  describe "random programs over all types mean what Elixir makes of them:" do
    for form <- [:element_wise, :indexed] do
      test "#{form}", %{types: types, exact: exact} do
        seed = :rand.uniform(1_000_000_000)
        :rand.seed(:exsss, {seed, 4, 4})

        for _ <- 1..150 do
          program = apply(TypedPrograms, unquote(form), [types, exact])
          {names, body} = TypedPrograms.quoted(program)
          inputs = for {_, type} <- program.args, do: {type, TypedPrograms.elements(type)}
          buffers = for {type, bytes} <- inputs, do: ExCubecl.buffer!(bytes, [16], type)
          kernel = NumpyCases.kernel_of(names, body)
          out = Buffer.zeros!([16], program.out)

          result =
            case program.form do
              :indexed -> Kernel.run(kernel, buffers ++ [out])
              _ -> Kernel.run(kernel, buffers, into: out)
            end

          shown = "seed #{seed}: #{inspect(program.args)} #{Macro.to_string(body)}"
          assert {shown, result} == {shown, :ok}
          patterns = for {type, bytes} <- inputs, do: Conversion.patterns(bytes, type)

          expected =
            for bits <- TypedModel.run(program, patterns), do: Conversion.value(bits, program.out)

          assert {shown, signs(list(out))} == {shown, signs(expected)}
        end
      end
    end

    # Elixir compares 0.0 and -0.0 as equal, so floats are compared by their bits.
    defp signs(values), do: Enum.map(values, &if(is_float(&1), do: <<&1::float>>, else: &1))
  end
end
