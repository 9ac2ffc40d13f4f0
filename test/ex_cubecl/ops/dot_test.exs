defmodule ExCubecl.Ops.DotTest do
  # Products of tensors, compared with sums of products in plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1, position: 2, values: 2]

  alias ExCubecl.{Conversion, DType, Ops, View}
  alias ExCubecl.Kernel.Types

  @floats [:f16, :bf16, :f32, :f64]

  setup do
    :rand.seed(:exsss, {3, 16, 2026})
    :ok
  end

  # The types that the device computes, and the narrow ones, which it may convert.
  defp types do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)
    Enum.filter(DType.all(), &(&1 in dtypes or &1 in [:f16, :bf16, :s8, :u8, :s16, :u16]))
  end

  defp lengths(most),
    do: for(_ <- 1..Enum.random(0..most)//1, do: Enum.random([0, 1, 1, 2, 2, 3, 5, 9]))

  # Lengths such that no product has too many elements for plain Elixir.
  defp groups do
    groups = for most <- [2, 2, 2, 2], do: lengths(most)
    if Enum.product(List.flatten(groups)) > 3000, do: groups(), else: groups
  end

  # Small numbers, whose sums of products are exact in every type, in half of the cases together with special ones.
  defp elements(dtype, other, count) do
    special? = :rand.uniform(2) == 1 and (dtype in @floats or other not in @floats)

    list =
      if special?,
        do: dtype |> values(count) |> Conversion.patterns(dtype),
        else: for(_ <- 1..count//1, do: Conversion.bits(small(dtype), dtype))

    {Conversion.binary(list, dtype),
     list |> Enum.map(&Conversion.value(&1, dtype)) |> List.to_tuple()}
  end

  defp small(dtype) when dtype in @floats, do: Enum.random(-8..8) / 2
  defp small(dtype) when dtype in [:u8, :u16, :u32, :u64], do: Enum.random(0..9)
  defp small(_signed), do: Enum.random(-9..9)

  # Random operands with their axes in a random order, and the products in plain Elixir.
  defp example do
    [batch, rows, inner, columns] = groups()
    left = Enum.random(types())
    right = Enum.random([left, left, Enum.random(types())])
    left_order = order(batch, rows, inner)
    right_order = order(batch, columns, inner)

    [left_shape, right_shape] =
      for order <- [left_order, right_order], do: Enum.map(order, &elem(&1, 2))

    {left_binary, left_values} = elements(left, right, Enum.product(left_shape))
    {right_binary, right_values} = elements(right, left, Enum.product(right_shape))

    expected =
      for b <- coordinates(batch), r <- coordinates(rows), c <- coordinates(columns) do
        products =
          for i <- coordinates(inner) do
            x = elem(left_values, at(left_order, left_shape, b, r, i))
            y = elem(right_values, at(right_order, right_shape, b, c, i))
            multiply(x, y)
          end

        Enum.reduce(products, 0, &add/2)
      end

    batches = Enum.to_list(0..(length(batch) - 1)//1)

    %{
      left: strided(ExCubecl.buffer!(left_binary, left_shape, left)),
      right: strided(ExCubecl.buffer!(right_binary, right_shape, right)),
      opts: [
        batch_axes: {batches, batches},
        contract_axes: {inner_axes(left_order), inner_axes(right_order)}
      ],
      shape: batch ++ rows ++ columns,
      dtype: Types.mix(left, right),
      expected: expected
    }
  end

  # The buffer, or a view with the same elements of another one.
  defp strided(%{dtype: dtype, shape: shape} = buffer) do
    {:ok, %{dtypes: computed}} = Device.info(nil)
    if dtype in computed and :rand.uniform(2) == 1, do: view(buffer, shape), else: buffer
  end

  defp view(buffer, shape) do
    axes = Enum.shuffle(Enum.to_list(0..(length(shape) - 1)//1))

    back =
      for {_, place} <- Enum.sort(Enum.zip(axes, Enum.to_list(0..(length(shape) - 1)//1))),
          do: place

    steps = for _ <- shape, do: {Enum.random(0..2), Enum.random(0..2), Enum.random(0..1)}
    wide = buffer |> Ops.transpose!(axes: axes) |> Ops.pad!(1, steps)

    [starts, strides] = [
      for({low, _, _} <- steps, do: low),
      for({_, _, interior} <- steps, do: interior + 1)
    ]

    lengths =
      for {length, {_, _, interior}} <- Enum.zip(Enum.map(axes, &Enum.at(shape, &1)), steps),
          do: max(length + (length - 1) * interior, 0)

    wide |> View.slice!(starts, lengths, strides: strides) |> View.transpose!(axes: back)
  end

  # Axes as {group, place in the group, length}. The free axes of the result have the order of those of the operand.
  defp order(batch, free, inner) do
    places = Enum.shuffle(numbered(:free, free) ++ numbered(:inner, inner))

    {others, []} =
      Enum.map_reduce(places, numbered(:free, free), fn
        {:free, _, _}, [next | rest] -> {next, rest}
        inner, free -> {inner, free}
      end)

    numbered(:batch, batch) ++ others
  end

  defp numbered(group, lengths),
    do: for({length, at} <- Enum.with_index(lengths), do: {group, at, length})

  # The axes of the inner group in its order, some of them counted from the end.
  defp inner_axes(order) do
    axes = for {{:inner, at, _}, axis} <- Enum.with_index(order), do: {at, axis}
    for {_, axis} <- Enum.sort(axes), do: Enum.random([axis, axis - length(order)])
  end

  defp at(order, shape, batch, free, inner) do
    lists = %{batch: batch, free: free, inner: inner}
    position(for({group, at, _} <- order, do: Enum.at(lists[group], at)), shape)
  end

  @infinities [:infinity, :neg_infinity]

  defp multiply(x, y) when :nan in [x, y], do: :nan
  defp multiply(x, y) when x in @infinities or y in @infinities, do: infinity(sign(x) * sign(y))
  defp multiply(x, y), do: x * y

  defp infinity(0), do: :nan
  defp infinity(1), do: :infinity
  defp infinity(-1), do: :neg_infinity

  defp sign(:infinity), do: 1
  defp sign(:neg_infinity), do: -1
  defp sign(x), do: if(x > 0, do: 1, else: if(x < 0, do: -1, else: 0))

  defp add(x, y) when :nan in [x, y], do: :nan
  defp add(x, y) when x in @infinities and y in @infinities, do: if(x == y, do: x, else: :nan)
  defp add(x, y) when is_atom(x) or is_atom(y), do: if(is_atom(x), do: x, else: y)
  defp add(x, y), do: x + y

  # NaN has many bits, and a sum that is zero is positive.
  defp bits(:nan, _dtype), do: :nan
  defp bits(value, dtype), do: Conversion.bits(if(value == 0, do: 0, else: value), dtype)

  defp found(buffer) do
    for bits <- buffer |> ExCubecl.read!() |> Conversion.patterns(buffer.dtype) do
      if Conversion.value(bits, buffer.dtype) == :nan, do: :nan, else: bits
    end
  end

  test "many tiles, and sides that are no multiple of theirs" do
    for {left, right, opts} <- [
          {[101, 37], [37, 90], []},
          {[4, 66, 20], [4, 20, 37], [contract_axes: {[2], [1]}, batch_axes: {[0], [0]}]}
        ] do
      [x, y] = for shape <- [left, right], do: Buffer.iota!(shape, :s32) |> Ops.remainder!(7)
      [x, y] = for buffer <- [x, y], do: Buffer.convert!(buffer, :f32)
      products = Ops.multiply!(View.new_axis!(x, -1), View.new_axis!(y, -3))
      expected = Ops.sum!(products, axis: -2)
      assert Buffer.read!(Ops.dot!(x, y, opts)) == Buffer.read!(expected)
    end
  end

  test "random axes and types" do
    for _ <- 1..50 do
      example = example()
      result = Ops.dot!(example.left, example.right, example.opts)
      details = {example.opts, example.left.shape, example.right.shape, example.dtype}
      assert {details, result.shape, result.dtype} == {details, example.shape, example.dtype}
      expected = Enum.map(example.expected, &bits(&1, example.dtype))
      assert {details, found(result)} == {details, expected}
    end
  end

  # Sizes for each kernel: one row, one column, few tiles with long sums, more tiles, sums of several parts.
  test "sums of many products" do
    for {m, k, n} <- [{1, 700, 40}, {40, 700, 1}, {7, 300, 9}, {33, 64, 31}, {3, 8193, 260}],
        dtype <- [:f32, :f16, :s32, :u8] do
      [a, b] = for shape <- [[m, k], [k, n]], do: zeros_and_ones(shape)
      [left, right] = for buffer <- [a, b], do: Buffer.convert!(buffer, dtype)
      assert_product(Ops.matmul!(left, right), a, b)
    end
  end

  # Products that the library of the device may calculate, of operands that it reads as they are, and of others.
  test "large products" do
    for {dtype, m, k, n} <- [{:f32, 260, 256, 257}, {:f16, 256, 257, 256}, {:u8, 256, 257, 258}] do
      [a, b] = for shape <- [[m, k], [k, n]], do: zeros_and_ones(shape)
      [left, right] = for buffer <- [a, b], do: Buffer.convert!(buffer, dtype)
      turned = right |> Ops.transpose!() |> View.transpose!()
      part = left |> Ops.pad!(1, [{0, 0, 0}, {1, 0, 0}]) |> View.slice!([0, 1], [m, k])
      pairs = [{left, right}] ++ if dtype == :f32, do: [{left, turned}, {part, right}], else: []
      for {x, y} <- pairs, do: assert_product(Ops.matmul!(x, y), a, b)
    end
  end

  test "large stacks of matrices, and matrices times vectors" do
    [a, b] = for shape <- [[3, 2, 128, 64], [2, 64, 350]], do: zeros_and_ones(shape)
    product = Ops.matmul!(Buffer.convert!(a, :f32), Buffer.convert!(b, :f32))
    assert product.shape == [3, 2, 128, 350]

    for at <- [0, 3, 5], do: assert_product(nth(product, at), nth(a, at), nth(b, rem(at, 2)))

    [a, b] = for shape <- [[1100, 1000], [1000]], do: zeros_and_ones(shape)
    [matrix, vector] = for x <- [a, b], do: Buffer.convert!(x, :f32)
    turned = Ops.transpose!(matrix)
    column = Buffer.reshape!(b, [1000, 1])

    for product <- [
          Ops.matmul!(matrix, vector),
          Ops.matmul!(vector, View.transpose!(matrix)),
          Ops.matmul!(vector, turned),
          Ops.matmul!(View.transpose!(turned), vector)
        ],
        do: assert_product(Buffer.reshape!(product, [1100, 1]), a, column)
  end

  # Matrix `at` of a stack.
  defp nth(%{shape: shape} = buffer, at) do
    matrix = Enum.take(shape, -2)
    Buffer.view!(buffer, at * Enum.product(matrix), matrix)
  end

  # Some elements of the product of matrices of zeros and ones.
  defp assert_product(%{shape: [m, n], dtype: dtype} = product, a, %{shape: [k, n]} = b) do
    for row <- Enum.uniq([0, div(m, 2), m - 1]), column <- Enum.uniq([0, div(n, 3), n - 1]) do
      column_of_b = Buffer.reshape!(Ops.slice!(b, [0, column], [k, 1]), [k])
      products = Ops.multiply!(Buffer.view!(a, row * k, [k]), column_of_b)
      sum = ExCubecl.item!(Ops.sum!(products))
      [found] = product |> Buffer.view!(row * n + column, [1]) |> found()
      assert {m, k, n, dtype, found} == {m, k, n, dtype, Conversion.bits(sum, dtype)}
    end
  end

  defp zeros_and_ones(shape) do
    bytes = :rand.bytes(Enum.product(shape))
    Ops.bitwise_and!(ExCubecl.buffer!(bytes, shape, :u8), 1)
  end

  test "vectors times large matrices along rows" do
    pairs = [f32: :f32, s32: :s32, u8: :u32, f32: :f16, f64: :f32, f16: :f16]

    for {k, n} <- [{260, 256}, {1003, 100}, {7, 10_001}, {16, 4096}, {700, 95}, {300, 302}],
        {left, right} <- [{:f32, :f32} | Enum.take_random(tl(pairs), 2)] do
      # Sums that every type has.
      [one, two] = if left == :f16, do: [2, 1], else: [5, 7]
      v = Ops.remainder!(Buffer.iota!([k], :s32), one)
      m = Ops.remainder!(Buffer.iota!([k, n], :s32), two)
      m = if left == :f16, do: Ops.add!(m, 1), else: m
      expected = Buffer.to_list!(Ops.sum!(Ops.multiply!(m, Buffer.reshape!(v, [k, 1])), axis: 0))
      [v, m] = [Buffer.convert!(v, left), Buffer.convert!(m, right)]
      # Rows with others between them, from an offset on, backwards.
      wide = Ops.pad!(m, 9, [{1, 0, 1}, {4, 0, 0}])
      part = wide |> View.slice!([1, 4], [2 * k - 1, n], strides: [2, 1])
      other = wide |> View.slice!([1, 3], [2 * k - 1, n], strides: [2, 1])
      back = View.reverse!(v)

      for {x, matrix} <- [
            {v, m},
            {v, part},
            {View.reverse!(View.reverse!(v)), m},
            {back, View.reverse!(m, axis: 0)}
          ] do
        assert Buffer.to_list!(Ops.dot!(x, matrix)) == expected
        assert Buffer.to_list!(Ops.dot!(View.transpose!(matrix), x)) == expected
      end

      row = Ops.dot!(Buffer.reshape!(v, [1, k]), m)
      assert {row.shape, Buffer.to_list!(row)} == {[1, n], [expected]}
      shifted = Ops.dot!(v, other) |> Buffer.to_list!()
      assert tl(shifted) == Enum.drop(expected, -1)
    end

    # NaN and infinities of other rows and columns do not count.
    m = Buffer.full!([20, 4096], :f32, 1)
    Buffer.write!(m, [:infinity, :nan], offset: 17 * 4096)

    sums =
      Buffer.to_list!(Ops.dot!(Buffer.full!([17], :f32, 1), View.slice!(m, [0, 0], [17, 4096])))

    assert sums == List.duplicate(17.0, 4096)
    assert [:infinity, :nan, 20.0 | _] = Buffer.to_list!(Ops.dot!(Buffer.full!([20], :f32, 1), m))
  end

  test "a sum of 16-bit floats is rounded once" do
    ones = Buffer.full!([70_000], :f16, 1)
    assert ExCubecl.item!(Ops.dot!(ones, Buffer.full!([70_000], :f16, 0.5))) == 35_008.0
    big = Buffer.full!([4], :f16, 60_000)
    signs = ExCubecl.buffer!([1, 1, -1, -1], [4], :f16)
    assert ExCubecl.item!(Ops.dot!(big, signs)) == 0.0
  end

  test "integers are exact" do
    a = ExCubecl.buffer!([16_777_217, 1], [2], :s32)
    assert ExCubecl.item!(Ops.dot!(a, ExCubecl.buffer!([1, 0], [2], :s32))) == 16_777_217
    bytes = Buffer.full!([3], :u8, 200)
    assert ExCubecl.item!(Ops.dot!(bytes, bytes)) == rem(3 * 40_000, 256)
    assert ExCubecl.item!(Ops.dot!(bytes, Buffer.full!([3], :s8, -1))) == -600
  end

  test "axes by default" do
    x = Buffer.iota!([2, 3, 4], :s32)
    y = Buffer.iota!([5, 4, 2], :s32)
    assert Ops.dot!(x, y).shape == [2, 3, 5, 2]
    assert Ops.dot!(x, Buffer.iota!([4], :s32)).shape == [2, 3]
    assert Ops.dot!(Buffer.iota!([4], :s32), y).shape == [5, 2]
    assert Ops.dot!(x, Buffer.iota!([], :s32)).shape == [2, 3, 4]
    three = ExCubecl.buffer!(3, [], :s32)
    assert ExCubecl.to_list!(Ops.dot!(three, Buffer.iota!([3], :f32))) == [0.0, 3.0, 6.0]
    assert ExCubecl.item!(Ops.dot!(three, three)) == 9
    pairs = Ops.dot!(x, Buffer.iota!([2, 4], :s32), batch_axes: {[0], [0]})
    assert ExCubecl.to_list!(pairs) == [[14, 38, 62], [302, 390, 478]]
  end

  test "matrices, vectors and stacks of matrices" do
    shapes = [
      {[3], [3], []},
      {[3], [3, 2], [2]},
      {[2, 3], [3], [2]},
      {[4, 2, 3], [3, 5], [4, 2, 5]},
      {[2, 3], [4, 3, 5], [4, 2, 5]},
      {[4, 1, 2, 3], [6, 3, 5], [4, 6, 2, 5]},
      {[6, 2, 3], [6, 1, 3, 2], [6, 6, 2, 2]},
      {[6, 4, 2, 3], [1, 1, 3, 2], [6, 4, 2, 2]},
      {[6, 4, 2, 3], [6, 1, 3, 2], [6, 4, 2, 2]},
      {[3], [2, 3, 4], [2, 4]},
      {[2, 4, 3], [3], [2, 4]},
      {[0, 2, 3], [3, 2], [0, 2, 2]},
      {[2, 0], [0, 2], [2, 2]}
    ]

    for {left, right, shape} <- shapes do
      product = Ops.matmul!(Buffer.iota!(left, :s32), Buffer.iota!(right, :s32))
      assert {left, right, product.shape} == {left, right, shape}
      assert Buffer.to_flat_list!(product) == stacked(left, right)
    end
  end

  # The products of iotas of two shapes.
  defp stacked(left, right) do
    left = if length(left) == 1, do: [1 | left], else: left
    right = if length(right) == 1, do: right ++ [1], else: right
    {left_batch, [m, k]} = Enum.split(left, -2)
    {right_batch, [^k, n]} = Enum.split(right, -2)
    rank = max(length(left_batch), length(right_batch))
    pad = &(List.duplicate(1, rank - length(&1)) ++ &1)
    {left_batch, right_batch} = {pad.(left_batch), pad.(right_batch)}
    batch = Enum.zip_with(left_batch, right_batch, &if(&1 == 1, do: &2, else: &1))

    for at <- coordinates(batch), row <- 0..(m - 1)//1, column <- 0..(n - 1)//1 do
      [x, y] =
        for lengths <- [left_batch, right_batch] do
          at
          |> Enum.zip(lengths)
          |> Enum.map(fn {at, n} -> if n == 1, do: 0, else: at end)
          |> position(lengths)
        end

      Enum.sum(for j <- 0..(k - 1)//1, do: ((x * m + row) * k + j) * ((y * k + j) * n + column))
    end
  end

  test "axes that do not fit" do
    {a, b} = {Buffer.iota!([2, 3], :f32), Buffer.iota!([4, 5], :f32)}
    both = "shapes [2, 3] and [4, 5]"

    for {opts, says} <- [
          {[contract_axes: {[2], [0]}], "2 is none of [2, 3]"},
          {[contract_axes: {[0], [-3]}], "-3 is none of [4, 5]"},
          {[contract_axes: {[:x], [0]}], ":x is none of [2, 3]"},
          {[contract_axes: {[0, -2], [0, 1]}], "axis 0 is there twice"},
          {[contract_axes: {[0], [1, 1]}], "axis 1 is there twice"},
          {[contract_axes: {[0], []}], "as many of both"},
          {[contract_axes: {[0 | 1], [0]}], "{axes of the first, axes of the second}"},
          {[contract_axes: [0]], "{axes of the first, axes of the second}"},
          {[batch_axes: {[1], [0]}], "axis 1 is in place of 0"},
          {[batch_axes: {[0, 1], [1, 0]}], "axis 1 is in place of 0"},
          {[batch_axes: {[0], []}], "as many of both"}
        ],
        do: refused(Ops.dot(a, b, opts), :invalid_argument, says: ["dot: invalid", both, says])

    refused(Ops.dot(a, a, contract_axes: {[0], [0]}, batch_axes: {[0], [0]}), :invalid_argument,
      says: ["dot: invalid contract_axes", "none of the batch axes, and axis 0 is"]
    )

    refused(Ops.dot(a, b, contract_axes: {[0], [1]}), :shape_mismatch,
      says: [
        "dot: #{both}",
        "axis 0 of the first has 2",
        "axis 1 of the second has 5",
        "contracted"
      ],
      details: [axes: {0, 1}, lengths: {2, 5}]
    )

    refused(Ops.dot(a, b, batch_axes: {[0], [0]}, contract_axes: {[], []}), :shape_mismatch,
      says: ["dot: #{both}", "axis 0 of the first has 2", "batch"]
    )

    refused(Ops.dot(a, b, axes: 1), :invalid_argument)
    refused(Ops.dot(a, 1), :invalid_argument)
    refused(Ops.dot(a, b), :shape_mismatch, says: "dot: #{both}")
    refused(Ops.matmul(a, b), :shape_mismatch, says: "matmul: #{both}")
    refused(Ops.matmul(a, Buffer.iota!([], :f32)), :shape_mismatch, says: "matmul")
    stacks = [Buffer.iota!([2, 3, 4], :f32), Buffer.iota!([3, 4, 2], :f32)]
    shapes = "matmul: shapes [2, 3, 4] and [3, 4, 2]"
    refused(apply(Ops, :matmul, stacks), :shape_mismatch, says: shapes)
  end
end
