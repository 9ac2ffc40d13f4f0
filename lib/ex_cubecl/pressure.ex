defmodule ExCubecl.Pressure do
  @moduledoc false
  # The BEAM does not see device memory: a handle of a few words keeps megabytes alive until its
  # process happens to collect its garbage. This is the one place that makes it happen.

  alias ExCubecl.{Error, Native}

  @default_every 64 * 1024 * 1024
  @key {__MODULE__, :bytes}

  @doc """
  Makes a buffer of about `bytes` on device `id` by `call`.

  Before, a process that made `gc_every` bytes since its last time here collects its young garbage
  and yields, for destructors run only then. Where there is no room, it collects everything it
  has, and tries once more.
  """
  def create(id, bytes, call) do
    note(bytes)

    case Error.from_native(call) do
      {:error, %Error{reason: reason}} when reason in [:out_of_memory, :limit_exceeded] ->
        collect(id)
        Error.from_native(call)

      result ->
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

  defp collect(id) do
    :erlang.garbage_collect()
    for _ <- 1..4, do: :erlang.yield()
    Error.from_native(fn -> Native.memory_trim(id) end)
  end
end
