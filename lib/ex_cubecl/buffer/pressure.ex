defmodule ExCubecl.Buffer.Pressure do
  @moduledoc false
  # The BEAM does not see device memory: a handle of a few words keeps megabytes alive until its
  # process happens to collect its garbage. This module forces these collections.

  alias ExCubecl.{Error, Native, Telemetry}
  alias ExCubecl.Buffer.Reclaim
  alias ExCubecl.Native.Waiting

  @default_every 64 * 1024 * 1024
  @key {__MODULE__, :bytes}

  # For each retry: the processes that collect their garbage before it, and the milliseconds to wait for the
  # destructors of their buffers, which run when the schedulers get to them. A buffer may have been sent from its
  # owner to another process, so the last retries collect in all processes.
  @steps [self: 0, self: 1, owners: 1, owners: 5, all: 10, all: 20]
  @biggest 3

  @doc """
  Makes a buffer of about `bytes` on device `id` by `call`.

  A process that made `gc_every` bytes since its last collection by this function first runs a minor garbage
  collection and yields, because destructors run only then. If the allocation does not fit, garbage is collected
  step by step, unused memory is given back to the driver, and `call` is retried.
  """
  def create(id, bytes, call) do
    Waiting.open(id)
    create_on(id, bytes, call)
  end

  # 0 bytes: the call allocates nothing, or it is not known beforehand how much.
  defp create_on(_id, 0, call), do: attempt(Error.from_native(call), call, @steps)

  defp create_on(id, bytes, call) do
    note(bytes)
    Telemetry.watch_frees()

    Telemetry.span(:allocate, bytes, %{device: id}, fn ->
      attempt(Error.from_native(call), call, @steps)
    end)
  end

  # The error names the device that is out of memory, because a call may involve several devices. The error of a
  # full fixed arena names no device and is not retried.
  defp attempt({:error, %Error{reason: reason, details: %{device: id}} = error}, call, steps)
       when reason in [:out_of_memory, :limit_exceeded] do
    if steps == @steps, do: reclaim(error, id, call), else: try_again(error, id, call, steps)
  end

  defp attempt(result, _call, _steps), do: result

  # Emits the telemetry events of an allocation that was refused for the first time, and retries it.
  defp reclaim(%{reason: reason} = error, id, call) do
    metadata = %{device: id, reason: reason}
    if Telemetry.on?(), do: Telemetry.execute(:limit, %{bytes: error.details.requested}, metadata)
    before = live(id)
    started = System.monotonic_time()
    result = try_again(error, id, call, @steps)

    if Telemetry.on?() do
      measurements = %{
        bytes: max(before - live(id), 0),
        duration: System.monotonic_time() - started
      }

      Telemetry.execute(:reclaim, measurements, metadata)
    end

    result
  end

  defp try_again(error, id, _call, []), do: {:error, explain(error, id)}

  defp try_again(_error, id, call, [{whose, pause} = step | rest]) do
    if [step | rest] == @steps, do: Native.memory_reclaim(id), else: Native.memory_trim(id)
    collect(whose, id)
    :erlang.yield()
    if pause > 0, do: Process.sleep(pause)
    attempt(Error.from_native(call), call, rest)
  end

  defp live(id) do
    case Native.memory_live_bytes(id) do
      {:ok, bytes} -> bytes
      {:error, _} -> 0
    end
  end

  defp collect(:self, _id), do: :erlang.garbage_collect()
  defp collect(whose, id), do: Reclaim.run(whose, id)

  # Adds the live bytes, the limit and the owners of the most memory to the error, for debugging.
  defp explain(error, id) do
    with {:ok, {live, limit}} <- Native.memory_count_failure(id),
         {:ok, owners} <- Native.memory_owners(id) do
      more = %{live: live, limit: limit, owners: Enum.take(owners, @biggest)}
      %{error | details: Map.merge(more, error.details)}
    else
      _ -> error
    end
  end

  defp note(bytes) do
    made = Process.get(@key, 0) + bytes

    if made >= Application.get_env(:ex_cubecl, :gc_every, @default_every) do
      Process.put(@key, 0)
      :erlang.garbage_collect(self(), type: :minor)
      :erlang.yield()
    else
      Process.put(@key, made)
    end
  end
end
