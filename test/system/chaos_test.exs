defmodule ExCubecl.ChaosTest do
  # Processes with pools, arenas and buffers that are killed at any moment leak no memory.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Arena, ChaosCalls, Peer, Pool, Replicated}

  @processes 1_000
  @kills 1_000

  test "a thousand processes, killed at random" do
    Memory.trim!()
    before = settled()
    {:ok, pool} = Pool.start_link(size: 1024, max: 50)
    arena = Arena.per_process!(8192)
    seed = :erlang.phash2(make_ref())
    :rand.seed(:exsss, {seed, 1, 2})

    for batch <- Enum.chunk_every(1..@processes, 100) do
      pids = for i <- batch, do: spawn(fn -> live(pool, arena, i, :rand.uniform(1_000_000)) end)

      for pid <- Enum.shuffle(pids) do
        if :rand.uniform(3) == 1, do: Process.sleep(:rand.uniform(5))
        Process.exit(pid, :kill)
      end
    end

    Arena.free!(arena)
    eventually(before)
    until(fn -> match?(%{available: same, allocated: same}, Pool.stats!(pool)) end)
    for _ <- 1..50, do: {:ok, _} = Pool.checkout(pool)
  end

  @tag :nodes
  @tag :tmp_dir
  test "64 processes, killed at random amid every kind of call, on three devices and another node",
       %{tmp_dir: dir} do
    {runtime, _} = first = ExCubecl.default_device!()
    others = for index <- [8_101, 8_102], do: Device.open!(first, as: {runtime, index}).id
    # Distribution ends with the process that started it.
    true = Peer.distributed?()
    {_, node} = peer = Peer.start()
    on_exit(fn -> Peer.stop(peer) end)
    {:ok, [%{id: remote} | _]} = ExCubecl.devices(nodes: [node])
    settled()
    before = accounts([first, remote | others], node)

    {:ok, pool} = Pool.start_link(size: 4096, max: 20)
    arena = Arena.per_process!(100_000)

    replicated =
      Replicated.from!(ChaosCalls.replicated_bytes(0), [4000], :u8, devices: [first | others])

    world = %{
      devices: [first | others],
      remote: remote,
      pool: pool,
      arena: arena,
      replicated: replicated,
      dir: dir
    }

    seed = :rand.uniform(1_000_000_000)
    :rand.seed(:exsss, seed)

    start = fn slot ->
      spawn_monitor(ChaosCalls, :run, [world, {seed, slot, :rand.uniform(1_000_000)}])
    end

    running =
      Enum.reduce(1..@kills, Map.new(1..64, &{&1, start.(&1)}), fn _, running ->
        slot = :rand.uniform(64)
        assert killed(running[slot]) == :killed, "seed #{seed}"
        if :rand.uniform(3) == 1, do: Process.sleep(:rand.uniform(5))
        Map.put(running, slot, start.(slot))
      end)

    for {_, process} <- running, do: assert(killed(process) == :killed, "seed #{seed}")

    assert [[_]] = [Enum.uniq(Replicated.read!(replicated))]
    until(fn -> match?(%{available: same, allocated: same}, Pool.stats!(pool)) end)
    for buffer <- for(_ <- 1..20, do: Pool.checkout!(pool)), do: Pool.checkin!(pool, buffer)
    assert Buffer.size!(Arena.alloc!(arena, [100_000], :u8)) == 100_000
    Arena.free!(arena)
    GenServer.stop(pool)
    for replica <- replicated.buffers, do: Buffer.Handle.release(replica)
    until(fn -> accounts([first, remote | others], node) == before end)
  end

  # How it ended; not as `:killed` if a call failed before.
  defp killed({pid, monitor}) do
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, _, _, reason} -> reason
    end
  end

  # Live bytes and buffers of each device, after the garbage of both nodes is collected.
  defp accounts(devices, node) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)

    for pid <- :erpc.call(node, Process, :list, []),
        do: :erpc.call(node, :erlang, :garbage_collect, [pid])

    for device <- devices do
      usage = Memory.usage!(device: device)
      {usage.live_bytes, usage.live_buffers}
    end
  end

  # A wrong byte stops the whole test run, because no other process would notice a failure of this one.
  defp live(pool, shared, i, seed) do
    :rand.seed(:exsss, {seed, i, 3})
    step(:rand.uniform(6), pool, shared, rem(i, 256))
    live(pool, shared, i, seed + 1)
  end

  defp step(1, pool, _shared, byte) do
    with {:ok, buffer} <- Pool.checkout(pool, timeout: 5) do
      same!(buffer, byte)
      if :rand.uniform(2) == 1, do: Pool.checkin(pool, buffer)
    end
  end

  defp step(2, _pool, _shared, byte) do
    Arena.scoped(4096, fn arena -> same!(Arena.alloc!(arena, [1000], :u8), byte) end)
  end

  defp step(3, _pool, shared, byte) do
    with {:ok, tensor} <- Arena.alloc(shared, [500], :u8), do: same!(tensor, byte)
    if :rand.uniform(3) == 1, do: Arena.reset(shared)
  end

  defp step(4, _pool, _shared, byte) do
    buffer = ExCubecl.Pool.get_buffer!(5000)
    same!(buffer, byte)
    if :rand.uniform(2) == 1, do: ExCubecl.Pool.return_buffer(buffer)
  end

  defp step(5, _pool, _shared, byte), do: same!(Buffer.empty!([3000], :u8), byte)

  defp step(6, _pool, _shared, byte) do
    {:ok, own} = Pool.start_link(size: 512, max: 2)
    same!(Pool.checkout!(own), byte)
    Process.unlink(own)
    Process.exit(own, :kill)
  end

  defp same!(buffer, byte) do
    :ok = Buffer.fill(buffer, byte)
    {:ok, bytes} = Buffer.read(buffer)

    if bytes != :binary.copy(<<byte>>, byte_size(bytes)),
      do: :erlang.halt("somebody else's byte was read")
  end
end
