# Floats of eight bits, which Nx has from 0.9 (E5M2) and 0.11 (E4M3FN) on: each value and each pair of values, compared with Nx.BinaryBackend.

defmodule ExCubecl.NxFloat8Test do
  use ExUnit.Case, async: false

  alias ExCubecl.Backend
  alias ExCubecl.Nx.Float8

  @types [{:f, 8}, {:f8_e4m3fn, 8}]

  setup do
    Nx.default_backend({Backend, host_limit: 0, fallback: :raise})
    :ok
  end

  # The types that this version of Nx has.
  defp types do
    Enum.filter(@types, fn type ->
      try do
        Nx.Type.normalize!(type) == type
      rescue
        ArgumentError -> false
      end
    end)
  end

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  defp all(type), do: Nx.from_binary(for(byte <- 0..255, into: <<>>, do: <<byte>>), type)

  defp finite(type),
    do: Nx.from_binary(for(byte <- 0..255, finite?(type, byte), into: <<>>, do: <<byte>>), type)

  defp finite?({:f, 8}, byte), do: Bitwise.band(byte, 0x7F) < 0x7C
  defp finite?(_e4m3fn, byte), do: Bitwise.band(byte, 0x7F) != 0x7F

  defp nan?({:f, 8}, byte), do: Bitwise.band(byte, 0x7F) > 0x7C
  defp nan?({:f8_e4m3fn, 8}, byte), do: Bitwise.band(byte, 0x7F) == 0x7F
  defp nan?(_type, _byte), do: false

  # NaN is a NaN of any bits.
  defp bits(%{type: {_, 8} = type} = tensor),
    do: for(<<byte <- Nx.to_binary(tensor)>>, do: if(nan?(type, byte), do: :nan, else: byte))

  defp bits(tensor), do: Nx.to_flat_list(tensor)

  defp assert_same(what, fun, tensors) do
    ours = host(apply(fun, tensors))

    theirs =
      Nx.with_default_backend(Nx.BinaryBackend, fn -> apply(fun, Enum.map(tensors, &host/1)) end)

    assert {what, ours.type, ours.shape} == {what, theirs.type, theirs.shape}

    differ =
      for {{a, b}, at} <- Enum.with_index(Enum.zip(bits(ours), bits(theirs))),
          a != b,
          do: {at, a, b}

    assert {what, Enum.take(differ, 5), length(differ)} == {what, [], 0}
  end

  test "the types of Nx" do
    for type <- types(), do: assert(Float8.type?(type))
    for type <- [{:f, 16}, {:bf, 16}, {:u, 8}, {:s, 8}], do: refute(Float8.type?(type))
    supported = if Version.match?(version(), ">= 0.9.0"), do: {:f, 8}, else: nil
    assert List.first(types()) == supported
  end

  defp version, do: to_string(Application.spec(:nx, :vsn))

  test "every value: functions, and conversions to and from other types" do
    exact = [:negate, :abs, :sign, :is_nan, :is_infinity, :sqrt, :ceil, :floor, :round]

    for type <- types() do
      for name <- exact -- [:sign, :ceil, :floor, :round, :sqrt],
          do: assert_same({name, type}, &apply(Nx, name, [&1]), [all(type)])

      for name <- exact -- [:sqrt],
          do: assert_same({name, type}, &apply(Nx, name, [&1]), [finite(type)])

      assert_same({:sqrt, type}, &Nx.sqrt(Nx.abs(&1)), [finite(type)])

      for to <- [:f32, :f64, :bf16, :f16] ++ types(),
          do: assert_same({:as_type, type, to}, &Nx.as_type(&1, to), [all(type)])

      for to <- [:s32, :u8, :s64],
          do:
            assert_same({:as_type, type, to}, &Nx.as_type(&1, to), [Nx.clip(finite(type), 0, 100)])

      assert_same({:bitcast, type}, &Nx.bitcast(&1, :u8), [all(type)])
    end
  end

  test "rounding of 32-bit floats" do
    for type <- types() do
      # Each value, those halfway between two, and their neighbours; magnitudes below all.
      values = for x <- Nx.to_flat_list(Nx.as_type(finite(type), :f32)), uniq: true, do: x
      sorted = Enum.sort(values)

      between =
        for {a, b} <- Enum.zip(sorted, tl(sorted)),
            part <- [0.25, 0.5, 0.75],
            do: a + (b - a) * part

      small =
        for x <- [1.0e-4, 3.0e-5, 1.0e-6, 2.0e-7, 3.0e-8, 1.0e-10, 1.0e-39], s <- [x, -x], do: s

      numbers = Nx.tensor(values ++ between ++ small ++ [0.0, 440.0, 447.9], type: :f32)
      bits = Nx.bitcast(numbers, :s32)
      neighbours = for n <- [-1, 1], do: Nx.bitcast(Nx.add(bits, n), :f32)
      finite = Nx.select(Nx.is_nan(hd(neighbours)), 0.0, hd(neighbours))
      assert_same({:exact, type}, &Nx.as_type(&1, type), [numbers])
      assert_same({:below, type}, &Nx.as_type(&1, type), [finite])

      assert_same({:above, type}, &Nx.as_type(&1, type), [
        Nx.select(Nx.equal(numbers, 0), 0.0, List.last(neighbours))
      ])

      special = Nx.tensor([:infinity, :neg_infinity, :nan], type: :f32)
      assert_same({:special, type}, &Nx.as_type(&1, type), [special])
    end

    # Nx saturates where there is no infinity.
    if {:f8_e4m3fn, 8} in types() do
      large = Nx.tensor([449.0, 464.0, 1.0e9, -1.0e38], type: :f32)
      assert_same(:saturates, &Nx.as_type(&1, :f8_e4m3fn), [large])
    end
  end

  test "rounding of 64-bit floats: once, at every boundary" do
    for type <- types() do
      values = Nx.to_flat_list(Nx.as_type(finite(type), :f64)) |> Enum.uniq() |> Enum.sort()

      # Values, those halfway between two, and those from which on 16 bits are rounded up.
      between =
        for {a, b} <- Enum.zip(values, tl(values)),
            part <- [0, 1 / 2, 511 / 512, 1023 / 1024, 2047 / 2048],
            do: a + (b - a) * part

      exact = between ++ for(n <- -30..9, s <- [-1, 1], do: s * 2.0 ** n)
      bits = Nx.bitcast(Nx.tensor(exact, type: :f64), :s64)
      assert_same({:exact, type}, &Nx.as_type(&1, type), [Nx.tensor(exact, type: :f64)])

      # Within the precision of 64 bits, of 32 bits, and less; not beyond the greatest magnitude, and zero has no number before it.
      for distance <- [1, 2, 3, 2 ** 20, 2 ** 28 - 1, 2 ** 28 + 1, 2 ** 40], sign <- [-1, 1] do
        near = Nx.bitcast(Nx.add(bits, sign * distance), :f64)

        keep =
          Nx.logical_and(Nx.not_equal(bits, 0), Nx.less_equal(Nx.abs(near), Nx.abs(hd(values))))

        near = Nx.select(keep, near, Nx.tensor(1.0, type: :f64))
        assert_same({distance, sign, type}, &Nx.as_type(&1, type), [near])
      end

      special = Nx.tensor([:infinity, :neg_infinity, :nan], type: :f64)
      assert_same({:special, type}, &Nx.as_type(&1, type), [special])
      tiny = Nx.tensor([1.0e-300, -1.0e-300, 5.0e-324, 0.0, -0.0, 1.0e-40], type: :f64)
      assert_same({:tiny, type}, &Nx.as_type(&1, type), [tiny])

      # Just above halfway between two values.
      above = Nx.tensor([1.0625 + 2.0 ** -40, 1.125 + 2.0 ** -11 + 2.0 ** -40], type: :f64)
      assert_same({:stack, type}, &Nx.put_slice(Nx.as_type(&1, type), [0], &2), [above, above])
      complex = Nx.complex(above, above)
      assert_same({:complex, type}, &Nx.as_type(Nx.real(&1), type), [complex])
      made = Nx.from_binary(Nx.to_binary(Nx.as_type(above, type)), type)
      assert Nx.to_binary(made) == Nx.to_binary(Nx.as_type(host(above), type))
    end
  end

  # The greatest 32-bit float that is not greater.
  defp below(x) do
    <<bits::32>> = <<x::float-32>>
    <<float::float-32>> = <<bits::32>>
    <<next::float-32>> = <<bits - 1::32>>
    if float > x, do: next, else: float
  end

  test "numbers that eight bits do not have: the product is rounded once" do
    for type <- types() do
      x = Nx.as_type(Nx.iota({40}, type: :f32), type)

      # Three times such a number is just below where the result is another one, which 32 bits cannot tell.
      below = for n <- [1.25 - 2.0 ** -11, 1.5 - 2.0 ** -11, 1.0625, 1.1875], do: below(n * 4 / 3)

      for number <- [0.1, 1.7, 1.0625001 | below],
          fun <- [&Nx.multiply/2, &Nx.add/2, &Nx.subtract/2, &Nx.divide/2],
          do: assert_same({fun, number, type}, &fun.(&1, number), [x])
    end
  end

  for name <-
        [:add, :subtract, :max, :min, :logical_and, :logical_or, :logical_xor] ++
          [:equal, :not_equal, :less, :less_equal, :greater, :greater_equal] do
    test "every pair of values: #{name}" do
      for type <- types() do
        x = finite(type)
        assert_same(type, &apply(Nx, unquote(name), [&1, &2]), [Nx.new_axis(x, 1), x])
      end
    end
  end

  for name <- [:equal, :max, :min] do
    test "every pair of values, NaN and infinities too: #{name}" do
      for type <- types() do
        x = all(type)
        assert_same(type, &apply(Nx, unquote(name), [&1, &2]), [Nx.new_axis(x, 1), x])
      end
    end
  end

  test "products and quotients" do
    for type <- types() do
      x = finite(type)
      small = Nx.select(Nx.less(Nx.abs(x), 200), x, 1.0) |> Nx.as_type(type)
      divisors = Nx.select(Nx.less(Nx.abs(x), 0.1), 1.0, x) |> Nx.as_type(type)
      assert_same({:multiply, type}, &Nx.multiply/2, [Nx.new_axis(small, 1), small])
      assert_same({:divide, type}, &Nx.divide/2, [Nx.new_axis(small, 1), divisors])
      choose = &Nx.select(Nx.greater(&1, &2), &1, &2)
      assert_same({:select, type}, choose, [Nx.new_axis(x, 1), x])
    end
  end

  test "with other types, numbers, and elements that are all the same" do
    for type <- types() do
      x = finite(type)
      assert_same({:f32, type}, &Nx.add(&1, &2), [x, Nx.iota(x.shape, type: :f32)])

      assert_same({:s32, type}, &Nx.max(&1, &2), [
        x,
        Nx.remainder(Nx.iota(x.shape, type: :s32), 7)
      ])

      assert_same({:number, type}, &Nx.multiply(&1, 0.5), [x])

      assert_same(
        {:fill, type},
        &Nx.add(&1, Nx.broadcast(Nx.tensor(1.5, type: type), {Nx.size(&1)})),
        [x]
      )

      assert_same({:complex, type}, &Nx.real(Nx.add(&1, Nx.complex(0, 0))), [x])
    end
  end

  test "operations that move elements move the bytes" do
    for type <- types() do
      x = all(type)
      y = Nx.reshape(x, {16, 16})
      indices = Nx.tensor([3, 255, 0, 128, 1, 129])

      for {what, fun, tensors} <- [
            {:transpose, &Nx.transpose/1, [y]},
            {:concatenate, &Nx.concatenate([&1, &2]), [x, x]},
            {:stack, &Nx.stack([&1, &2]), [x, x]},
            {:put_slice, &Nx.put_slice(&1, [3], &2), [x, x[1..4]]},
            {:pad, &Nx.pad(&1, Nx.tensor(1.5, type: type), [{1, 2, 1}]), [x]},
            {:pad, &Nx.pad(&1, Nx.tensor(2, type: type), [{1, -2, 0}]), [x]},
            {:take, &Nx.take(&1, &2), [x, indices]},
            {:gather, &Nx.gather(&1, Nx.new_axis(&2, 1)), [x, indices]},
            {:slice, &Nx.slice(&1, [&2], [5]), [x, Nx.tensor(127)]},
            {:put_slice, &Nx.put_slice(&1, [&2], &1[4..6]), [x, Nx.tensor(127)]},
            {:along, &Nx.take_along_axis(&1, &2, axis: 0), [x, indices]}
          ],
          do: assert_same({what, type}, fun, tensors)

      raised = assert_raise ArgumentError, fn -> Nx.take(x, Nx.tensor([256])) end
      assert Exception.message(raised) =~ "256"
    end
  end

  test "concatenations with other types" do
    for type <- types() do
      x = finite(type)
      assert_same({:concatenate, type}, &Nx.concatenate([&1, &2]), [x, Nx.iota({3}, type: :f32)])
      assert_same({:put_slice, type}, &Nx.put_slice(&1, [1], &2), [x, Nx.tensor([1, 2])])
      assert_same({:stack, type}, &Nx.stack([&2, &1]), [x, Nx.remainder(Nx.iota(x.shape), 9)])
    end
  end

  test "reductions, order, products, windows and indices" do
    for type <- types() do
      x = Nx.remainder(Nx.iota({4, 6}, type: :s32), 5) |> Nx.subtract(2) |> Nx.as_type(type)

      for {what, fun} <- [
            sum: &Nx.sum/1,
            sum: &Nx.sum(&1, axes: [0]),
            product: &Nx.product(&1, axes: [1]),
            max: &Nx.reduce_max/1,
            min: &Nx.reduce_min(&1, axes: [0]),
            all: &Nx.all(&1, axes: [1]),
            any: &Nx.any/1,
            argmax: &Nx.argmax(&1, axis: 1),
            sort: &Nx.sort(&1, axis: 1),
            sort: &Nx.sort(&1, axis: 0, direction: :desc),
            argsort: &Nx.argsort(&1, axis: 1),
            dot: &Nx.dot(&1, Nx.transpose(&1)),
            window_sum: &Nx.window_sum(&1, {2, 2}),
            window_max: &Nx.window_max(&1, {2, 3}),
            conv: &Nx.conv(Nx.reshape(&1, {1, 1, 24}), Nx.reshape(&1[0][0..2], {1, 1, 3})),
            cumulative_sum: &Nx.cumulative_sum(&1, axis: 1),
            indexed_add: &Nx.indexed_add(&1, Nx.tensor([[0], [2], [0]]), &1[[0..2]]),
            indexed_put: &Nx.indexed_put(&1, Nx.tensor([[1, 1], [2, 2]]), &1[0][0..1]),
            clip: &Nx.clip(&1, -1, 1.5)
          ],
          do: assert_same({what, type}, fun, [x])

      {values, places} = Nx.top_k(x, k: 2)

      assert {values.type, Nx.to_flat_list(Nx.take_along_axis(x, places, axis: 1))} ==
               {type, Nx.to_flat_list(values)}
    end
  end

  test "tensors made on the device" do
    for type <- types() do
      for fun <- [
            fn -> Nx.iota({3, 5}, type: type) end,
            fn -> Nx.iota({3, 5}, type: type, axis: 1) end,
            fn -> Nx.eye(4, type: type) end,
            fn -> Nx.broadcast(Nx.tensor(1.7, type: type), {3}) end
          ],
          do: assert_same({:created, type}, fun, [])
    end
  end

  test "folds with functions round each result" do
    sum = &Nx.add/2
    digits = fn x, acc -> Nx.subtract(Nx.multiply(acc, 0.5), Nx.divide(x, 3)) end
    greater = fn x, acc -> Nx.select(Nx.greater(Nx.abs(x), acc), x, Nx.negate(acc)) end

    for type <- types(), fun <- [sum, digits, greater] do
      x = type |> finite() |> Nx.slice([0], [240]) |> Nx.reshape({30, 8})
      one = Nx.tensor(1.5, type: type)
      rounded = fn x, acc -> Nx.as_type(fun.(x, acc), type) end
      assert_same({:axis, type}, &Nx.reduce(&1, &2, [axes: [1]], rounded), [x, one])
      assert_same({:all, type}, &Nx.reduce(&1, &2, rounded), [x[0..3], one])
      assert_raise ExCubecl.Error, fn -> Nx.window_reduce(x, one, {2, 3}, rounded) end
    end
  end

  test "folds with functions of programs" do
    sum = &Nx.add/2
    digits = fn x, acc -> Nx.subtract(Nx.multiply(acc, 0.3), Nx.divide(x, 3)) end
    greater = fn x, acc -> Nx.select(Nx.greater(Nx.abs(x), acc), x, Nx.negate(acc)) end
    single = fn x, acc -> Nx.as_type(Nx.add(Nx.as_type(acc, :f32), 0.01), Nx.type(x)) end
    functions = fn x, acc -> Nx.add(Nx.tanh(Nx.sin(x)), Nx.sqrt(Nx.abs(acc))) end
    recorded = fn x, acc -> Nx.add(Nx.round(x), Nx.sign(acc)) end

    for type <- types(), fun <- [sum, digits, greater, single, functions, recorded] do
      fun = fn x, acc -> Nx.as_type(fun.(x, acc), type) end
      x = type |> finite() |> Nx.slice([0], [240]) |> Nx.reshape({12, 20})
      one = Nx.tensor(1.5, type: type)
      options = [padding: :same, strides: [1, 2], window_dilations: [2, 1]]

      for compiler <- [Nx.Defn.Evaluator, ExCubecl] do
        jit = &Nx.Defn.jit(&1, compiler: compiler)
        program = jit.(&Nx.window_reduce(&1, &2, {2, 3}, fun))
        assert_same({:windows, type, compiler}, program, [x, one])
        program = jit.(&Nx.window_reduce(&1, 2, {2, 3}, options, fun))
        assert_same({:options, type, compiler}, program, [x])
        program = jit.(&Nx.reduce(&1, &2, [axes: [0]], fun))
        assert_same({:reduce, type, compiler}, program, [x, one])
      end
    end
  end

  test "long folds with one result" do
    for type <- types() do
      x = Nx.remainder(Nx.iota({10_000}, type: :s32), 7) |> Nx.subtract(3) |> Nx.as_type(type)
      fun = fn x, acc -> Nx.as_type(Nx.subtract(x, Nx.multiply(acc, 0.7)), type) end
      assert_same({:reduce, type}, &Nx.reduce(&1, Nx.tensor(1, type: type), fun), [x])
    end
  end

  test "functions of all values in folds" do
    for type <- types() do
      pairs = Nx.stack([all(type), Nx.reverse(all(type))], axis: 1)

      for fun <- [&Nx.add/2, &Nx.multiply/2, &Nx.max/2, &Nx.min/2] do
        program = Nx.Defn.jit(&Nx.window_reduce(&1, 1, {1, 2}, fun))
        assert_same({:all, type, fun}, program, [pairs])
      end
    end
  end
end
