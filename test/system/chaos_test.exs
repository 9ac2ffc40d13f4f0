defmodule ExCubecl.ChaosTest do
  # Processes with pools, arenas and buffers that are killed at any moment leak no memory.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Arena, Pool}

  @processes 1_000

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
    assert %{available: n, allocated: n} = Pool.stats!(pool), "seed #{seed}"
    for _ <- 1..50, do: {:ok, _} = Pool.checkout(pool, timeout: 1000)
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
