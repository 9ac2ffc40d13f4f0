defmodule ExCubecl.Ops.BlocksTest do
  # Large element-wise operations and copies, which access memory by vectors, compared with plain Elixir. Small ones do not.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.{Kernel, Ops, View}

  require Kernel

  @types [:f32, :s32, :u32, :f16]

  setup do
    :rand.seed(:exsss, {16, 2, 2026})
    :ok
  end

  # Numbers that each type has, and their sums too.
  defp small(shape, dtype),
    do: shape |> Buffer.iota!(:s32) |> Ops.remainder!(101) |> Buffer.convert!(dtype)

  defp value(position), do: rem(position, 101)
  defp flat(tensor), do: ExCubecl.to_flat_list!(tensor)

  test "counts that are no multiple of four, and buffers that are not aligned" do
    kernel = Kernel.kernel(fn x, y -> if x > y, do: x - y, else: x + y end)

    for dtype <- @types, count <- [65_536, 65_537, 65_539, 70_002] do
      x = small([count], dtype)
      expected = for at <- 0..(count - 1), v = value(at), do: if(v > 7, do: v - 7, else: v + 7)
      assert Kernel.run!(kernel, [x, 7]) |> flat() == expected
      y = Buffer.full!([count], dtype, 7)
      assert Kernel.run!(kernel, [x, y]) |> flat() == expected

      [u, v] = for buffer <- [x, y], do: Buffer.view!(buffer, 1, [count - 1])
      assert Kernel.run!(kernel, [u, v]) |> flat() == tl(expected)

      # Nothing behind the end of a view is written.
      out = Buffer.full!([count + 8], dtype, 5)
      target = Buffer.view!(out, 4, [count])
      assert Kernel.run!(kernel, [x, y], into: target) == :ok
      assert flat(out) == [5, 5, 5, 5] ++ expected ++ [5, 5, 5, 5]
    end
  end

  test "kernels that access the elements at their index, also in place" do
    next = Kernel.kernel(fn a, b -> b[index()] = a[index()] + 1 end)
    double = Kernel.kernel(fn a, at -> a[index()] = a[index()] * 2 + at[0] end)
    count = 65_541
    [a, longer] = [small([count], :s32), Buffer.full!([count + 4], :s32, -3)]
    assert Kernel.run!(next, [a, longer]) == :ok
    # An index out of bounds reads 0.
    assert flat(longer) == for(at <- 0..(count - 1), do: value(at) + 1) ++ [1, 1, 1, 1]
    assert Kernel.run!(double, [a, ExCubecl.buffer!([1], [1], :s32)]) == :ok
    assert flat(a) == for(at <- 0..(count - 1), do: 2 * value(at) + 1)
    assert Ops.add(a, a, into: a) == :ok
    assert flat(a) == for(at <- 0..(count - 1), do: 4 * value(at) + 2)
  end

  test "broadcasts, where rows end within a block" do
    for dtype <- [Enum.random(@types), :u8],
        {m, n} <- [{257, 259}, {3, 21_851}, {32_771, 2}, {65_537, 1}] do
      x = small([m, n], dtype)
      [row, column] = [small([n], dtype), small([m, 1], dtype)]
      at = for i <- 0..(m - 1), j <- 0..(n - 1), do: {value(i * n + j), value(i), value(j)}
      assert flat(Ops.add!(x, row)) == for({x, _, j} <- at, do: x + j)
      assert flat(Ops.add!(x, column)) == for({x, i, _} <- at, do: x + i)
      assert flat(Ops.add!(row, column)) == for({_, i, j} <- at, do: i + j)
      assert flat(Ops.max!(column, x)) == for({x, i, _} <- at, do: max(x, i))
      out = Buffer.empty!([m, n], dtype)
      assert Ops.add(x, row, into: out) == :ok
      assert flat(out) == for({x, _, j} <- at, do: x + j)
    end
  end

  test "parts of a result, whose rows are whole blocks, and not" do
    for dtype <- [Enum.random(@types), :u8], {m, n} <- [{256, 260}, {257, 259}, {16_385, 4}] do
      x = small([m, n], dtype)
      turned = View.of!(small([n, m], dtype)) |> View.transpose!()
      rows = for i <- 0..(m - 1), do: for(j <- 0..(n - 1), do: value(i * n + j))
      columns = for i <- 0..(m - 1), do: for(j <- 0..(n - 1), do: value(j * m + i))
      beside = Enum.zip_with(rows, columns, &(&1 ++ &2))

      assert flat(Ops.concatenate!([x, turned], axis: 1)) == Enum.concat(beside)
      assert flat(Ops.stack!([x, turned], axis: 1)) == Enum.concat(beside)

      assert flat(Ops.stack!([x, turned], axis: 2)) ==
               [rows, columns]
               |> Enum.map(&Enum.concat/1)
               |> Enum.zip_with(& &1)
               |> Enum.concat()

      # Nothing beside the part is written.
      for left <- [3, 4] do
        wide = Buffer.full!([m, n + 8], dtype, 5)
        {before, behind} = {List.duplicate(5, left), List.duplicate(5, 8 - left)}
        put = for row <- rows, x <- before ++ row ++ behind, do: x
        assert flat(Ops.put_slice!(wide, [0, left], x)) == put
        out = Buffer.empty!([m, n + 8], dtype)
        assert Ops.pad(x, 5, [{0, 0, 0}, {left, 8 - left, 0}], into: out) == :ok
        assert flat(out) == put
      end
    end
  end

  test "broadcasts and views whose rows are whole blocks" do
    for dtype <- [Enum.random(@types), :u8], {m, n} <- [{256, 260}, {4, 16_388}, {16_385, 4}] do
      x = small([m, n], dtype)
      wide = small([m + 1, 2 * n + 4], dtype)
      [row, column] = [small([n], dtype), small([m, 1], dtype)]
      at = for i <- 0..(m - 1), j <- 0..(n - 1), do: {value(i * n + j), i, j}
      of = fn i, j -> value(i * (2 * n + 4) + j) end
      assert flat(Ops.add!(x, row)) == for({x, _, j} <- at, do: x + value(j))
      assert flat(Ops.add!(column, x)) == for({x, i, _} <- at, do: x + value(i))
      assert flat(Ops.max!(row, column)) == for({_, i, j} <- at, do: max(value(i), value(j)))

      assert flat(View.to_buffer!(View.broadcast!(column, [m, n]))) ==
               for({_, i, _} <- at, do: value(i))

      # From a multiple of four on, from another place on, every other element, from the last one on.
      for {first, step} <- [{4, 1}, {3, 1}, {1, 2}, {2 * n + 3, -1}] do
        view =
          View.slice!(wide, [1, min(first, n + 4)], [m, if(step == 2, do: 2 * n, else: n)],
            strides: [1, max(step, 1)]
          )

        view = if step < 0, do: View.reverse!(view, axis: 1), else: view
        expected = for {x, i, j} <- at, do: x + of.(i + 1, first + step * j)
        assert {first, flat(Ops.add!(x, view))} == {first, expected}
      end
    end

    one = View.broadcast!(small([1], :f32), [256, 256])
    assert flat(View.to_buffer!(one)) == List.duplicate(0, 65_536)
  end

  test "views of three axes, with casts, numbers and comparisons" do
    x = small([30, 41, 61], :s32)

    picked =
      x |> View.reverse!(axis: 1) |> View.slice!([0, 0, 0], [30, 41, 61], strides: [1, 1, 1])

    turned = View.transpose!(picked, axes: [2, 0, 1])
    position = fn k, i, j -> value((i * 41 + (40 - j)) * 61 + k) end
    expected = for k <- 0..60, i <- 0..29, j <- 0..40, do: position.(k, i, j)
    assert flat(View.to_buffer!(turned)) == expected
    assert flat(Ops.add!(turned, 1)) == Enum.map(expected, &(&1 + 1))
    assert flat(Ops.divide!(turned, 2)) == Enum.map(expected, &(&1 / 2))
    assert flat(Ops.greater!(turned, 50)) == Enum.map(expected, &if(&1 > 50, do: 1, else: 0))
    assert flat(Ops.integer_pow!(turned, 2)) == Enum.map(expected, &(&1 * &1))
    steps = View.slice!(Buffer.iota!([140_001], :s32), [1], [140_000], strides: [2])
    assert flat(Ops.negate!(steps)) == Enum.map(0..69_999, &(-2 * &1 - 1))
  end

  test "transposes, in whole tiles and not" do
    for dtype <- [:f32, Enum.random([:s32, :u32, :f16, :u8])],
        {m, n} <- [{256, 260}, {260, 256}, {257, 256}, {256, 258}, {4, 16_388}] do
      x = small([m, n], dtype)
      expected = for j <- 0..(n - 1), i <- 0..(m - 1), do: value(i * n + j)
      assert {m, n, flat(Ops.transpose!(x))} == {m, n, expected}
    end

    x = small([12, 64, 100], :f32)
    value = fn i, j, k -> value((i * 64 + j) * 100 + k) end

    assert flat(Ops.transpose!(x)) ==
             for(k <- 0..99, j <- 0..63, i <- 0..11, do: value.(i, j, k))

    assert flat(Ops.transpose!(x, axes: [0, 2, 1])) ==
             for(i <- 0..11, k <- 0..99, j <- 0..63, do: value.(i, j, k))

    # Every other row from the last one on, and a start that is no multiple of four.
    view = x |> View.reverse!(axis: 1) |> View.slice!([0, 0, 0], [12, 64, 96])
    from = View.slice!(x, [0, 0, 2], [12, 64, 96])

    assert flat(Ops.transpose!(view, axes: [2, 1, 0])) ==
             for(k <- 0..95, j <- 63..0//-1, i <- 0..11, do: value.(i, j, k))

    assert flat(Ops.transpose!(from)) ==
             for(k <- 2..97, j <- 0..63, i <- 0..11, do: value.(i, j, k))
  end

  test "a result that shares bytes with an operand" do
    x = small([300, 300], :f32)
    refused(Ops.add(View.transpose!(x), 1, into: x), :overlap, says: "kernel add")
    refused(Ops.add(x, View.transpose!(x), into: Buffer.empty!([300, 300], :s32)), :type_mismatch)

    refused(
      Ops.add(x, View.transpose!(x), into: Buffer.empty!([300, 301], :f32)),
      :shape_mismatch
    )
  end
end
