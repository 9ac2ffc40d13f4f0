defmodule ExCubecl.Device do
  @moduledoc """
  The devices of this machine, and the default device.

  A device has a short id, `{runtime, index}`, such as `{:vulkan, 0}` or `{:cuda, 0}`. Every function
  that takes a device accepts its id, its string (`"cuda:0"`) or its `%ExCubecl.Device{}`.

  The default device is, in this order: the one that the environment variable `EX_CUBECL_DEVICE`
  names, the one in `config :ex_cubecl, default_device: {:cuda, 0}`, the first discrete GPU (CUDA
  before Vulkan on the same card), an integrated GPU, a virtual one, a CPU. Mesa's lavapipe is a
  real Vulkan driver on the CPU: it runs everywhere, and its `kind` says `:cpu`.

  A device is opened at its first use. A device that was lost, or was reset by `reset/1`, is opened again
  at the next use; operations on its old buffers return `:device_lost`.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Memory.Limits

  @enforce_keys [:id, :runtime, :name, :kind, :driver]
  defstruct [
    :id,
    :adapter,
    :runtime,
    :name,
    :kind,
    :driver,
    :max_buffer_size,
    :total_memory,
    dtypes: []
  ]

  @type runtime :: :vulkan | :metal | :dx12 | :cuda
  @type id :: {runtime, non_neg_integer}
  @type kind :: :discrete_gpu | :integrated_gpu | :virtual_gpu | :cpu | :other

  @typedoc """
  `adapter` is the id of the adapter: the device's own id, except for a logical device of `open/2`.
  `max_buffer_size` and `total_memory` are bytes; `total_memory` is `nil` if the driver does not
  report it. `dtypes` are the types that its kernels calculate with; storing, reading, copying, filling
  and converting work for every type on every device.
  """
  @type t :: %__MODULE__{
          id: id,
          adapter: id,
          runtime: runtime,
          name: String.t(),
          kind: kind,
          driver: String.t(),
          max_buffer_size: pos_integer,
          total_memory: pos_integer | nil,
          dtypes: [ExCubecl.DType.t()]
        }

  @runtimes [:vulkan, :metal, :dx12, :cuda]

  @doc """
  Returns `{:ok, devices}`, all devices of this machine. None of them is opened.

  Errors: `:no_device`.

      iex> {:ok, [%ExCubecl.Device{} | _]} = ExCubecl.Device.list()
  """
  @spec list() :: {:ok, [t]} | {:error, Error.t()}
  def list do
    with {:ok, found} <- Error.from_native(&Native.device_list/0),
         do: {:ok, Enum.map(found, &new/1)}
  end

  @doc """
  Returns `{:ok, ids}`, the adapters of the default device's runtime: one device for each graphics card, without logical devices.
  `ExCubecl.Replicated` uses them unless its caller names other devices.

  On a machine with an NVIDIA card and another one, these are the CUDA devices only: the indices of an adapter in two runtimes need not
  be equal, so devices of different runtimes cannot be matched reliably.

  Errors: as `default/0`.

      iex> {:ok, ids} = ExCubecl.Device.adapters()
      iex> ExCubecl.default_device!() in ids
      true
  """
  @spec adapters() :: {:ok, [id]} | {:error, Error.t()}
  def adapters do
    with {:ok, {runtime, _}} <- default(),
         {:ok, devices} <- list(),
         do: {:ok, for(%{id: {^runtime, _} = id, adapter: id} <- devices, do: id)}
  end

  @doc """
  Returns `{:ok, device}`, the description of one device.

  Errors: `:unknown_device`, `:no_device`.

      iex> {:ok, id} = ExCubecl.default_device()
      iex> {:ok, device} = ExCubecl.Device.info(id)
      iex> device.id == id
      true
  """
  @spec info(term) :: {:ok, t} | {:error, Error.t()}
  def info(device) do
    with {:ok, id} <- resolve(device), {:ok, devices} <- list() do
      case Enum.find(devices, &(&1.id == id)) do
        nil -> unknown(id)
        found -> {:ok, found}
      end
    end
  end

  @doc """
  Returns `{:ok, id}` of the default device, which is used if no device is given.

  Errors: `:no_device`, and `:unknown_device` if the environment or the configuration names a device
  that does not exist.

      iex> {:ok, {runtime, index}} = ExCubecl.Device.default()
      iex> is_atom(runtime) and index >= 0
      true
  """
  @spec default() :: {:ok, id} | {:error, Error.t()}
  def default do
    case System.get_env("EX_CUBECL_DEVICE") do
      named when named in [nil, ""] ->
        configured(Application.get_env(:ex_cubecl, :default_device))

      named ->
        named_by(existing(named), "EX_CUBECL_DEVICE")
    end
  end

  defp configured(nil), do: best()

  defp configured(named),
    do: named_by(existing(named), "`config :ex_cubecl, default_device: ...`")

  # The caller named no device, so the error reports where the name came from.
  defp named_by({:error, %{reason: reason} = error}, source)
       when reason in [:unknown_device, :unsupported],
       do: {:error, %{error | details: Map.put(error.details, :source, source)}}

  defp named_by(result, _source), do: result

  @doc false
  # The id of a device that exists.
  def existing(named) do
    with {:ok, id} <- parse(named), {:ok, ids} <- known() do
      if id in ids, do: {:ok, id}, else: Error.new(:unknown_device, device: id, known: ids)
    end
  end

  defp known do
    with nil <- :persistent_term.get({__MODULE__, :known}, nil),
         {:ok, devices} <- list() do
      ids = Enum.map(devices, & &1.id)
      :persistent_term.put({__MODULE__, :known}, ids)
      {:ok, ids}
    else
      {:error, error} -> {:error, error}
      ids -> {:ok, ids}
    end
  end

  # Hardware does not change while a VM runs, so the first successful result is cached.
  defp best do
    with nil <- :persistent_term.get({__MODULE__, :best}, nil),
         {:ok, id} <- Error.from_native(&Native.device_default/0) do
      :persistent_term.put({__MODULE__, :best}, id)
      {:ok, id}
    else
      {:error, error} -> {:error, error}
      id -> {:ok, id}
    end
  end

  @doc """
  Returns `{:ok, device}`: another logical device on an adapter, with the id `as:`.

  It has its own queue, memory accounting and memory limit; the memory of the adapter is shared.
  Several logical devices on one adapter can replace several GPUs, for example in tests. The id must be of the same
  runtime and not in use, otherwise `:invalid_argument`. At most 64 logical devices exist, beyond that `:limit_exceeded`;
  `remove/1` removes one.

  On CUDA, logical devices of one adapter share its queue.

      iex> {:ok, {runtime, _} = default} = ExCubecl.default_device()
      iex> {:ok, device} = ExCubecl.Device.open(default, as: {runtime, 1001})
      iex> {device.id == {runtime, 1001}, device.adapter == default}
      {true, true}
      iex> ExCubecl.Buffer.device!(ExCubecl.Buffer.zeros!([10], :u8, device: device.id)) == device.id
      true
      iex> {:error, error} = ExCubecl.Device.open(default, as: default)
      iex> error.reason
      :invalid_argument
  """
  @spec open(term, as: id) :: {:ok, t} | {:error, Error.t()}
  def open(adapter, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:as]),
         {:ok, on} <- resolve(adapter),
         {:ok, id} <- new_id(opts[:as]),
         {:ok, added} <- Error.from_native(fn -> Native.device_add(on, id) end) do
      # Invalidates the cached device ids.
      :persistent_term.erase({__MODULE__, :known})
      {:ok, new(added)}
    end
  end

  defp new_id({runtime, index} = id)
       when runtime in @runtimes and is_integer(index) and index in 0..0xFFFF_FFFF,
       do: {:ok, id}

  defp new_id(other), do: Arguments.invalid(:as, other, "an id such as {:vulkan, 10}")

  @doc """
  Returns `:ok` and removes a logical device of `open/2` that has no live allocations.

  Its id can be used again. Remaining handles have no memory, and operations on them return `:device_lost`.

  Errors: `:device_in_use` while buffers, tensors or arenas are live on it: drop them, or call
  `reset/1` first; `:invalid_argument` for an adapter of the machine, `:unknown_device`.

      iex> {:ok, {runtime, _} = first} = ExCubecl.Device.default()
      iex> {:ok, device} = ExCubecl.Device.open(first, as: {runtime, 1004})
      iex> ExCubecl.Device.remove(device)
      :ok
      iex> {:error, error} = ExCubecl.Device.info(device)
      iex> error.reason
      :unknown_device
      iex> {:error, error} = ExCubecl.Device.remove(first)
      iex> error.reason
      :invalid_argument
  """
  @spec remove(term) :: :ok | {:error, Error.t()}
  def remove(device) do
    with {:ok, id} <- resolve(device),
         :ok <- Error.from_native(fn -> Native.device_remove(id) end) do
      :persistent_term.erase({__MODULE__, :known})
      :ok
    end
  end

  @doc """
  Returns `:ok` once all work that was queued on the device is done.

  Errors: `:device_lost`, `:driver` for an error of earlier work.

      iex> ExCubecl.Device.synchronize(nil)
      :ok
  """
  @spec synchronize(term) :: :ok | {:error, Error.t()}
  def synchronize(device) do
    with {:ok, id} <- resolve(device),
         do: Error.from_native(fn -> Native.device_synchronize(id) end)
  end

  @doc """
  Returns `:ok` and closes the device with all of its allocations.

  From then on, operations on any of its buffers return `:device_lost`, in every process. The next use opens the
  device again, with no live allocations. The memory of the old buffers is freed when they are garbage collected.

      iex> {:ok, {runtime, _} = first} = ExCubecl.Device.default()
      iex> {:ok, other} = ExCubecl.Device.open(first, as: {runtime, 1003})
      iex> buffer = ExCubecl.buffer!([1], [1], :u8, device: other)
      iex> ExCubecl.Device.reset(other)
      :ok
      iex> {:error, error} = ExCubecl.read(buffer)
      iex> error.reason
      :device_lost
  """
  @spec reset(term) :: :ok | {:error, Error.t()}
  def reset(device) do
    with {:ok, id} <- resolve(device), do: Error.from_native(fn -> Native.device_reset(id) end)
  end

  use ExCubecl.Cluster.Dispatch, info: 1, remove: 1, synchronize: 1, reset: 1

  @doc false
  # The id of a device that is given in any of its forms; `nil` is the default device.
  def resolve(device) do
    with :ok <- Limits.apply_once(&known/0, &parse/1), do: parse(device)
  end

  defp parse(nil), do: default()
  defp parse(%__MODULE__{id: id}) when id != nil, do: parse(id)

  # A device of a node.
  defp parse({node, id} = device)
       when is_atom(node) and (is_tuple(id) or is_binary(id) or is_map(id)) do
    cond do
      node == node() -> parse(id)
      String.contains?(Atom.to_string(node), "@") -> remote(device)
      true -> unknown(device)
    end
  end

  defp parse({runtime, index} = id) do
    if runtime in @runtimes and is_integer(index) and index in 0..0xFFFF_FFFF,
      do: {:ok, id},
      else: unknown(id)
  end

  # No device has a longer name. Splitting a name of megabytes would block the scheduler.
  @longest_name 32

  defp parse(name) when is_binary(name) and byte_size(name) <= @longest_name do
    with [runtime, index] <- String.split(name, ":"),
         runtime when runtime != nil <- Enum.find(@runtimes, &(Atom.to_string(&1) == runtime)),
         {index, ""} <- Integer.parse(index) do
      parse({runtime, index})
    else
      _ -> unknown(name)
    end
  end

  defp parse(other), do: unknown(other)

  defp remote(device), do: Error.new(:unsupported, operation: :remote_device, device: device)

  defp unknown(device) do
    with {:ok, devices} <- list(),
         do: Error.new(:unknown_device, device: device, known: Enum.map(devices, & &1.id))
  end

  defp new(%{id: {runtime, _}} = found),
    do: struct!(__MODULE__, Map.put(found, :runtime, runtime))
end
