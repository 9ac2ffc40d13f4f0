defmodule ExCubecl.NxFusionTest do
  # The steps of ExCubecl.Compiler.Fusion against the backend, callback by callback: the same bits, with fewer launches.
  use ExUnit.Case, async: false

  alias ExCubecl.Backend
  alias ExCubecl.Compiler.{Fusion, Scope}
  alias ExCubecl.Compiler.Graph.Conversion
  alias Nx.Defn.Expr
  alias Nx.Tensor, as: T

  @config Backend.config(host_limit: 0)
  @types [f: 32, f: 16, f: 64, bf: 16] ++ for(k <- [:s, :u], b <- [8, 16, 32, 64], do: {k, b})

  @unary ~w(negate abs floor ceil round sign is_nan is_infinity bitwise_not population_count count_leading_zeros)a
  @functions ~w(exp expm1 log log1p sqrt rsqrt cbrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erf_inv sigmoid)a
  @binary ~w(add subtract multiply divide max min pow atan2 remainder quotient left_shift right_shift)a ++
            ~w(bitwise_and bitwise_or bitwise_xor equal not_equal greater less greater_equal less_equal)a ++
            ~w(logical_and logical_or logical_xor)a

  setup do
    Nx.default_backend({Backend, host_limit: 0})
    :ok
  end

  describe "every operation in every type" do
    @describetag :types
    for type <- @types do
      test "#{inspect(type)}, one operand" do
        for names <- Enum.chunk_every(unary(unquote(type)), 5) do
          alike([values(unquote(type))], fn x ->
            results = for name <- names, do: apply(Nx, name, [x])
            tuple(results ++ for(y <- results, do: Nx.equal(y, 1)))
          end)
        end
      end

      test "#{inspect(type)}, two operands" do
        for other <- Enum.uniq([unquote(type), {:f, 32}, {:u, 8}]),
            name <- @binary,
            allowed?(name, [unquote(type), other]) do
          alike([values(unquote(type)), Nx.reverse(values(other))], fn x, y ->
            z = apply(Nx, name, [x, y])
            {z, Nx.not_equal(z, 1)}
          end)
        end
      end

      test "#{inspect(type)}, an operand and a number" do
        for other <- Enum.uniq([unquote(type), {:s, 32}]) do
          names = for name <- @binary, allowed?(name, [unquote(type), other]), do: name

          alike([values(unquote(type))], fn x ->
            results = for name <- names, do: apply(Nx, name, [x, Nx.tensor(2, type: other)])
            tuple(results ++ for(z <- results, do: Nx.not_equal(z, 1)))
          end)
        end
      end
    end

    test "as_type" do
      for from <- @types, to <- @types do
        alike([values(from)], fn x -> {Nx.as_type(x, to), Nx.equal(x, 0)} end)
      end
    end

    test "select and clip" do
      for type <- @types, other <- [type, {:f, 32}, {:s, 32}] do
        alike([values(:u, 8), values(type), values(other)], fn pred, x, y ->
          z = Nx.select(pred, x, y)
          {z, Nx.select(Nx.equal(x, y), 1, Nx.equal(z, x)), Nx.clip(y, -1, 3), Nx.clip(x, 1, 100)}
        end)
      end
    end

    test "reductions of element-wise results" do
      for type <- @types,
          name <- [:sum, :product, :reduce_max, :reduce_min, :all, :any],
          axes <- [[0], [1], [0, 1]] do
        alike([values(type), values(type)], fn x, y ->
          apply(Nx, name, [
            Nx.reshape(Nx.subtract(Nx.max(x, y), Nx.equal(y, 0)), {10, 2, 1}),
            [axes: axes]
          ])
        end)
      end
    end
  end

  test "broadcasts, moves and indices are read in place" do
    [x, row, column] = for shape <- [{3, 4}, {4}, {3, 1}], do: random(shape)

    assert launches([x, row, column], fn x, row, column ->
             Nx.exp(Nx.multiply(Nx.add(x, row), column))
           end) == [:fused]

    assert launches([x, row], fn x, row ->
             Nx.add(
               Nx.transpose(Nx.multiply(x, 2)),
               Nx.new_axis(Nx.slice(Nx.add(row, 1), [0], [1]), 1)
             )
           end) == [:fused]

    assert launches([x], fn x ->
             Nx.add(Nx.iota({3, 4}, axis: 1), Nx.reverse(Nx.negate(x), axes: [0]))
           end) == [:fused]

    assert launches([row], fn row ->
             Nx.add(Nx.broadcast(Nx.negate(row), {4, 3}, axes: [0]), 1)
           end) == [:fused]

    assert launches([x], fn x ->
             Nx.multiply(Nx.iota({3, 4}, type: :f32), Nx.iota({3, 4}, type: :s32)) |> Nx.add(x)
           end) == [:fused]
  end

  test "a kernel has several results, and a long chain several kernels" do
    x = random({5, 7})

    assert launches([x, x], fn x, g ->
             m = Nx.add(Nx.multiply(0.9, x), Nx.multiply(0.1, g))
             v = Nx.add(Nx.multiply(0.99, x), Nx.multiply(0.01, Nx.multiply(g, g)))
             {m, v, Nx.subtract(x, Nx.divide(Nx.multiply(1.0e-3, m), Nx.add(Nx.sqrt(v), 1.0e-8)))}
           end) == [:fused]

    long =
      launches([x], fn x ->
        Enum.reduce(1..100, x, fn n, y -> Nx.add(Nx.multiply(y, x), n / 1000) end)
      end)

    assert length(long) in 2..10

    wide =
      launches([random({40, 5, 7})], fn x ->
        for(n <- 0..39, do: Nx.reshape(x[n], {5, 7})) |> Enum.reduce(&Nx.subtract/2)
      end)

    assert length(wide) in 2..7
  end

  describe "concatenations, stacks, padded tensors and slices put into others" do
    test "are read in place" do
      [x, y, z] = for shape <- [{3, 4}, {3, 2}, {3, 4}], do: random(shape)
      one = fn args, fun -> assert launches(args, fun) == [:fused] end

      one.([x, y], &Nx.concatenate([&1, &2, &1], axis: 1))
      one.([x, y], &Nx.exp(Nx.concatenate([Nx.negate(&2), &1, Nx.add(&2, 1)], axis: -1)))
      one.([x, z], &Nx.multiply(Nx.concatenate([&1, &2]), 2))
      one.([x, z], &Nx.add(Nx.stack([&1, Nx.abs(&2)], axis: 1), 1))
      one.([x, z], &Nx.subtract(Nx.stack([&1, &2, &1], axis: -1), Nx.new_axis(&2, -1)))
      one.([x], &Nx.add(Nx.pad(&1, 1.5, [{1, 2, 0}, {0, 1, 0}]), 1))
      one.([x], &Nx.pad(Nx.abs(&1), 0, [{-1, 2, 0}, {3, -2, 0}]))
      one.([x], &Nx.sin(Nx.pad(Nx.transpose(&1), -2.0, [{-1, 0, 0}, {0, -1, 0}])))
      one.([x, y], &Nx.multiply(Nx.put_slice(&1, [0, 1], &2), 3))

      one.(
        [x, y],
        &Nx.put_slice(Nx.negate(&1), [Nx.tensor(7), 1], Nx.slice(Nx.abs(&2), [1, 0], [2, 2]))
      )

      # The halves of the last axis change places, as in rotary embeddings.
      one.([x, z], fn x, angles ->
        [a, b] = for start <- [0, 2], do: Nx.slice(x, [0, start], [3, 2])
        turned = Nx.concatenate([Nx.negate(b), a], axis: -1)
        Nx.add(Nx.multiply(x, Nx.cos(angles)), Nx.multiply(turned, Nx.sin(angles)))
      end)

      one.([x, y], fn x, y ->
        inner = Nx.concatenate([x, y], axis: 1)

        outer =
          Nx.concatenate([Nx.slice(inner, [0, 1], [3, 4], strides: [1, 2]), y, inner], axis: 1)

        outer = Nx.reverse(Nx.transpose(Nx.pad(outer, 7, [{0, 1, 0}, {1, 0, 0}])), axes: [0])
        Nx.add(Nx.new_axis(Nx.slice(outer, [2, 1], [4, 2]), 1), 1)
      end)
    end

    test "in every type" do
      for type <- @types, other <- Enum.uniq([type, {:s, 32}, {:f, 32}]) do
        alike([values(type), Nx.reverse(values(other))], fn x, y ->
          z = Nx.concatenate([x, y, Nx.add(x, 1)])

          {z, Nx.equal(z, 1), Nx.pad(Nx.add(x, 1), 3, [{2, -1, 0}]),
           Nx.stack([x, x, Nx.negate(x)])}
        end)
      end
    end

    test "of one element, of many, and of numbers" do
      [x, one] = for shape <- [{70, 1000}, {1}], do: random(shape)
      alike([x, x], &Nx.concatenate([&1, Nx.negate(&2)]))
      alike([x], &Nx.pad(&1, 0, [{1, 1, 1}, {0, 0, 0}]))
      alike([one, one], &Nx.slice(Nx.concatenate([&1, Nx.add(&2, 1)]), [1], [1]))
      alike([one, one], &Nx.add(Nx.slice(Nx.stack([&1, &2]), [1, 0], [1, 1]), &1))
      alike([Nx.broadcast(2.5, {3}), random({4})], &Nx.exp(Nx.concatenate([&1, &2])))
      alike([Nx.broadcast(2.5, {3}), Nx.tensor(3.0)], &Nx.pad(Nx.exp(&1), &2, [{1, 1, 0}]))
      alike([one], fn x -> Nx.negate(Nx.concatenate(List.duplicate(x, 9))) end)
      alike([random({4, 3})], &Nx.sum(Nx.concatenate([&1, Nx.abs(&1)], axis: 1), axes: [1]))
      alike([random({4, 3})], &Nx.dot(Nx.stack([&1, &1]), Nx.pad(&1, 1, [{-1, 0, 0}, {0, 0, 0}])))
    end
  end

  # The numbers of threefry are shifted by constants, and its bits become floats.
  test "shifts and bits of integers" do
    x = Nx.as_type(Nx.multiply(random({5, 7}), 1000), :u32)

    assert launches([x], fn x ->
             bits = Nx.bitwise_or(Nx.right_shift(x, 3), 0x3F80_0000)
             {Nx.subtract(Nx.bitcast(bits, :f32), 1), Nx.left_shift(x, 31), Nx.right_shift(x, 32)}
           end) == [:fused]

    for {from, to} <-
          [s: 32, u: 32, f: 32, s: 64, u: 64, f: 64]
          |> Enum.zip(f: 32, s: 32, u: 32, f: 64, f: 64, s: 64) do
      alike([Nx.as_type(x, from)], &Nx.abs(Nx.bitcast(Nx.add(Nx.add(&1, 1), 1), to)))
    end

    rounds =
      launches([x], fn x ->
        Enum.reduce(1..30, x, fn n, y ->
          Nx.bitwise_xor(Nx.add(Nx.left_shift(y, n), Nx.right_shift(y, 32 - n)), x)
        end)
      end)

    assert rounds == [:fused]
  end

  test "a result that something between them needs does not join what needs that" do
    x = random({4, 4})

    assert launches([x], fn x ->
             y = Nx.exp(x)
             z = Nx.sort(Nx.sin(y), axis: 0)
             Nx.add(Nx.multiply(y, z), Nx.negate(y))
           end)
           |> Enum.count(&(&1 == :fused)) == 2
  end

  test "a reduction takes the work that only it needs" do
    x = random({30, 20})

    assert launches([x, x], fn x, y -> Nx.sum(Nx.multiply(Nx.subtract(x, y), y), axes: [1]) end) ==
             [:sum]

    assert launches([x], fn x -> Nx.any(Nx.greater(Nx.transpose(Nx.abs(x)), 100), axes: [0]) end) ==
             [:any]
  end

  describe "rows" do
    # Up to 32 elements are added one after the other, as the backend does. Threads of a workgroup share a longer row: sums differ in their last bits.
    for {rows, n, type} <- [{40, 32, {:f, 32}}, {3, 300, {:f, 32}}, {40, 33, {:f, 16}}] do
      test "softmax, normalizations and their gradients of #{n} elements, #{inspect(type)}" do
        x = Nx.as_type(random({unquote(rows), unquote(n)}), unquote(type))
        row = Nx.as_type(random({unquote(n)}), unquote(type))

        tolerance =
          if unquote(n) <= 32, do: 0, else: unquote(if type == {:f, 16}, do: 1.0e-2, else: 1.0e-4)

        one = &assert launches(&1, &2, tolerance) == [:rows]

        one.([x], &softmax(&1, 1))
        one.([Nx.transpose(x)], &softmax(&1, 0))

        one.([x, row], fn x, row ->
          softmax(Nx.add(Nx.divide(x, 8), Nx.select(Nx.greater(row, 0), 0, -100)), 1)
        end)

        one.([x, row, row], &layer_norm/3)

        one.([x, x, row], fn x, y, row ->
          sum = Nx.add(x, Nx.tanh(y))
          {layer_norm(sum, row, row), sum}
        end)

        one.([x], &Nx.logsumexp(&1, axes: [1]))

        one.([x], fn x ->
          mean = x |> Nx.sum(axes: [1]) |> Nx.divide(7)
          {Nx.subtract(x, Nx.new_axis(mean, 1)), mean}
        end)

        one.([x], fn x ->
          Nx.multiply(x, Nx.rsqrt(Nx.mean(Nx.multiply(x, x), axes: [1], keep_axes: true)))
        end)

        assert [x, row]
               |> launches(
                 &elem(
                   Nx.Defn.value_and_grad(&1, fn x -> Nx.sum(Nx.cos(layer_norm(x, &2, &2))) end),
                   1
                 ),
                 tolerance
               )
               |> Enum.count(&(&1 == :rows)) == 1
      end
    end

    # Neither reads the other. Up to 32 elements have the bits of the backend.
    test "several reductions of operands of one shape" do
      [x, y] = for shape <- [{40, 30}, {40, 30}], do: random(shape)

      for axis <- [0, 1] do
        tolerance = if axis == 1, do: 0, else: 1.0e-6
        one = &assert launches(&1, &2, tolerance) == [:rows]
        sum = &Nx.sum(&1, axes: [axis])

        one.([x], fn x -> {sum.(x), sum.(Nx.multiply(x, x))} end)
        one.([x, y], fn x, y -> {sum.(x), Nx.divide(sum.(Nx.exp(y)), 30)} end)

        one.([x, y], fn x, y ->
          {Nx.add(sum.(x), 1), Nx.reduce_max(y, axes: [axis]), sum.(Nx.abs(Nx.subtract(x, y)))}
        end)

        one.([x], fn x ->
          mean = Nx.divide(sum.(x), 30)
          Nx.subtract(Nx.divide(sum.(Nx.multiply(x, x)), 30), Nx.multiply(mean, mean))
        end)
      end

      # One that needs the other, of another axis, and of more elements.
      for fun <- [
            fn x, y ->
              Nx.sum(Nx.multiply(Nx.sort(y), Nx.sum(Nx.sort(Nx.multiply(x, 2)), axes: [0])),
                axes: [0]
              )
            end,
            fn x, y -> {Nx.sum(x, axes: [0]), Nx.sum(y, axes: [1])} end
          ] do
        alike([Nx.slice(x, [0, 0], [30, 30]), y], fun)
      end
    end

    # Of 24 elements, and of many.
    test "along several axes" do
      for {shape, axes} <- [
            {{4, 3, 2, 5}, [0, 1, 2]},
            {{4, 5, 6}, [0, 2]},
            {{6, 4}, [0, 1]},
            {{4, 7, 9, 5}, [0, 1, 2]},
            {{3, 40, 50}, [1, 2]},
            {{60, 40}, [0, 1]}
          ],
          type <- [{:f, 32}, {:f, 16}] do
        x = Nx.as_type(random(shape), type)
        n = axes |> Enum.map(&elem(shape, &1)) |> Enum.product()

        tolerance = if n <= 32, do: 0, else: %{{:f, 16} => 2.0e-2, {:f, 32} => 1.0e-4}[type]

        one = &assert launches([x], &1, tolerance) == [:rows]

        normal = fn x ->
          mean = Nx.mean(x, axes: axes, keep_axes: true)
          variance = Nx.variance(x, axes: axes, keep_axes: true)
          Nx.divide(Nx.subtract(x, mean), Nx.sqrt(Nx.add(variance, 1.0e-3)))
        end

        one.(normal)
        one.(fn x -> {Nx.sum(x, axes: axes), Nx.reduce_max(Nx.multiply(x, x), axes: axes)} end)
        one.(fn x -> normal.(Nx.multiply(Nx.transpose(Nx.transpose(x)), 2)) end)

        # Values without the first axes are broadcast along them.
        if axes == Enum.to_list(0..(length(axes) - 1)),
          do: one.(fn x -> Nx.subtract(x, Nx.reduce_max(x, axes: axes)) end)

        alike([x], fn x -> Nx.multiply(x, Nx.rsqrt(Nx.sum(Nx.abs(x)))) end, tolerance)
      end

      # A step by the gradient of limited length.
      assert launches(
               [random({30, 40}), random({30, 40})],
               fn x, gradient ->
                 length = Nx.sqrt(Nx.sum(Nx.multiply(gradient, gradient)))
                 Nx.subtract(x, Nx.multiply(gradient, Nx.divide(0.1, Nx.max(length, 1))))
               end,
               1.0e-5
             ) == [:rows]
    end

    test "with NaN and infinities" do
      for special <- [:nan, :infinity, :neg_infinity] do
        x =
          Nx.concatenate([random({4, 40}), Nx.broadcast(Nx.tensor(special, type: :f32), {4, 1})],
            axis: 1
          )

        assert launches([x], &softmax(&1, 1), 1.0e-5) == [:rows]
      end
    end

    defp softmax(x, axis) do
      exp = Nx.exp(Nx.subtract(x, Nx.reduce_max(x, axes: [axis], keep_axes: true)))
      Nx.divide(exp, Nx.sum(exp, axes: [axis], keep_axes: true))
    end

    defp layer_norm(x, scale, bias) do
      mean = Nx.mean(x, axes: [-1], keep_axes: true)
      variance = Nx.variance(x, axes: [-1], keep_axes: true)

      x
      |> Nx.subtract(mean)
      |> Nx.multiply(Nx.rsqrt(Nx.add(variance, 1.0e-5)))
      |> Nx.multiply(scale)
      |> Nx.add(bias)
    end
  end

  describe "epilogues of products" do
    # Tiles of 8 by 8, of 4 by 4 with rows and columns that fill none, stacks, rows and columns, and sums in parts.
    for {left, right, axes, count} <- [
          {{128, 64}, {64, 128}, {[1], [], [0], []}, 1},
          {{131, 20}, {20, 77}, {[1], [], [0], []}, 1},
          {{13, 9}, {9, 7}, {[1], [], [0], []}, 1},
          {{9, 13}, {7, 9}, {[0], [], [1], []}, 1},
          {{3, 5, 6}, {3, 6, 7}, {[2], [0], [1], [0]}, 1},
          {{2, 5, 6}, {6, 2, 3}, {[2], [], [0], []}, 1},
          {{1, 40}, {40, 33}, {[1], [], [0], []}, 1},
          {{33, 40}, {40}, {[1], [], [0], []}, 1},
          {{40}, {40}, {[0], [], [0], []}, 1},
          {{1, 300}, {3, 300}, {[1], [], [1], []}, 2},
          {{3, 5000}, {5000, 2}, {[1], [], [0], []}, 2},
          {{1, 600}, {600, 300}, {[1], [], [0], []}, 2},
          {{1, 16}, {16, 5000}, {[1], [], [0], []}, 2}
        ] do
      test "#{inspect(left)} with #{inspect(right)} along #{inspect(axes)}" do
        {left_axes, left_batch, right_axes, right_batch} = unquote(Macro.escape(axes))
        [left, right] = for shape <- unquote(Macro.escape([left, right])), do: random(shape)
        dot = &Nx.dot(&1, left_axes, left_batch, &2, right_axes, right_batch)
        out = dot.(left, right)
        bias = out.shape |> Tuple.to_list() |> Enum.take(-1) |> List.to_tuple() |> random()
        count = unquote(count)

        one = fn args, fun ->
          kernels = launches(args, fun)
          assert length(kernels) == count, inspect(kernels)
        end

        one.([left, right, bias], &Nx.max(Nx.add(dot.(&1, &2), &3), 0))

        # Several results, one of another type, and the product itself; the second operand has its place in the result, the third is read through strides.
        one.([left, right, bias, random(out.shape)], fn a, b, bias, residual ->
          x = dot.(a, b)
          y = x |> Nx.add(bias) |> Nx.sigmoid() |> Nx.add(residual)
          {Nx.greater(y, 0), Nx.multiply(x, Nx.reverse(residual)), x}
        end)

        one.([left, right], fn a, b ->
          x = dot.(a, b)
          Nx.add(Nx.multiply(x, x), Nx.iota(x.shape, type: :f32))
        end)
      end
    end

    test "in every type of products" do
      for type <- [f: 16, bf: 16, f: 32, f: 64, s: 32, u: 8, s: 64],
          other <- Enum.uniq([type, {:f, 32}]) do
        [a, b] = for {shape, type} <- [{{9, 30}, type}, {{30, 6}, other}], do: typed(shape, type)

        # A result that is not rounded would differ.
        alike([a, b, typed({6}, type)], fn a, b, c ->
          x = Nx.dot(a, b)
          y = Nx.multiply(x, c)
          {Nx.subtract(y, x), Nx.equal(Nx.as_type(x, :f64), Nx.multiply(x, 3))}
        end)
      end
    end

    defp typed(shape, {kind, _} = type) do
      x = Nx.multiply(random(shape), 5)
      Nx.as_type(if(kind in [:f, :bf], do: x, else: Nx.abs(Nx.floor(x))), type)
    end

    test "that read other elements, or have another shape, are kernels of their own" do
      x = random({9, 9})
      dot = &Nx.dot(&1, &2)

      for fun <- [
            fn x, y -> Nx.add(Nx.exp(dot.(x, y)), Nx.transpose(dot.(x, y))) end,
            fn x, y ->
              z = dot.(x, y)
              Nx.add(Nx.exp(z), Nx.transpose(Nx.negate(z)))
            end,
            fn x, y -> Nx.add(Nx.slice(dot.(x, y), [0, 0], [1, 9]), x) end,
            fn x, y -> Nx.add(Nx.broadcast(dot.(x, y), {2, 9, 9}), 1) end
          ] do
        assert launches([x, x], fun) |> Enum.count(&(&1 == :fused)) <= 1
      end

      # One of two products; what one of them needs comes before it.
      assert [_, _] =
               launches([x, x], fn x, y -> Nx.multiply(Nx.sigmoid(dot.(x, y)), dot.(y, x)) end)

      assert [_, _] =
               launches([x, x], fn x, y ->
                 z = Nx.exp(dot.(x, y))
                 Nx.add(Nx.dot(z, Nx.transpose(y)), z)
               end)
    end

    test "of numbers in place of tensors, on the backend" do
      two = Nx.broadcast(Nx.tensor(2.0), {3, 4})
      alike([two, random({4, 3})], fn x, y -> Nx.add(Nx.exp(Nx.dot(x, y)), 1) end)
      alike([random({4, 3}), random({3, 4}), Nx.tensor(2.0)], &Nx.pow(Nx.dot(&1, &2), &3))
    end

    test "of the library's products are kernels of their own" do
      x = random({256, 260})
      y = random({260, 256})
      alike([x, y], fn x, y -> Nx.add(Nx.exp(Nx.dot(x, y)), 1) end)
      assert [_, _] = launches([x, y], fn x, y -> Nx.add(Nx.exp(Nx.dot(x, y)), 1) end)
    end
  end

  # Axes of length 1 are inserted and removed.
  test "epilogues in another shape of the result" do
    [a, b, x, bias] = for shape <- [{7, 9}, {9, 1}, {40, 30}, {30}], do: random(shape)

    assert launches([a, b], fn a, b ->
             Nx.sigmoid(Nx.add(Nx.squeeze(Nx.dot(a, b), axes: [1]), 0.5))
           end) == [:dot]

    assert launches([a, b, random({7})], fn a, b, c ->
             y = Nx.dot(a, b)
             z = Nx.new_axis(y, 0)
             {y, Nx.multiply(Nx.reshape(c, {1, 7, 1}), z), Nx.greater(z, 0), z}
           end) == [:dot]

    assert launches([x, bias], fn x, bias ->
             sum = Nx.new_axis(Nx.sum(Nx.exp(x), axes: [0]), 0)
             {Nx.divide(sum, 40), Nx.subtract(Nx.multiply(bias, sum), Nx.reverse(bias))}
           end) == [:sum]

    image = random({2, 3, 1, 6})

    assert launches([image, random({4, 3, 1, 3}), random({4, 1})], fn image, kernel, bias ->
             Nx.max(Nx.add(Nx.squeeze(Nx.conv(image, kernel), axes: [2]), bias), 0)
           end) == [:conv]

    assert launches([image], fn image ->
             Nx.multiply(Nx.squeeze(Nx.window_max(image, {1, 1, 1, 2})), 3)
           end) == [:window_max]

    # Two shapes, another order, and more elements.
    for fun <- [
          fn a, b ->
            y = Nx.dot(a, b)
            {Nx.negate(y), Nx.exp(Nx.squeeze(y))}
          end,
          fn a, b -> Nx.add(Nx.squeeze(Nx.dot(a, b)), Nx.reverse(Nx.squeeze(Nx.dot(a, b)))) end,
          fn a, b -> Nx.add(Nx.squeeze(Nx.dot(a, b)), Nx.slice(a, [0, 0], [7, 1])) end,
          fn a, b -> Nx.transpose(Nx.multiply(Nx.new_axis(Nx.dot(a, b), 1), 2)) end
        ],
        do: alike([a, b], fun)
  end

  test "convolutions have epilogues" do
    relu = fn x, bias -> Nx.max(Nx.add(x, bias), 0) end

    # By windows of elements, strided and padded; of groups; and as a product of matrices with the channels last.
    for {x, k, bias, opts, kernels} <- [
          {{2, 3, 9, 8}, {4, 3, 3, 3}, {4, 1, 1}, [padding: :same], [:conv]},
          {{2, 4, 9}, {6, 2, 3}, {6, 1}, [feature_group_size: 2, strides: 2], [:conv]},
          {{4, 3, 9}, {6, 3, 3}, {6, 1}, [batch_group_size: 2, kernel_dilation: 2], [:conv]},
          {{2, 3, 9}, {4, 3, 3}, {4}, [output_permutation: [0, 2, 1], padding: [{1, 0}]],
           [:conv]},
          {{2, 24, 24, 16}, {3, 3, 16, 16}, {16},
           [
             input_permutation: [0, 3, 1, 2],
             kernel_permutation: [3, 2, 0, 1],
             output_permutation: [0, 2, 3, 1]
           ], [:conv, :matmul]}
        ] do
      opts =
        for {name, value} <- opts,
            do: if(name == :output_permutation, do: {name, inverse(value)}, else: {name, value})

      conv = &Nx.conv(&1, &2, opts)
      args = for shape <- [x, k, bias], do: random(shape)
      assert launches(args, &relu.(conv.(&1, &2), &3)) == kernels

      assert launches(args, fn x, k, bias ->
               y = conv.(x, k)
               z = relu.(y, bias)
               {Nx.greater(z, 0), z, Nx.multiply(y, Nx.iota(y.shape, type: :f32))}
             end) == kernels
    end

    for type <- [f: 16, bf: 16, f: 64, s: 32, u: 8] do
      args = for shape <- [{2, 3, 9}, {4, 3, 3}, {4, 1}], do: typed(shape, type)
      alike(args, &Nx.subtract(Nx.multiply(Nx.conv(&1, &2), &3), 1))
    end
  end

  defp inverse([0, 2, 1]), do: [0, 2, 1]
  defp inverse([0, 2, 3, 1]), do: [0, 3, 1, 2]

  test "windows have epilogues" do
    x = random({2, 9, 8})

    for name <- [:window_sum, :window_max, :window_min, :window_product],
        opts <- [[], [padding: :same, strides: [1, 2, 1], window_dilations: [1, 1, 2]]] do
      assert launches([x], fn x ->
               y = apply(Nx, name, [x, {1, 3, 2}, opts])
               {Nx.less(y, 0), Nx.add(Nx.divide(y, 6), Nx.iota(y.shape, axis: 1))}
             end) == [name]

      for type <- [f: 16, s: 32, u: 8],
          do:
            alike(
              [typed({2, 9, 8}, type)],
              &Nx.add(Nx.divide(apply(Nx, name, [&1, {1, 3, 2}, opts]), 3), 1)
            )
    end
  end

  test "indices of minima and maxima take the work that only they need" do
    x = Nx.concatenate([random({70, 20}), Nx.broadcast(Nx.tensor(:nan, type: :f32), {1, 20})])
    y = random({71, 20})

    for name <- [:argmax, :argmin], axis <- [0, 1, nil], tie <- [:low, :high] do
      opts = [axis: axis, tie_break: tie]

      for opts <- [opts, [keep_axis: true] ++ opts], args <- [[x, y], [y, x]] do
        alike(args, &apply(Nx, name, [Nx.floor(Nx.multiply(Nx.subtract(&1, &2), 3)), opts]))
      end

      alike(
        [typed({30, 40}, {:u, 8})],
        &apply(Nx, name, [Nx.remainder(Nx.transpose(&1), 7), opts])
      )
    end

    assert launches([y, y], &Nx.argmax(Nx.add(&1, Nx.exp(&2)), axis: 1)) == [:argmax]
    assert launches([y], &Nx.argmin(Nx.abs(Nx.transpose(&1)))) == [:argmin, :argmin]
    # Longer rows, which are read by vectors.
    assert launches([random({256, 256})], &Nx.argmax(Nx.negate(&1), axis: 1)) == [:argmax]
  end

  test "reductions have epilogues" do
    [x, row, column] = [random({30, 20}), random({20}), random({30})]

    assert launches([x, row], fn x, row ->
             x |> Nx.abs() |> Nx.sum(axes: [0]) |> Nx.divide(30) |> Nx.add(row) |> Nx.sqrt()
           end) == [:sum]

    assert launches([x, column], fn x, column ->
             largest = Nx.reduce_max(x, axes: [1])
             {Nx.multiply(largest, column), Nx.greater(largest, column), largest}
           end) == [:reduce_max]

    # In the last of several launches.
    assert launches(
             [random({700, 3})],
             fn x -> x |> Nx.mean(axes: [0]) |> Nx.negate() end,
             1.0e-6
           ) ==
             [:sum, :sum]

    assert launches([x], fn x -> x |> Nx.greater(1) |> Nx.all(axes: [1]) |> Nx.logical_not() end) ==
             [:all]

    alike([Nx.as_type(x, :f16), row], fn x, row ->
      Nx.add(Nx.divide(Nx.sum(x, axes: [0]), 7), row)
    end)

    alike([Nx.as_type(x, :s8)], fn x -> Nx.add(Nx.multiply(Nx.sum(x, axes: [0]), 7), 1) end)
  end

  test "results of one shape that do not read each other are one kernel" do
    assert launches([random({9, 8}), random({9, 8})], fn x, y -> {Nx.exp(x), Nx.sin(y)} end) == [
             :fused
           ]
  end

  describe "results of several shapes" do
    test "are one kernel if none reads another" do
      shapes = [{70, 50}, {9}, {2, 1, 3}, {1}, {16, 16}]
      args = for shape <- shapes, x = random(shape), do: {x, Nx.divide(random(shape), 2)}
      [{a, da}, {b, db}, {c, dc}, {d, dd}, {e, de}] = args

      update = fn x, dx ->
        m = Nx.add(Nx.multiply(x, 0.9), Nx.multiply(dx, 0.1))
        {m, Nx.less(x, m), Nx.subtract(x, Nx.divide(m, Nx.add(Nx.sqrt(Nx.abs(dx)), 1.0e-3)))}
      end

      # They have 2 inputs and 3 results each.
      assert launches([a, da, b, db, c, dc, d, dd, e, de], fn a, da, b, db, c, dc, d, dd, e, de ->
               {update.(a, da), update.(b, db), update.(c, dc), update.(d, dd), update.(e, de)}
             end) == [:fused]
    end

    test "read through strides, and indices" do
      [x, y, z] = [random({40, 60}), random({60, 40}), random({3})]

      assert launches([x, y, z], fn x, y, z ->
               {Nx.add(Nx.transpose(x), Nx.slice(y, [0, 3], [60, 1])),
                Nx.multiply(Nx.reverse(z), Nx.iota({2, 3}, axis: 1)),
                Nx.add(Nx.broadcast(z, {2, 5, 3}, axes: [2]), Nx.iota({5, 1}, type: :f32)),
                Nx.subtract(Nx.exp(x), Nx.as_type(x, :s32))}
             end) == [:fused]
    end

    test "are several kernels if some read others, or if there are too many" do
      x = random({4, 3})

      assert launches([x], fn x ->
               y = Nx.add(Nx.exp(x), 1)
               {y, Nx.multiply(Nx.sort(y, axis: 0), 2) |> Nx.add(1)}
             end)
             |> Enum.count(&(&1 == :fused)) == 2

      wide = fn x -> for n <- 1..20, do: Nx.add(Nx.broadcast(x, {n, 4, 3}), Nx.iota({4, 1})) end
      kernels = launches([x], &List.to_tuple(wide.(&1)))
      assert Enum.uniq(kernels) == [:fused] and length(kernels) in 2..8, inspect(kernels)
    end

    test "with numbers in place of tensors" do
      x = random({4, 3})
      [scale, base] = for n <- [2, 0.5], do: Nx.tensor(n)

      both = fn x, scale, base ->
        {Nx.add(Nx.multiply(x, scale), Nx.pow(x, scale)),
         Nx.multiply(Nx.pow(base, scale), Nx.broadcast(base, {7}))}
      end

      alike([x, scale, base], both)
      alike([x, on_device(scale), base], both)
      alike([Nx.tensor(2.0), scale, base], both)
    end
  end

  test "no elements" do
    empty = Nx.slice(random({3, 4}), [0, 0], [3, 2])
    alike([empty], fn x -> Nx.sum(Nx.exp(Nx.add(Nx.slice(x, [0, 0], [1, 1]), 1))) end)
    alike([empty], fn x -> Nx.add(Nx.multiply(Nx.slice(x, [1, 1], [1, 1]), 2), 1) end)
  end

  test "numbers in place of tensors" do
    x = random({3, 4})
    two = Nx.tensor(2.0)
    filled = Nx.broadcast(two, {3, 4})

    for value <- [two, filled, Nx.tensor(2), Nx.tensor(-3.5, type: :f16)] do
      alike([x, value], fn x, y -> Nx.add(Nx.pow(x, y), Nx.multiply(Nx.exp(y), x)) end)
      alike([value], fn y -> Nx.add(Nx.exp(y), Nx.negate(y)) end)
      alike([value, x], fn y, x -> Nx.add(Nx.sum(Nx.multiply(Nx.exp(y), 2)), x) end)
    end
  end

  test "random graphs" do
    for _ <- 1..String.to_integer(System.get_env("FUSION_GRAPHS", "40")) do
      :rand.seed(:exsss, seed = :rand.uniform(1_000_000_000))
      {args, fun} = graph()

      try do
        alike(args, fun)
      rescue
        error -> reraise "graph of seed #{seed}: #{Exception.message(error)}", __STACKTRACE__
      end
    end
  end

  ## Random graphs

  @shapes [{2, 3}, {3}, {2, 1}, {1, 3}, {}]
  @steps [
           :negate,
           :abs,
           :exp,
           :is_nan,
           :add,
           :subtract,
           :multiply,
           :max,
           :less,
           :select,
           :divide
         ] ++
           [
             :transpose,
             :reverse,
             :slice,
             :broadcast,
             :iota,
             :sum,
             :reduce_max,
             :as_type,
             :clip,
             :dot,
             :reshape
           ]

  defp graph do
    args =
      for shape <- Enum.take_random(@shapes, 3),
          do: Nx.as_type(random(shape), pick(f: 32, s: 32, u: 8, f: 64))

    seed = :rand.uniform(1_000_000_000)
    count = 4 + :rand.uniform(16)

    fun = fn first, second, third ->
      :rand.seed(:exsss, seed)
      # The newest is more often an operand than the others.
      made =
        Enum.reduce(1..count, [first, second, third], fn _, known ->
          [node(pick(@steps), known) | known]
        end)

      made |> Enum.take_random(2) |> Kernel.++([hd(made)]) |> List.to_tuple()
    end

    {args, fun}
  end

  defp node(name, known) when name in [:negate, :abs, :exp, :sigmoid, :is_nan],
    do: apply(Nx, name, [one(known)])

  defp node(:transpose, known), do: Nx.transpose(one(known))
  defp node(:reverse, known), do: Nx.reverse(one(known))
  defp node(:as_type, known), do: Nx.as_type(one(known), pick(f: 32, s: 32, u: 8, f: 16, s: 64))
  defp node(:clip, known), do: Nx.clip(one(known), -2, 3)
  defp node(:reshape, known), do: one(known) |> then(&Nx.reshape(&1, {:auto, 1}))

  defp node(:sum, known),
    do: Nx.sum(fit(one(known)), axes: [0], keep_axes: :rand.uniform(2) == 1) |> fit()

  defp node(:reduce_max, known), do: Nx.reduce_max(one(known))
  defp node(:broadcast, known), do: known |> one() |> Nx.reduce_min() |> Nx.broadcast({2, 3})
  defp node(:iota, _known), do: Nx.iota({2, 3}, axis: pick([nil, 0, 1]), type: pick(s: 32, f: 32))
  defp node(:dot, known), do: Nx.dot(fit(one(known)), Nx.transpose(fit(one(known))))

  defp node(:slice, known) do
    x = fit(one(known))
    Nx.slice(x, [0, 1], [2, 2], strides: [1, pick([1, 2])]) |> Nx.sum(axes: [1], keep_axes: true)
  end

  defp node(:select, known), do: Nx.select(fit(one(known)), fit(one(known)), fit(one(known)))
  defp node(name, known), do: apply(Nx, name, [fit(one(known)), fit(one(known))])

  # Some tensor as one of the shape {2, 3}.
  defp fit(%{shape: {2, 3}} = x), do: x

  defp fit(%{shape: shape} = x) when shape in [{3}, {2, 1}, {1, 3}, {}, {1, 1}],
    do: if(:rand.uniform(2) == 1, do: Nx.broadcast(x, {2, 3}), else: Nx.add(x, Nx.iota({2, 3})))

  defp fit(x), do: Nx.broadcast(Nx.sum(x), {2, 3})

  defp one([newest | _] = known), do: if(:rand.uniform(3) == 1, do: newest, else: pick(known))
  defp pick([{_, _} | _] = types), do: Enum.random(types)
  defp pick(list), do: Enum.random(list)

  ## Values

  defp random(shape),
    do:
      on_device(
        Nx.tensor(for(_ <- 1..Tuple.product(shape), do: :rand.normal()),
          type: :f32,
          backend: Nx.BinaryBackend
        )
        |> Nx.reshape(shape)
      )

  defp on_device(tensor), do: Nx.backend_copy(tensor, {Backend, host_limit: 0})

  defp values(kind, bits), do: values({kind, bits})

  defp values({kind, _} = type) when kind in [:f, :bf] do
    list = [
      0.0,
      -0.0,
      1.0,
      -1.0,
      0.5,
      2.0,
      -2.5,
      3.25,
      0.1,
      100.0,
      -0.75,
      1.0e-3,
      7.0,
      255.0,
      :nan,
      :infinity,
      :neg_infinity,
      40_000.0,
      0.3,
      -7.5
    ]

    on_device(Nx.tensor(list, type: type, backend: Nx.BinaryBackend))
  end

  defp values({kind, bits} = type) do
    high = Bitwise.bsl(1, if(kind == :s, do: bits - 1, else: bits)) - 1
    low = if kind == :s, do: -high - 1, else: 0
    small = for n <- 1..9, do: if(kind == :s and rem(n, 2) == 0, do: -n, else: n)
    list = [0, high, low, high - 1, div(high, 2), 100, 17, 31, 1, 2, 3] ++ small
    on_device(Nx.tensor(list, type: type, backend: Nx.BinaryBackend))
  end

  defp tuple(list), do: List.to_tuple(list)

  # A function of integers is that of 32-bit floats, after the same cast: a third of the functions for each type of integers. Few are in one
  # kernel, because the time that the compilers need grows faster than the kernel.
  defp unary({kind, bits} = type) when kind in [:s, :u] do
    third =
      rem(Enum.find_index([8, 16, 32, 64], &(&1 == bits)) + if(kind == :s, do: 0, else: 1), 3)

    names(type) ++ (@functions |> Enum.drop(third) |> Enum.take_every(3))
  end

  defp unary(type), do: names(type) ++ @functions
  defp names(type), do: for(name <- @unary, allowed?(name, [type]), do: name)

  defp allowed?(name, types) do
    integers? = Enum.all?(types, fn {kind, _} -> kind in [:s, :u] end)

    bits? =
      name in ~w(bitwise_not population_count count_leading_zeros quotient left_shift right_shift bitwise_and bitwise_or bitwise_xor)a

    integers? or not bits?
  end

  ## Steps against callbacks

  # The tolerance is relative to the largest element; with 0, the bits are the same.
  defp alike(args, fun, tolerance \\ 0) do
    scope = scope(fun, args)
    callbacks = fn -> run(scope, args, Enum.map(scope.nodes, &{:eager, &1})) end
    steps = fn -> run(scope, args, Fusion.partition(scope, @config)) end

    if tolerance == 0 do
      assert catching(steps) == catching(callbacks), inspect(scope.nodes)
    else
      for {ours, theirs} <- Enum.zip(steps.(), callbacks.()), do: close(ours, theirs, tolerance)
    end
  end

  defp close(ours, theirs, tolerance) do
    assert {ours.type, ours.shape} == {theirs.type, theirs.shape}
    [ours, theirs] = for x <- [ours, theirs], do: Nx.to_flat_list(x)
    most = [1.0e-3 | for(x <- theirs, is_number(x), do: abs(x))] |> Enum.max()

    for {a, b} <- Enum.zip(ours, theirs) do
      if is_number(a) and is_number(b),
        do: assert_in_delta(a, b, tolerance * most),
        else: assert(a == b)
    end
  end

  defp catching(call) do
    for result <- call.(), do: {result.type, result.shape, bits(result)}
  rescue
    # Where the host raises.
    error in [ArithmeticError, ArgumentError] -> error.__struct__
  end

  # The payload of a NaN is not specified.
  defp bits(%{type: {kind, _}} = tensor) when kind in [:f, :bf] do
    tensor = Nx.backend_copy(tensor, Nx.BinaryBackend)
    {Nx.to_flat_list(tensor), if(nan?(tensor), do: nil, else: Nx.to_binary(tensor))}
  end

  defp bits(tensor), do: Nx.to_binary(tensor)
  defp nan?(tensor), do: :nan in Nx.to_flat_list(tensor)

  # The kernels that are launched, where the results are those of the callbacks.
  defp launches(args, fun, tolerance \\ 0) do
    alike(args, fun, tolerance)
    scope = scope(fun, args)
    steps = Fusion.partition(scope, @config)
    test = self()
    :telemetry.attach(:fusion, [:ex_cubecl, :launch], &__MODULE__.launched/4, test)
    run(scope, args, steps)
    :telemetry.detach(:fusion)
    received([])
  end

  def launched(_event, _measurements, metadata, test),
    do: send(test, {:launched, metadata.kernel})

  defp received(done) do
    receive do
      {:launched, kernel} -> received([kernel | done])
    after
      0 -> Enum.reverse(done)
    end
  end

  defp scope(fun, args) do
    outputs = Nx.Defn.Composite.flatten_list([apply(Nx.Defn.debug_expr(fun), args)])
    {graph, _key, captured} = Conversion.build(outputs, %{})
    graph |> Scope.of() |> Map.from_struct() |> Map.put(:captured, captured)
  end

  defp run(scope, args, steps) do
    values =
      for node <- scope.nodes,
          value = leaf(node, args, scope),
          into: %{},
          do: {node.data.id, value}

    values = Enum.reduce(steps, values, &step/2)
    for id <- scope.outputs, do: Map.fetch!(values, id)
  end

  defp leaf(%T{data: %Expr{op: :parameter, args: [at]}}, args, _scope), do: Enum.at(args, at)

  defp leaf(%T{data: %Expr{op: :captured, args: [at]}}, _args, scope),
    do: on_device(Enum.at(scope.captured, at))

  defp leaf(%T{data: %Expr{op: :constant, args: [n]}} = node, _args, _scope),
    do: Backend.constant(%{node | data: nil}, n, config: @config)

  defp leaf(_node, _args, _scope), do: nil

  defp step({:fused, group}, values) do
    assert is_binary(Fusion.describe(group))
    {results, []} = Fusion.run(group, Map.put(values, :shares, %{}), @config)
    Map.merge(values, Map.new(results))
  end

  defp step({:eager, %T{data: %Expr{id: id}}}, values) when is_map_key(values, id), do: values

  defp step({:eager, %T{data: %Expr{id: id, op: op, args: args}} = node}, values) do
    args =
      if op == :iota, do: args ++ [[config: @config]], else: Enum.map(args, &operand(&1, values))

    Map.put(values, id, apply(Backend, op, [%{node | data: nil} | args]))
  end

  defp operand(%T{data: %Expr{id: id}}, values), do: Map.fetch!(values, id)
  defp operand([%T{} | _] = list, values), do: Enum.map(list, &operand(&1, values))
  defp operand(other, _values), do: other
end
