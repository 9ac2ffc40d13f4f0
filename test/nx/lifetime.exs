defmodule ExCubecl.NxLifetimeTest do
  # When the memory of tensors is allocated, shared, copied and freed.
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, Memory}

  @kib 1024
  @elements 256 * @kib

  setup do
    {:ok, {runtime, _} = device} = ExCubecl.default_device()
    {:ok, %{id: id}} = ExCubecl.Device.open(device, as: {runtime, 1_719})
    Nx.default_backend({Backend, device: id})

    on_exit(fn ->
      :ok = ExCubecl.Device.reset(id)
      :ok = ExCubecl.Device.remove(id)
    end)

    %{device: id, other: device}
  end

  defp live(device), do: Memory.usage!(device: device).live_bytes

  # A mebibyte.
  defp large, do: Nx.iota({@elements}, type: :f32)

  test "deallocation frees the memory at once", %{device: device} do
    before = live(device)
    x = large()
    assert live(device) - before == 4 * @elements
    assert Nx.backend_deallocate(x) == :ok
    assert live(device) == before
    assert Nx.backend_deallocate(x) == :already_deallocated
    assert_raise ExCubecl.Error, ~r/the tensor was deallocated/, fn -> Nx.sum(x) end
    assert_raise ExCubecl.Error, ~r/the tensor was deallocated/, fn -> Nx.to_binary(x) end
  end

  test "memory that tensors share is freed with the last of them", %{device: device} do
    before = live(device)

    # The handles of deallocated tensors share the memory, too, until the process ends.
    in_process(fn ->
      x = large()
      views = [Nx.reshape(x, {4, 65_536}), Nx.reverse(x), Nx.slice(x, [5], [10])]
      assert live(device) - before == 4 * @elements
      assert Nx.backend_deallocate(x) == :ok
      assert live(device) - before == 4 * @elements
      assert Enum.map(views, &Nx.to_number(Nx.reduce_max(&1))) == [262_143.0, 262_143.0, 14.0]
      Enum.each(views, &Nx.backend_deallocate/1)
    end)

    assert eventually(fn -> live(device) == before end)
  end

  defp in_process(fun) do
    backend = Nx.default_backend()

    Task.await(
      Task.async(fn ->
        Nx.default_backend(backend)
        fun.()
      end),
      :infinity
    )
  end

  defp eventually(check, tries \\ 6000),
    do: check.() or (tries > 0 and Process.sleep(10) == :ok and eventually(check, tries - 1))

  test "handles that are garbage do not delay it", %{device: device} do
    before = live(device)
    x = large()
    for _ <- 1..10, do: Nx.reshape(x, {512, 512})
    assert Nx.backend_deallocate(x) == :ok
    # Handles that the collection of `backend_deallocate/1` did not find are freed by a full one.
    assert eventually(fn -> :erlang.garbage_collect() and live(device) == before end)
  end

  test "a tensor deallocated by one process is refused in another one" do
    x = large()
    task = Task.async(fn -> receive(do: (:go -> catch_error(Nx.sum(x)))) end)
    Nx.backend_deallocate(x)
    send(task.pid, :go)
    assert %ExCubecl.Error{reason: :stale} = Task.await(task, :infinity)
  end

  test "views and batches copy nothing", %{device: device} do
    x = Nx.reshape(large(), {1024, 256})
    before = live(device)

    views = [
      Nx.transpose(x),
      Nx.slice(x, [1, 1], [100, 100], strides: [3, 2]),
      Nx.reverse(x),
      Nx.broadcast(x, {10, 1024, 256}),
      Nx.squeeze(Nx.new_axis(x, 0)) | Enum.to_list(Nx.to_batched(x, 128))
    ]

    assert {live(device), length(views)} == {before, 13}
    assert Nx.to_number(List.last(views)[127][255]) == 262_143.0
    assert live(device) - before < @kib
  end

  test "copies and transfers", %{device: device, other: other} do
    x = Nx.transpose(Nx.iota({2, 100}, type: :s32))
    expected = Nx.to_binary(x)

    for {backend, where} <- [
          {{Backend, device: other}, other},
          {{Backend, device: device}, device}
        ] do
      copy = Nx.backend_copy(x, backend)
      assert {copy.data.config.device, Nx.to_binary(copy)} == {where, expected}
      # The copy has memory of its own.
      Nx.backend_deallocate(copy)
      assert Nx.to_binary(x) == expected
    end

    back = Nx.backend_transfer(x, Nx.BinaryBackend)
    assert %Nx.BinaryBackend{} = back.data
    assert Nx.to_binary(back) == expected
    assert_raise ExCubecl.Error, fn -> Nx.sum(x) end
    again = Nx.backend_transfer(back, {Backend, device: other})
    assert {again.data.config.device, Nx.to_binary(again)} == {other, expected}
  end

  test "out of memory raises after garbage was collected, and leaves everything usable", %{
    device: device
  } do
    x = large()
    :ok = Memory.set_limit(live(device) + 4 * @elements, device: device)
    # Each result is garbage, which makes room for the next one.
    for n <- 1..5, do: Nx.add(x, n)
    kept = Nx.add(x, 1)
    error = assert_raise ExCubecl.Error, fn -> Nx.add(kept, x) end
    assert {error.reason, error.details.device} == {:limit_exceeded, device}
    assert Nx.to_number(x[10]) == 10.0
    assert Nx.to_number(kept[10]) == 11.0
    :ok = Memory.set_limit(nil, device: device)
    assert Nx.to_number(Nx.add(kept, x)[10]) == 21.0
  end

  test "serving", %{device: device} do
    serving =
      Nx.Serving.new(fn opts -> Nx.Defn.jit(&Nx.multiply(&1, 2), opts) end)
      |> Nx.Serving.process_options(batch_size: 4)

    name = start_supervised!({Nx.Serving, name: __MODULE__, serving: serving}) && __MODULE__

    results =
      1..8
      |> Task.async_stream(
        fn n ->
          Nx.default_backend({Backend, device: device})
          batch = Nx.Batch.stack([Nx.broadcast(Nx.tensor(n), {100}) |> Nx.add(Nx.iota({100}))])
          Nx.to_number(Nx.Serving.batched_run(name, batch)[0][99])
        end,
        timeout: :infinity
      )
      |> Enum.map(&elem(&1, 1))

    assert results == for(n <- 1..8, do: 2 * (n + 99))
  end

  test "serialization and vectorized tensors" do
    x = Nx.transpose(Nx.iota({20, 30}))
    assert x |> Nx.serialize() |> Nx.deserialize() |> Nx.to_binary() == Nx.to_binary(x)
    sums = x |> Nx.vectorize(:row) |> Nx.sum() |> Nx.devectorize()
    assert Nx.to_flat_list(sums) == for(c <- 0..29, do: Enum.sum(for r <- 0..19, do: 30 * r + c))
  end

  test "16 processes at once", %{device: device} do
    results =
      1..16
      |> Task.async_stream(
        fn n ->
          Nx.default_backend({Backend, device: device, host_limit: 0})
          x = Nx.add(Nx.iota({50, 20}, type: :s64), n)
          product = Nx.dot(x, Nx.transpose(x))
          {Nx.to_number(Nx.sum(product)), Nx.to_number(Nx.reduce_max(Nx.transpose(x)))}
        end,
        max_concurrency: 16,
        timeout: :infinity
      )
      |> Enum.map(&elem(&1, 1))

    assert results ==
             for(n <- 1..16, do: {Enum.sum(for column <- columns(n), do: column ** 2), 999 + n})
  end

  # The sum of all products of rows is the sum of the squares of the sums of the columns.
  defp columns(n), do: for(c <- 0..19, do: Enum.sum(for r <- 0..49, do: 20 * r + c + n))

  test "first fallbacks at once are all counted" do
    x = Nx.iota({100}, type: :f32)
    # No expression of scalars.
    fun = &Nx.sum(Nx.stack([&1, &2]))

    for {name, call} <- [
          reduce: fn -> Nx.reduce(x, 0.0, fun) end,
          window_reduce: fn -> Nx.window_reduce(x, 0.0, {2}, fun) end
        ] do
      before = count(name)
      tasks = for _ <- 1..16, do: Task.async(call)
      Task.await_many(tasks, :infinity)
      assert {name, count(name) - before} == {name, 16}
    end
  end

  defp count(name) do
    Enum.sum(for {{operation, {:f, 32}, _}, n} <- Backend.fallbacks(), operation == name, do: n)
  end
end
