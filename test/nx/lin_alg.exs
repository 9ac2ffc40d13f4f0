defmodule ExCubecl.NxLinAlgTest do
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  setup do
    :rand.seed(:exsss, {6, 16, 2026})
    Nx.default_backend({Backend, host_limit: 0})
    :ok
  end

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  defp random(shape, type) do
    numbers = for _ <- 1..Tuple.product(shape), do: Enum.random(-32..32) / 8
    numbers |> Nx.tensor(type: type) |> Nx.reshape(shape)
  end

  defp definite(shape, type) do
    n = elem(shape, tuple_size(shape) - 1)
    a = random(shape, type)
    axes = Enum.to_list(0..(tuple_size(shape) - 1)) |> Enum.drop(-2)
    last = tuple_size(shape) - 1
    a |> Nx.dot([last], axes, a, [last], axes) |> Nx.add(Nx.eye(n, type: type))
  end

  defp close(a, b, tolerance) do
    [a, b] = for tensor <- [a, b], do: tensor |> host() |> Nx.as_type(:f64)
    largest = b |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() |> max(1)
    difference = Nx.subtract(a, b) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
    assert difference <= tolerance * largest
  end

  defp fallbacks(fun) do
    before = Backend.fallbacks()
    result = fun.()

    {result,
     for({{name, _, _} = key, n} <- Backend.fallbacks(), n != Map.get(before, key, 0), do: name)}
  end

  defp product(a, b) do
    last = tuple_size(a.shape) - 1
    axes = Enum.to_list(0..last) |> Enum.drop(-2)
    Nx.dot(a, [last], axes, b, [last - 1], axes)
  end

  test "triangular systems, as on the host" do
    for shape <- [{3, 3}, {2, 5, 5}, {70, 70}],
        opts <- [[], [lower: false], [left_side: false], [transform_a: :transpose]],
        type <- [{:f, 32}, {:f, 64}] do
      n = elem(shape, tuple_size(shape) - 1)
      a = Nx.add(random(shape, type), Nx.multiply(Nx.eye(n, type: type), 10 * n))
      b = random(shape, type)
      {x, names} = fallbacks(fn -> Nx.LinAlg.triangular_solve(a, b, opts) end)
      assert names == []

      expected =
        Nx.with_default_backend(Nx.BinaryBackend, fn ->
          Nx.LinAlg.triangular_solve(host(a), host(b), opts)
        end)

      assert {x.shape, x.type} == {expected.shape, expected.type}
      close(x, expected, if(type == {:f, 64}, do: 1.0e-13, else: 1.0e-5))
    end

    assert_raise ArgumentError, fn ->
      Nx.LinAlg.triangular_solve(Nx.broadcast(0.0, {3, 3}), Nx.iota({3}, type: :f32))
    end
  end

  test ":bf16 is calculated as :f32" do
    a = definite({12, 12}, {:f, 32})
    b = Nx.iota({12}, type: :bf16)
    lower = Nx.as_type(a, :bf16)
    {x, names} = fallbacks(fn -> Nx.LinAlg.triangular_solve(lower, b) end)
    assert {x.type, names} == {{:bf, 16}, []}
    wide = Nx.LinAlg.triangular_solve(Nx.as_type(lower, :f32), Nx.as_type(b, :f32))
    close(x, wide, 0.01)
  end

  test "decompositions" do
    for shape <- [{4, 4}, {2, 12, 12}, {130, 130}] do
      n = elem(shape, tuple_size(shape) - 1)
      a = definite(shape, {:f, 32})
      axes = Enum.to_list(0..(tuple_size(shape) - 1))
      swapped = Enum.drop(axes, -2) ++ Enum.reverse(Enum.take(axes, -2))
      # Smaller ones are left to Nx.
      native? = n > 8

      {l, names} = fallbacks(fn -> Nx.LinAlg.cholesky(a) end)
      assert names == []
      close(product(l, Nx.transpose(l, axes: swapped)), a, 1.0e-4)

      {{p, l, u}, names} = fallbacks(fn -> Nx.LinAlg.lu(a) end)
      assert names == []
      close(product(p, product(l, u)), a, 1.0e-4)

      for mode <- [:reduced, :complete], native? do
        {{q, r}, names} = fallbacks(fn -> Nx.LinAlg.qr(a, mode: mode) end)
        assert names == []
        close(product(q, r), a, 1.0e-4)
      end

      if native? do
        {{values, vectors}, names} = fallbacks(fn -> Nx.LinAlg.eigh(a) end)
        assert names == []
        scaled = Nx.multiply(vectors, Nx.new_axis(values, -2))
        close(product(a, vectors), scaled, 1.0e-4)
        # Some are negative here.
        {values, _} = Nx.LinAlg.eigh(Nx.subtract(a, Nx.multiply(Nx.eye(a.shape), 2 * n)))
        magnitudes = Nx.abs(values)
        assert Nx.to_number(Nx.any(Nx.less(values, 0))) == 1

        assert Nx.to_binary(magnitudes) ==
                 Nx.to_binary(Nx.sort(magnitudes, axis: -1, direction: :desc))
      end
    end
  end

  test "singular value decompositions" do
    for type <- [{:f, 32}, {:f, 64}, {:f, 16}, {:s, 32}],
        shape <- [{12, 12}, {60, 41}, {2, 3, 40}, {200, 5, 5}, {3, 10, 2}],
        full? <- [true, false] do
      a = shape |> random({:f, 32}) |> Nx.multiply(8) |> Nx.as_type(type)
      {{u, s, vt}, names} = fallbacks(fn -> Nx.LinAlg.svd(a, full_matrices?: full?) end)
      assert names == []
      float = if type == {:s, 32}, do: {:f, 32}, else: type
      assert {u.type, s.type, vt.type} == {float, float, float}
      assert {u.shape, s.shape, vt.shape} == Nx.Shape.svd(shape, full_matrices?: full?)
      assert Nx.to_binary(s) == Nx.to_binary(Nx.sort(s, axis: -1, direction: :desc))
      k = Nx.axis_size(s, -1)
      scaled = Nx.multiply(Nx.slice_along_axis(u, 0, k, axis: -1), Nx.new_axis(s, -2))
      tolerance = if type == {:f, 16}, do: 0.2, else: 1.0e-3
      close(product(scaled, Nx.slice_along_axis(vt, 0, k, axis: -2)), a, tolerance)
    end
  end

  test "ranks, pseudo-inverses and norms by singular values" do
    a = Nx.dot(random({20, 3}, {:f, 32}), random({3, 14}, {:f, 32}))
    square = random({12, 12}, {:f, 32})

    {[rank, inverse | norms], names} =
      fallbacks(fn ->
        norms = for ord <- [2, -2, :nuclear], do: Nx.LinAlg.norm(square, ord: ord)
        [Nx.LinAlg.matrix_rank(a), Nx.LinAlg.pinv(a) | norms]
      end)

    assert {Nx.to_number(rank), names} == {3, []}
    close(product(product(a, inverse), a), a, 1.0e-3)

    Nx.with_default_backend(Nx.BinaryBackend, fn ->
      for {ord, norm} <- Enum.zip([2, -2, :nuclear], norms),
          do: close(norm, Nx.LinAlg.norm(host(square), ord: ord), 1.0e-3)
    end)
  end

  test "decompositions of integers, with a permutation of their type" do
    a = Nx.as_type(Nx.multiply(definite({12, 12}, {:f, 32}), 8), :s32)
    {p, l, u} = Nx.LinAlg.lu(Nx.reverse(a))
    assert {p.type, l.type} == {{:s, 32}, {:f, 32}}
    close(product(p, product(l, u)), Nx.reverse(a), 1.0e-4)
    assert Enum.sort(Nx.to_flat_list(p)) == List.duplicate(0, 132) ++ List.duplicate(1, 12)
  end

  test "systems of equations and determinants" do
    for {shape, right} <- [{{12, 12}, {12}}, {{2, 12, 12}, {2, 12, 3}}, {{3, 3}, {3, 2}}] do
      a = definite(shape, {:f, 32})
      b = random(right, {:f, 32})
      {x, names} = fallbacks(fn -> Nx.LinAlg.solve(a, b) end)
      assert {x.shape, names} == {right, []}
      x = if right == {12}, do: Nx.new_axis(x, 1), else: x
      close(product(a, x), Nx.reshape(b, x.shape), 1.0e-3)

      {determinant, names} = fallbacks(fn -> Nx.LinAlg.determinant(a) end)
      assert names == []

      expected =
        Nx.with_default_backend(Nx.BinaryBackend, fn -> Nx.LinAlg.determinant(host(a)) end)

      close(determinant, expected, 1.0e-4)
    end
  end

  test "in compiled programs" do
    a = definite({12, 12}, {:f, 32})
    b = Nx.iota({12}, type: :f32)

    fun = fn a, b ->
      {_p, _l, u} = Nx.LinAlg.lu(a)
      Nx.add(Nx.LinAlg.solve(a, b), Nx.multiply(0, Nx.add(u[0], Nx.LinAlg.determinant(a))))
    end

    close(Nx.Defn.jit(fun, compiler: ExCubecl).(a, b), Nx.LinAlg.solve(a, b), 1.0e-5)
    # What the algorithms refuse has the result of Nx, or its error.
    nan = Nx.broadcast(Nx.Constants.nan(), {12, 12})

    [eager, compiled] =
      for jit <- [fun, Nx.Defn.jit(fun, compiler: ExCubecl)], do: nans(jit, nan, b)

    assert eager == compiled
  end

  defp nans(fun, a, b) do
    Nx.to_number(Nx.sum(Nx.is_nan(fun.(a, b))))
  rescue
    error -> error.__struct__
  end

  def launched(_event, _measurements, _meta, test), do: send(test, :launched)

  test "the host decomposes complex matrices of up to 16 rows" do
    a = Nx.complex(random({3, 4}, {:f, 32}), random({3, 4}, {:f, 32}))
    definite = Nx.multiply(Nx.eye(12), Complex.new(4, 0))
    :ok = :telemetry.attach("complex", [:ex_cubecl, :launch], &__MODULE__.launched/4, self())

    {_, names} =
      fallbacks(fn ->
        {q, r} = Nx.LinAlg.qr(a)
        assert {q.type, r.type} == {{:c, 64}, {:c, 64}}
        send(self(), {:product, q, r})
        {_, l, u} = Nx.LinAlg.lu(definite)
        send(self(), {:product, l, u})
        Nx.LinAlg.eigh(definite)
        Nx.LinAlg.cholesky(definite)
      end)

    :telemetry.detach("complex")
    assert names == []
    refute_received :launched

    for expected <- [a, definite] do
      assert_received {:product, x, y}
      difference = Nx.subtract(host(product(x, y)), host(expected))
      assert difference |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() < 1.0e-4
    end
  end

  test "complex numbers and small matrices are those of Nx" do
    a = Nx.tensor([[2, Complex.new(0, 1)], [Complex.new(0, -1), 2]])
    {x, names} = fallbacks(fn -> Nx.LinAlg.triangular_solve(a, Nx.tensor([2, 2])) end)
    # The host calculates with small matrices in any case.
    assert names == []
    assert inspect(Nx.to_flat_list(x)) =~ "1.0"
    {{p, l, u}, _} = fallbacks(fn -> Nx.LinAlg.lu(Nx.tensor([[1.0, 2.0], [3.0, 4.0]])) end)
    close(product(p, product(l, u)), Nx.tensor([[1.0, 2.0], [3.0, 4.0]]), 1.0e-6)
    {q, _} = Nx.LinAlg.qr(Nx.tensor([[1.0, 2.0], [3.0, 4.0]]))
    close(product(q, Nx.transpose(q)), Nx.eye(2), 1.0e-6)
    assert Nx.LinAlg.cholesky(a).type == {:c, 64}
    diagonal = Nx.multiply(Nx.eye(12), Complex.new(4, 0))
    {x, names} = fallbacks(fn -> Nx.LinAlg.triangular_solve(diagonal, Nx.iota({12})) end)
    assert names == [:triangular_solve]
    assert Nx.to_number(x[11]) == Complex.new(2.75, 0.0)
  end
end
