defmodule ExCubecl.NxShardingTest do
  # Which definitions can run on shards of their arguments, and Nx.Defn.shard_jit/3 where Nx has it.
  use ExUnit.Case, async: false

  alias ExCubecl.Compiler.Graph.Conversion
  alias ExCubecl.Compiler.Sharding.Propagation
  alias Nx.Defn.Composite

  setup do
    Nx.default_backend(Nx.BinaryBackend)
    Nx.Defn.default_options([])
    :ok
  end

  defp graph(fun, shapes) do
    result = Nx.Defn.debug_expr_apply(fun, for(shape <- shapes, do: Nx.template(shape, :f32)))
    {graph, _key, _captured} = Conversion.build(Composite.flatten_list([result]), %{})
    graph
  end

  # Of arguments with the shapes of a shard and the whole shapes, on a mesh of 2 x 3.
  defp local?(fun, arguments) do
    [shards, wholes, divisions] = arguments |> Enum.map(&Tuple.to_list/1) |> Enum.zip_with(& &1)
    Propagation.local?(graph(fun, shards), graph(fun, wholes), divisions, {2, 3})
  end

  @rows {{4, 5}, {8, 5}, [[0], []]}
  @both {{4, 5}, {8, 15}, [[0], [1]]}
  @whole {{4, 5}, {4, 5}, [[], []]}

  describe "definitions that run on shards" do
    test "element-wise operations, of arguments that are divided alike or repeated" do
      assert local?(&Nx.add(Nx.multiply(&1, 2), &2), [@both, @both])
      assert local?(&Nx.subtract(&1, &2), [@rows, {{5}, {5}, [[]]}])
      assert local?(&Nx.select(&1, &2, 0), [@rows, @rows])
      assert local?(&Nx.add(&1, Nx.broadcast(3, &1)), [@rows])
      refute local?(&Nx.add(&1, &2), [{{1, 5}, {2, 5}, [[0], []]}, {{2, 5}, {2, 5}, [[], []]}])
      refute local?(&Nx.add(&1, Nx.iota(&1.shape)), [@rows])
      refute local?(&Nx.multiply(&1, Nx.size(&1)), [@rows])
    end

    test "reductions, sorts and reversals along axes that are whole" do
      for {fun, along_columns, along_rows} <- [
            {&Nx.sum/2, [axes: [1]], [axes: [0]]},
            {&Nx.argmax/2, [axis: 1], [axis: 0]},
            {&Nx.sort/2, [axis: 1], [axis: 0]}
          ] do
        assert local?(&fun.(&1, along_columns), [@rows])
        refute local?(&fun.(&1, along_rows), [@rows])
        refute local?(&fun.(&1, along_columns), [@both])
      end

      assert local?(&Nx.reduce_max(&1, axes: [1], keep_axes: true), [@rows])
      refute local?(&Nx.sum/1, [@rows])
    end

    test "shapes and products" do
      assert local?(&Nx.transpose/1, [@both])
      assert local?(&Nx.reshape(&1, {elem(&1.shape, 0), 5, 1}), [@rows])
      refute local?(&Nx.flatten/1, [@rows])
      assert local?(&Nx.broadcast(&1, {3, elem(&1.shape, 0), 5}), [@rows])
      weights = {{5, 7}, {5, 7}, [[], []]}
      assert local?(&Nx.dot/2, [@rows, weights])
      assert local?(&Nx.dot(&1, [1], [0], &2, [1], [0]), [@rows, @rows])

      # Rows of one and columns of the other along the same axis of the mesh: most pairs are on no device.
      refute local?(&Nx.dot(&1, Nx.transpose(&2)), [@rows, @rows])
      refute local?(&Nx.dot(&1, [0], &2, [0]), [@rows, @rows])
    end

    test "anything of whole arguments, and nothing else" do
      assert local?(&{Nx.cumulative_sum(&1), Nx.multiply(&2, 2)}, [@whole, @rows])
      assert local?(&Nx.add(&2, Nx.sum(Nx.window_max(&1, {2, 2}))), [@whole, @rows])
      refute local?(&Nx.window_max(&1, {2, 2}), [@rows])
      refute local?(&Nx.slice(&1, [0, 0], [2, 2]), [@rows])
      refute local?(&Nx.concatenate([&1, &1]), [@rows])
    end
  end

  if {:__shard_jit__, 6} in Nx.Defn.Compiler.behaviour_info(:callbacks) do
    alias ExCubecl.{Backend, Device}, warn: false

    defp mesh(shape), do: struct!(Nx.Mesh, name: "mesh", shape: shape)

    defp sharded(fun, mesh, arguments, opts),
      do: apply(Nx.Defn, :shard_jit, [fun, mesh, [compiler: ExCubecl] ++ opts]).(arguments)

    defp lists(results), do: for(result <- results, do: Nx.to_list(result))

    defp devices(results),
      do: for(%{data: %Backend{config: config}} <- results, do: config.device)

    setup do
      {:ok, {runtime, _} = device} = ExCubecl.default_device()
      ids = for n <- 1..2, do: Device.open!(device, as: {runtime, 1_730 + n}).id

      on_exit(fn ->
        for id <- ids do
          :ok = Device.reset(id)
          :ok = Device.remove(id)
        end
      end)

      %{ids: ids}
    end

    test "each device has its shards of the results", %{ids: ids} do
      x = Nx.iota({8, 30}, type: :f32)
      w = Nx.iota({30, 20}, type: :f32)
      fun = fn x, w -> {Nx.dot(x, w), Nx.sum(Nx.sin(x), axes: [1])} end
      opts = [input_shardings: [%{0 => [0]}, %{}], devices: ids]
      results = sharded(fun, mesh({2}), [[x[0..3], w], [x[4..7], w]], opts)
      {products, sums} = fun.(x, w)

      for {{product, sum}, id, rows} <- Enum.zip([results, ids, [0..3, 4..7]]) do
        assert {product.shape, sum.shape} == {{4, 20}, {4}}
        assert product.data.config.device == id
        assert Nx.to_list(product) == Nx.to_list(products[rows])
        assert Nx.to_number(Nx.all_close(Nx.backend_copy(sum, Nx.BinaryBackend), sums[rows])) == 1
      end
    end

    test "results that need several shards are whole on each device", %{ids: ids} do
      opts = [input_shardings: [%{-1 => [1], 0 => [0]}], devices: ids ++ ids]
      shards = for part <- [[[1], [3]], [[2], [4]], [[5], [7]], [[6], [8]]], do: [Nx.tensor(part)]
      results = sharded(&Nx.cumulative_sum(&1, axis: 1), mesh({2, 2}), shards, opts)
      assert lists(results) == List.duplicate([[1, 3], [3, 7], [5, 11], [6 + 1, 15]], 4)
      assert devices(results) == ids ++ ids
    end

    test "axes by name, arguments in containers, and an axis that two axes of the mesh divide" do
      shards = for n <- 0..3, do: [{Nx.tensor([n], names: [:row]), Nx.tensor(10)}]
      opts = [input_shardings: [%{row: [0, 1]}, %{}]]
      add = fn {a, b} -> %{sum: Nx.add(a, b)} end

      assert lists(Enum.map(sharded(add, mesh({2, 2}), shards, opts), & &1.sum)) == [
               [10],
               [11],
               [12],
               [13]
             ]

      total = fn {a, b} -> Nx.add(Nx.sum(a, keep_axes: true), b) end
      assert lists(sharded(total, mesh({2, 2}), shards, opts)) == [[16], [16], [16], [16]]
      # It fits whole tensors only.
      four = fn {a, b} -> Nx.add(Nx.reshape(a, {2, 2}), b) end

      assert lists(sharded(four, mesh({2, 2}), shards, opts)) ==
               List.duplicate([[10, 11], [12, 13]], 4)
    end

    test "arguments that are no shards are refused" do
      x = Nx.iota({2, 2})
      two = [[x], [x]]

      for {arguments, opts, message} <- [
            {two, [], ~r/input_shardings/},
            {two, [input_shardings: [%{}, %{}]], ~r/a list of 1 maps/},
            {two, [input_shardings: [1]], ~r/a list of 1 maps/},
            {two, [input_shardings: [%{2 => [0]}]], ~r/axes of a tensor/},
            {two, [input_shardings: [%{-3 => [0]}]], ~r/axes of a tensor/},
            {two, [input_shardings: [%{name: [0]}]], ~r/axes of a tensor/},
            {two, [input_shardings: [%{nil => [0]}]], ~r/axes of a tensor/},
            {two, [input_shardings: [%{0 => [1]}]], ~r/axes of a mesh/},
            {two, [input_shardings: [%{0 => 0}]], ~r/axes of a mesh/},
            {two, [input_shardings: [%{0 => [0], 1 => [0]}]], ~r/at most once/},
            {two, [input_shardings: [%{0 => [0], -2 => []}]], ~r/at most once/},
            {[[x]], [input_shardings: [%{}]], ~r/2 shards/},
            {[[x], [Nx.iota({3, 2})]], [input_shardings: [%{}]], ~r/first shard/},
            {[[x], []], [input_shardings: [%{}]], ~r/first shard/},
            {two, [input_shardings: [%{}], devices: [1]], ~r/a list of 2 devices/},
            {two, [input_shardings: [%{}], devices: [:a, :b]], ~r/:a/},
            {two, [input_shardings: [%{}], client: :host], ~r/client/}
          ] do
        assert_raise ExCubecl.Error, message, fn ->
          sharded(&Nx.add(&1, 1), mesh({2}), arguments, opts)
        end
      end
    end
  end
end
