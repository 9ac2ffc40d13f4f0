defmodule ExCubecl.Schedule do
  @moduledoc false
  # Measures how long calls with large arguments occupy a normal scheduler: the long schedules that the VM
  # reports, and the delays of a process that is bound to each scheduler.

  alias ExCubecl.{Batch, Buffer, Busy, Device, Memory, Sweep}

  require ExCubecl.Kernel

  @long 5

  # These would stop the kernels that keep the device busy, and break the other calls.
  @not_called [{Device, :reset}, {Device, :reset!}, {Memory, :set_limit}, {Memory, :set_limit!}]

  @doc "Calls every public function with large arguments of each kind, and prints the measurements."
  def large_arguments(only \\ nil) do
    hearts = hearts()
    # A limit would refuse all other calls.
    base = Map.put(Sweep.values(), {Memory, :set_limit, :bytes}, nil)
    IO.puts("| arguments | calls | long schedules | heartbeat | of a call that does nothing |")
    IO.puts("|---|---|---|---|---|")

    for {kind, values} <- large(base), only in [nil, kind] do
      changed = MapSet.new(Map.values(values), &:erlang.phash2/1)

      rows =
        for {module, name, args} <- Sweep.calls(Map.merge(base, values)),
            Enum.any?(args, &MapSet.member?(changed, :erlang.phash2(&1))),
            do: {module, name, args, measured(module, name, args, hearts)}

      print(kind, rows, hearts)
    end
  end

  defp print(kind, rows, hearts) do
    gap = rows |> Enum.map(fn {_, _, _, {_, _, gap}} -> gap end) |> Enum.max()
    # The cost of passing such arguments to a function that does nothing.
    idle =
      for {_, _, args, _} <- rows do
        {_, _, gap} = measured(Function, :identity, [args], hearts)
        gap
      end

    long =
      for {module, name, args, {_, [_ | _] = long, _}} <- rows, do: {module, name, args, long}

    columns = [kind, length(rows), length(long), ms(gap), ms(Enum.max(idle))]
    IO.puts("| " <> Enum.join(columns, " | ") <> " |")

    for {module, name, args, long} <- long,
        line <- long,
        do: IO.puts(:stderr, "#{inspect(module)}.#{name}/#{length(args)}: #{line}")

    for {module, name, args, {:timeout, _, _}} <- rows,
        do: IO.puts(:stderr, "#{inspect(module)}.#{name}/#{length(args)} did not end")
  end

  defp ms(microseconds), do: "#{Float.round(microseconds / 1000, 1)} ms"

  @doc "Calls every public function from 32 processes while the device is busy, and prints delays."
  def busy_device do
    hearts = hearts()
    {:ok, {runtime, _} = on} = ExCubecl.default_device()
    {:ok, _} = Device.open(on, as: {runtime, 977})
    other = {runtime, 977}
    ExCubecl.read!(ExCubecl.buffer!([1.0], [1], :f32, device: other))
    # All calls except those that reset the device or set a limit.
    calls =
      for {module, name, _} = call <- Sweep.calls(Sweep.values()),
          {module, name} not in @not_called,
          do: call

    busy = Busy.keep(on, 30)
    for _ <- 1..32, do: spawn(fn -> call_all(Enum.shuffle(calls)) end)
    Process.sleep(100)
    longest(hearts)
    :erlang.system_monitor(self(), long_schedule: 20)
    probes = probes(other, busy, [])
    :erlang.system_monitor(:undefined)
    for line <- long_schedules(nil), do: IO.puts(:stderr, line)
    IO.puts("| while kernels run and 32 processes call | longest of #{length(probes)} | median |")
    IO.puts("|---|---|---|")
    beat = longest(hearts)
    IO.puts("| heartbeat of a scheduler | #{ms(beat)} | |")

    for {name, at} <- [{"File.read", 0}, {"loading a module", 1}, {"a read on another device", 2}] do
      times = probes |> Enum.map(&elem(&1, at)) |> Enum.sort()
      median = Enum.at(times, div(length(times), 2))
      IO.puts("| #{name} | #{ms(List.last(times))} | #{ms(median)} |")
    end

    # Purging a module waits for every process: what the VM takes without any device.
    times = beside_calculations(fn -> for _ <- 1..200, do: time(&load_module/0) end)
    [median, longest] = [Enum.at(Enum.sort(times), 100), Enum.max(times)]

    IO.puts(
      "| loading a module beside 32 processes that only calculate | #{ms(longest)} | #{ms(median)} |"
    )
  end

  defp beside_calculations(work) do
    calculating = for _ <- 1..32, do: spawn(&calculate/0)
    Process.sleep(100)
    result = work.()
    Enum.each(calculating, &Process.exit(&1, :kill))
    result
  end

  defp calculate do
    Enum.sum(Enum.map(1..2000, &(&1 * &1)))
    calculate()
  end

  defp call_all(calls) do
    for {module, name, args} <- calls, do: ended(module, name, args)
  end

  defp probes(other, busy, probes) do
    if Busy.busy?(busy) and length(probes) < 200 do
      probe = {
        time(fn -> {:ok, _} = File.read(__ENV__.file) end),
        time(&load_module/0),
        time(fn -> ExCubecl.read!(ExCubecl.buffer!([2, 3], [2], :u8, device: other)) end)
      }

      probes(other, busy, [probe | probes])
    else
      probes
    end
  end

  defp load_module do
    :code.purge(ExCubecl.Conversion)
    {:module, _} = :code.load_file(ExCubecl.Conversion)
  end

  defp time(work), do: work |> :timer.tc() |> elem(0)

  defp hearts, do: for(scheduler <- 1..System.schedulers_online(), do: heart(scheduler))

  # A process that is bound to a scheduler and records the longest time for which it could not run.
  defp heart(scheduler) do
    :erlang.spawn_opt(fn -> beat(0, now()) end, scheduler: scheduler, priority: :high)
  end

  defp beat(longest, last) do
    receive do
      {:longest, from} ->
        send(from, {self(), longest})
        beat(0, now())
    after
      1 ->
        now = now()
        beat(max(longest, now - last), now)
    end
  end

  defp longest(hearts) do
    Enum.max(
      for heart <- hearts do
        send(heart, {:longest, self()})
        receive do: ({^heart, longest} -> longest)
      end
    )
  end

  defp now, do: System.monotonic_time(:microsecond)

  # The best of up to four measurements, which other load disturbed the least.
  defp measured(module, name, args, hearts) do
    Enum.reduce_while(1..4, nil, fn _, best ->
      {_, long, gap} = new = measured_once(module, name, args, hearts)
      best = if best == nil or worse(best, new), do: new, else: best
      if long == [] and gap <= @long * 1000, do: {:halt, new}, else: {:cont, best}
    end)
  end

  defp worse({_, long, gap}, {_, new_long, new_gap}),
    do: {length(long), gap} > {length(new_long), new_gap}

  defp measured_once(module, name, args, hearts) do
    {pid, monitor} =
      spawn_monitor(fn ->
        :erlang.garbage_collect()
        receive do: (:go -> :ok)
        exit(ended(module, name, args))
      end)

    # Collects the garbage of copying the arguments, which is not to be measured.
    :erlang.garbage_collect(pid)
    Process.sleep(2)
    longest(hearts)
    :erlang.system_monitor(self(), long_schedule: @long)
    send(pid, :go)

    ended =
      receive do
        {:DOWN, ^monitor, _, _, ended} -> ended
      after
        60_000 -> Process.exit(pid, :kill) && :timeout
      end

    Process.sleep(2)
    :erlang.system_monitor(:undefined)
    {ended, long_schedules(pid), longest(hearts)}
  end

  defp ended(module, name, args) do
    apply(module, name, args)
  catch
    _, %{reason: reason} -> reason
    kind, _ -> kind
  else
    {:error, %{reason: reason}} -> reason
    _ -> :ok
  end

  defp long_schedules(pid) do
    receive do
      {:monitor, who, :long_schedule, info} when who != self() ->
        who = if who == pid, do: "the caller", else: inspect(Process.info(who, :initial_call))
        place = "#{mfa(info[:in])} to #{mfa(info[:out])}"
        ["#{who}: #{info[:timeout]} ms, #{place}" | long_schedules(pid)]

      {:monitor, _, :long_schedule, _} ->
        long_schedules(pid)
    after
      0 -> []
    end
  end

  defp mfa({module, name, arity}), do: Exception.format_mfa(module, name, arity)
  defp mfa(other), do: inspect(other)

  defp large(base) do
    mega = 1 <<< 20
    list = Enum.map(1..mega, &(&1 * 1.0))
    big = Buffer.full!([2048, 1024], :f32, 1.0)
    square = Buffer.full!([1024, 1024], :f32, 1.0)
    kept = Process.get(:kept) || for(_ <- 1..50_000, do: Buffer.full!([1], :f32, 1.0))
    Process.put(:kept, kept)
    some = Enum.take(kept, 5_000)

    [
      {"buffers of 8 MiB",
       %{
         buffer: big,
         source: big,
         x: big,
         input: big,
         inputs: [big, big],
         args: [big],
         output: Buffer.empty!([2048, 1024], :f32),
         target: Buffer.empty!([2048, 1024], :f32),
         pred: big,
         tensor: big
       }},
      {"two matrices of 4 MiB", %{a: square, b: square}},
      {"a binary of 64 MiB",
       %{data: :binary.copy(<<0, 0, 128, 63>>, 16 * mega), shape: [16 * mega]}},
      {"a list of a million", %{data: list, shape: [mega]}},
      {"a nested list of a million", %{data: Enum.chunk_every(list, 1024), shape: [1024, 1024]}},
      {"a list of ten million for a short shape", %{data: Enum.to_list(1..10_000_000)}},
      {"shapes of a million axes",
       %{shape: List.duplicate(1, mega), axes: List.duplicate(0, mega)}},
      {"5,000 buffers",
       %{
         buffers: some,
         args: some,
         inputs: some,
         tensors: some,
         names: Enum.map(some, &{:x, &1}),
         params: Map.new(1..5_000, &{&1, &1})
       }},
      {"a large kernel",
       %{
         kernel: kernel(2_000),
         batch: Enum.reduce(1..100_000, Batch.new(), fn _, b -> Batch.fill(b, base.buffer, 1) end)
       }},
      {"a source of 120 KiB", %{opts: [wgsl: wgsl(2_500)]}},
      {"a source of 10 MiB", %{opts: [wgsl: wgsl(200_000)]}},
      {"huge names and numbers",
       %{
         name: String.duplicate("a", 10 * mega),
         device: String.duplicate("vulkan:", mega),
         value: 1 <<< 1_000_000,
         bytes: 1 <<< 1_000_000,
         offset: 1 <<< 1_000_000,
         count: 1 <<< 1_000_000,
         len: 1 <<< 1_000_000,
         seed: 1 <<< 1_000_000,
         opts: List.duplicate({:device, nil}, mega),
         dtype: String.duplicate("f", 10 * mega)
       }},
      {"devices", %{devices: List.duplicate(hd(base.devices), 1_000_000)}},
      {"50,000 live buffers", %{device: hd(base.devices), opts: [device: hd(base.devices)]}}
    ]
  end

  # Defined here, so that nothing of Bitwise is imported.
  defp a <<< b, do: Bitwise.bsl(a, b)

  defp kernel(statements) do
    body = for n <- 1..statements, do: "y = y * #{n} + 1\n"
    code = "require ExCubecl.Kernel\nExCubecl.Kernel.kernel(fn x ->\ny = x\n#{body} y end)"
    {kernel, _} = Code.eval_string(code)
    kernel
  end

  defp wgsl(lines) do
    body = for n <- 1..lines, do: "  x[i] = x[i] * 2.0 + #{n}.0;\n"

    "@group(0) @binding(0) var<storage, read_write> x: array<f32>;\n" <>
      "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n" <>
      "  let i = id.x;\n#{body}}\n"
  end
end
