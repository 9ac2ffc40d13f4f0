defmodule ExCubecl.Ops.KernelCountsTest do
  # How many kernels operations launch, and that another shape compiles none. The counts are those of the VM: no other test may run meanwhile.
  use ExCubecl.Case, async: false

  import ExCubecl.Matrices, only: [symmetric: 4]
  import ExCubecl.Refusal
  import ExCubecl.WindowReference, only: [kept: 2]

  alias ExCubecl.{Kernel, LinAlg, Ops, Random, View}
  alias ExCubecl.View.{Copy, Strides}

  require Kernel

  setup do
    :rand.seed(:exsss, {4, 16, 2026})
    :ok
  end

  # Each launch looks up its kernel.
  defp launches(run) do
    count = fn -> Kernel.cache!().hits + Kernel.cache!().misses end
    before = count.()
    run.()
    count.() - before
  end

  # The kernels of the first calls are enough for the others; returns the names of all.
  defp compiled_by_first(first, others) do
    empty_kernel_cache()
    first.()
    before = Kernel.cache!().misses
    others.()
    assert Kernel.cache!().misses == before
    for %{kernel: name} <- Kernel.list!(), do: name
  end

  describe "launches" do
    test "a transposed operand of a product is not copied" do
      {a, b} = {Buffer.iota!([40, 30], :f32), Buffer.iota!([50, 30], :f32)}
      assert launches(fn -> Ops.dot!(a, b, contract_axes: {[1], [1]}) end) == 1
      assert launches(fn -> Ops.dot!(a, Ops.transpose!(b)) end) == 2
    end

    test "a row of a normalization takes one" do
      for n <- [10, 100, 1000, 5000], name <- [:softmax, :log_softmax, :layer_norm, :rms_norm] do
        x = Buffer.iota!([3, n], :f32)
        assert {name, n, launches(fn -> apply(Ops, :"#{name}!", [x]) end)} == {name, n, 1}
      end
    end

    test "the number of those of a long fold is bounded" do
      digits = Kernel.kernel(fn x, acc -> acc * 31 + x end)
      one = View.of!(ExCubecl.buffer!([7], [1], :s32))
      repeated = View.broadcast!(one, [1_000_003])

      expected = Enum.reduce(1..1_000_003, 1, fn _, acc -> kept(acc * 31 + 7, :s32) end)

      assert launches(fn -> send(self(), Ops.reduce!(repeated, 1, digits)) end) == 3
      assert_received %Buffer{} = result
      assert Buffer.item!(result) == expected

      # The host's work is that of the launches, not of the elements.
      {:reductions, reductions} = Process.info(self(), :reductions)
      assert length(ExCubecl.Ops.Fold.boxes([3_000_000_000], 60_000, 8)) == 6_250
      {:reductions, more} = Process.info(self(), :reductions)
      assert more - reductions < 1_000_000

      for count <- [0x1_0000_0001, 0x7FFF_FFFF_FFFF] do
        endless = View.broadcast!(one, [count])
        refused(Ops.reduce(endless, 1, digits), :invalid_argument, says: "reduce: invalid shape")
      end
    end
  end

  describe "no kernel is compiled for another shape of" do
    test "products" do
      run = fn batch, m, k, n ->
        left = Buffer.iota!([batch, m, k], :f32)
        Ops.matmul!(left, Buffer.iota!([batch, k, n], :f32))
        Ops.dot!(left, Buffer.iota!([n, k], :f32), contract_axes: {[2], [1]})
      end

      names =
        compiled_by_first(
          fn -> run.(2, 5, 6, 7) end,
          fn ->
            for {batch, m, k, n} <- [{3, 8, 9, 10}, {5, 4, 30, 5}], do: run.(batch, m, k, n)
          end
        )

      assert :matmul in names
    end

    test "normalizations" do
      run = fn m, n ->
        x = Buffer.iota!([m, n], :f32)
        Ops.softmax!(x)
        Ops.softmax!(x, axis: 0)
        Ops.layer_norm!(x, scale: Buffer.iota!([n], :f32))
      end

      names =
        compiled_by_first(
          fn -> run.(40, 50) end,
          fn -> for {m, n} <- [{50, 60}, {33, 256}, {200, 70}], do: run.(m, n) end
        )

      assert :softmax in names
    end

    test "windows and folds, with as many axes" do
      difference = Kernel.kernel(fn x, acc -> x - acc end)

      run = fn shape, window, padding ->
        x = Buffer.iota!(shape, :f32)
        Ops.window_sum!(x, window, padding: padding)
        Ops.window_max!(x, window, padding: padding, strides: [1, 2, 2])
        Ops.reduce!(x, 0, difference, axes: [1])
      end

      names =
        compiled_by_first(
          fn -> run.([2, 6, 7], [1, 2, 3], :same) end,
          fn ->
            for n <- 5..9, do: run.([n, n + 1, 12], [1, 2, n - 2], [{0, 0}, {1, 1}, {n, 3}])
          end
        )

      assert Enum.all?([:window_sum, :window_max, :reduce], &(&1 in names))
    end

    test "scatters to windows, with as many axes" do
      run = fn n, window, strides ->
        x = Buffer.iota!([2, 3, n, n], :f32)
        opts = [strides: [1, 1, strides, strides], padding: [{0, 0}, {0, 0}, {1, 1}, {1, 1}]]
        pooled = Ops.window_max!(x, [1, 1, window, window], opts)
        Ops.window_scatter_max!(x, pooled, 0, [1, 1, window, window], opts)
      end

      names =
        compiled_by_first(
          fn -> run.(6, 2, 2) end,
          fn ->
            for n <- [7, 9, 12], window <- 2..4, strides <- 2..3, do: run.(n, window, strides)
          end
        )

      assert :window_scatter_max in names
    end

    test "element-wise operations and reductions, with as many joined axes" do
      run = fn m, n ->
        {x, row} = {Buffer.iota!([m, n], :f32), Buffer.iota!([n], :f32)}
        Ops.add!(x, row)
        Ops.transpose!(x)
        for axis <- [0, 1], do: Ops.sum!(x, axis: axis)
        Ops.argmax!(x, axis: 1)
        Copy.copy(Strides.reverse(View.new(x), [0]), :reverse)
      end

      names =
        compiled_by_first(
          # Above 64 elements, the results of chunks are reduced too.
          fn -> for {m, n} <- [{3, 5}, {70, 71}], do: run.(m, n) end,
          fn -> for {m, n} <- [{7, 4}, {130, 2}, {2, 200}, {64, 65}], do: run.(m, n) end
        )

      assert Enum.all?([:add, :transpose, :sum, :argmax, :reverse], &(&1 in names))
    end

    test "large tensors" do
      small = &(&1 |> Buffer.iota!(:s32) |> Ops.remainder!(101) |> Buffer.convert!(:f32))

      run = fn m, n ->
        x = small.([m, n])
        Ops.add!(x, small.([n]))
        Ops.transpose!(x)
      end

      # Kernels depend on whether the lengths are multiples of four.
      compiled_by_first(
        fn -> for {m, n} <- [{256, 260}, {257, 261}, {260, 257}], do: run.(m, n) end,
        fn -> for {m, n} <- [{512, 128}, {300, 301}, {1000, 67}], do: run.(m, n) end
      )
    end

    test "sorts" do
      run = fn m, n ->
        x = Buffer.iota!([m, n], :f32)
        Ops.sort!(x, direction: :desc)
        Ops.sort!(x, axis: 0)
        Ops.argsort!(x)
        Ops.top_k!(x, 3)
        Ops.unique!(x)
      end

      names =
        compiled_by_first(
          # Counts of chunks need further kernels.
          fn -> for {m, n} <- [{20, 30}, {70, 71}], do: run.(m, n) end,
          fn -> for {m, n} <- [{7, 4}, {130, 3}, {2, 200}, {64, 65}], do: run.(m, n) end
        )

      assert Enum.all?([:sort, :argsort, :top_k, :unique], &(&1 in names))
    end

    test "convolutions" do
      run = fn batch, depth, filters, n, window ->
        x = Buffer.full!([batch, depth, n, n], :f32, 1)
        k = Buffer.full!([filters, depth, window, window], :f32, 1)
        Ops.conv!(x, k, padding: :same)
        Ops.conv!(x, k, strides: 2)
      end

      large = fn n ->
        Ops.conv!(Buffer.full!([2, 16, n, n], :f32, 1), Buffer.full!([16, 16, 3, 3], :f32, 1))
      end

      names =
        compiled_by_first(
          fn ->
            run.(2, 3, 4, 9, 3)
            # Products have one kernel for few multiplications and one for many.
            for n <- [20, 31], do: large.(n)
          end,
          fn ->
            for batch <- [2, 3],
                depth <- [2, 7],
                n <- [8, 11],
                window <- [2, 5],
                do: run.(batch, depth, 5, n, window)

            for n <- [21, 24, 40], do: large.(n)
          end
        )

      assert :conv in names
    end

    test "reads at indices" do
      read = fn shape, n ->
        x = Buffer.iota!(shape, :f32)
        at = ExCubecl.buffer!(List.duplicate(1, 2 * n), [n, 2], :s32)
        Ops.gather_nd!(x, at, axes: [0, 2], check: true)
        Ops.take!(x, at, axis: 1, check: true)
      end

      compiled_by_first(
        fn -> read.([2, 3, 4, 5], 2) end,
        fn -> for {shape, n} <- [{[3, 4, 5, 6], 3}, {[7, 2, 9, 3], 5}], do: read.(shape, n) end
      )
    end

    test "writes at indices" do
      write = fn shape, n ->
        x = Buffer.iota!(shape, :f32)
        at = ExCubecl.buffer!(List.duplicate(1, n), [n, 1], :s32)
        Ops.indexed_put!(x, at, Buffer.zeros!([n | tl(shape)], :f32))
        Ops.indexed_add!(x, at, Buffer.zeros!([n | tl(shape)], :f32))
        Ops.indexed_add!(x, at, Buffer.zeros!([n | tl(shape)], :s32))
      end

      compiled_by_first(
        fn -> write.([2, 3, 4], 2) end,
        fn -> for {shape, n} <- [{[3, 4, 5], 3}, {[7, 2, 9], 5}], do: write.(shape, n) end
      )
    end

    test "Fourier transforms" do
      random = fn shape ->
        list = for _ <- 1..Enum.product(shape)//1, do: Enum.random(-99..99)
        ExCubecl.buffer!(list, shape, :f32)
      end

      run = fn lengths ->
        for n <- lengths do
          x = random.([2, n, 3, 2])
          Ops.ifft!(Ops.fft!(x, axis: 1), axis: 1)
          Ops.irfft!(Ops.rfft!(random.([n])))
        end
      end

      compiled_by_first(
        fn -> run.([2, 3, 4, 5, 7, 8, 11, 37, 840, 8190]) end,
        fn -> run.([6, 16, 48, 13, 26, 100, 82, 343, 6006]) end
      )
    end

    test "decompositions of matrices" do
      LinAlg.Device.Operands.force()

      run = fn sizes ->
        for n <- sizes do
          a = symmetric([], n, :f32, 10 * n)
          LinAlg.lu!(a)
          LinAlg.cholesky!(a)
          LinAlg.solve!(a, a)
          LinAlg.triangular_solve!(a, a, lower: false, left_side: false)
        end
      end

      compiled_by_first(fn -> run.([100, 129, 251]) end, fn -> run.([101, 128, 150, 260]) end)
    end

    test "random numbers, nor for another key or range" do
      draw = fn seed, shape, range ->
        Random.uniform!(Random.key!(seed), shape)
        Random.normal!(Random.key!(seed), shape, mean: seed)
        Random.integers!(Random.key!(seed), shape, range)
      end

      compiled_by_first(
        fn -> draw.(1, [3], 1..9) end,
        fn ->
          draw.(2, [7, 3], -5..100)
          draw.(3_000_000_000, [], 0..1)
        end
      )
    end

    test "shuffles of vectors, nor for a second round" do
      shuffle = fn n -> Random.shuffle!(Random.key!(3), Buffer.zeros!([n], :f32)) end
      compiled_by_first(fn -> shuffle.(1000) end, fn -> shuffle.(3000) end)
    end
  end
end
