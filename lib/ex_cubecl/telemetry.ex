defmodule ExCubecl.Telemetry do
  @moduledoc """
  Events for `:telemetry`, emitted if that library is loaded. No other module of ExCubecl depends on it.

  | event | measurements | metadata | when |
  |---|---|---|---|
  | `[:ex_cubecl, :allocate]` | `bytes`, `duration` | `device` | memory was allocated for a buffer or an arena |
  | `[:ex_cubecl, :free]` | `bytes`, `duration` | `device`, `dtype`, `shape`, `owner`, `tag` | memory was freed; `duration` is the lifetime of the allocation |
  | `[:ex_cubecl, :free_missed]` | `count` | | so many `:free` events were left out, because their handlers were slower than the frees |
  | `[:ex_cubecl, :limit]` | `bytes` | `device`, `reason` | an allocation of `bytes` did not fit: `:limit_exceeded` or `:out_of_memory` |
  | `[:ex_cubecl, :reclaim]` | `bytes`, `duration` | `device`, `reason` | garbage was collected to make room; `bytes` is the decrease of the live bytes |
  | `[:ex_cubecl, :upload]` | `bytes`, `duration` | `device`, `dtype` | a list or binary was written to the device |
  | `[:ex_cubecl, :read]` | `bytes`, `duration` | `device`, `dtype` | elements were read from the device; for several buffers at once `dtype` is `nil` |
  | `[:ex_cubecl, :fill]` | `bytes`, `duration` | `device`, `dtype` | a buffer was filled with a value |
  | `[:ex_cubecl, :copy]` | `bytes`, `duration` | `device`, `source`, `dtype` | a buffer was copied or converted, on `device` or from the device `source` to it; `bytes` are written |
  | `[:ex_cubecl, :compile]` | `duration` | `device`, `kernel` | a kernel was compiled, before its first launch with these types |
  | `[:ex_cubecl, :launch]` | `bytes`, `duration` | `device`, `kernel` | a kernel that writes `bytes` was queued |
  | `[:ex_cubecl, :batch]` | `count`, `duration` | `device`, `kernels` | the kernels of an `ExCubecl.Batch` were queued in one call; `kernels` are their names, and there are no `:launch` events of them |
  | `[:ex_cubecl, :profile]` | `device_time`, `duration` | `device`, `clock` | `ExCubecl.Kernel.profile/2` has measured: `device_time` is the time that the device worked |
  | `[:ex_cubecl, :memory]` | `live_bytes`, `live_buffers`, `reserved_bytes`, `peak_bytes` | `device` | `measure_memory/0` was called, for each open device |
  | `[:ex_cubecl, :fallback]` | `count` | `device`, `operation`, `type` | `ExCubecl.Backend` ran an operation of Nx on the host |
  | `[:ex_cubecl, :defn_compile]` | `duration` | `device`, `nodes` | `ExCubecl.Compiler` made a program of an expression of so many nodes |
  | `[:ex_cubecl, :defn_run]` | `duration` | `device`, `steps` | a program of so many steps was queued |

  `kernel` is the name of the kernel, `:matmul` for a matrix product by the library of the device, and the entry point, a string, for a source in WGSL.
  A launch returns before the kernel has run: its `duration` is the time of the call. `ExCubecl.Kernel.profile/2` measures the device.

  Durations are in native time units, as `System.convert_time_unit/3` takes them. Events are emitted by
  the calling process, except for `:free`, which is emitted by a process of the library, because
  destructors do not run in any particular process. `:free` events start with the first allocation that
  is made while a handler for them is attached. At most 10,000 of them wait for their handlers; while so many wait, the
  next ones are left out, and counted by a `:free_missed` event.

  `ExCubecl.Telemetry.Metrics` has definitions for `Telemetry.Metrics` if `:telemetry_metrics` is a dependency, and `ExCubecl.LiveDashboard` is a
  page for `Phoenix.LiveDashboard`.

  Without `:telemetry` an operation costs one extra check; with it but without handlers, one lookup in its handler table.
  """

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Native.Rehearsal
  alias ExCubecl.Telemetry.Counter

  @doc """
  Returns `:ok` and emits an event `[:ex_cubecl, :memory]` for each open device, for periodic measurements such as those of `:telemetry_poller`.

      iex> ExCubecl.Telemetry.measure_memory()
      :ok
  """
  @spec measure_memory() :: :ok
  def measure_memory do
    with true <- on?(), {:ok, ids} <- Error.from_native(&Native.device_list_open/0) do
      Enum.each(ids, &measure_memory/1)
    else
      _ -> :ok
    end
  end

  defp measure_memory(id) do
    # A device may be lost meanwhile.
    with {:ok, usage} <- Error.from_native(fn -> Native.memory_usage(id) end) do
      measurements = Map.take(usage, [:live_bytes, :live_buffers, :reserved_bytes, :peak_bytes])
      execute(:memory, measurements, %{device: id})
    end
  end

  @doc false
  def on?, do: :erlang.function_exported(:telemetry, :execute, 3)

  @doc false
  # Runs `call`, and emits the event if it succeeded; `:none` means that it did nothing.
  def span(event, bytes, metadata, call) do
    if on?() and not Rehearsal.on?() do
      started = System.monotonic_time()
      result = call.()
      told(result, event, bytes, System.monotonic_time() - started, metadata)
      result
    else
      call.()
    end
  end

  defp told({:error, _}, _event, _bytes, _duration, _metadata), do: :ok
  defp told(:none, _event, _bytes, _duration, _metadata), do: :ok

  defp told(_result, event, bytes, duration, metadata),
    do: execute(event, %{bytes: bytes, duration: duration}, metadata)

  @doc false
  # A launch, as `span/4`. Launches are counted without handlers, too, for `mix ex_cubecl.top`.
  def launch(bytes, device, kernel, counter, call) do
    result = span(:launch, bytes, %{device: device, kernel: kernel}, call)

    unless match?({:error, _}, result) or result == :none or Rehearsal.on?(),
      do: Counter.add_to(counter)

    result
  end

  @doc false
  def launches(device, kernel), do: Counter.counter(:launch, {device, kernel})

  @doc false
  def execute(event, measurements, metadata),
    do: apply(:telemetry, :execute, [[:ex_cubecl, event], measurements, metadata])

  @doc false
  # Starts the process that watches frees if a handler for `:free` is attached and no such process runs yet.
  def watch_frees do
    if on?() and Process.whereis(__MODULE__) == nil and listening?(), do: start_watching()
    :ok
  end

  # Waits until the process watches, so that the next allocation is watched too.
  defp start_watching do
    caller = self()
    {pid, ref} = spawn_monitor(fn -> watch(caller) end)

    receive do
      {^pid, :watching} -> Process.demonitor(ref, [:flush])
      {:DOWN, ^ref, :process, _, _} -> :ok
    end
  end

  defp listening? do
    cond do
      :erlang.function_exported(:telemetry_handler_table, :list_for_event, 1) ->
        apply(:telemetry_handler_table, :list_for_event, [[:ex_cubecl, :free]]) != []

      :erlang.function_exported(:telemetry, :list_handlers, 1) ->
        apply(:telemetry, :list_handlers, [[:ex_cubecl, :free]]) != []

      true ->
        true
    end
  end

  # If several processes start at once, one registers the name and the others exit.
  defp watch(caller) do
    Process.register(self(), __MODULE__)
    Error.from_native(fn -> Native.memory_watch_frees(self()) end)
    send(caller, {self(), :watching})
    report()
  rescue
    ArgumentError -> :ok
  end

  @every 1_000

  defp report do
    receive do
      {:freed, %{bytes: _} = freed, time} when is_integer(time) -> free(freed, time)
      _ -> :ok
    after
      @every -> :ok
    end

    if listening?(),
      do: report(),
      else: Error.from_native(fn -> Native.memory_watch_frees(nil) end)
  end

  defp free(freed, microseconds) do
    lived = System.convert_time_unit(microseconds, :microsecond, :native)
    metadata = Map.take(freed, [:device, :dtype, :shape, :owner, :tag])
    execute(:free, %{bytes: freed.bytes, duration: lived}, metadata)
    {:ok, missed} = Error.from_native(&Native.memory_acknowledge_free/0)
    if missed > 0, do: execute(:free_missed, %{count: missed}, %{})
  end
end
