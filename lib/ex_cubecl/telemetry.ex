defmodule ExCubecl.Telemetry do
  @moduledoc """
  Events for `:telemetry`, where that library is loaded. Nothing else of ExCubecl knows of it.

  | event | measurements | metadata | when |
  |---|---|---|---|
  | `[:ex_cubecl, :allocate]` | `bytes`, `duration` | `device` | memory was taken for a buffer or an arena |
  | `[:ex_cubecl, :free]` | `bytes`, `duration` | `device`, `dtype`, `shape`, `owner`, `tag` | memory was given back; the duration is that of its life |
  | `[:ex_cubecl, :limit]` | `bytes` | `device`, `reason` | there was no room for so many bytes: `:limit_exceeded` or `:out_of_memory` |
  | `[:ex_cubecl, :reclaim]` | `bytes`, `duration` | `device`, `reason` | garbage was collected to make room; `bytes` is how much less is live |
  | `[:ex_cubecl, :upload]` | `bytes`, `duration` | `device`, `dtype` | a list or binary went to the device |
  | `[:ex_cubecl, :read]` | `bytes`, `duration` | `device`, `dtype` | elements came from the device; for several buffers at once `dtype` is `nil` |
  | `[:ex_cubecl, :compile]` | `duration` | `device`, `kernel` | a kernel was compiled, before its first launch with these types |
  | `[:ex_cubecl, :launch]` | `bytes`, `duration` | `device`, `kernel` | a kernel was queued that writes so many bytes |

  Durations are in native units, as `System.convert_time_unit/3` takes them. Events come from the
  process that called, but for `:free`, which comes from one of ours: destructors run nowhere in
  particular. Frees are watched from the first allocation on that finds a handler for them.

  Without `:telemetry` an operation costs one check more, and without handlers a look into its table.
  """

  alias ExCubecl.{Error, Native}

  @doc false
  def on?, do: :erlang.function_exported(:telemetry, :execute, 3)

  @doc false
  # Runs `call`, and tells of it if it went well.
  def span(event, bytes, metadata, call) do
    if on?() do
      started = System.monotonic_time()
      result = call.()
      told(result, event, bytes, System.monotonic_time() - started, metadata)
      result
    else
      call.()
    end
  end

  defp told({:error, _}, _event, _bytes, _duration, _metadata), do: :ok

  defp told(_result, event, bytes, duration, metadata),
    do: execute(event, %{bytes: bytes, duration: duration}, metadata)

  @doc false
  def execute(event, measurements, metadata),
    do: apply(:telemetry, :execute, [[:ex_cubecl, event], measurements, metadata])

  @doc false
  # Has frees watched from now on, if somebody listens and nobody watches yet.
  def watch_frees do
    if on?() and Process.whereis(__MODULE__) == nil and listening?(), do: start_watching()
    :ok
  end

  # It waits until the watch is on, so that what is allocated next is watched.
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

  # One of those that start at once gets the name; the others end.
  defp watch(caller) do
    Process.register(self(), __MODULE__)
    Error.from_native(fn -> Native.memory_watch(self()) end)
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

    if listening?(), do: report(), else: Error.from_native(fn -> Native.memory_watch(nil) end)
  end

  defp free(freed, microseconds) do
    lived = System.convert_time_unit(microseconds, :microsecond, :native)
    metadata = Map.take(freed, [:device, :dtype, :shape, :owner, :tag])
    execute(:free, %{bytes: freed.bytes, duration: lived}, metadata)
  end
end
