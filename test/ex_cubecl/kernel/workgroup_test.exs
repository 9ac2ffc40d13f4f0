defmodule ExCubecl.WorkgroupTest do
  # Kernels whose threads work together: groups, shared memory, barriers, atomic operations.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal

  alias ExCubecl.Kernel

  require Kernel

  defmodule Together do
    use ExCubecl.Kernel

    defkernel sums(input, out), group: 64 do
      tile = shared(input, group_size())
      tile[local()] = input[index()]
      barrier()

      for step <- 0..5 do
        half = bsr(32, step)
        sum = tile[local()] + tile[local() + half]
        barrier()
        if local() < half, do: tile[local()] = sum
        barrier()
      end

      if local() == 0, do: out[group()] = tile[0]
    end

    defkernel transpose(input, out), group: {8, 8} do
      tile = shared(:s32, 8 * 8)
      tile[local(:y) * 8 + local(:x)] = input[index()]
      barrier()
      y = group(:x) * 8 + local(:y)
      x = group(:y) * 8 + local(:x)
      if y < 13 and x < 20, do: out[y * 20 + x] = tile[local(:x) * 8 + local(:y)]
    end

    defkernel histogram(input, bins) do
      mine = shared(:u32, 16)
      # The last group has threads past the end, which only fill it.
      if index() >= 0, do: atomic_add(mine[input[index()]], 1)
      barrier()
      if local() < 16, do: atomic_add(bins[local()], mine[local()])
    end

    # Each matching element takes one slot of the output, in no order.
    defkernel passing(input, count, out) do
      if input[index()] > 50 do
        place = atomic_add(count[0], 1)
        out[place] = input[index()]
      end
    end

    defkernel axes(out), group: {2, 4, 8} do
      i = index()
      out[i] = index(:z) * 10_000 + index(:y) * 100 + index(:x)
    end
  end

  defmodule Planes do
    use ExCubecl.Kernel

    # For each thread: its lane, the size of planes, and the first thread of its plane; then the results of its plane.
    defkernel all(x, threads, results), group: 24 do
      i = index()
      value = x[i]
      first = plane_broadcast(local(), 0)
      sum = plane_sum(value)
      product = plane_product(value)
      least = plane_min(value)
      greatest = plane_max(value)
      third = plane_broadcast(value, 2)
      none = plane_broadcast(value, 127)
      threads[3 * i] = plane_lane()
      threads[3 * i + 1] = plane_size()
      threads[3 * i + 2] = first
      results[6 * i] = sum
      results[6 * i + 1] = product
      results[6 * i + 2] = least
      results[6 * i + 3] = greatest
      results[6 * i + 4] = third
      results[6 * i + 5] = none
    end

    # Each plane adds up on its own, and shared memory joins the sums.
    defkernel sums(input, out), group: 64 do
      tile = shared(input, 64)
      sum = plane_sum(input[index()])
      if plane_lane() == 0, do: tile[local()] = sum
      barrier()

      if local() == 0 do
        total = 0

        for i <- 0..63 do
          total = total + tile[i]
        end

        out[group()] = total
      end
    end
  end

  # Two groups of 24 threads, and the threads of each plane with what the kernel stored.
  defp planes(list, dtype) do
    x = ExCubecl.buffer!(list, [48], dtype)
    threads = Buffer.zeros!([48, 3], :s32)
    results = Buffer.zeros!([48, 6], dtype)
    assert Kernel.run({Planes, :all}, [x, threads, results], size: 48) == :ok
    rows = Enum.zip([0..47, list, ExCubecl.to_list!(threads), ExCubecl.to_list!(results)])

    for {i, value, [lane, size, first], row} <- rows,
        do: {{div(i, 24), first}, lane, size, value, row}
  end

  test "operations on planes, in each of their types" do
    for {dtype, list} <- [
          s32: Enum.map(1..48, &rem(&1 * 7, 5)) |> Enum.map(&(&1 - 2)),
          u32: Enum.map(1..48, &rem(&1 * 11, 4)),
          f32: Enum.map(1..48, &(rem(&1 * 7, 5) / 2))
        ] do
      planes = list |> planes(dtype) |> Enum.group_by(&elem(&1, 0))

      for {_, threads} <- planes do
        lanes = Enum.map(threads, &elem(&1, 1))
        sizes = Enum.map(threads, &elem(&1, 2))
        values = threads |> Enum.sort_by(&elem(&1, 1)) |> Enum.map(&elem(&1, 3))
        assert Enum.sort(lanes) == Enum.to_list(0..(length(threads) - 1))
        assert [size] = Enum.uniq(sizes)
        assert size >= length(threads)
        none = if size > 127, do: Enum.at(values, 127), else: 0

        for {_, _, _, _, row} <- threads do
          expected = [
            Enum.sum(values),
            Enum.product(values),
            Enum.min(values),
            Enum.max(values),
            Enum.at(values, 2),
            none
          ]

          assert {dtype, Enum.map(row, &(&1 * 1.0))} == {dtype, Enum.map(expected, &(&1 * 1.0))}
        end
      end
    end
  end

  test "NaN is the minimum and the maximum of its plane only" do
    list = Enum.map(1..48, &(&1 * 1.0)) |> List.replace_at(20, :nan)
    rows = planes(list, :f32)
    {odd, _, _, _, _} = Enum.at(rows, 20)

    for {plane, _, _, _, [_, _, least, greatest, _, _]} <- rows do
      assert {plane, least == :nan, greatest == :nan} == {plane, plane == odd, plane == odd}
    end
  end

  test "planes and shared memory add up the elements of a group" do
    out = Buffer.zeros!([2], :s32)
    assert Kernel.run({Planes, :sums}, [s32(Enum.to_list(1..100)), out], size: 100) == :ok
    assert ExCubecl.to_list!(out) == [Enum.sum(1..64), Enum.sum(65..100)]
  end

  test "operations on planes take words only" do
    kernel = Kernel.kernel(fn x, out -> out[0] = plane_sum(x[local()]) end)
    x = ExCubecl.buffer!([1, 2], [2], :s64)
    error = refused(Kernel.run(kernel, [x, Buffer.zeros!([1], :s64)]), :type_mismatch)

    assert error.details.text ==
             "plane_sum is of :f32, :s32 or :u32, not of :s64: use cast(x, :f32)"
  end

  defp s32(list, shape \\ nil), do: ExCubecl.buffer!(list, shape || [length(list)], :s32)

  test "a group adds up in shared memory, for any number of elements" do
    for count <- [1, 63, 64, 65, 1000] do
      list = Enum.to_list(1..count)
      groups = div(count + 63, 64)
      out = Buffer.zeros!([groups], :s32)
      assert Kernel.run({Together, :sums}, [s32(list), out], size: count) == :ok
      assert ExCubecl.to_list!(out) == list |> Enum.chunk_every(64) |> Enum.map(&Enum.sum/1)
    end

    floats = ExCubecl.buffer!(List.duplicate(0.5, 64), [64], :f32)
    out = Buffer.zeros!([1], :f32)
    Kernel.run!({Together, :sums}, [floats, out], size: 64)
    assert ExCubecl.to_list!(out) == [32.0]
  end

  test "groups of two axes lie over the rows and columns" do
    input = s32(Enum.to_list(0..(20 * 13 - 1)), [20, 13])
    out = Buffer.zeros!([13, 20], :s32)
    assert Kernel.run({Together, :transpose}, [input, out], size: [20, 13]) == :ok
    rows = Enum.chunk_every(Enum.to_list(0..(20 * 13 - 1)), 13)
    assert ExCubecl.to_list!(out) == Enum.zip_with(rows, & &1)
  end

  test "axes of three, in sizes that groups do not fill" do
    out = s32(List.duplicate(-1, 3 * 5 * 9 + 7), [3 * 5 * 9 + 7])
    part = Buffer.view!(out, 3, [3, 5, 9])
    assert Together.axes(part) == :ok
    expected = for z <- 0..2, y <- 0..4, x <- 0..8, do: z * 10_000 + y * 100 + x

    assert ExCubecl.to_list!(out) ==
             List.duplicate(-1, 3) ++ expected ++ List.duplicate(-1, 4)
  end

  test "atomic operations lose nothing" do
    list = for n <- 1..10_000, do: rem(n * n, 16)
    bins = Buffer.zeros!([16], :u32)
    assert Kernel.run({Together, :histogram}, [s32(list), bins], size: 10_000) == :ok
    counts = Enum.frequencies(list)
    assert ExCubecl.to_list!(bins) == for(n <- 0..15, do: Map.get(counts, n, 0))

    numbers = for n <- 1..1000, do: rem(n * 37, 101)
    [count, out] = [Buffer.zeros!([1], :s32), Buffer.zeros!([1000], :s32)]
    assert Kernel.run({Together, :passing}, [s32(numbers), count, out], size: 1000) == :ok
    [found] = ExCubecl.to_list!(count)
    passing = Enum.filter(numbers, &(&1 > 50))
    assert found == length(passing)
    assert Enum.sort(Enum.take(ExCubecl.to_list!(out), found)) == Enum.sort(passing)
  end

  test "an index out of bounds is reported in workgroups too" do
    kernel =
      Kernel.kernel(
        fn out ->
          tile = shared(:s32, 4)
          tile[local()] = 1
          out[local()] = tile[0]
        end,
        group: 8
      )

    out = Buffer.zeros!([8], :s32)
    error = refused(Kernel.run(kernel, [out], check: true), :out_of_bounds)
    assert error.details.argument == :tile
    assert error.details.index in 4..7
    assert error.details.size == 4
    assert Kernel.run(kernel, [out]) == :ok
    assert ExCubecl.to_list!(out) == List.duplicate(1, 8)
  end

  test "refused where it is launched" do
    out = Buffer.zeros!([8], :s32)
    large = Kernel.kernel(fn out -> out[index()] = local() end, group: {1024, 1024})
    assert Exception.message(refused(Kernel.run(large, [out]), :invalid_argument)) =~ "threads"

    much =
      Kernel.kernel(fn out ->
        tile = shared(:s32, 65_536)
        tile[local()] = 1
        out[index()] = tile[0]
      end)

    assert Exception.message(refused(Kernel.run(much, [out]), :invalid_argument)) =~
             "shared memory"

    floats = Buffer.zeros!([8], :f16)
    add = Kernel.kernel(fn out -> atomic_add(out[0], 1) end)
    refused(Kernel.run(add, [floats]), :unsupported_dtype)
    bits = Kernel.kernel(fn out -> atomic_or(out[0], 1) end)
    refused(Kernel.run(bits, [Buffer.zeros!([8], :f32)]), :type_mismatch)
    refused(Kernel.run({Together, :nothing}, [out]), :invalid_argument)
    refused(Kernel.run({Nowhere, :sums}, [out]), :invalid_argument)
    assert ExCubecl.to_list!(out) == List.duplicate(0, 8)
  end

  @refused [
    {"if local() == 0, do: barrier()", "all threads"},
    {"for i <- 0..local() do\nbarrier()\nend", "all threads"},
    {"n = local()\nfor i <- 0..n do\nbarrier()\nend", "all threads"},
    {"for i <- 0..3 do\ni = local()\nfor j <- 0..i do\nbarrier()\nend\nend", "all threads"},
    {"cond do\nlocal() > 1 -> barrier()\ntrue -> out[0] = 1\nend", "all threads"},
    {"out[0] = barrier()", "line of its own"},
    {"out[0] = atomic_add(out[1], 1)", "stands alone"},
    {"atomic_add(out, 1)", "atomic_add(output[i], value)"},
    {"out[0] = local(:w)", ":x, :y or :z"},
    {"t = shared(:f31, 4)\nout[0] = t[0]", "shared memory is of a type"},
    {"t = shared(:s32, len(out))\nout[0] = t[0]", "known here"},
    {"t = shared(:s32, 0)\nout[0] = t[0]", "known here"},
    {"t = shared(:s32)\nout[0] = 1", "shared(:f32, 256)"},
    {"t = shared(:s32, 4)\nt = 1\nout[0] = 1", "another name"},
    {"out = shared(:s32, 4)\nout[0] = 1", "another name"},
    {"t = shared(:s32, 4)\nout[0] = t", "t[local()]"},
    {"for i <- 0..3 do\nt = shared(:s32, 4)\nout[0] = t[0]\nend", "for all threads"},
    {"local() + 1", "does nothing"}
  ]

  test "refused where it is written" do
    for {body, part} <- @refused do
      text =
        "require ExCubecl.Kernel\nExCubecl.Kernel.kernel(fn out ->\n#{body}\nout[0] = 1\nend)"

      error = assert_raise CompileError, fn -> Code.eval_string(text, [], file: "k.exs") end
      assert Exception.message(error) =~ part, "#{body}: #{Exception.message(error)}"
      assert error.line > 1
    end

    for group <- ["0", "{1, 2, 3, 4}", ":many", "{16, 0}", "2000"] do
      text =
        "require ExCubecl.Kernel\nExCubecl.Kernel.kernel(fn out -> out[0] = 1 end, group: #{group})"

      error = assert_raise CompileError, fn -> Code.eval_string(text) end
      assert Exception.message(error) =~ "number of threads"
    end

    text = "require ExCubecl.Kernel\nExCubecl.Kernel.kernel(fn x -> x + local() end)"
    error = assert_raise CompileError, fn -> Code.eval_string(text) end
    assert Exception.message(error) =~ "writes into an argument"
  end
end
