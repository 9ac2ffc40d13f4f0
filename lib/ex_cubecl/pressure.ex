defmodule ExCubecl.Pressure do
  @moduledoc false
  # The BEAM does not see device memory: a handle of a few words keeps megabytes alive until its
  # process happens to collect its garbage. This is the one place that makes it happen.

  alias ExCubecl.{Error, Native}

  @default_every 64 * 1024 * 1024
  @key {__MODULE__, :bytes}
  # Milliseconds.
  @pauses [0, 1, 2, 5, 10, 20]

  @doc """
  Makes a buffer of about `bytes` on device `id` by `call`.

  Before, a process that made `gc_every` bytes since its last time here collects its young garbage
  and yields, for destructors run only then. Where there is no room, it collects everything it
  has, gives unused memory back to the driver and tries again, for some 40 milliseconds.
  """
  def create(id, bytes, call) do
    note(bytes)

    attempt(id, call, @pauses)
  end

  # Destructors run when the schedulers come to it, so each try waits a little longer for them.
  defp attempt(id, call, pauses) do
    case {Error.from_native(call), pauses} do
      {{:error, %Error{reason: reason}}, [pause | rest]}
      when reason in [:out_of_memory, :limit_exceeded] ->
        collect(id, pause)
        attempt(id, call, rest)

      {result, _} ->
        result
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

  defp collect(id, pause) do
    :erlang.garbage_collect()
    :erlang.yield()
    if pause > 0, do: Process.sleep(pause)
    Error.from_native(fn -> Native.memory_trim(id) end)
  end
end
