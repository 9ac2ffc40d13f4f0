defmodule ExCubecl.BusyDeviceTest do
  # A device that is busy for long delays only the callers that need the results of its work.
  use ExCubecl.Case, async: false

  require ExCubecl.Kernel

  alias ExCubecl.{Arena, Batch, Busy, Kernel, Ops, Pool, Replicated}

  @moduletag timeout: 600_000

  defp other_device do
    {:ok, {runtime, _} = on} = ExCubecl.default_device()
    id = {runtime, 977}
    if match?({:error, _}, Device.info(id)), do: {:ok, _} = Device.open(on, as: id)
    id
  end

  # Runs `work` on each normal scheduler, by a process that is bound to it.
  defp on_each_scheduler(work) do
    for scheduler <- 1..System.schedulers_online() do
      {pid, monitor} = :erlang.spawn_opt(work, [:monitor, scheduler: scheduler])

      {pid, monitor}
    end
  end

  defp done(processes) do
    for {_, monitor} <- processes, do: assert_receive({:DOWN, ^monitor, _, _, :normal}, 60_000)
  end

  test "while a kernel runs, every scheduler, file, module and other device is free" do
    other = other_device()
    warm = ExCubecl.buffer!([1.0], [1], :f32, device: other)
    assert ExCubecl.to_list!(warm) == [1.0]
    device = ExCubecl.default_device!()
    views = for n <- 1..4, do: ExCubecl.buffer!(List.duplicate(n, 8), [8], :u8)
    {:ok, pool} = Pool.start_link(size: 4, max: 1_000)
    arena = Arena.new!(1_048_576)
    busy = Busy.keep(device, 15)

    callers =
      for n <- 1..32,
          do: Task.async(fn -> call_everything(n, views, pool, arena, {device, other}) end)

    # Every call has started before the first check.
    for _ <- 1..32, do: assert_receive({:called, _}, 60_000)

    for n <- 1..20 do
      done(on_each_scheduler(fn -> Enum.sum(1..1000) end))
      assert {:ok, _} = File.read(__ENV__.file)

      assert [{_, _}] =
               Code.compile_string("defmodule ExCubecl.BusyDeviceTest.Loaded#{n}, do: nil")

      assert ExCubecl.to_list!(ExCubecl.buffer!([2, 3], [2], :u8, device: other)) == [2, 3]
    end

    assert Busy.busy?(busy), "the kernels were done before the other calls: nothing was proved"
    Task.await_many([busy | callers], :infinity)
    GenServer.stop(pool)
    assert {:messages, []} = Process.info(self(), :messages)
  end

  # One call of each kind, the first ones while the device is busy.
  defp call_everything(n, views, pool, arena, {device, other}) do
    parent = Process.get(:"$callers") |> hd()
    [view | _] = Enum.drop(views, rem(n, 4))

    calls = [
      fn -> Buffer.new!(<<n>>, [1], :u8) end,
      fn -> ExCubecl.read!(view) end,
      fn -> Buffer.new!(:binary.copy(<<n>>, 300_000), [300_000], :u8) end,
      fn -> Buffer.new!(Enum.to_list(1..100), [100], :s64) end,
      fn -> Buffer.empty!([9], :f32, lazy: false) end,
      fn -> Buffer.full!([9], :f32, 1) end,
      fn -> Buffer.iota!([9], :f32) end,
      fn -> Buffer.duplicate!(view) end,
      fn -> Buffer.convert!(view, :f32) end,
      fn -> Buffer.copy!(view, Buffer.empty!([8], :u8)) end,
      fn -> Buffer.write!(Buffer.empty!([8], :u8), [1, 2, 3, 4, 5, 6, 7, 8]) end,
      fn -> Buffer.fill!(Buffer.empty!([8], :u8), 1) end,
      fn -> Buffer.transfer!(view, other) end,
      fn -> Buffer.read_part!(view, 1, 2) end,
      fn -> Buffer.read_all!(views) end,
      fn -> Buffer.to_list!(view) end,
      fn -> Buffer.item!(Buffer.view!(view, 0, [1])) end,
      fn -> Buffer.await!(Buffer.read_async!(view)) end,
      fn -> Buffer.synchronize!(view) end,
      fn -> Buffer.pointer(view) end,
      fn -> Buffer.copy_from_pointer(view, 4_096) end,
      fn -> inspect(view) end,
      fn -> Memory.usage!() end,
      fn -> Memory.report!() end,
      fn -> Memory.map!() end,
      fn -> Memory.trim!() end,
      fn -> Memory.set_limit(nil, device: device) end,
      fn -> Device.synchronize(device) end,
      fn -> Device.list() end,
      fn -> Pool.with_buffer!(pool, &Buffer.fill!(&1, 1)) end,
      fn -> Arena.used!(arena) end,
      fn -> Ops.sum!(view) end,
      fn -> Ops.add!(view, 1) end,
      fn -> Kernel.run!(Kernel.kernel(fn x -> x + 1 end), [view]) end,
      fn -> Batch.submit(Batch.fill(Batch.new(), Buffer.empty!([8], :u8), 1), []) end,
      fn -> Replicated.write!(Replicated.new!([2], :u8, devices: [device, other]), [3, 4]) end,
      fn -> Device.adapters!() end
    ]

    {before, behind} = Enum.split(calls, rem(n, length(calls)))
    [first | others] = behind ++ before
    send(parent, {:called, n})
    first.()
    for call <- others, do: call.()
    :ok
  end

  test "an answer that was not waited for leaves no message behind" do
    view = ExCubecl.buffer!(List.duplicate(7, 8), [8], :u8)
    busy = Busy.keep(ExCubecl.default_device!(), 3)
    text = inspect(view)
    assert text =~ "busy" or text =~ "[7, 7"
    Task.await(busy, :infinity)
    assert inspect(view) =~ "[7, 7"
    refute_received _
  end

  test "calls of processes that were killed are not run" do
    target = ExCubecl.buffer!([0], [1], :u8)
    busy = Busy.keep(ExCubecl.default_device!(), 3)
    writers = for _ <- 1..50, do: spawn(fn -> Buffer.write(target, [9]) end)
    for writer <- writers, do: Process.exit(writer, :kill)
    Task.await(busy, :infinity)
    assert ExCubecl.to_list!(target) in [[0], [9]]
    until(fn -> Buffer.ref_count!(target) == 1 end)
  end
end
