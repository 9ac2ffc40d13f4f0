defmodule ExCubecl.TelemetryTest do
  # The events, received through a module that replaces the `:telemetry` library, so that the test does not need
  # Hex. It has the functions that ExCubecl calls, as the library documents them.
  use ExCubecl.Case, async: false

  setup do
    # Garbage that earlier tests left in the runner would be collected, with events, during these tests.
    settled()
    :persistent_term.put(:heard_by, self())

    {:module, :telemetry, _, _} =
      Module.create(
        :telemetry,
        quote do
          def execute([:ex_cubecl, event], measurements, metadata) do
            heard_by = :persistent_term.get(:heard_by)
            send(heard_by, {event, measurements, metadata})

            if event == :free and :persistent_term.get(:blocks, false) do
              send(heard_by, {:blocked, self()})
              receive do: (:go_on -> :ok)
            end

            :ok
          end

          def list_handlers([:ex_cubecl, :free]), do: :persistent_term.get(:handlers, [:one])
        end,
        Macro.Env.location(__ENV__)
      )

    on_exit(fn ->
      :persistent_term.put(:handlers, [])
      Memory.set_limit(nil)
      gone()
      :code.purge(:telemetry)
      :code.delete(:telemetry)
      :code.purge(:telemetry)
      :persistent_term.erase(:handlers)
    end)
  end

  # The process that reports frees exits when no handler is attached any more. It looks after each message, and once in a second.
  defp gone do
    monitor = Process.monitor(ExCubecl.Telemetry)
    if pid = Process.whereis(ExCubecl.Telemetry), do: send(pid, :look)
    assert_receive {:DOWN, ^monitor, _, _, _}, 60_000
  end

  test "what is sent to the process that tells of frees by mistake does not end it or stay with it" do
    ExCubecl.buffer!([1], [1], :u8)
    pid = Process.whereis(ExCubecl.Telemetry)
    for junk <- [:junk, {:freed, 1, 2}, {:freed, %{}, 5}, {self(), :junk}], do: send(pid, junk)
    waiting(pid, 0, 500)
    assert Process.alive?(pid)
    # After a kill the next buffer starts a new process.
    Process.exit(pid, :kill)
    gone()
    ExCubecl.buffer!([1], [1], :u8)
    assert is_pid(Process.whereis(ExCubecl.Telemetry))
  end

  test "frees wait for a handler that blocks only up to a bound; the others are counted" do
    :persistent_term.put(:blocks, true)
    on_exit(fn -> :persistent_term.erase(:blocks) end)
    Task.await(Task.async(fn -> ExCubecl.buffer!([1], [1], :u8).shape end), :infinity)
    assert_receive {:blocked, pid}, 60_000
    make = fn -> for(_ <- 1..10_500, do: ExCubecl.buffer!([1], [1], :u8)) && :ok end
    Task.await(Task.async(make), :infinity)
    settled()
    # One of 10,000 is with the handler.
    waiting(pid, 9_999, 6_000)
    :persistent_term.put(:blocks, false)
    send(pid, :go_on)
    assert_receive {:free_missed, %{count: missed}, %{}}, 60_000
    waiting(pid, 0, 6_000)
    assert missed >= 501
    assert told(0) + missed >= 10_501
  end

  defp told(count) do
    receive do
      {:free, _, _} -> told(count + 1)
    after
      0 -> count
    end
  end

  # So many messages wait in the end, and no more.
  defp waiting(pid, count, tries) do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, ^count} -> :ok
      _ when tries > 0 -> Process.sleep(10) && waiting(pid, count, tries - 1)
    end
  end

  test "launches of kernels are told, and what was compiled before" do
    require ExCubecl.Kernel
    device = ExCubecl.default_device!()
    kernel = ExCubecl.Kernel.kernel(fn x -> x * 2 + 987 end)
    x = ExCubecl.buffer!([1, 2, 3], [3], :s32)
    for _ <- 1..2, do: ExCubecl.Kernel.run!(kernel, [x])
    metadata = %{device: device, kernel: :kernel}
    assert_received {:compile, %{duration: _}, ^metadata}
    assert_received {:launch, %{bytes: 12, duration: _}, ^metadata}
    assert_received {:launch, %{bytes: 12}, ^metadata}
    refute_received {:compile, _, _}
    copy = ExCubecl.Kernel.kernel(fn x, out -> out[index()] = x[index()] end)
    :ok = ExCubecl.Kernel.run(copy, [x, Buffer.empty!([5], :f64)])
    assert_received {:launch, %{bytes: 40}, _}
    {:error, _} = ExCubecl.Kernel.run(copy, [x, x])
    refute_received {:launch, _, _}
  end

  test "kernels of a batch are told by name in one event, and a product of the device's library as a launch" do
    device = ExCubecl.default_device!()
    x = ExCubecl.buffer!([1, 2, 3], [3], :s32)
    batch = ExCubecl.Batch.new() |> ExCubecl.Batch.fill(x, 1) |> ExCubecl.Batch.fill(x, 2)
    :ok = ExCubecl.Batch.submit(batch)
    assert_received {:batch, %{count: 2, duration: _}, %{device: ^device, kernels: [name, name]}}
    assert is_atom(name)
    refute_received {:launch, _, _}
    {:error, _} = ExCubecl.Batch.submit(ExCubecl.Batch.fill(ExCubecl.Batch.new(), :unbound, 1))
    refute_received {:batch, _, _}
  end

  test "what the device took is told where it is measured" do
    x = ExCubecl.Ops.iota!([100_000], :f32)
    {:ok, {_, timing}} = ExCubecl.Kernel.profile(fn -> ExCubecl.Ops.sqrt!(x) end)
    assert_received {:profile, %{device_time: device_time, duration: duration}, %{clock: clock}}
    nanoseconds = &System.convert_time_unit(&1, :native, :nanosecond)

    assert {nanoseconds.(device_time), nanoseconds.(duration)} ==
             {timing.device_time, timing.time}

    assert clock == timing.clock
  end

  test "the memory of open devices is told when it is measured" do
    device = ExCubecl.default_device!()
    buffer = Buffer.zeros!([1000], :u8)
    assert ExCubecl.Telemetry.measure_memory() == :ok

    assert_received {:memory, %{live_bytes: live, live_buffers: count} = measured,
                     %{device: ^device}}

    assert live >= 1000 and count >= 1 and measured.peak_bytes >= live
    assert Buffer.size!(buffer) == 1000
  end

  test "fills and copies are told with their bytes and devices" do
    device = ExCubecl.default_device!()
    buffer = Buffer.zeros!([10], :f32)
    assert_received {:fill, %{bytes: 40, duration: _}, %{device: ^device, dtype: :f32}}
    Buffer.fill!(buffer, 2)
    assert_received {:fill, %{bytes: 40}, _}
    Buffer.convert!(buffer, :u8)
    metadata = %{device: device, source: device, dtype: :u8}
    assert_received {:copy, %{bytes: 10, duration: _}, ^metadata}
    Buffer.copy!(buffer, Buffer.empty!([10], :f32))
    assert_received {:copy, %{bytes: 40}, %{dtype: :f32}}
    {:ok, %{id: other}} = Device.open(device, as: {elem(device, 0), 7556})
    Buffer.transfer!(buffer, other)
    assert_received {:copy, %{bytes: 40}, %{device: ^other, source: ^device}}
    {:error, _} = Buffer.copy(buffer, Buffer.empty!([11], :f32))
    {:error, _} = Buffer.fill(buffer, "x")
    refute_received {:copy, _, _}
    refute_received {:fill, _, _}
  end

  test "making, reading, writing and freeing are told with their bytes" do
    device = ExCubecl.default_device!()
    me = self()

    Task.await(
      Task.async(fn -> ExCubecl.buffer!([1, 2, 3], [3], :s16, tag: :t).shape end),
      :infinity
    )

    assert_receive {:allocate, %{bytes: 6, duration: took}, %{device: ^device}}
    assert took > 0
    assert_receive {:upload, %{bytes: 6, duration: _}, %{device: ^device, dtype: :s16}}

    assert_receive {:free, %{bytes: 6, duration: _}, %{dtype: :s16, shape: [3], tag: :t} = freed}

    assert is_pid(freed.owner) and freed.owner != me

    buffer = Buffer.empty!([10], :f32)
    refute_received {:allocate, _, _}
    Buffer.fill!(buffer, 1)
    assert_received {:allocate, %{bytes: 40}, _}
    Buffer.write!(buffer, [1, 2], offset: 3)
    assert_received {:upload, %{bytes: 8}, %{dtype: :f32}}
    refute_received {:allocate, _, _}
    Buffer.read_part!(buffer, 0, 2)
    assert_received {:read, %{bytes: 8, duration: _}, %{dtype: :f32, device: ^device}}
    Buffer.read_all!([buffer, buffer])
    assert_received {:read, %{bytes: 80}, %{dtype: nil}}
    Buffer.to_list!(buffer)
    assert_received {:read, %{bytes: 40}, _}
    assert {:error, _} = ExCubecl.buffer([1], [2], :u8)
    refute_received {:upload, _, _}
  end

  test "a limit that is hit, and the room that was made, are told" do
    {bytes, _} = settled()
    :ok = Memory.set_limit(bytes + 1000)
    assert reason(Buffer.zeros([2000], :u8)) == :limit_exceeded
    assert_received {:limit, %{bytes: 2000}, %{reason: :limit_exceeded}}
    assert_received {:reclaim, %{bytes: 0, duration: took}, %{reason: :limit_exceeded}}
    assert took > 0
    garbage = leave_garbage(900)
    assert {:ok, _} = Buffer.zeros([800], :u8)
    assert_received {:reclaim, %{bytes: freed}, _}
    assert freed >= 0
    Process.exit(garbage, :kill)
  end

  # A process whose buffer is garbage that only a collection from another process finds: it is idle, with room on
  # its heap.
  defp leave_garbage(bytes) do
    parent = self()

    pid =
      spawn(fn ->
        buffer = Buffer.zeros!([bytes], :u8)
        :erlang.garbage_collect()
        send(parent, {:made, Buffer.size!(buffer)})
        Process.sleep(:infinity)
      end)

    assert_receive {:made, ^bytes}
    pid
  end

  test "nobody is told once nobody listens" do
    :persistent_term.put(:handlers, [])
    gone()
    Task.await(Task.async(fn -> ExCubecl.buffer!([1], [1], :u8).shape end), :infinity)
    settled()
    refute_received {:free, _, _}
  end
end
