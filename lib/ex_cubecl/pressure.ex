defmodule ExCubecl.Pressure do
  @moduledoc false
  # The BEAM does not see device memory: a handle of a few words keeps megabytes alive until its
  # process happens to collect its garbage. This is the one place that makes it happen.

  alias ExCubecl.{Error, Native, Reclaim, Telemetry}

  @default_every 64 * 1024 * 1024
  @key {__MODULE__, :bytes}

  # Whose garbage is collected before each new try, and for how many milliseconds its buffers are
  # waited for: destructors run when the schedulers come to it. A buffer may have gone from its maker
  # to another process, so in the end everybody is asked.
  @steps [self: 0, self: 1, owners: 1, owners: 5, all: 10, all: 20]
  @biggest 3

  @doc """
  Makes a buffer of about `bytes` on device `id` by `call`.

  Before, a process that made `gc_every` bytes since its last time here collects its young garbage
  and yields, for destructors run only then. Where there is no room, garbage is collected step by
  step, unused memory goes back to the driver, and the call is tried again.
  """
  def create(id, bytes, call)

  # It takes no memory, or has it already.
  def create(_id, 0, call), do: attempt(Error.from_native(call), call, @steps)

  def create(id, bytes, call) do
    note(bytes)
    Telemetry.watch_frees()

    Telemetry.span(:allocate, bytes, %{device: id}, fn ->
      attempt(Error.from_native(call), call, @steps)
    end)
  end

  # The device that has no room is in the error, for a call may be about several. A fixed arena that is
  # full is no device that is full.
  defp attempt({:error, %Error{reason: reason, details: %{device: id}} = error}, call, steps)
       when reason in [:out_of_memory, :limit_exceeded] do
    if steps == @steps, do: reclaim(error, id, call), else: try_again(error, id, call, steps)
  end

  defp attempt(result, _call, _steps), do: result

  # The first refusal.
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
    case Native.memory_live(id) do
      {:ok, bytes} -> bytes
      {:error, _} -> 0
    end
  end

  defp collect(:self, _id), do: :erlang.garbage_collect()
  defp collect(whose, id), do: Reclaim.run(whose, id)

  # Who has the memory, for somebody who has to find out why there is none.
  defp explain(error, id) do
    with {:ok, {live, limit}} <- Native.memory_failed(id),
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
