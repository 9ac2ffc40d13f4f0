defmodule ExCubecl.Memory do
  @moduledoc """
  What lives on a device, and how much may.

  The BEAM collects a process's garbage when its own heap fills up, and it cannot see device
  memory: a process that makes and drops large buffers may hold many dead ones. So a process that
  has made 64 MiB of buffers collects its young garbage before it makes the next one (`config
  :ex_cubecl, gc_every: bytes`, or `:infinity` for never), and where the device has no room, or the
  limit is reached, it collects everything it has, gives unused memory back and tries again before it
  answers with an error.

  Memory that a collected buffer leaves is kept for the next one. `trim/1` gives it back to the
  driver.
  """

  use ExCubecl.Bang, usage: 0, usage: 1, trim: 0, trim: 1

  alias ExCubecl.{Arguments, Device, Error, Native}

  @typedoc """
  Bytes, and counts of buffers since the device was opened:

    * `live_bytes`, `live_buffers` - of buffers that hold memory now; views share it, lazy buffers
      have none yet
    * `peak_bytes` - the most that `live_bytes` has been since the start or `reset_peak/1`
    * `reserved_bytes` - what the device's runtime holds for us, used or not, staging included
    * `allocations`, `frees` - buffers that took memory and gave it back
    * `failed` - allocations that were refused
    * `limit` - the bytes that may live, `nil` for any number
  """
  @type usage :: %{
          live_bytes: non_neg_integer,
          live_buffers: non_neg_integer,
          peak_bytes: non_neg_integer,
          reserved_bytes: non_neg_integer,
          allocations: non_neg_integer,
          frees: non_neg_integer,
          failed: non_neg_integer,
          limit: non_neg_integer | nil
        }

  @doc """
  Returns `{:ok, usage}` of a device, by default the default one.

  Errors: `:unknown_device`, `:no_device`.

      iex> {:ok, before} = ExCubecl.Memory.usage()
      iex> buffer = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
      iex> {:ok, now} = ExCubecl.Memory.usage()
      iex> now.allocations > before.allocations
      true
      iex> ExCubecl.size!(buffer)
      8
  """
  @spec usage(term) :: {:ok, usage} | {:error, Error.t()}
  def usage(device \\ nil), do: on(device, &Native.memory_usage/1)

  @doc """
  Returns `{:ok, bytes}`, the memory of the device, or `{:ok, nil}` where its driver does not tell.

  For a CPU that is the memory of the machine.

      iex> {:ok, total} = ExCubecl.Memory.total()
      iex> total == nil or total > 0
      true
  """
  @spec total(term) :: {:ok, pos_integer | nil} | {:error, Error.t()}
  def total(device \\ nil), do: on(device, &Native.memory_total/1)

  @doc """
  Returns `{:ok, bytes}`: how much unused memory was given back to the driver.

      iex> {:ok, bytes} = ExCubecl.Memory.trim()
      iex> bytes >= 0
      true
  """
  @spec trim(term) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def trim(device \\ nil), do: on(device, &Native.memory_trim/1)

  @doc """
  Returns `:ok` and lets at most `bytes` live on the device from now on, or any number for `nil`.

  A limit below what is live already is accepted: nothing new fits until enough was collected.
  What does not fit answers `:limit_exceeded`.

      iex> ExCubecl.Memory.set_limit(nil, nil)
      :ok
      iex> {:error, error} = ExCubecl.Memory.set_limit(nil, -1)
      iex> error.reason
      :invalid_argument
  """
  @spec set_limit(term, non_neg_integer | nil) :: :ok | {:error, Error.t()}
  def set_limit(device \\ nil, bytes)

  def set_limit(device, nil), do: on(device, &Native.memory_set_limit(&1, nil))

  def set_limit(device, bytes) do
    with {:ok, bytes} <- Arguments.index(:limit, bytes),
         do: on(device, &Native.memory_set_limit(&1, bytes))
  end

  @doc """
  Returns `:ok` and lets `peak_bytes` start again from what is live now.

      iex> ExCubecl.Memory.reset_peak()
      :ok
  """
  @spec reset_peak(term) :: :ok | {:error, Error.t()}
  def reset_peak(device \\ nil), do: on(device, &Native.memory_reset_peak/1)

  defp on(device, call) do
    with {:ok, id} <- Device.resolve(device), do: Error.from_native(fn -> call.(id) end)
  end
end
