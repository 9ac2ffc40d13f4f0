Code.require_file("serving_model.exs", __DIR__)

defmodule ExCubecl.NxServingTest do
  # Nx.Serving on this node and on another one, which is another VM on this machine, and tensors that are sent there.
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, NxServingModel, Peer}

  @scripts for name <- ["prepare.exs", "serving_model.exs"], do: Path.expand(name, __DIR__)

  setup do
    Nx.default_backend({Backend, host_limit: 0})
    :ok
  end

  defp batch(n), do: Nx.Batch.stack([Nx.add(Nx.iota({100}), n)])
  defp expected(n), do: for(i <- 0..99, do: 2 * (i + n))

  # A node with the modules for Nx, which this one may have compiled in memory only.
  defp peer do
    true = Peer.distributed?()
    {_, node} = peer = Peer.start()
    on_exit(fn -> Peer.stop(peer) end)
    {:ok, _} = :erpc.call(node, :application, :ensure_all_started, [:ex_unit])
    for script <- @scripts, do: :erpc.call(node, Code, :require_file, [script])
    node
  end

  test "a serving on this node, with many callers at once" do
    start_supervised!({Nx.Serving, name: __MODULE__.Local, serving: NxServingModel.serving()})

    results =
      1..12
      |> Task.async_stream(
        fn n ->
          Nx.default_backend({Backend, host_limit: 0})
          result = Nx.Serving.batched_run(__MODULE__.Local, batch(n))
          {result.data.__struct__, Nx.to_flat_list(result[0])}
        end,
        timeout: :infinity
      )
      |> Enum.map(&elem(&1, 1))

    assert results == for(n <- 1..12, do: {Backend, expected(n)})
    result = Nx.Serving.run(NxServingModel.serving(), batch(3))
    assert Nx.to_flat_list(result[0]) == expected(3)
  end

  test "a serving on another node" do
    node = peer()
    name = __MODULE__.Distributed
    assert :erpc.call(node, NxServingModel, :start, [name]) == node
    wait(fn -> :pg.which_groups(Nx.Serving.PG) != [] end)

    results =
      1..8
      |> Task.async_stream(
        fn n ->
          Nx.default_backend({Backend, host_limit: 0})

          result =
            Nx.Serving.batched_run({:distributed, name}, Nx.add(Nx.iota({1, 100}), n), &copied/1)

          Nx.to_flat_list(result[0])
        end,
        timeout: :infinity
      )
      |> Enum.map(&elem(&1, 1))

    assert results == Enum.map(1..8, &expected/1)
  end

  defp copied(tensor), do: Nx.Batch.concatenate([Nx.backend_copy(tensor)])

  # The groups of processes of both nodes are exchanged in the background.
  defp wait(check, tries \\ 6000),
    do: assert(check.() or (tries > 0 and Process.sleep(10) == :ok and wait(check, tries - 1)))

  test "a tensor in device memory that is sent to another node is refused there, and a copy is not" do
    node = peer()
    x = Nx.iota({100})

    for function <- [:sum, :to_binary, :backend_deallocate] do
      assert {:exception, %ExCubecl.Error{reason: :stale} = error, _} =
               catch_error(:erpc.call(node, Nx, function, [x]))

      assert Exception.message(error) =~ "Nx.backend_copy"
    end

    assert Nx.to_number(:erpc.call(node, Nx, :sum, [Nx.backend_copy(x)])) == 4950
    assert Nx.to_number(Nx.sum(x)) == 4950
  end

  test "batches, serialization and vectorized tensors" do
    x = Nx.transpose(Nx.iota({5, 30}, type: :f32))

    for options <- [[], [leftover: :discard]] do
      ours = for batch <- Nx.to_batched(x, 7, options), do: Nx.to_flat_list(batch)

      theirs =
        Nx.with_default_backend(Nx.BinaryBackend, fn ->
          x = Nx.backend_copy(x)
          for batch <- Nx.to_batched(x, 7, options), do: Nx.to_flat_list(batch)
        end)

      assert ours == theirs
    end

    container = {x, %{a: Nx.iota({70}, type: :s8)}}
    {y, %{a: z}} = container |> Nx.serialize() |> IO.iodata_to_binary() |> Nx.deserialize()

    assert {Nx.to_binary(y), Nx.to_binary(z)} ==
             {Nx.to_binary(x), Nx.to_binary(Nx.iota({70}, type: :s8))}

    vectors = Nx.vectorize(x, :row)
    sums = Nx.devectorize(Nx.add(Nx.sum(vectors), Nx.vectorize(Nx.iota({30}), :row)))

    assert Nx.to_flat_list(sums) ==
             for(r <- 0..29, do: Enum.sum(for c <- 0..4, do: 30.0 * c + r) + r)

    product = Nx.dot(vectors, vectors)

    assert Nx.to_flat_list(product) ==
             for(r <- 0..29, do: Enum.sum(for c <- 0..4, do: (30.0 * c + r) ** 2))
  end
end
