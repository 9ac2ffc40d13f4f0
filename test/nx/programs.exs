defmodule ExCubecl.NxProgramsTest do
  # Programs as users write them, eagerly and compiled, with small tensors in host memory and with every tensor on the device: the results of Nx.BinaryBackend, and
  # no fallback.
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  defmodule Programs do
    import Nx.Defn

    defn gram_schmidt(a) do
      {q, _, _} =
        while {q = Nx.broadcast(0.0, a), a, i = 0}, i < Nx.axis_size(a, 1) do
          v = a[[.., i]]
          v = v - Nx.dot(q, Nx.dot(Nx.transpose(q), v))
          {Nx.put_slice(q, [0, i], Nx.new_axis(v / Nx.LinAlg.norm(v), 1)), a, i + 1}
        end

      q
    end

    defn recurrent(xs, w) do
      {h, _, _, _} =
        while {h = Nx.broadcast(0.1, {3}), i = 0, xs, w}, i < Nx.axis_size(xs, 0) do
          {Nx.tanh(Nx.dot(w, h) + xs[i]) * Nx.sigmoid(h), i + 1, xs, w}
        end

      h
    end

    defn filtered(zs) do
      {x, p, out, _, _} =
        while {x = 0.0, p = 1.0, out = Nx.broadcast(0.0, zs), zs, i = 0},
              i < Nx.axis_size(zs, 0) do
          k = (p + 0.01) / (p + 0.11)
          x = x + k * (zs[i] - x)
          {x, (1 - k) * p, Nx.put_slice(out, [i], Nx.new_axis(x, 0)), zs, i + 1}
        end

      {x, p, out}
    end

    defn collatz(n) do
      {_, steps} =
        while {n, steps = 0}, n != 1 do
          {if(Nx.remainder(n, 2) == 0, do: Nx.quotient(n, 2), else: 3 * n + 1), steps + 1}
        end

      steps
    end

    defn attention(q, k) do
      n = Nx.axis_size(q, 0)
      scores = Nx.dot(q, Nx.transpose(k)) / Nx.sqrt(Nx.axis_size(q, 1))
      mask = Nx.iota({n, n}, axis: 0) >= Nx.iota({n, n}, axis: 1)
      scores = Nx.select(mask, scores, -1.0e9)
      e = Nx.exp(scores - Nx.reduce_max(scores, axes: [1], keep_axes: true))
      Nx.dot(e / Nx.sum(e, axes: [1], keep_axes: true), k)
    end
  end

  @directions [[0, 2], [1, 1], [3, 0], [2, 2]]

  # The function of which the gradient is taken, and its argument.
  defp gradients do
    definite = Nx.add(Nx.dot(a(4, 4), Nx.transpose(a(4, 4))), Nx.eye(4))

    [
      {:cholesky, &Nx.LinAlg.cholesky/1, definite},
      {:solve, &Nx.LinAlg.solve(&1, Nx.iota({4}, type: :f32)), definite},
      {:qr, &sum_of_factors/1, a(4, 3)},
      {:sort, &Nx.sort(&1, axis: 1), a(4, 4)},
      {:along, &Nx.take_along_axis(&1, Nx.tensor(@directions), axis: 1), a(4, 4)},
      {:window_max, &Nx.window_max(&1, {2, 2}), a(4, 4)},
      {:cumulative_product, &Nx.cumulative_product(&1, axis: 1), a(3, 3)},
      {:fft, &Nx.abs(Nx.fft(&1)), a(1, 8)},
      {:conv,
       fn x ->
         kernel = Nx.divide(Nx.iota({2, 1, 2, 2}, type: :f32), 7)
         options = [strides: 2, padding: :same, kernel_dilation: 2, input_dilation: [1, 2]]
         Nx.conv(Nx.reshape(x, {1, 1, 4, 4}), kernel, options)
       end, a(4, 4)}
    ]
  end

  defp sum_of_factors(a) do
    {q, r} = Nx.LinAlg.qr(a)
    Nx.add(Nx.sum(q), r)
  end

  defp programs do
    [
      {:gram_schmidt, &Programs.gram_schmidt/1, [a(4, 3)]},
      {:filtered, &Programs.filtered/1, [Nx.flatten(a(2, 5))]},
      {:collatz, &Programs.collatz/1, [Nx.tensor(7)]},
      {:attention, &Programs.attention/2, [a(5, 4), Nx.sin(a(5, 4))]},
      {:recurrent, &Nx.Defn.grad(&1, fn w -> Nx.sum(Programs.recurrent(a(4, 3), w)) end),
       [a(3, 3)]},
      {:neighbours,
       fn x, y ->
         distances = Nx.sum(Nx.pow(Nx.subtract(Nx.new_axis(x, 1), y), 2), axes: [2])

         Nx.mode(Nx.take(Nx.tensor([2, 0, 2, 1, 0]), Nx.argsort(distances, axis: 1)[[.., 0..2]]),
           axis: 1
         )
       end, [a(4, 3), a(5, 3)]},
      {:equalized,
       fn x ->
         index = Nx.as_type(Nx.abs(Nx.multiply(x, 8)), :s32)

         counts =
           Nx.indexed_add(Nx.broadcast(0, {16}), Nx.new_axis(index, 1), Nx.broadcast(1, {20}))

         Nx.take(Nx.cumulative_sum(counts), index)
       end, [Nx.flatten(a(4, 5))]},
      {:vectorized, &(&1 |> Nx.vectorize(:row) |> Nx.multiply(2) |> Nx.sum() |> Nx.devectorize()),
       [a(4, 5)]},
      {:random, &elem(Nx.Random.choice(&1, Nx.iota({5}), samples: 3, replace: false), 0),
       [Nx.Random.key(3)]}
    ]
  end

  # Deterministic numbers from -1 to 1.
  defp a(rows, columns) do
    list = for i <- 1..(rows * columns), do: :math.sin(i * i + 0.3)
    list |> Nx.tensor(type: :f32) |> Nx.reshape({rows, columns})
  end

  defp results(programs, compiler) do
    for {name, fun, args} <- programs.() do
      result = Nx.Defn.jit_apply(fun, args, compiler: compiler)

      {name,
       for(tensor <- List.wrap(flat(result)), do: Nx.backend_copy(tensor, Nx.BinaryBackend))}
    end
  end

  defp flat(tuple) when is_tuple(tuple), do: Tuple.to_list(tuple)
  defp flat(tensor), do: tensor

  defp with_gradients do
    gradients =
      for {name, fun, x} <- gradients() do
        loss = fn x -> Nx.sum(Nx.multiply(fun.(x), Nx.cos(fun.(x)))) end
        {name, &Nx.Defn.grad(&1, loss), [x]}
      end

    programs() ++ gradients
  end

  for {limit, compiler} <- [{64, Nx.Defn.Evaluator}, {64, ExCubecl}, {0, Nx.Defn.Evaluator}] do
    test "programs, by #{inspect(compiler)}, up to #{limit} elements in host memory" do
      Nx.default_backend(Nx.BinaryBackend)
      expected = results(&with_gradients/0, Nx.Defn.Evaluator)
      Nx.default_backend({Backend, host_limit: unquote(limit), fallback: :raise})
      ours = results(&with_gradients/0, unquote(compiler))
      Nx.default_backend(Nx.BinaryBackend)

      for {{name, ours}, {name, theirs}} <- Enum.zip(ours, expected),
          {x, y} <- Enum.zip(ours, theirs) do
        close? = Nx.all_close(x, y, rtol: 1.0e-3, atol: 1.0e-4)

        assert {name, x.type, x.shape, Nx.to_number(close?)} == {name, y.type, y.shape, 1},
               inspect({x, y})
      end
    end
  end
end
