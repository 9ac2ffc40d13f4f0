defmodule ExCubecl.LifetimeTest do
  # Memory lives exactly as long as a process can reach it.
  use ExCubecl.Case, async: false

  test "ten thousand buffers of short-lived processes leave nothing behind" do
    before = settled()

    for _ <- 1..100 do
      tasks =
        for i <- 1..10 do
          Task.async(fn ->
            for j <- 1..10,
                do: ExCubecl.buffer!(:binary.copy(<<j>>, i * 100), [i * 100], :u8) && :ok
          end)
        end

      Task.await_many(tasks, :infinity)
    end

    eventually(before)
  end

  test "a handle that was sent on outlives the process that made it" do
    before = settled()
    parent = self()
    pid = spawn(fn -> send(parent, {:buffer, ExCubecl.buffer!([1, 2, 3], [3], :u8)}) end)
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, _, _}
    assert_receive {:buffer, buffer}
    assert elem(live(), 1) == elem(before, 1) + 1
    assert ExCubecl.read!(buffer) == <<1, 2, 3>>
  end

  test "a view keeps the whole storage alive" do
    {bytes, _} = settled()
    view = Buffer.view!(Buffer.zeros!([1000], :u8), 999, [1])
    :erlang.garbage_collect()
    :erlang.yield()
    assert elem(live(), 0) >= bytes + 1000
    assert ExCubecl.read!(view) == <<0>>
  end

  test "a large binary outlives its buffer unchanged" do
    data = :crypto.strong_rand_bytes(4_194_304)
    binary = ExCubecl.read!(ExCubecl.buffer!(data, [4_194_304], :u8))
    :erlang.garbage_collect()
    for _ <- 1..5, do: ExCubecl.read!(Buffer.full!([4_194_304], :u8, 1))
    Memory.trim!()
    assert binary == data
  end

  test "a process that makes and drops large buffers under a limit never fails" do
    {bytes, _} = settled()
    :ok = Memory.set_limit(bytes + 128 * 1_048_576)

    try do
      Enum.each(1..300, fn _ -> assert {:ok, _} = Buffer.zeros([16 * 1_048_576], :u8) end)
    after
      Memory.set_limit(nil)
    end
  end

  test "dropped buffers do not pile up" do
    :erlang.garbage_collect()
    :erlang.yield()
    {bytes, _} = settled()
    :ok = Memory.reset_peak()
    Enum.each(1..2_000, fn _ -> Buffer.zeros!([1_048_576], :u8) end)
    assert Memory.usage!().peak_bytes - bytes < 192 * 1_048_576
  end

  test "a hundred uploads in a row do not fill the memory of the VM" do
    script = ~S"""
    rss = fn ->
      [_, kib] = Regex.run(~r/VmRSS:\s+(\d+)/, File.read!("/proc/self/status"))
      div(String.to_integer(kib), 1024)
    end

    size = 16 * 1024 * 1024
    data = :binary.copy(<<7>>, size)
    buffer = ExCubecl.buffer!(data, [size], :u8)
    ExCubecl.Buffer.synchronize(buffer)
    start = rss.()
    most = fn call -> Enum.max(for _ <- 1..100, do: call.() && rss.() - start) end
    IO.inspect(most.(fn -> ExCubecl.Buffer.write!(buffer, data) end))
    # Up to 64 MiB of dropped ones are not collected yet.
    IO.inspect(most.(fn -> ExCubecl.buffer!(data, [size], :u8).shape end))
    """

    if File.exists?("/proc/self/status") do
      assert {out, "", 0} = in_own_vm(script, [])
      [in_place, fresh] = out |> String.split() |> Enum.map(&String.to_integer/1)
      assert in_place <= 64
      assert fresh <= 64 + 64
    end
  end
end
