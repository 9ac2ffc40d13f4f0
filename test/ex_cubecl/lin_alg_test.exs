defmodule ExCubecl.LinAlgTest do
  # Factors are multiplied in plain Elixir and compared with the matrix.
  use ExCubecl.Case, async: true

  import ExCubecl.Matrices
  import ExCubecl.Refusal

  alias ExCubecl.{LinAlg, Ops}
  alias ExCubecl.LinAlg.{Device, Host, Operands}

  @batches [[], [], [1], [3], [2, 2], [0]]
  @sizes [0, 1, 2, 3, 4, 5, 7, 8, 12, 20]

  # With the tag `on: :device`, the device calculates whatever the number of elements.
  setup context do
    :rand.seed(:exsss, {4, 16, 2026})
    if context[:on] == :device, do: Device.Operands.force()
    :ok
  end

  defp unit(:f64), do: 2.3e-16
  defp unit(:f32), do: 1.2e-7
  defp unit(:f16), do: 1.0e-3
  defp unit(:bf16), do: 8.0e-3
  defp unit(_integer), do: unit(:f32)

  test "a matrix whose struct was changed by hand is refused" do
    x = ExCubecl.buffer!([1.0, 0.0, 0.0, 1.0], [2, 2], :f32)

    for name <- [:determinant, :inverse, :cholesky, :lu, :qr, :eigh, :svd],
        do: refused(apply(LinAlg, name, [%{x | dtype: :f64}]), :shape_mismatch)
  end

  defp each(count, fun) do
    for _ <- 1..count,
        do: fun.(Enum.random(@batches), Enum.random(@sizes), Enum.random([:f32, :f64]))
  end

  defp close(a, b, n, dtype), do: assert(distance(a, b) <= 30 * max(n, 1) * unit(dtype))

  test "LU decompositions" do
    each(40, fn batch, n, dtype ->
      a = random(batch ++ [n, n], dtype)
      {p, l, u} = LinAlg.lu!(a)
      assert Enum.map([p, l, u], & &1.shape) == List.duplicate(a.shape, 3)
      assert Enum.map([p, l, u], & &1.dtype) == List.duplicate(dtype, 3)

      for {a, p, l, u} <- Enum.zip(Enum.map([a, p, l, u], &matrices/1)) do
        close(product(p, product(l, u)), a, n, dtype)
        assert triangle?(l, :lower) and triangle?(u, :upper)
        assert Enum.all?(Enum.with_index(l), fn {row, i} -> Enum.at(row, i) == 1.0 end)
        # Partial pivoting bounds the factors.
        assert Enum.all?(List.flatten(l), &(abs(&1) <= 1.0))
        assert Enum.map(p, &Enum.sort/1) |> Enum.uniq() |> length() <= 1
        assert product(p, transpose(p)) == identity(n)
      end
    end)
  end

  test "a singular matrix has an LU decomposition" do
    a = ExCubecl.buffer!([[1, 2, 3], [2, 4, 6], [1, 1, 1]], [3, 3], :f64)
    {p, l, u} = LinAlg.lu!(a)
    [[a], [p], [l], [u]] = Enum.map([a, p, l, u], &matrices/1)
    assert product(p, product(l, u)) == a
    assert List.last(List.last(u)) == 0.0
    zeros = Buffer.zeros!([2, 2], :f32)
    {_, _, u} = LinAlg.lu!(zeros)
    assert matrices(u) == [[[0.0, 0.0], [0.0, 0.0]]]
  end

  # Of as many, or as large ones, a call of the native library calculates only some.
  test "many matrices, and large ones, on the host" do
    many = some([20_000, 2, 2], :f32)
    determinants = LinAlg.determinant!(many)

    for {[[a, b], [c, d]], found} <-
          Enum.zip(matrices(many), Buffer.to_list!(determinants)),
        do: assert_in_delta(found, a * d - b * c, 1.0e-5)

    Buffer.write!(many, [1, 2, 2, 4], offset: 4 * 19_999)
    error = refused(LinAlg.inverse(Buffer.view!(many, 4 * 19_998, [2, 2, 2])), :invalid_argument)
    assert {error.details.matrix, error.details.pivot} == {1, 1}
    identities = Ops.add!(Ops.multiply!(many, 0), Ops.eye!(2, :f32))
    Buffer.write!(identities, [:nan], offset: 4 * 19_999)
    error = refused(LinAlg.cholesky(identities), :invalid_argument, says: "matrix 19999 is NaN")
    assert error.details.matrix == 19_999

    tasks =
      for n <- [120, 130, 140],
          do: Task.async(fn -> check_large_svd(some([n, n], :f64)) end)

    Task.await_many(tasks, :infinity)
  end

  defp check_large_svd(a) do
    {u, values, vt} = LinAlg.svd!(a)
    n = hd(a.shape)
    near(Ops.matmul!(Ops.multiply!(u, values), vt), a, n, :f64)
    near(Ops.matmul!(u, Ops.transpose!(u)), Ops.eye!(n, :f64), n, :f64)
  end

  test "columns that are multiples of one have orthonormal ones on the host" do
    {q, _} = LinAlg.qr!(Buffer.full!([60, 60], :f64, 1.0))
    near(Ops.matmul!(q, Ops.transpose!(q)), Ops.eye!(60, :f64), 60, :f64)
  end

  test "Cholesky decompositions" do
    each(40, fn batch, n, dtype ->
      a = symmetric(batch, n, dtype, 10 * n)
      l = LinAlg.cholesky!(a)
      assert {l.shape, l.dtype} == {a.shape, dtype}

      for {a, l} <- Enum.zip(matrices(a), matrices(l)) do
        close(product(l, transpose(l)), a, n, dtype)
        assert triangle?(l, :lower)
      end
    end)
  end

  test "QR decompositions" do
    each(50, fn batch, m, dtype ->
      n = Enum.random(@sizes)
      mode = Enum.random([:reduced, :complete])
      k = if mode == :complete, do: m, else: min(m, n)
      a = random(batch ++ [m, n], dtype)
      {q, r} = LinAlg.qr!(a, mode: mode)
      assert {q.shape, r.shape} == {batch ++ [m, k], batch ++ [k, n]}

      for {a, q, r} <- Enum.zip(Enum.map([a, q, r], &matrices/1)) do
        if n > 0 and m > 0, do: close(product(q, r), a, max(m, n), dtype)
        if m > 0, do: close(product(transpose(q), q), identity(k), max(m, n), dtype)
        assert triangle?(r, :upper)
      end
    end)
  end

  @tag on: :device
  test "QR decompositions on the device" do
    for {batch, m, n, dtype} <- [
          {[], 90, 90, :f32},
          {[2], 70, 130, :f64},
          {[3, 2], 45, 40, :f16},
          {[200], 9, 5, :s32},
          {[], 9000, 1, :f32},
          {[], 1, 9000, :f64},
          # Columns that groups of threads reflect.
          {[2], 4097, 3, :f32},
          {[], 5000, 4, :f64}
        ],
        mode <- if(m > 1000, do: [:reduced], else: [:reduced, :complete]) do
      # In products of matrices of rank 2, what is left of most columns is rounding errors; a column is 0.
      a = Ops.matmul!(random(batch ++ [m, 2], :f64), random(batch ++ [2, n], :f64))
      a = if n > 2, do: Ops.put_slice!(a, at(batch, 1), zeros(batch ++ [m, 1])), else: a

      for a <- [a, random(batch ++ [m, n], :f64)], scale <- [1.0, 1.0e-30, 1.0e30] do
        scale = if dtype in [:f32, :f64], do: scale, else: 1.0
        check_qr(Buffer.convert!(Ops.multiply!(a, scale), dtype), mode, scale)
      end
    end
  end

  # Their elements are subnormal: a device may calculate with 0 for them.
  @tag on: :device
  test "QR decompositions of the smallest numbers" do
    for {dtype, element} <- [f32: 1.0e-39, f64: 1.0e-309], m <- [100, 4100] do
      a = Buffer.full!([m, 100], dtype, element)
      {q, r} = LinAlg.qr!(a)
      turned = Ops.transpose!(q)
      assert largest(Ops.subtract!(Ops.matmul!(turned, q), Ops.eye!(100, dtype))) <= 1.0e-4
      assert largest(r) <= element * m
    end
  end

  defp zeros(shape), do: Buffer.zeros!(shape, :f64)
  defp at(batch, column), do: List.duplicate(0, length(batch)) ++ [0, column]

  # Checks by products on the device, of numbers near 1.
  defp check_qr(%{shape: shape, dtype: dtype} = a, mode, scale) do
    {q, r} = LinAlg.qr!(a, mode: mode)
    {batch, [m, n]} = Enum.split(shape, -2)
    k = if mode == :complete, do: m, else: min(m, n)
    type = if dtype == :s32, do: :f32, else: dtype
    assert {q.shape, q.dtype} == {batch ++ [m, k], type}
    assert {r.shape, r.dtype} == {batch ++ [k, n], type}
    [a, q, r] = for x <- [a, q, r], do: Buffer.convert!(x, :f64)
    [a, r] = for x <- [a, r], do: Ops.divide!(x, scale)
    bound = %{f16: 1.0e-2, f32: 3.0e-5, f64: 1.0e-13}[type]
    axes = Enum.to_list(0..(length(batch) - 1)//1) ++ [length(batch) + 1, length(batch)]
    turned = Ops.transpose!(q, axes: axes)
    assert largest(Ops.subtract!(Ops.matmul!(q, r), a)) <= bound * max(largest(a), 1)
    assert largest(Ops.subtract!(Ops.matmul!(turned, q), Ops.eye!(k, :f64))) <= bound
    below = Ops.less!(Ops.iota!([k, n], :s32, axis: 1), Ops.iota!([k, n], :s32, axis: 0))
    assert largest(Ops.select!(below, r, 0.0)) == 0.0
  end

  defp largest(x), do: x |> Ops.abs!() |> Ops.reduce_max!() |> ExCubecl.item!()

  test "singular value decompositions" do
    each(60, fn batch, m, dtype ->
      n = Enum.random(@sizes)
      mode = Enum.random([:reduced, :complete])
      a = batch |> matrices_of_rank(m, n, dtype)
      check_svd(a, mode, dtype)
    end)
  end

  @tag on: :device
  test "singular value decompositions on the device" do
    # Tall, wide, square, with an odd and an even number of columns.
    for {batch, m, n, dtype} <- [
          {[], 50, 41, :f32},
          {[2], 33, 40, :f64},
          {[], 47, 47, :f16},
          {[50], 8, 7, :f32},
          {[2, 1], 3, 400, :f64},
          {[], 2001, 1, :f32},
          {[12], 15, 15, :s32},
          {[3], 11_000, 2, :f32},
          {[2], 3, 11_000, :f64}
        ],
        mode <- if(max(m, n) > 1000, do: [:reduced], else: [:reduced, :complete]) do
      check_svd(matrices_of_rank(batch, m, n, dtype), mode, dtype)
    end
  end

  # Products of random matrices, of any rank, with elements of very different magnitudes.
  defp matrices_of_rank(batch, m, n, dtype) do
    rank = Enum.random([0, 1, 2, min(m, n), min(m, n)])

    matrices =
      for _ <- 1..Enum.product(batch)//1 do
        [left, right] =
          for {rows, columns} <- [{m, rank}, {rank, n}],
              do: for(_ <- 1..rows//1, do: for(_ <- 1..columns//1, do: Enum.random(-4..4) / 1))

        scale = if dtype in [:f32, :f64], do: Enum.random([1, 1.0e-15, 1.0e15]), else: 1

        cond do
          n == 0 -> List.duplicate([], m)
          rank == 0 -> List.duplicate(List.duplicate(0.0, n), m)
          true -> for row <- product(left, right), do: Enum.map(row, &(&1 * scale))
        end
      end

    elements = List.flatten(matrices)
    elements = if dtype == :s32, do: Enum.map(elements, &trunc/1), else: elements
    ExCubecl.buffer!(elements, batch ++ [m, n], dtype)
  end

  defp check_svd(%{shape: shape} = a, mode, dtype) do
    {batch, [m, n]} = Enum.split(shape, -2)
    least = min(m, n)
    {columns, rows} = if mode == :complete, do: {m, n}, else: {least, least}
    {u, values, vt} = LinAlg.svd!(a, mode: mode)

    assert {u.shape, values.shape, vt.shape} ==
             {batch ++ [m, columns], batch ++ [least], batch ++ [rows, n]}

    float = if dtype == :s32, do: :f32, else: dtype
    assert Enum.map([u, values, vt], & &1.dtype) == List.duplicate(float, 3)
    lists = values |> Buffer.reshape!(batch ++ [1, least]) |> matrices() |> Enum.map(&hd/1)

    for {a, u, values, vt} <- Enum.zip([matrices(a), matrices(u), lists, matrices(vt)]) do
      assert values == Enum.sort(values, :desc) and Enum.all?(values, &(&1 >= 0))
      if m > 0, do: close(product(transpose(u), u), identity(columns), max(m, n), dtype)
      if n > 0, do: close(product(vt, transpose(vt)), identity(rows), max(m, n), dtype)

      if least > 0 do
        scaled = for row <- u, do: Enum.zip_with(row, values, &(&1 * &2))
        close(product(scaled, Enum.take(vt, least)), a, max(m, n), dtype)
      end
    end
  end

  test "singular values that are known", do: known_singular_values()

  @tag on: :device
  test "singular values that are known, on the device", do: known_singular_values()

  defp known_singular_values do
    for {n, dtype} <- [{6, :f32}, {6, :f64}, {50, :f32}, {50, :f64}] do
      # Repeated values, and a zero.
      known = [5.0, 2.0, 2.0] ++ List.duplicate(1.0, n - 4) ++ [0.0]
      a = known |> reflected(n, dtype) |> Buffer.reshape!([n, n])
      {_, values, _} = LinAlg.svd!(a)

      for {value, expected} <- Enum.zip(Buffer.to_list!(values), known),
          do: assert_in_delta(value, expected, 30 * n * unit(dtype))

      {u, values, vt} = LinAlg.svd!(Buffer.zeros!([n, n], dtype))
      assert Buffer.item!(Ops.reduce_max!(values)) == 0.0

      assert Enum.map([u, vt], &Buffer.read!/1) |> Enum.uniq() == [
               Buffer.read!(Ops.eye!(n, dtype))
             ]
    end

    # Columns of very different lengths have singular values that are right to nearly all bits.
    for n <- [8, 46] do
      lengths = for k <- 1..n, do: :math.pow(10.0, -k)

      rows =
        for i <- 1..n,
            do: for({x, j} <- Enum.with_index(lengths, 1), do: if(i == j, do: x, else: 0.0))

      {u, values, vt} = LinAlg.svd!(ExCubecl.buffer!(rows, [n, n], :f64))

      for {value, expected} <- Enum.zip(Buffer.to_list!(values), lengths),
          do: assert_in_delta(value / expected, 1.0, 1.0e-14)

      for x <- [u, vt],
          do: assert(x |> Ops.abs!() |> Buffer.read!() == Buffer.read!(Ops.eye!(n, :f64)))
    end

    # Numbers near the limits of the type.
    for n <- [9, 46], factor <- [1.0e37, 1.0e-33] do
      a = some([n, n], :f32)
      {_, expected, _} = LinAlg.svd!(a)
      {_, values, _} = LinAlg.svd!(Ops.multiply!(a, factor))
      near(Ops.divide!(values, factor), expected, n, :f32)
    end

    refused(LinAlg.svd(some([2], :f32)), :invalid_argument, says: "svd: invalid matrix")
    refused(LinAlg.svd(some([2, 2], :f32), mode: 1), :invalid_argument, says: "svd: invalid mode")

    for n <- [2, 46] do
      bad = eyes([2], n, :f32)
      Buffer.write!(bad, [:nan], offset: n * n + 1)
      error = refused(LinAlg.svd(bad), :invalid_argument, says: "svd: invalid matrix")
      assert error.details.matrix == 1
    end
  end

  test "eigenvalues and eigenvectors" do
    each(40, fn batch, n, dtype ->
      a = symmetric(batch, n, dtype)
      {values, vectors} = LinAlg.eigh!(a)
      assert {values.shape, vectors.shape} == {batch ++ [n], a.shape}
      rows = Buffer.reshape!(values, batch ++ [1, n])

      for {a, [values], v} <- Enum.zip(Enum.map([a, rows, vectors], &matrices/1)) do
        assert values == Enum.sort(values)
        close(product(transpose(v), v), identity(n), n, dtype)
        scaled = for row <- v, do: Enum.zip_with(row, values, &(&1 * &2))
        close(product(a, v), scaled, n, dtype)
      end
    end)
  end

  test "eigenvalues that are known" do
    # Those of the second difference are 2 - 2 cos(k pi / (n + 1)).
    n = 16

    rows =
      for i <- 1..n do
        for j <- 1..n, do: Enum.at([2, -1, 0], min(abs(i - j), 2))
      end

    {values, _} = LinAlg.eigh!(ExCubecl.buffer!(rows, [n, n], :f64))

    for {value, k} <- Enum.with_index(Buffer.to_list!(values), 1),
        do: assert_in_delta(value, 2 - 2 * :math.cos(k * :math.pi() / (n + 1)), 1.0e-14)

    {values, vectors} = LinAlg.eigh!(ExCubecl.buffer!([[3, 0], [0, -1]], [2, 2], :f32))
    assert Buffer.to_list!(values) == [-1.0, 3.0]

    assert Enum.map(matrices(vectors), fn rows ->
             Enum.map(rows, fn row -> Enum.map(row, &abs/1) end)
           end) == [[[0.0, 1.0], [1.0, 0.0]]]

    # The other triangle is not read.
    {values, _} = LinAlg.eigh!(ExCubecl.buffer!([[2, 99], [1, 2]], [2, 2], :f32))
    assert Buffer.to_list!(values) == [1.0, 3.0]
  end

  test "triangular systems on either side, of either triangle, transposed or not" do
    each(60, fn batch, n, dtype ->
      a = symmetric(batch, n, dtype, 10 * n)
      m = Enum.random([0, 1, 3, 9])
      [lower, left, transposed] = for _ <- 1..3, do: Enum.random([true, false])
      transform = if transposed, do: :transpose, else: :none
      shape = if left, do: [n, m], else: [m, n]
      b = random(batch ++ shape, dtype)
      opts = [lower: lower, left_side: left, transform_a: transform]
      x = LinAlg.triangular_solve!(a, b, opts)
      assert {x.shape, x.dtype} == {b.shape, dtype}

      for {a, b, x} <- Enum.zip(Enum.map([a, b, x], &matrices/1)) do
        triangle =
          for {row, i} <- Enum.with_index(a) do
            for {element, j} <- Enum.with_index(row),
                do: if((lower and j <= i) or (not lower and j >= i), do: element, else: 0.0)
          end

        triangle = if transposed, do: transpose(triangle), else: triangle
        found = if left, do: product(triangle, x), else: product(x, triangle)
        if n > 0 and m > 0, do: close(found, b, n, dtype)
      end

      # A vector is a matrix of one column.
      v = random(batch ++ [n], dtype)
      column = Buffer.reshape!(v, batch ++ if(left, do: [n, 1], else: [1, n]))
      expected = LinAlg.triangular_solve!(a, column, opts)
      assert Buffer.read!(LinAlg.triangular_solve!(a, v, opts)) == Buffer.read!(expected)
    end)
  end

  test "systems, inverses and determinants" do
    each(40, fn batch, n, dtype ->
      a = symmetric(batch, n, dtype, 10 * n)
      b = random(batch ++ [n, 2], dtype)
      x = LinAlg.solve!(a, b)
      inverse = LinAlg.inverse!(a)

      for {a, b, x, inverse} <- Enum.zip(Enum.map([a, b, x, inverse], &matrices/1)) do
        if n > 0, do: close(product(a, x), b, n, dtype)
        if n > 0, do: close(product(a, inverse), identity(n), n, dtype)
      end

      determinants = LinAlg.determinant!(a)
      assert determinants.shape == batch

      for {a, found} <- Enum.zip(matrices(a), Buffer.to_flat_list!(determinants)) do
        if n <= 4, do: close([[found]], [[leibniz(a)]], n, dtype)
      end
    end)
  end

  # By the first row.
  defp leibniz([]), do: 1.0

  defp leibniz([row | rows]) do
    for {x, j} <- Enum.with_index(row), reduce: 0.0 do
      sum -> sum + Integer.pow(-1, j) * x * leibniz(Enum.map(rows, &List.delete_at(&1, j)))
    end
  end

  @tag on: :device
  test "determinants of large matrices are those of the host" do
    for dtype <- [:f32, :f64] do
      # With a dominant diagonal: the condition is small.
      lines =
        for i <- 0..219,
            j <- 0..109,
            do: if(rem(i, 110) == j, do: -1.0, else: :rand.uniform() / 220)

      a = ExCubecl.buffer!(lines, [2, 110, 110], dtype)
      found = a |> LinAlg.determinant!() |> Buffer.to_flat_list!()

      for {rows, found} <- Enum.zip(matrices(a), found) do
        expected = of_host(:determinant, rows, [[]]) |> hd() |> Buffer.item!()
        assert abs(found - expected) <= 1.0e4 * unit(dtype) * abs(expected)
      end
    end

    # The product of the first pivots is 2^180, which :f32 does not have.
    pivot = fn i -> if i < 30, do: 64.0, else: if(i < 60, do: 1 / 64, else: 1.0) end
    rows = for i <- 0..99, do: for(j <- 0..99, do: if(i == j, do: pivot.(i), else: 0.0))
    a = ExCubecl.buffer!(rows, [100, 100], :f32)
    assert Buffer.item!(LinAlg.determinant!(a)) == 1.0

    for n <- [130, 260] do
      order = Enum.shuffle(0..(n - 1))
      permuted = for i <- order, do: for(j <- 0..(n - 1), do: if(i == j, do: 1.0, else: 0.0))
      places = Enum.with_index(order)
      inversions = for {a, i} <- places, {b, j} <- places, i < j, a > b, do: 1
      sign = if rem(length(inversions), 2) == 0, do: 1.0, else: -1.0
      assert Buffer.item!(LinAlg.determinant!(ExCubecl.buffer!(permuted, [n, n], :f64))) == sign
    end

    singular = Ops.put_slice!(a, [3, 3], Buffer.zeros!([1, 1], :f32))
    assert Buffer.item!(LinAlg.determinant!(singular)) == 0.0
  end

  test "norms of matrices" do
    # Rows and columns of known singular values: 3 and 2 in a product of rotations.
    rotation = fn t -> [[:math.cos(t), -:math.sin(t)], [:math.sin(t), :math.cos(t)]] end
    a = product(rotation.(0.4), product([[3.0, 0.0], [0.0, 2.0]], rotation.(1.1)))
    wide = for row <- a, do: row ++ [0.0]
    columns = transpose(a)
    sums = fn rows -> for row <- rows, do: row |> Enum.map(&abs/1) |> Enum.sum() end

    expected = [
      {[], :math.sqrt(13)},
      {[order: :frobenius], :math.sqrt(13)},
      {[order: :nuclear], 5.0},
      {[order: 2], 3.0},
      {[order: -2], 2.0},
      {[order: 1], Enum.max(sums.(columns))},
      {[order: -1], Enum.min(sums.(columns))},
      {[order: :infinity], Enum.max(sums.(a))},
      {[order: :neg_infinity], Enum.min(sums.(a))}
    ]

    for dtype <- [:f32, :f64], {opts, norm} <- expected do
      x = ExCubecl.buffer!([a, a, a], [3, 2, 2], dtype)
      result = LinAlg.matrix_norm!(x, opts)
      assert {result.dtype, result.shape} == {dtype, [3]}
      for found <- Buffer.to_list!(result), do: assert_in_delta(found, norm, 1.0e7 * unit(dtype))

      kept =
        LinAlg.matrix_norm!(
          Ops.transpose!(x, axes: [1, 0, 2]),
          [axes: [0, 2], keep_axes: true] ++ opts
        )

      assert kept.shape == [1, 3, 1]
      between = LinAlg.matrix_norm!(Ops.transpose!(x, axes: [2, 0, 1]), [axes: [2, 0]] ++ opts)
      assert between.shape == [3]
      for found <- Buffer.to_list!(between), do: assert_in_delta(found, norm, 1.0e7 * unit(dtype))

      if opts[:order] not in [-1] do
        padded = LinAlg.matrix_norm!(ExCubecl.buffer!(wide, [2, 3], dtype), opts)
        assert_in_delta Buffer.item!(padded), norm, 1.0e7 * unit(dtype)
      end
    end

    # A small singular value beside a large one.
    rows = product(rotation.(0.7), product([[1.0, 0.0], [0.0, 1.0e-12]], rotation.(0.2)))
    small = LinAlg.matrix_norm!(ExCubecl.buffer!(rows, [2, 2], :f64), order: -2)
    assert_in_delta Buffer.item!(small), 1.0e-12, 1.0e-15

    x = Buffer.iota!([2, 2], :s32)
    assert LinAlg.matrix_norm!(x).dtype == :f32

    refused(LinAlg.matrix_norm(x, order: 3), :invalid_argument, says: "matrix_norm: invalid order")

    refused(LinAlg.matrix_norm(x, axes: [0]), :invalid_argument, says: "invalid axes")
    refused(LinAlg.matrix_norm(x, axes: [0, -2]), :invalid_argument, says: "two different axes")
    refused(LinAlg.matrix_norm(x, axes: [0, 2]), :invalid_argument, says: "invalid axis")
    refused(LinAlg.matrix_norm(x, keep: true), :invalid_argument)
    refused(LinAlg.matrix_norm(Buffer.iota!([2], :f32)), :invalid_argument, says: "two axes")
    nan = ExCubecl.buffer!([:nan, 1.0], [1, 2], :f32)
    refused(LinAlg.matrix_norm(nan, order: 2), :invalid_argument, says: "matrix_norm")
  end

  test "a permutation's determinant is its sign" do
    for {order, sign} <- [
          {[0, 1, 2], 1.0},
          {[1, 0, 2], -1.0},
          {[1, 2, 0], 1.0},
          {[3, 2, 1, 0], 1.0}
        ] do
      rows = for k <- order, do: for(j <- 0..(length(order) - 1), do: if(j == k, do: 1, else: 0))
      a = ExCubecl.buffer!(rows, [length(order), length(order)], :s32)
      assert Buffer.item!(LinAlg.determinant!(a)) == sign
    end
  end

  # The results of the host for one matrix.
  defp of_host(operation, rows, shapes) do
    n = length(rows)
    {:ok, a} = Operands.square(operation, ExCubecl.buffer!(rows, [n, n], :f64))
    {:ok, results} = Host.run(operation, [a], shapes, :f64)
    results
  end

  # Checks by products on the device. Blocks have 32 columns.
  @tag on: :device
  test "large matrices, on the device" do
    for {batch, n, dtype} <- [
          {[], 101, :f32},
          {[], 128, :f32},
          {[], 133, :f32},
          {[], 257, :f32},
          {[3], 64, :f32},
          {[2], 129, :f64},
          {[2, 1], 80, :f64},
          {[40], 17, :f32},
          {[], 100, :f16},
          {[12], 33, :s32}
        ] do
      float = if dtype == :s32, do: :f32, else: dtype
      wide = if dtype == :f64, do: :f64, else: :f32
      a = some(batch ++ [n, n], dtype)
      {p, l, u} = LinAlg.lu!(a)
      assert Enum.map([p, l, u], &{&1.shape, &1.dtype}) == List.duplicate({a.shape, float}, 3)
      near(multiply(p, multiply(l, u, wide), wide), a, n, float)
      assert Buffer.item!(Ops.reduce_max!(Ops.abs!(l))) == 1.0
      near(multiply(p, p, wide, transpose: true), eyes(batch, n, wide), n, wide)

      s =
        multiply(a, a, wide, transpose: true)
        |> Ops.add!(Ops.eye!(n, wide))
        |> Buffer.convert!(dtype)

      c = LinAlg.cholesky!(s)
      near(multiply(c, c, wide, transpose: true), s, n, float)
      near(Ops.multiply!(c, upper(n)), zeros(batch, n), 1, wide)

      b = some(batch ++ [n, 70], dtype)
      x = LinAlg.triangular_solve!(c, b)
      near(multiply(c, x, wide), b, 30 * n, float)

      x =
        LinAlg.triangular_solve!(c, Ops.transpose!(b, axes: swapped(batch)),
          transform_a: :transpose,
          left_side: false
        )

      assert x.shape == batch ++ [70, n]

      near(
        multiply(x, c, wide, transpose: true),
        Ops.transpose!(b, axes: swapped(batch)),
        30 * n,
        float
      )

      x = LinAlg.solve!(s, b)
      near(multiply(s, x, wide), b, 3000 * n, float)
      well = Ops.add!(Buffer.convert!(a, wide), Ops.multiply!(Ops.eye!(n, wide), 8 * n))
      near(multiply(well, LinAlg.inverse!(well), wide), eyes(batch, n, wide), n, wide)
    end
  end

  defp some(shape, dtype), do: shape |> random(:f32) |> Buffer.convert!(dtype)

  defp swapped(batch),
    do: Enum.to_list(0..(length(batch) - 1)//1) ++ [length(batch) + 1, length(batch)]

  defp eyes(batch, n, dtype), do: Ops.broadcast_to!(Ops.eye!(n, dtype), batch ++ [n, n])
  defp zeros(batch, n), do: Buffer.zeros!(batch ++ [n, n], :f32)
  defp upper(n), do: Ops.less!(Ops.iota!([n, n], :s32, axis: 0), Ops.iota!([n, n], :s32, axis: 1))

  # Sums of products of all pairs of rows and columns, in the wide type.
  defp multiply(a, b, wide, opts \\ []) do
    [a, b] = Enum.map([a, b], &Buffer.convert!(&1, wide))
    rank = length(a.shape)
    b = if opts[:transpose], do: b, else: Ops.transpose!(b, axes: swapped(Enum.drop(b.shape, -2)))
    [_, m] = Enum.take(b.shape, -2) |> Enum.reverse()
    left = ExCubecl.View.new_axis!(a, rank - 1)
    right = ExCubecl.View.new_axis!(b, rank - 2)
    result = Ops.sum!(Ops.multiply!(left, right), axis: -1)
    assert List.last(result.shape) == m
    result
  end

  defp near(a, b, n, dtype) do
    [a, b] = Enum.map([a, b], &Buffer.convert!(&1, if(dtype == :f64, do: :f64, else: :f32)))
    largest = Buffer.item!(Ops.reduce_max!(Ops.abs!(b)))
    difference = Buffer.item!(Ops.reduce_max!(Ops.abs!(Ops.subtract!(a, b))))
    assert difference <= 8 * n * unit(dtype) * max(largest, 1)
  end

  # The eigenvalues of a diagonal matrix between reflections I - 2 v v' / v'v, which keep them.
  defp reflected(values, n, dtype) do
    diagonal = Ops.multiply!(eyes([1], n, :f64), ExCubecl.buffer!(values, [1, 1, n], :f64))
    v = some([n, 1], :f64)
    scale = 2 / Buffer.item!(Ops.sum!(Ops.multiply!(v, v)))

    outer = Ops.multiply!(v, Ops.transpose!(v))
    h = Ops.subtract!(Ops.eye!(n, :f64), Ops.multiply!(outer, scale))
    h = Buffer.reshape!(h, [1, n, n])
    multiply(h, multiply(diagonal, h, :f64), :f64) |> Buffer.convert!(dtype)
  end

  defp check_eigh(a, dtype) do
    {values, vectors} = LinAlg.eigh!(a)
    n = List.last(a.shape)
    batch = Enum.drop(a.shape, -2)
    wide = if dtype == :f64, do: :f64, else: :f32
    assert {values.shape, vectors.shape} == {batch ++ [n], a.shape}
    assert {values.dtype, vectors.dtype} == {dtype, dtype}
    near(multiply(vectors, vectors, wide, transpose: true), eyes(batch, n, wide), n, dtype)
    scaled = Ops.multiply!(vectors, Buffer.reshape!(values, batch ++ [1, n]))
    near(multiply(a, vectors, wide), scaled, n, dtype)
    lists = Buffer.to_list!(Buffer.reshape!(values, [Enum.product(batch), n]))
    assert lists == Enum.map(lists, &Enum.sort/1)
    values
  end

  @tag on: :device
  test "eigenvalues of large matrices, on the device" do
    for {batch, n, dtype} <- [
          {[], 127, :f32},
          {[2], 96, :f64},
          {[3, 5], 33, :f32},
          {[300], 8, :f64},
          {[2000], 3, :f32},
          {[], 130, :f16},
          {[16], 32, :s32}
        ] do
      a = some(batch ++ [n, n], dtype)
      axes = Enum.to_list(0..(length(batch) - 1)//1) ++ [length(batch) + 1, length(batch)]
      symmetric = Ops.add!(a, Ops.transpose!(a, axes: axes))
      values = check_eigh(symmetric, if(dtype == :s32, do: :f32, else: dtype))

      # The other triangle is not read, except for NaN.
      lower = Ops.multiply!(symmetric, Ops.subtract!(1, upper(n)))
      {same, _} = LinAlg.eigh!(Buffer.convert!(lower, dtype))
      assert Buffer.read!(same) == Buffer.read!(values)
    end

    # Matrices of one row are their values.
    ones = some([16_000, 1, 1], :f32)
    {values, vectors} = LinAlg.eigh!(ones)
    assert Buffer.read!(values) == Buffer.read!(ones)
    assert Buffer.item!(Ops.reduce_min!(vectors)) == 1.0
    {values, vectors} = LinAlg.eigh!(Buffer.zeros!([0, 200, 200], :f32))
    assert {values.shape, vectors.shape} == {[0, 200], [0, 200, 200]}
  end

  @tag on: :device
  test "eigenvalues on the device that are known" do
    n = 130

    for dtype <- [:f32, :f64] do
      # Repeated, of both signs, and a matrix without a zero that has one eigenvalue alone.
      repeated = Enum.map(1..n, &Enum.at([-2.0, 0.0, 1.0, 1.0, 5.0], rem(&1, 5)))

      one = List.duplicate(0.0, n - 1) ++ [7.0]

      for values <- [repeated, one] do
        found = values |> reflected(n, dtype) |> Buffer.reshape!([n, n]) |> check_eigh(dtype)
        largest = Enum.max(Enum.map(values, &abs/1))

        for {value, expected} <- Enum.zip(Buffer.to_list!(found), Enum.sort(values)),
            do: assert_in_delta(value, expected, 30 * n * largest * unit(dtype))
      end

      {values, vectors} = LinAlg.eigh!(Buffer.zeros!([n, n], dtype))
      assert Buffer.item!(Ops.reduce_max!(Ops.abs!(values))) == 0.0
      assert Buffer.read!(vectors) == Buffer.read!(Ops.eye!(n, dtype))

      # The host has the same values, and vectors of the same lines.
      a = reflected(Enum.map(1..n, &(&1 / 1)), n, dtype)
      {values, vectors} = LinAlg.eigh!(a)
      [expected, lines] = of_host(:eigh, hd(matrices(a)), [[n], [n, n]])

      for {value, expected} <- Enum.zip(hd(Buffer.to_list!(values)), Buffer.to_list!(expected)),
          do: assert_in_delta(value, expected, 30 * n * n * unit(dtype))

      products = Ops.sum!(Ops.multiply!(vectors, Buffer.convert!(lines, dtype)), axes: [1])

      near(Ops.abs!(products), Buffer.full!([1, n], dtype, 1), n, dtype)
    end

    # Numbers near the limits of the type, each matrix with its own.
    a = some([2, 128, 128], :f32)
    a = Ops.add!(a, Ops.transpose!(a, axes: [0, 2, 1]))
    {expected, _} = LinAlg.eigh!(a)

    for factor <- [1.0e36, 1.0e-30] do
      scaled = Ops.multiply!(a, ExCubecl.buffer!([factor, 1.0], [2, 1, 1], :f32))
      {values, _} = LinAlg.eigh!(scaled)
      back = Ops.divide!(values, ExCubecl.buffer!([factor, 1.0], [2, 1], :f32))
      near(back, expected, 128, :f32)
    end

    bad = eyes([2], 100, :f32)
    Buffer.write!(bad, [:nan], offset: 10_000 + 40)
    error = refused(LinAlg.eigh(bad), :invalid_argument, says: "eigh: invalid matrix")
    assert error.details.matrix == 1
  end

  test "large matrices that are refused", do: large_refused(110)

  @tag on: :device
  test "large matrices that are refused, on the device",
    do: for(n <- [110, 150], do: large_refused(n))

  defp large_refused(n) do
    singular = Buffer.full!([2, n, n], :f32, 1)
    {_, _, u} = LinAlg.lu!(singular)
    assert Buffer.item!(Ops.sum!(u)) == 2.0 * n

    error =
      refused(LinAlg.solve(singular, singular), :invalid_argument, says: "solve: invalid matrix")

    assert {error.details.pivot, error.details.matrix} == {1, 0}
    refused(LinAlg.inverse(singular), :invalid_argument, says: "inverse: invalid matrix")
    error = refused(LinAlg.cholesky(singular), :invalid_argument, says: "positive definite")
    assert {error.details.pivot, error.details.matrix} == {1, 0}
    good = eyes([2], n, :f32)
    Buffer.write!(good, [0], offset: n * n + 40 * (n + 1))

    error =
      refused(LinAlg.triangular_solve(good, good), :invalid_argument,
        says: "pivot 40 of matrix 1 is 0"
      )

    assert {error.details.pivot, error.details.matrix} == {40, 1}
    Buffer.write!(good, [:nan], offset: n * n + 40)

    for result <- [
          LinAlg.lu(good),
          LinAlg.cholesky(good),
          LinAlg.solve(good, good),
          LinAlg.triangular_solve(eyes([2], n, :f32), good)
        ] do
      assert refused(result, :invalid_argument, says: "matrix 1 is NaN").details.matrix == 1
    end
  end

  test "large matrices with numbers that are no numbers, or whose factors are none",
    do: not_finite(110)

  @tag on: :device
  test "large matrices with numbers that are no numbers, or whose factors are none, on the device",
    do: for(n <- [110, 150], do: [not_finite(n), too_large(n)])

  defp not_finite(n) do
    # A column of zeros and a NaN has no pivot.
    bad = eyes([2], n, :f32)
    Buffer.write!(bad, [0], offset: n * n + 50 * (n + 1))
    Buffer.write!(bad, [:nan], offset: n * n + 51 * n + 50)

    right = eyes([2], n, :f32)
    Buffer.write!(right, [:nan], offset: n * n + 31 * n + n - 1)
    refused(LinAlg.lu(right), :invalid_argument, says: "matrix 1 is NaN")

    for name <- [:lu, :determinant, :inverse],
        do: refused(apply(LinAlg, name, [bad]), :invalid_argument, says: "matrix 1 is NaN")

    good = eyes([2], n, :f32)
    sides = Buffer.full!([2, n, 3], :f32, 1)
    Buffer.write!(sides, [:infinity], offset: 3 * n + 7)

    refused(LinAlg.solve(good, sides), :invalid_argument,
      says: "solve: invalid matrix [2, #{n}, 3]: expected finite numbers: an element of matrix 1"
    )
  end

  # The host calculates with 64-bit floats.
  defp too_large(n) do
    good = eyes([2], n, :f32)
    Buffer.write!(good, [1, 3.0e38], offset: 0)
    Buffer.write!(good, [-1, 3.0e38], offset: n)
    {_, _, u} = LinAlg.lu!(good)
    assert Buffer.item!(Ops.reduce_max!(u)) == :infinity
    refused(LinAlg.determinant(good), :invalid_argument, says: "smaller numbers")
  end

  test "every type" do
    for dtype <- ExCubecl.DType.all() do
      a = ExCubecl.buffer!([[4, 2, 0], [2, 5, 1], [0, 1, 3]], [3, 3], dtype)
      float = if dtype in [:f16, :bf16, :f32, :f64], do: dtype, else: :f32
      l = LinAlg.cholesky!(a)
      assert l.dtype == float
      [[a_rows], [l_rows]] = Enum.map([a, l], &matrices/1)
      close(product(l_rows, transpose(l_rows)), a_rows, 3, float)
      assert_in_delta Buffer.item!(LinAlg.determinant!(a)), 44, 44 * 10 * unit(float)
      x = LinAlg.solve!(a, ExCubecl.buffer!([6, 8, 4], [3], :u8))
      assert {dtype, x.dtype} == {dtype, float}
      for element <- Buffer.to_list!(x), do: assert_in_delta(element, 1, 10 * unit(float))
    end
  end

  test "refused" do
    wide = Buffer.iota!([2, 3], :f32)
    a = Buffer.iota!([2, 2], :f32)

    for name <- [:lu, :cholesky, :eigh, :inverse, :determinant] do
      call = &apply(LinAlg, name, [&1])

      refused(call.(wide), :invalid_argument,
        says: "#{name}: invalid matrix [2, 3]: expected square"
      )

      refused(call.(Buffer.iota!([3], :f32)), :invalid_argument,
        says: "#{name}: invalid matrix [3]"
      )

      refused(call.(:a), :invalid_argument)
    end

    for name <- [:lu, :cholesky, :eigh, :inverse, :determinant, :qr], bad <- [:nan, :infinity] do
      a = ExCubecl.buffer!([[[1, 0], [0, 1]], [[1, 0], [bad, 1]]], [2, 2, 2], :f32)

      error =
        refused(apply(LinAlg, name, [a]), :invalid_argument, says: "#{name}: invalid matrix")

      assert error.details.matrix == 1
    end

    singular = ExCubecl.buffer!([[1, 2], [2, 4]], [2, 2], :f32)

    for {name, result} <- [inverse: LinAlg.inverse(singular), solve: LinAlg.solve(singular, a)] do
      error =
        refused(result, :invalid_argument,
          says: "#{name}: invalid matrix [2, 2]: expected an invertible"
        )

      assert error.details.pivot == 1
    end

    zero = ExCubecl.buffer!([[1, 0, 0], [1, 0, 0], [1, 1, 1]], [3, 3], :f32)
    b = Buffer.iota!([3], :f32)
    error = refused(LinAlg.triangular_solve(zero, b), :invalid_argument, says: "pivot 1 is 0")
    assert error.details.pivot == 1
    error = refused(LinAlg.triangular_solve(zero, b, lower: false), :invalid_argument)
    assert error.details.pivot == 1

    refused(LinAlg.triangular_solve(a, b), :shape_mismatch,
      says: "triangular_solve: the matrices are of shape [2, 2]"
    )

    refused(LinAlg.solve(a, wide |> Buffer.reshape!([3, 2])), :shape_mismatch, says: "solve")
    refused(LinAlg.triangular_solve(a, a, lower: 1), :invalid_argument, says: "invalid lower 1")
    refused(LinAlg.triangular_solve(a, a, left_side: nil), :invalid_argument, says: "left_side")

    refused(LinAlg.triangular_solve(a, a, transform_a: :other), :invalid_argument,
      says: "transform_a"
    )

    refused(LinAlg.triangular_solve(a, a, upper: true), :invalid_argument, says: "option")
    refused(LinAlg.qr(wide, mode: :full), :invalid_argument, says: "qr: invalid mode :full")
    negative = ExCubecl.buffer!([[1, 0], [0, -2]], [2, 2], :f32)

    error =
      refused(LinAlg.cholesky(negative), :invalid_argument, says: "cholesky: invalid matrix")

    assert error.details.pivot == 1
    huge = ExCubecl.buffer!([[1.0e308, 1.0e308], [-1.0e308, 1.0e308]], [2, 2], :f64)
    refused(LinAlg.lu(huge), :invalid_argument, says: "lu: invalid matrix")
  end
end
