defmodule ExCubecl.Soak do
  @moduledoc false
  # Processes that make random calls of everything, on several devices with memory limits, and die at random, for a
  # given time. At the end of each round all of them have exited, and the live bytes must be zero. The memory of the
  # VM must stay at the level after the first rounds. The calls of a worker depend on the seed, its slot and its
  # generation; the order in which workers get buffers of a shared pool does not.

  alias ExCubecl.{Arena, Buffer, Device, Memory, Pool}
  alias ExCubecl.Soak.Worker

  @slots 12
  @rounds 6
  @warm_up 3
  @mib 1024 * 1024
  @limits [48 * @mib, 24 * @mib, 6 * @mib]

  @doc "Runs for this many seconds; raises on a failure, with the seed in the message."
  def run(seconds, seed) do
    Process.flag(:trap_exit, true)
    IO.puts("soak: #{seconds} s, SOAK_SEED=#{seed}")
    world = world(seed)
    length = div(seconds * 1000, @rounds)

    levels =
      for round <- 1..@rounds do
        done = round(world, round, System.monotonic_time(:millisecond) + length)
        level = quiet(world)

        IO.puts(
          "soak: round #{round} of #{@rounds}: #{done.generations} processes, #{done.steps} steps, " <>
            "#{done.refused} refused for want of room, #{done.lost} lost devices; resident #{mib(level)}"
        )

        level
      end

    # The driver allocates its blocks of host memory, 16 to 64 MiB each, one by one in the first minutes.
    most = if seconds < 300, do: 20, else: 5
    compare(Enum.at(levels, @warm_up - 1), List.last(levels), most, seed)
  end

  defp world(seed) do
    {runtime, _} = first = ExCubecl.default_device!()
    others = for index <- [9001, 9002], do: open(first, {runtime, index})
    devices = [first | others]

    for {device, limit} <- Enum.zip(devices, @limits),
        do: :ok = Memory.set_limit(limit, device: device)

    %{seed: seed, devices: devices, limits: Enum.zip(devices, @limits)}
  end

  defp open(first, id) do
    {:ok, %Device{id: id}} = Device.open(first, as: id)
    id
  end

  # The pools and arenas that the workers share live for one round.
  defp round(world, round, until) do
    pools =
      for device <- world.devices do
        {:ok, pool} = Pool.start_link(size: 40_000, max: 4, device: device)
        pool
      end

    arenas = for device <- world.devices, do: Arena.per_process!(16_384, device: device)
    counts = :counters.new(3, [])
    shared = Map.merge(world, %{pools: pools, arenas: arenas, counts: counts, control: self()})
    # Warm-up has more load than later rounds: a flood, twice the workers, many device losses.
    if round <= @warm_up, do: Enum.each(world.devices, &flood/1)
    {slots, rare} = if round <= @warm_up, do: {2 * @slots, 40}, else: {@slots, 200}
    shared = Map.put(shared, :rare, rare)
    workers = Map.new(1..slots, &{Worker.start(shared, {round, &1, 1}), {round, &1, 1}})

    :rand.seed(:exsss, {world.seed, round, 0})
    {workers, lost} = tend(workers, shared, until, 0)
    Enum.each(Map.keys(workers), &stop/1)
    Enum.each(pools, &stop/1)

    %{
      generations: :counters.get(counts, 1),
      steps: :counters.get(counts, 2),
      refused: :counters.get(counts, 3),
      lost: lost
    }
  end

  # The driver keeps a block of host memory for transfers that grows with the number of concurrent transfers.
  defp flood(device) do
    buffer = Buffer.full!([1_500_000], :u8, 7, device: device)
    transfers = for _ <- 1..40, do: Buffer.read_async!(buffer)
    Enum.each(transfers, &Buffer.await!(&1, 60_000))
  end

  defp tend(workers, shared, until, lost) do
    wait = min(until - System.monotonic_time(:millisecond), :rand.uniform(40))

    receive do
      {:EXIT, pid, reason} -> workers |> replace(pid, reason, shared) |> tend(shared, until, lost)
      {:wrong, what} -> fail(what, shared.seed)
    after
      max(wait, 0) ->
        cond do
          wait <= 0 -> {workers, lost}
          :rand.uniform(shared.rare) == 1 -> tend(workers, shared, until, lost + lose(shared))
          true -> tend(disturb(workers), shared, until, lost)
        end
    end
  end

  # Kills a random worker, at any point of its work, or makes it give a buffer to another one.
  defp disturb(workers) do
    {pid, _} = Enum.random(workers)
    {other, _} = Enum.random(workers)
    if :rand.uniform(3) == 1, do: Process.exit(pid, :kill), else: send(pid, {:give, other})
    workers
  end

  # Resets the last device, with all its buffers.
  defp lose(shared) do
    {device, limit} = List.last(shared.limits)
    :ok = Device.reset(device)
    :ok = Memory.set_limit(limit, device: device)
    1
  end

  defp replace(workers, pid, reason, shared) do
    case Map.pop(workers, pid) do
      {nil, workers} ->
        workers

      {{round, slot, generation} = name, workers} ->
        unless reason in [:normal, :killed, :bored], do: fail({name, reason}, shared.seed)
        name = {round, slot, generation + 1}
        Map.put(workers, Worker.start(shared, name), name)
    end
  end

  defp fail(what, seed),
    do:
      raise("SOAK_SEED=#{seed}: #{inspect(what, pretty: true, limit: 60, printable_limit: 300)}")

  defp stop(pid) do
    monitor = Process.monitor(pid)
    Process.unlink(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, _, _, _} -> :ok
    end
  end

  # No worker is left, so no memory may be live.
  defp quiet(world, tries \\ 500) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)

    left =
      for device <- world.devices,
          usage = Memory.usage!(device: device),
          do: {usage.live_bytes, usage.live_buffers}

    cond do
      Enum.all?(left, &(&1 == {0, 0})) ->
        for device <- world.devices, do: Memory.trim!(device: device)
        resident()

      tries == 0 ->
        fail(
          {:left_behind, left, Enum.map(world.devices, &Memory.report!(device: &1))},
          world.seed
        )

      true ->
        Process.sleep(10)
        quiet(world, tries - 1)
    end
  end

  defp resident do
    case File.read("/proc/self/status") do
      {:ok, status} ->
        [_, kib] = Regex.run(~r/VmRSS:\s+(\d+) kB/, status)
        String.to_integer(kib) * 1024

      {:error, _} ->
        nil
    end
  end

  defp mib(nil), do: "unknown"
  defp mib(bytes), do: "#{Float.round(bytes / @mib, 1)} MiB"

  defp compare(nil, _last, _most, _seed),
    do: IO.puts("soak: passed; resident memory is not known here")

  defp compare(first, last, most, seed) do
    growth = Float.round(100 * (last - first) / first, 2)
    if growth > most, do: fail({:resident_memory_grew, growth, :percent}, seed)
    IO.puts("soak: passed; resident memory #{growth} % from the level after warm-up")
  end
end
