defmodule ExCubecl.NxCompilerFaultsTest do
  # Compiled functions whose device, arguments or processes go away, and that several processes call.
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, Device, Error, Memory}

  setup do
    Nx.default_backend(Nx.BinaryBackend)
    {:ok, {runtime, _} = device} = ExCubecl.default_device()
    id = Device.open!(device, as: {runtime, 1_740}).id

    on_exit(fn ->
      Device.reset(id)
      Device.remove(id)
    end)

    %{device: id, adapter: device, x: Nx.iota({1000}, type: :f32)}
  end

  defp compiled(fun, x, device),
    do: Nx.Defn.compile(fun, [x], compiler: ExCubecl, device: device)

  defp double(x), do: Nx.sum(Nx.multiply(x, 2))

  test "a device that is removed after the compilation, and opened again", %{x: x} = context do
    %{device: device, adapter: adapter} = context
    fun = compiled(&double/1, x, device)
    assert Nx.to_number(fun.(x)) == 999_000.0
    on_device = Nx.backend_copy(x, {Backend, device: device})
    :ok = Device.reset(device)
    error = assert_raise Error, fn -> fun.(on_device) end
    assert error.reason in [:stale, :device_lost]
    assert Nx.to_number(fun.(x)) == 999_000.0
    :ok = Device.reset(device)
    :ok = Device.remove(device)
    assert_raise Error, ~r/no device/, fn -> fun.(x) end
    Device.open!(adapter, as: device)
    assert Nx.to_number(fun.(x)) == 999_000.0
  end

  test "arguments that were deallocated, and those of other devices", %{x: x} = context do
    %{device: device, adapter: adapter} = context

    for on <- [device, adapter], fun <- [&double/1, & &1, &Nx.reshape(&1, {10, 100})] do
      y = Nx.backend_copy(x, {Backend, device: on})
      fun = compiled(fun, x, device)
      result = fun.(y)
      assert result.data.config.device == device
      Nx.backend_deallocate(y)
      assert_raise Error, ~r/deallocated/, fn -> y |> fun.() |> Nx.to_binary() end
    end
  end

  test "processes that are killed leave no memory", %{device: device} do
    x = Nx.backend_copy(Nx.eye(300, type: :f32), {Backend, device: device})

    fun =
      compiled(
        fn x -> Enum.reduce(1..10, x, fn _, y -> Nx.add(Nx.dot(y, x), 1) end) end,
        x,
        device
      )

    expected = Nx.to_binary(fun.(x))
    :erlang.garbage_collect()

    for pause <- [0, 1, 2, 5, 10] do
      {pid, monitor} = spawn_monitor(fn -> fun.(x) end)
      Process.sleep(pause)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, _}, 60_000
    end

    assert settles?(fn -> Memory.usage!(device: device).live_bytes == 4 * 300 * 300 end)
    assert Nx.to_binary(fun.(x)) == expected
  end

  defp settles?(condition, tries \\ 3000) do
    :erlang.garbage_collect()
    condition.() or (tries > 0 and Process.sleep(20) == :ok and settles?(condition, tries - 1))
  end

  test "one function in 16 processes", %{device: device, x: x} do
    fun = compiled(&double/1, x, device)

    sums =
      1..16
      |> Task.async_stream(&Nx.to_number(fun.(Nx.add(x, &1))),
        max_concurrency: 16,
        timeout: :infinity
      )
      |> Enum.map(&elem(&1, 1))

    assert sums == for(n <- 1..16, do: 999_000.0 + 2000 * n)
  end
end
