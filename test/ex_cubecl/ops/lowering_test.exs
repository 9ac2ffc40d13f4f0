defmodule ExCubecl.Ops.LoweringTest do
  # Operations on random shapes and views, compared with plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided

  alias ExCubecl.{Kernel, Ops, View}
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{ElementWise, Lowering, Reduction}
  alias ExCubecl.View.{Copy, Strides}

  require Kernel

  @types [:f32, :s32, :u8, :s64, :f16]

  setup do
    :rand.seed(:exsss, {1, 16, 2026})
    :ok
  end

  defp types do
    {:ok, %{dtypes: dtypes}} = Device.info(nil)
    Enum.filter(@types, &(&1 in dtypes))
  end

  # -0.0 and 0.0 match each other in Elixir 1.14, so floats are compared by their bits.
  defp bits(list), do: Enum.map(list, &if(is_float(&1), do: <<&1::float>>, else: &1))
  defp flat(buffer), do: buffer |> Buffer.to_flat_list!() |> bits()

  test "copies of views have the elements of the views" do
    for _ <- 1..150 do
      dtype = Enum.random(types())
      {view, shape, elements} = view(dtype)
      copy = ok(Copy.copy(view, :copy))
      assert copy.shape == shape
      assert {view.strides, flat(copy)} == {view.strides, bits(elements)}

      if Strides.contiguous?(view),
        do: assert(flat(ok(Strides.buffer(view))) == bits(elements))
    end
  end

  test "views are reshaped without a copy, or not at all" do
    for _ <- 1..150 do
      {view, shape, elements} = view(:s32)
      count = Enum.product(shape)
      divisors = for n <- 1..12, count != 0 and rem(count, n) == 0, do: n
      n = if divisors == [], do: 0, else: Enum.random(divisors)
      new = Enum.random([[count], [n, div(count, max(n, 1))], [1, count, 1]])

      case Strides.reshape(view, new) do
        {:ok, reshaped} -> assert flat(ok(Copy.copy(reshaped, :reshape))) == bits(elements)
        :copy -> refute Strides.contiguous?(view)
      end
    end
  end

  defp ok({:ok, value}), do: value

  test "operands of random strides broadcast" do
    for _ <- 1..150 do
      dtype = Enum.random(types())
      {first, shape, a} = view(dtype)
      thin = for length <- shape, do: if(:rand.uniform(3) == 1, do: 1, else: length)
      thin = Enum.drop(thin, Enum.random(0..length(thin)))
      second = ExCubecl.buffer!(values(dtype, Enum.product(thin)), thin, dtype)
      b = second |> Buffer.to_flat_list!() |> List.to_tuple()
      pred = Kernel.kernel(fn a, b -> if a == b, do: a, else: b end)
      result = ok(Lowering.map(pred, [first, second]))
      assert result.shape == shape

      expected =
        for {at, x} <- Enum.zip(coordinates(shape), a) do
          at = at |> Enum.take(-length(thin)) |> Enum.zip(thin)
          at = for {at, length} <- at, do: if(length == 1, do: 0, else: at)
          y = elem(b, position(at, thin))
          # An equal zero of the other sign is the first one.
          if x == y and x != :nan, do: x, else: y
        end

      assert flat(result) == bits(expected)
    end
  end

  test "parameters may have the names of variables of the lowering" do
    square = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32)
    view = View.transpose!(square)

    named =
      Kernel.kernel(fn i, n1, out, i_offset -> i + 10 * n1 + 100 * out + 1000 * i_offset end)

    operands = [view, square, 3, view]
    expected = [[1311, 3323], [2332, 4344]]
    assert Buffer.to_list!(ok(Lowering.map(named, operands))) == expected
    own = [View.transpose!(ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32)), square]
    add = Kernel.kernel(fn out, i -> 2 * out + i end)
    assert Lowering.map(add, own, into: square) == :ok
    assert Buffer.to_list!(square) == [[3, 8], [7, 12]]

    # In blocks.
    zeros = Buffer.zeros!([300, 300], :s32)
    ones = Buffer.full!([300], :s32, 1)
    sum = Kernel.kernel(fn i, i_v0 -> i + i_v0 end)
    assert ok(Lowering.map(sum, [zeros, ones])) |> Ops.sum!() |> Buffer.item!() == 90_000
    assert ok(Lowering.map(sum, [ones, zeros])) |> Ops.sum!() |> Buffer.item!() == 90_000

    target = View.transpose!(Buffer.zeros!([2, 2], :s32))

    assert Lowering.write(
             Kernel.kernel(fn out -> out + 1 end),
             [ones |> Buffer.view!(0, [2])],
             target
           ) == :ok

    assert Buffer.to_list!(target.buffer) == [[2, 2], [2, 2]]
  end

  test "elements are written through strides, and nothing else" do
    for _ <- 1..60 do
      {target, shape, _} = view(:s32)
      Buffer.fill!(target.buffer, -1)
      count = Enum.product(shape)
      source = Buffer.reshape!(Buffer.iota!([count], :s32), shape)
      assert Lowering.place(source, target, :place) == :ok
      assert flat(ok(Copy.copy(target, :copy))) == Enum.to_list(0..(count - 1)//1)
      all = Buffer.to_flat_list!(target.buffer)
      assert Enum.count(all, &(&1 == -1)) == length(all) - count
    end
  end

  test "large reductions, whose elements are interleaved or read by vectors" do
    for dtype <- types(), count <- [70_000, 65_537, 65_540] do
      # Small integers, so that sums are exact; the greatest and the least one are there several times.
      values = for i <- 0..(count + 7), do: rem(i * 7919, 101)
      whole = ExCubecl.buffer!(values, [count + 8], dtype)

      for {view, values} <- [
            {View.new(Buffer.view!(whole, 0, [count])), Enum.take(values, count)},
            {View.new(Buffer.view!(whole, 3, [count])), Enum.slice(values, 3, count)},
            {View.new(Buffer.view!(whole, 4, [count])), Enum.slice(values, 4, count)},
            {View.reverse!(whole), Enum.reverse(values)}
          ] do
        number = &trunc(Buffer.item!(&1))
        found = for op <- [:reduce_min, :reduce_max], do: number.(apply(Ops, :"#{op}!", [view]))
        assert found == [Enum.min(values), Enum.max(values)]
        if dtype != :f16, do: assert(number.(Ops.sum!(view)) == Enum.sum(values))

        for {op, value} <- [argmin: Enum.min(values), argmax: Enum.max(values)] do
          first = Enum.find_index(values, &(&1 == value))
          last = length(values) - 1 - Enum.find_index(Enum.reverse(values), &(&1 == value))
          assert number.(apply(Ops, :"#{op}!", [view])) == first
          assert number.(apply(Ops, :"#{op}!", [view, [tie_break: :high]])) == last
        end
      end
    end

    lines = for line <- 0..2, do: for(i <- 0..69_999, do: rem(i * 7919 + line, 97))
    x = ExCubecl.buffer!(lines, [3, 70_000], :f32)
    assert Buffer.to_list!(Ops.sum!(x, axis: 1)) == Enum.map(lines, &(Enum.sum(&1) / 1))
    assert Buffer.to_list!(Ops.reduce_max!(x, axis: 1)) == [96.0, 96.0, 96.0]

    assert Buffer.to_list!(Ops.argmax!(x, axis: 1)) ==
             Enum.map(lines, fn line -> Enum.find_index(line, &(&1 == 96)) end)

    nan = Ops.put_slice!(x, [1, 60_001], ExCubecl.buffer!([:nan, :nan], [1, 2], :f32))
    assert Buffer.item!(Ops.argmin!(nan)) == 130_001
    assert Buffer.item!(Ops.argmax!(nan, tie_break: :high)) == 130_002
    assert Buffer.to_list!(Ops.reduce_min!(nan, axis: 1)) |> Enum.at(1) == :nan
  end

  test "f16 and bf16 merge to f16, as in Nx" do
    [half, brain] = for dtype <- [:f16, :bf16], do: ExCubecl.buffer!([1.5, -2.0], [2], dtype)

    for result <- [
          Ops.multiply!(half, brain),
          Ops.multiply!(brain, half),
          Ops.matmul!(Buffer.reshape!(half, [2, 1]), brain |> Buffer.reshape!([1, 2])),
          Ops.put_slice!(brain, [0], half)
        ],
        do: assert(result.dtype == :f16)

    assert Buffer.to_list!(Ops.multiply!(half, brain)) == [2.25, 4.0]

    pairs = for a <- [:f16, :bf16], b <- [:f32, :f64], do: {Types.mix(a, b), Types.mix(b, a)}
    assert pairs == [f32: :f32, f64: :f64, f32: :f32, f64: :f64]
  end

  test "a result in a given buffer, also in that of an operand" do
    x = Buffer.iota!([2, 3], :s32)
    row = ExCubecl.buffer!([10, 20, 30], [3], :s32)
    assert Ops.add(x, row, into: x) == :ok
    assert flat(x) == [10, 21, 32, 13, 24, 35]
    assert Ops.subtract(x, x, into: x) == :ok
    assert flat(x) == [0, 0, 0, 0, 0, 0]
    out = Buffer.empty!([2, 3], :s32)
    assert Ops.negate(row |> Ops.broadcast_to!([2, 3]), into: out) == :ok
    assert flat(out) == [-10, -20, -30, -10, -20, -30]
    refused(Ops.add(x, 1.5, into: x), :type_mismatch)
    refused(Ops.add(row, x, into: row), :shape_mismatch, says: "kernel add")
    square = Buffer.iota!([3, 3], :s32)
    turned = Strides.transpose(View.new(square), [1, 0])
    refused(ElementWise.apply(:add, [square, turned], into: square), :overlap, says: "kernel add")
    assert flat(square) == Enum.to_list(0..8)
  end

  test "reductions over any axes of random views" do
    sum = %{
      name: :sum,
      first: 0,
      step: Kernel.kernel(fn acc, x -> acc + x end),
      operands: :s64,
      as: :s64,
      dtype: :s64
    }

    for _ <- 1..150 do
      {view, shape, elements} = view(:s32)
      axes = for axis <- 0..(length(shape) - 1)//1, :rand.uniform(2) == 1, do: axis
      kept = Enum.to_list(0..(length(shape) - 1)//1) -- axes
      pick = fn at -> Enum.map(kept, &Enum.at(at, &1)) end

      groups =
        Enum.zip(coordinates(shape), elements) |> Enum.group_by(&pick.(elem(&1, 0)), &elem(&1, 1))

      result = ok(Reduction.run(sum, [view], axes, false))
      assert result.shape == pick.(shape)

      assert flat(result) ==
               for(at <- coordinates(pick.(shape)), do: Enum.sum(Map.get(groups, at, [])))

      wide = ok(Reduction.run(sum, [view], axes, true))
      assert length(wide.shape) == length(shape) and flat(wide) == flat(result)
    end
  end

  test "reductions of Ops, with NaN and infinities" do
    for _ <- 1..60 do
      dtype = Enum.random(types())
      shape = for _ <- 1..Enum.random(1..4), do: Enum.random([1, 2, 3, 70])
      x = ExCubecl.buffer!(values(dtype, Enum.product(shape)), shape, dtype)
      axis = Enum.random(0..(length(shape) - 1))
      other = List.delete_at(shape, axis)
      elements = Enum.zip(coordinates(shape), Buffer.to_flat_list!(x))
      groups = Enum.group_by(elements, &List.delete_at(elem(&1, 0), axis), &elem(&1, 1))

      for {name, fun} <- [
            reduce_max: &extreme(&1, :max),
            reduce_min: &extreme(&1, :min),
            all: fn list -> if Enum.all?(list, &(&1 != 0)), do: 1, else: 0 end,
            any: fn list -> if Enum.any?(list, &(&1 != 0)), do: 1, else: 0 end,
            argmax: fn list -> Enum.find_index(list, &same?(&1, extreme(list, :max))) end,
            argmin: fn list -> Enum.find_index(list, &same?(&1, extreme(list, :min))) end
          ] do
        result = apply(Ops, :"#{name}!", [x, [axes: [axis]]])
        expected = for at <- coordinates(other), do: fun.(groups[at])
        found = Buffer.to_flat_list!(result)

        assert {name, Enum.all?(Enum.zip(found, expected), fn {a, b} -> same?(a, b) end)} ==
                 {name, true}

        assert apply(Ops, :"#{name}!", [x, [axis: axis, keep_axes: true]]).shape ==
                 List.replace_at(shape, axis, 1)
      end
    end
  end

  # Numbers that are equal, whatever the sign of a zero.
  defp same?(a, b), do: a == b

  defp extreme(list, which) do
    order = fn
      :neg_infinity -> {0, 0}
      :infinity -> {2, 0}
      number -> {1, number}
    end

    cond do
      :nan in list -> :nan
      which == :max -> Enum.max_by(list, order)
      true -> Enum.min_by(list, order)
    end
  end

  test "variances, ties and logical reductions" do
    x = ExCubecl.buffer!([[1, 5, 5], [7, 7, 0]], [2, 3], :s32)
    assert Buffer.to_list!(Ops.argmax!(x, axis: 1)) == [1, 0]
    assert Buffer.to_list!(Ops.argmax!(x, axis: 1, tie_break: :high)) == [2, 1]
    assert Buffer.item!(Ops.argmin!(x)) == 5
    assert Buffer.to_list!(Ops.variance!(x, axis: 0)) == [9.0, 1.0, 6.25]

    assert_in_delta Buffer.item!(Ops.variance!(Buffer.iota!([1001], :f32), ddof: 1)),
                    83_583.5,
                    0.1

    large = Buffer.full!([100_000], :f16, 1)
    assert Buffer.item!(Ops.mean!(large)) == 1.0
    assert Buffer.item!(Ops.variance!(large)) == 0.0
    refused(Ops.sum(x, axes: [0, 2]), :invalid_argument, says: "sum: invalid axis 2")
    refused(Ops.sum(x, axes: [0, -2]), :invalid_argument, says: "sum: invalid axes")
    refused(Ops.sum(x, axes: [0 | 1]), :invalid_argument, says: "sum")
    refused(Ops.sum(x, axis: 0, axes: [1]), :invalid_argument, says: "not both")
    refused(Ops.all(x, keep_axes: 1), :invalid_argument, says: "all: invalid keep_axes")
    refused(Ops.argmax(x, tie_break: :middle), :invalid_argument, says: "argmax")
    refused(Ops.variance(x, ddof: -1), :invalid_argument)
  end

  test "64 axes" do
    shape = List.duplicate(1, 40) ++ List.duplicate(2, 12) ++ List.duplicate(1, 12)
    x = Buffer.iota!(shape, :s32)
    turned = Ops.transpose!(x)
    assert turned.shape == Enum.reverse(shape)
    assert flat(Ops.transpose!(turned)) == Enum.to_list(0..4095)

    assert Buffer.item!(Ops.sum!(turned, axes: Enum.take_every(0..63, 2)) |> Ops.sum!()) ==
             4095 * 2048
  end
end
