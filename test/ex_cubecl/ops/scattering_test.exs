defmodule ExCubecl.Ops.ScatteringTest do
  # Writes at index vectors, compared with plain Elixir on random shapes, types and indices.
  use ExCubecl.Case, async: true

  import ExCubecl.Indexing
  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [shape: 1, values: 2]

  alias ExCubecl.Ops

  @dtypes ExCubecl.DType.all()

  setup do
    :rand.seed(:exsss, {16, 2, 2026})
    :ok
  end

  defp random(dtype, shape),
    do: ExCubecl.buffer!(values(dtype, Enum.product(shape)), shape, dtype)

  # A random target with updates, and the positions that they update.
  defp updates(dtype) do
    shape = shape(Enum.random(0..6))
    axes = axes(shape)
    batch = shape(Enum.random(0..2))
    {indices, vectors} = vectors(batch, shape, axes, true)
    rest = Enum.to_list(0..(length(shape) - 1)//1) -- axes
    updates = random(dtype, batch ++ Enum.map(rest, &Enum.at(shape, &1)))
    {random(dtype, shape), indices, updates, axes, positions(vectors, shape, axes)}
  end

  test "indexed_put of every type: the last update of an element counts" do
    for dtype <- @dtypes, _ <- 1..10 do
      {target, indices, updates, axes, positions} = updates(dtype)
      result = Ops.indexed_put!(target, indices, updates, axes: axes)
      assert {result.shape, result.dtype} == {target.shape, dtype}

      last = Map.new(Enum.zip(positions, elements(updates)))
      expected = for {old, at} <- Enum.with_index(elements(target)), do: Map.get(last, at, old)
      assert {target.shape, axes, elements(result)} == {target.shape, axes, expected}
    end
  end

  test "of many updates of few elements, the last ones count" do
    n = 20_000
    numbers = for _ <- 1..n, do: :rand.uniform(7) - 1
    indices = ExCubecl.buffer!(numbers, [n, 1], :s32)
    last = numbers |> Enum.with_index() |> Map.new()

    for _ <- 1..3 do
      result = Ops.indexed_put!(Buffer.full!([8], :s32, -5), indices, Buffer.iota!([n], :s32))
      assert Buffer.to_flat_list!(result) == for(at <- 0..7, do: last[at] || -5)
    end
  end

  defp sum(numbers) do
    Enum.reduce(numbers, 0, fn
      _, :nan ->
        :nan

      :nan, _ ->
        :nan

      a, b when a in [:infinity, :neg_infinity] and b in [:infinity, :neg_infinity] ->
        if(a == b, do: a, else: :nan)

      a, _ when is_atom(a) ->
        a

      _, b when is_atom(b) ->
        b

      a, b ->
        a + b
    end)
  end

  test "indexed_add of every type: updates are added up" do
    for dtype <- @dtypes, _ <- 1..8 do
      {target, indices, updates, axes, positions} = updates(dtype)
      result = Ops.indexed_add!(target, indices, updates, axes: axes)
      assert {result.shape, result.dtype} == {target.shape, dtype}

      more =
        Enum.group_by(
          Enum.zip(positions, Buffer.to_flat_list!(updates)),
          &elem(&1, 0),
          &elem(&1, 1)
        )

      # The elements are small multiples of 1/2, whose sums every type of floats has, and integers that wrap around.
      expected =
        for {old, at} <- Enum.with_index(Buffer.to_flat_list!(target)) do
          case sum([old | Map.get(more, at, [])]) do
            integer when is_integer(integer) -> ExCubecl.Kernel.Types.number_as(integer, dtype)
            other -> other
          end
        end

      assert {target.shape, axes, Buffer.to_flat_list!(result)} == {target.shape, axes, expected}
    end
  end

  test "elements without updates keep the sign of a zero, and a sum of floats is rounded once" do
    x = ExCubecl.buffer!([-0.0, -0.0], [2], :f32)
    at = ExCubecl.buffer!([[1]], [1, 1], :s32)
    result = Ops.indexed_add!(x, at, ExCubecl.buffer!([-0.0], [1], :f32))
    # In Nx, sums start with 0.
    assert Buffer.read!(result) == <<-0.0::float-32-native, 0.0::float-32-native>>

    for dtype <- [:f16, :bf16] do
      ones = Buffer.full!([3000], dtype, 1)
      result = Ops.indexed_add!(Buffer.zeros!([1], dtype), Buffer.zeros!([3000, 1], :u8), ones)
      assert Buffer.item!(result) == Buffer.item!(ExCubecl.buffer!([3000], [1], dtype))
    end
  end

  test "sums of few floats have the bits of those that are sorted" do
    for dtype <- [:f32, :f64, :f16], _ <- 1..20 do
      {rows, cells} = {Enum.random(1..64), Enum.random(1..40)}
      indices = for _ <- 1..rows, do: Enum.random(0..(cells + 1)) - 1
      numbers = for _ <- 1..(2 * rows), do: Enum.random([:rand.normal(), -0.0])

      x =
        ExCubecl.buffer!(
          Enum.take(numbers ++ List.duplicate(0.5, 80), 2 * cells),
          [cells, 2],
          dtype
        )

      # Updates that are outside change nothing, but are sorted.
      [few, many] =
        for outside <- [0, 65] do
          n = rows + outside
          at = indices ++ List.duplicate(cells, outside)
          updates = numbers ++ List.duplicate(1.0, 2 * outside)

          Ops.indexed_add!(
            x,
            ExCubecl.buffer!(at, [n, 1], :s32),
            ExCubecl.buffer!(updates, [n, 2], dtype)
          )
        end

      assert Buffer.read!(few) == Buffer.read!(many)
    end
  end

  test "sums of many floats have the same bits each time, and are within the stated error" do
    n = 30_000

    for dtype <- [:f32, :f64], cells <- [1, 7, 20_000] do
      numbers = for _ <- 1..n, do: :rand.normal()
      indices = for _ <- 1..n, do: :rand.uniform(cells) - 1
      updates = ExCubecl.buffer!(numbers, [n], dtype)
      at = ExCubecl.buffer!(indices, [n, 1], :s32)
      results = for _ <- 1..3, do: Ops.indexed_add!(Buffer.zeros!([cells], dtype), at, updates)
      assert [_] = Enum.uniq(Enum.map(results, &Buffer.read!/1))

      groups =
        Enum.group_by(Enum.zip(indices, Buffer.to_list!(updates)), &elem(&1, 0), &elem(&1, 1))

      unit = if dtype == :f32, do: 2 ** -24, else: 2 ** -52

      for {sum, cell} <- Enum.with_index(Buffer.to_list!(hd(results))) do
        group = Map.get(groups, cell, [])
        magnitude = Enum.sum(Enum.map(group, &abs/1))
        assert abs(sum - Enum.sum(group)) <= 64 * 3 * unit * magnitude + 1.0e-12 * magnitude
      end
    end
  end

  test "types are merged, and operands stay as they were" do
    x = Buffer.iota!([3], :u8)
    at = ExCubecl.buffer!([[1]], [1, 1], :u8)

    assert Buffer.to_flat_list!(Ops.indexed_put!(x, at, ExCubecl.buffer!([1.5], [1], :f32))) == [
             0.0,
             1.5,
             2.0
           ]

    assert Ops.indexed_put!(x, at, ExCubecl.buffer!([-1], [1], :s8)).dtype == :s16
    assert Buffer.to_flat_list!(x) == [0, 1, 2]
  end

  for name <- [:indexed_put, :indexed_add] do
    test "#{name}: arguments that do not fit are refused" do
      put = fn target, indices, updates, opts ->
        apply(Ops, unquote(name), [target, indices, updates, opts])
      end

      x = Buffer.iota!([2, 3], :s32)
      at = ExCubecl.buffer!([[0], [1], [2]], [3, 1], :s64)
      rows = Buffer.iota!([3, 3], :s32)

      refused(put.(x, at, rows, check: true), :out_of_bounds,
        details: %{index: 2, position: [2, 0], axis: 0, size: 2},
        says: "#{unquote(name)}: index 2 at position [2, 0]"
      )

      assert {:ok, _} = put.(x, at, rows, [])

      refused(put.(x, at, rows, axes: [1]), :shape_mismatch,
        says: "the updates have the shape [3, 2], and those given have [3, 3]"
      )

      refused(put.(x, at, rows, axes: [2]), :invalid_argument, says: "invalid axis")
      refused(put.(x, at, rows, axes: [0, 1]), :invalid_argument, says: "invalid axes")
      refused(put.(x, at, rows, check: :yes), :invalid_argument, says: "invalid check")
      refused(put.(x, at, rows, into: x), :overlap, says: "argument 1 (target)")
      refused(put.(x, at, :rows, []), :invalid_argument)
      refused(put.(x, Buffer.iota!([3, 1], :f32), rows, []), :type_mismatch)
      deep = Buffer.zeros!([3, 3], :s32)
      refused(put.(x, deep, rows, []), :shape_mismatch, says: "has fewer axes")
    end
  end
end
