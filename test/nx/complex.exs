defmodule ExCubecl.NxComplexTest do
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, View}

  setup do
    :rand.seed(:exsss, {5, 16, 2026})
    Nx.default_backend({Backend, host_limit: 0, fallback: :raise})
    :ok
  end

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  defp complex(shape, type) do
    numbers = for _ <- 1..Tuple.product(shape)//1, do: Complex.new(number(), number())
    numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
  end

  defp number, do: Enum.random(-20..20) / 4

  # The results of a function on the device and on Nx.BinaryBackend differ by the tolerance at most.
  defp assert_close(what, tensors, fun, tolerance) do
    ours = fun |> apply(tensors) |> host()

    theirs =
      Nx.with_default_backend(Nx.BinaryBackend, fn -> apply(fun, Enum.map(tensors, &host/1)) end)

    assert {what, ours.type, ours.shape, ours.names} ==
             {what, theirs.type, theirs.shape, theirs.names}

    for {a, b} <- Enum.zip(Nx.to_flat_list(ours), Nx.to_flat_list(theirs)),
        {a, b} <- [{Complex.real(a), Complex.real(b)}, {Complex.imag(a), Complex.imag(b)}] do
      close? =
        a == b or (is_number(a) and is_number(b) and abs(a - b) <= tolerance * max(1, abs(b)))

      assert {what, a, b, close?} == {what, a, b, true}
    end
  end

  test "complex numbers are pairs" do
    for type <- [{:c, 64}, {:c, 128}] do
      x = complex({3, 4}, type)
      assert %View{shape: [3, 4, 2]} = x.data.state
      assert Nx.to_binary(Nx.reshape(x, {12})) == Nx.to_binary(x)
      assert Nx.reshape(x, {2, 6}).data.state.shape == [2, 6, 2]
      assert Nx.to_flat_list(Nx.squeeze(Nx.reshape(x, {1, 12}))) == Nx.to_flat_list(x)
      assert inspect(x) =~ "i"
    end
  end

  test "quotients of numbers whose squares have no float" do
    sizes = [1.0e-30, 1.0e-25, 1.0, 1.0e12, 1.0e25]

    for {size, other} <- for(a <- sizes, b <- sizes, a / b < 1.0e30, b / a < 1.0e30, do: {a, b}) do
      x = Nx.tensor([Complex.new(3 * size, -4 * size)], type: :c64)
      y = Nx.tensor([Complex.new(-other, 2 * other)], type: :c64)
      [quotient] = Nx.to_flat_list(Nx.divide(x, y))
      expected = Complex.divide(Complex.new(3 * size, -4 * size), Complex.new(-other, 2 * other))
      error = Complex.abs(Complex.subtract(quotient, expected))
      assert error <= 1.0e-6 * Complex.abs(expected), inspect({size, other, quotient})
    end
  end

  test "Fourier transforms" do
    for {shape, type} <- [{{16}, {:c, 64}}, {{3, 7}, {:c, 128}}, {{2, 3, 4}, {:c, 64}}] do
      x = complex(shape, type)
      tolerance = if type == {:c, 64}, do: 1.0e-5, else: 1.0e-13

      for fun <- [&Nx.fft/2, &Nx.ifft/2],
          opts <- [[], [length: 5], [axis: -2]],
          tuple_size(shape) > 1 or opts[:axis] == nil do
        assert_close({shape, opts}, [x], &fun.(&1, opts), tolerance)
      end
    end

    for type <- [{:f, 32}, {:f, 64}, {:s, 64}, {:u, 8}, {:bf, 16}] do
      x = Nx.iota({3, 6}, type: :u8) |> Nx.as_type(:u8) |> host() |> Nx.as_type(type)
      x = Nx.backend_copy(x, Backend)
      assert_close(type, [x], &Nx.fft/1, 1.0e-5)
    end

    # Nx.BinaryBackend mixes up the other axes here.
    x = complex({3, 2, 4}, {:c, 64})
    first = &Nx.fft(&1, axis: 0)

    last = fn x ->
      x |> Nx.transpose(axes: [2, 1, 0]) |> Nx.fft() |> Nx.transpose(axes: [2, 1, 0])
    end

    expected = Nx.with_default_backend(Nx.BinaryBackend, fn -> last.(host(x)) end)

    for {a, b} <- Enum.zip(Nx.to_flat_list(host(first.(x))), Nx.to_flat_list(expected)),
        do: assert(Complex.abs(Complex.subtract(a, b)) < 1.0e-5)

    for x <- [
          complex({2, 6, 5}, {:c, 64}),
          complex({3, 4}, {:c, 128}),
          Nx.iota({4, 6}, type: :s32)
        ],
        fun <- [
          &Nx.fft2/1,
          &Nx.ifft2/1,
          &Nx.fft2(&1, lengths: [3, 8]),
          &Nx.ifft2(&1, axes: [-1, -2])
        ],
        do: assert_close(fun, [x], fun, 1.0e-5)

    if function_exported?(Nx, :rfft, 2) do
      for {x, z} <- [
            {Nx.iota({3, 7}, type: :f32), complex({3, 5}, {:c, 64})},
            {Nx.iota({8}, type: :f64), complex({4}, {:c, 128})}
          ],
          opts <- [[], [length: 6], [length: 9]] do
        assert_close({:rfft, opts}, [x], &apply(Nx, :rfft, [&1, opts]), 1.0e-5)
        assert_close({:irfft, opts}, [z], &apply(Nx, :irfft, [&1, opts]), 1.0e-5)
        assert_close({:irfft, opts}, [x], &apply(Nx, :irfft, [&1, opts]), 1.0e-5)
      end
    end

    assert_close(:eps, [complex({8}, {:c, 64})], &Nx.fft(&1, eps: 4.0), 1.0e-5)
  end

  test "element-wise operations, with broadcasting and real operands" do
    for type <- [{:c, 64}, {:c, 128}] do
      tolerance = if type == {:c, 64}, do: 1.0e-6, else: 1.0e-15
      x = complex({3, 4}, type)
      # No divisor is 0.
      row = Nx.add(complex({4}, type), Complex.new(0, 6))
      real = Nx.iota({3, 4}, type: :f32) |> Nx.add(1)

      for name <- [:add, :subtract, :multiply, :divide, :equal, :not_equal],
          pair <- [[x, row], [row, x], [x, real], [real, row], [x, x]],
          do: assert_close({type, name}, pair, &apply(Nx, name, [&1, &2]), tolerance)

      for name <- [:negate, :conjugate, :real, :imag, :abs, :sqrt],
          do: assert_close({type, name}, [x], &apply(Nx, name, [&1]), tolerance)

      assert_close(:number, [x], &Nx.multiply(&1, Complex.new(1, -2)), tolerance)
      assert_close(:number, [x], &Nx.subtract(2.5, &1), tolerance)
      assert_close(:small, [Nx.tensor(Complex.new(-4, 0), type: type)], &Nx.sqrt/1, tolerance)
      assert_close(:zero, [Nx.broadcast(Nx.tensor(0, type: type), {2})], &Nx.sqrt/1, tolerance)
    end

    assert_close(:wide, [complex({5}, {:c, 64}), complex({5}, {:c, 128})], &Nx.add/2, 1.0e-15)
    assert_close(:real, [Nx.iota({5}, type: :s32)], &Nx.conjugate/1, 0)
    assert_close(:real, [Nx.broadcast(2, {3})], &Nx.conjugate/1, 0)
  end

  test "functions" do
    names =
      [:exp, :expm1, :log, :log1p, :sin, :cos, :tan, :sinh, :cosh, :tanh, :asin, :acos, :atan] ++
        [:asinh, :acosh, :atanh, :sigmoid, :rsqrt, :cbrt]

    for {type, tolerance} <- [{{:c, 64}, 2.0e-5}, {{:c, 128}, 1.0e-12}] do
      # Not 0, 1, -1, i or -i, where some have poles or branches.
      x = Nx.add(complex({3, 4}, type), Complex.new(0.1, 0.03))
      for name <- names, do: assert_close({name, type}, [x], &apply(Nx, name, [&1]), tolerance)
    end

    assert_close(:log, [Nx.tensor([Complex.new(-1, 0), Complex.new(0, -2)])], &Nx.log/1, 1.0e-6)
  end

  test "powers" do
    for {type, tolerance} <- [{{:c, 64}, 1.0e-5}, {{:c, 128}, 1.0e-10}] do
      x = Nx.add(complex({3, 4}, type), Complex.new(0.1, 0.03))
      y = Nx.divide(complex({4}, type), 4)

      for pair <- [[x, y], [x, Nx.tensor(2)], [Nx.tensor(1.5), y], [x, Nx.tensor(1, type: type)]],
          do: assert_close({:pow, type}, pair, &Nx.pow/2, tolerance)

      zeros = Nx.tensor([Complex.new(0, 0), Complex.new(0, 0)], type: type)
      exponents = Nx.tensor([Complex.new(0, 0), Complex.new(2, 1)], type: type)
      assert_close({:zero, type}, [zeros, exponents], &Nx.pow/2, tolerance)
    end
  end

  test "questions, and numbers as truths" do
    x = Nx.tensor([Complex.new(0, 0), Complex.new(0, 1), Complex.new(2, 0)])
    special = Nx.tensor([Complex.new(:nan, 0), Complex.new(1, :infinity), Complex.new(0, 1)])

    for fun <- [&Nx.is_nan/1, &Nx.is_infinity/1], do: assert_close(fun, [special], fun, 0)

    for name <- [:logical_and, :logical_or, :logical_xor],
        do: assert_close(name, [x, Nx.tensor([1, 0, 0])], &apply(Nx, name, [&1, &2]), 0)

    # Up to Nx 0.7, no complex number equals a real one, not even 0.
    assert_close(:logical_not, [x], &Nx.logical_not/1, 0)

    for name <- [:equal, :not_equal],
        pair <- [[x, Nx.tensor([0, 0, 2])], [Nx.tensor([0.0, 1.0, 3.0]), x], [x, Nx.tensor(2)]],
        do: assert_close({name, pair}, pair, &apply(Nx, name, [&1, &2]), 0)

    # `all`, `any` and `select` of Nx take 0 + 0 i for true.
    for name <- [:all, :any] do
      assert_close(name, [x], &apply(Nx, name, [&1]), 0)
      assert_close(name, [Nx.new_axis(x, 1)], &apply(Nx, name, [&1, [axes: [1]]]), 0)
    end

    y = complex({3}, {:c, 64})
    reals = [Nx.tensor([4.0, 5.0, 6.0]), Nx.tensor([7, 8, 9])]
    assert_close(:select, [x | reals], &Nx.select/3, 0)
    assert_close(:select, [x, hd(reals), y], &Nx.select/3, 0)
    assert_close(:select, [x[0] | reals], &Nx.select/3, 0)
    assert_close(:select, [Nx.tensor([1, 0, 1]), y, x], &Nx.select/3, 0)
    assert_close(:select, [Nx.tensor(0), x, y], &Nx.select/3, 0)
  end

  test "products, sums and convolutions" do
    x = complex({3, 5, 2}, {:c, 64})
    assert_close(:product, [complex({5}, {:c, 64})], &Nx.product/1, 1.0e-4)
    empty = Nx.tensor(0, type: {:c, 64}) |> Nx.broadcast({1})
    assert_close(:product, [empty], &Nx.product/1, 0)

    for axes <- [[0], [1], [2], [0, 2], [0, 1]],
        do: assert_close({:product, axes}, [x], &Nx.product(&1, axes: axes), 1.0e-5)

    y = complex({2, 3, 4}, {:c, 128})
    assert_close(:product, [y], &Nx.product(&1, axes: [1], keep_axes: true), 1.0e-12)
    assert_close(:window_sum, [x], &Nx.window_sum(&1, {1, 2, 1}, padding: :same), 1.0e-5)

    row = Nx.tensor([Complex.new(1, 1), 2, Complex.new(0, 1)])
    products = Nx.to_flat_list(Nx.window_product(row, {2}))
    assert products == [Complex.new(2.0, 2.0), Complex.new(0.0, 2.0)]

    # With Nx 0.7, Nx.BinaryBackend finds 0 for all of these products.
    if Nx.to_flat_list(Nx.window_product(host(row), {2})) == products do
      for type <- [{:c, 64}, {:c, 128}],
          {window, opts} <- [
            {{2, 2}, []},
            {{1, 3}, [padding: :same]},
            {{2, 1}, [strides: [2, 3], window_dilations: [2, 1], padding: [{1, 0}, {0, 2}]]}
          ] do
        product = &Nx.window_product(&1, window, opts)
        assert_close({window, opts}, [complex({4, 5}, type)], product, 1.0e-5)
      end
    end

    for fun <- [&Nx.cumulative_sum(&1, axis: 1), &Nx.mean/1],
        do: assert_close(fun, [x], fun, 1.0e-5)

    input = complex({1, 2, 5}, {:c, 64})
    assert_close(:conv, [input, complex({3, 2, 3}, {:c, 64})], &Nx.conv/2, 1.0e-5)
    assert_close(:conv, [input, Nx.iota({3, 2, 3}, type: :f32)], &Nx.conv/2, 1.0e-4)
  end

  test "indices" do
    for type <- [{:c, 64}, {:c, 128}] do
      x = complex({3, 4}, type)
      assert_close(:take, [x, Nx.tensor([2, 0])], &Nx.take(&1, &2), 0)
      assert_close(:take, [x, Nx.tensor([[3, 1]])], &Nx.take(&1, &2, axis: 1), 0)

      assert_close(
        :along,
        [x, Nx.tensor([[2, 0, 1, 1]])],
        &Nx.take_along_axis(&1, &2, axis: 0),
        0
      )

      assert_close(
        :along,
        [x, Nx.tensor([[2], [0], [1]])],
        &Nx.take_along_axis(&1, &2, axis: 1),
        0
      )

      assert_close(:gather, [x, Nx.tensor([[2, 0], [1, 3]])], &Nx.gather/2, 0)
      assert_close(:gather, [x, Nx.tensor([[2], [1]])], &Nx.gather(&1, &2, axes: [0]), 0)
      at = Nx.tensor([[0, 1], [2, 3], [0, 1]])
      updates = complex({3}, type)
      assert_close(:put, [x, at, updates], &Nx.indexed_put/3, 0)
      assert_close(:put, [x, at, Nx.tensor([1, 2, 3])], &Nx.indexed_put/3, 0)
      assert_close(:add, [x, at, updates], &Nx.indexed_add/3, 1.0e-6)
      assert_raise ArgumentError, fn -> Nx.take(x, Nx.tensor([3])) end
    end
  end

  test "numbers that other numbers become" do
    x = complex({2, 3}, {:c, 64})

    for type <- [:f32, :f64, :s32, :s8, :bf16],
        do: assert_close(type, [x], &Nx.as_type(&1, type), 0)

    assert_close(:u8, [Nx.abs(x)], &Nx.as_type(&1, {:c, 64}), 1.0e-6)
    real = Nx.iota({2, 3}, type: :s64)
    assert_close(:concatenate, [x, real], &Nx.concatenate([&1, &2]), 0)
    assert_close(:stack, [real, x], &Nx.stack([&1, &2]), 0)
    assert_close(:put_slice, [x, Nx.tensor([[7]])], &Nx.put_slice(&1, [1, 1], &2), 0)
    assert_close(:multiply, [x, real], &Nx.multiply/2, 1.0e-5)
    number = Nx.tensor(Complex.new(1, -2))
    assert_close(:pad, [x], &Nx.pad(&1, number, [{1, 0, 0}, {0, 1, 1}]), 0)
    assert_close(:pad, [x], &Nx.pad(&1, Nx.tensor(2.0), [{0, 0, 1}, {-1, 1, 0}]), 0)

    for fun <- [
          fn -> Nx.iota({2, 3}, type: :c64) end,
          fn -> Nx.eye(3, type: :c64) end,
          fn -> Nx.iota({2, 3}, axis: 1, type: :c64) end
        ],
        do: assert_close(:created, [], fun, 0)
  end

  test "movement" do
    x = complex({3, 4}, {:c, 64})
    y = complex({2, 4}, {:c, 128})
    z = complex({2, 4}, {:c, 64})

    for {what, tensors, fun} <-
          [
            transpose: {[x], &Nx.transpose/1},
            broadcast: {[x], &Nx.broadcast(&1, {2, 3, 4})},
            broadcast: {[x], &Nx.broadcast(&1, {3, 2, 4}, axes: [0, 2])},
            slice: {[x], &Nx.slice(&1, [1, 1], [2, 2])},
            slice: {[x], &Nx.slice(&1, [0, 0], [3, 4], strides: [2, 3])},
            reverse: {[x], &Nx.reverse(&1, axes: [1])},
            concatenate: {[x, z], &Nx.concatenate([&1, &2])},
            stack: {[x, x], &Nx.stack([&1, &2], axis: 1)},
            put_slice: {[z, x], &Nx.put_slice(&2, [1, 0], &1)},
            as_type: {[x], &Nx.as_type(&1, {:c, 128})},
            as_type: {[Nx.iota({6}, type: :s32)], &Nx.as_type(&1, {:c, 64})},
            sum: {[x], &Nx.sum/1},
            sum: {[y], &Nx.sum(&1, axes: [0], keep_axes: true)},
            dot: {[x, y], &Nx.dot(&1, [1], &2, [1])},
            dot: {[x, Nx.iota({4, 2}, type: :f32)], &Nx.dot/2}
          ]
          |> Enum.map(fn {what, {tensors, fun}} -> {what, tensors, fun} end),
        do: assert_close(what, tensors, fun, 1.0e-5)
  end

  test "folds with functions" do
    horner = fn x, acc -> Nx.add(Nx.multiply(acc, Complex.new(0.0, 0.5)), x) end
    products = fn x, acc -> Nx.divide(Nx.multiply(Nx.add(x, 2), Nx.conjugate(acc)), 3) end
    greater = fn x, acc -> Nx.select(Nx.greater(Nx.abs(x), Nx.abs(acc)), x, acc) end

    for type <- [{:c, 64}, {:c, 128}],
        shape <- [{3, 4, 5}, {7}, {64, 3}],
        fun <- [horner, products, greater] do
      z = complex(shape, type)
      one = Nx.tensor(Complex.new(0.5, -1.0), type: type)
      last = tuple_size(shape) - 1
      assert_close({type, shape}, [z, one], &Nx.reduce(&1, &2, [axes: [last]], fun), 1.0e-4)

      assert_close(
        {type, :jit},
        [z, one],
        Nx.Defn.jit(&Nx.reduce(&1, &2, [axes: [0]], fun)),
        1.0e-4
      )

      axes = Enum.take([0, last], if(last > 1, do: 2, else: 1))
      kept = [axes: axes, keep_axes: true]
      assert_close({type, :kept}, [z, one], &Nx.reduce(&1, &2, kept, fun), 1.0e-4)
    end

    z = complex({4, 6}, {:c, 64})
    one = Nx.tensor(Complex.new(0.5, -1.0))
    opts = [padding: :same, strides: [1, 2], window_dilations: [2, 1]]
    assert_close(:windows, [z, one], &Nx.window_reduce(&1, &2, {2, 3}, opts, horner), 1.0e-4)
    assert_close(:plain, [z, one], &Nx.window_reduce(&1, &2, {2, 2}, products), 1.0e-4)
    assert_close(:integer, [z], &Nx.reduce(&1, 2, [axes: [1]], horner), 1.0e-4)

    compiled = Nx.Defn.jit(&Nx.reduce(&1, &2, [axes: [0]], horner), compiler: ExCubecl)
    assert Nx.to_binary(compiled.(z, one)) == Nx.to_binary(Nx.reduce(z, one, [axes: [0]], horner))
    read = fn x, acc -> if Nx.to_number(x) == 0, do: acc, else: Nx.add(x, acc) end
    assert_raise ExCubecl.Error, fn -> Nx.reduce(z, one, read) end
    # Each element is a launch.
    assert_raise ExCubecl.Error, fn -> Nx.reduce(complex({65}, {:c, 64}), one, horner) end
  end
end
