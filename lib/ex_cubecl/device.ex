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

  alias ExCubecl.Cluster.Client
  alias ExCubecl.Device.{Id, Local}
  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  @enforce_keys [:id, :runtime, :name, :kind, :driver]
  defstruct [
    :id,
    :adapter,
    :runtime,
    :name,
    :kind,
    :driver,
    :max_buffer_size,
    :max_buffers,
    :total_memory,
    dtypes: []
  ]

  @type runtime :: :vulkan | :metal | :dx12 | :cuda
  @type id :: {runtime, non_neg_integer}
  @type kind :: :discrete_gpu | :integrated_gpu | :virtual_gpu | :cpu | :other

  @typedoc """
  `adapter` is the id of the adapter: the device's own id, except for a logical device of `open/2`.
  `max_buffer_size` and `total_memory` are bytes; `total_memory` is `nil` if the driver does not
  report it. `max_buffers` is how many buffers one kernel can read and write. `dtypes` are the types that its kernels calculate with; storing, reading, copying, filling
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
          max_buffers: pos_integer,
          total_memory: pos_integer | nil,
          dtypes: [ExCubecl.DType.t()]
        }

  @doc """
  Returns `{:ok, devices}`, all devices of this machine. None of them is opened.

  Errors: `:no_device`.

      iex> {:ok, [%ExCubecl.Device{} | _]} = ExCubecl.Device.list()
  """
  @spec list() :: {:ok, [t]} | {:error, Error.t()}
  def list do
    with {:ok, found} <- Local.list(), do: {:ok, Enum.map(found, &new/1)}
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
    with {:ok, found} <- Client.route_device(device, &Local.info/1), do: {:ok, new(found)}
  end

  @doc false
  # The types that kernels on a device of this node compute, without a call of the native side.
  defdelegate dtypes(id), to: Id

  @doc false
  # How many buffers a kernel can have on a device of this node, without a call of the native side.
  defdelegate max_buffers(id), to: Id

  @doc false
  # Whether a device of this node is the CPU, without a call of the native side.
  defdelegate cpu?(id), to: Id

  @doc """
  Returns `{:ok, id}` of the default device, as the environment and the configuration name it now.

  Calls without a device look it up once and keep the result. They look it up again after `open/2`, `remove/1` and `reset/1`, and
  after a buffer could not be created on it because the device was lost or is gone. After a change of `EX_CUBECL_DEVICE` or of the
  configuration while the VM runs, call this function: it always looks, and later calls without a device use its result.

  Errors: `:no_device`, and `:unknown_device` if the environment or the configuration names a device
  that does not exist.

      iex> {:ok, {runtime, index}} = ExCubecl.Device.default()
      iex> is_atom(runtime) and index >= 0
      true
  """
  @spec default() :: {:ok, id} | {:error, Error.t()}
  defdelegate default(), to: Id, as: :find_default

  @doc """
  Returns `{:ok, device}`: another logical device on an adapter, with the id `as:`.

  It has its own queue, memory accounting and memory limit; the memory of the adapter is shared.
  Several logical devices on one adapter can replace several GPUs, for example in tests. The id must be of the same
  runtime and not in use. At most 64 logical devices exist; `remove/1` removes one.

  Errors: `:invalid_argument` for another id, `:limit_exceeded`, `:unknown_device`.

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
    with {:ok, added} <- Local.open(adapter, opts), do: {:ok, new(added)}
  end

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
  def remove(device), do: Client.route_device(device, &Local.remove/1)

  @doc """
  Returns `:ok` once all work that was queued on the device is done.

  Errors: `:device_lost`, `:driver` for an error of earlier work.

      iex> ExCubecl.Device.synchronize(nil)
      :ok
  """
  @spec synchronize(term) :: :ok | {:error, Error.t()}
  def synchronize(device), do: Client.route_device(device, &Local.synchronize/1)

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
  def reset(device), do: Client.route_device(device, &Local.reset/1)

  defp new(description), do: struct!(__MODULE__, description)

  ## For the other modules of the library

  @doc false
  defdelegate resolve(device), to: Local

  @doc false
  defdelegate existing(device), to: Id

  @doc false
  # The devices of other nodes, with ids as `device:` takes them.
  def on_nodes(nodes) do
    if is_list(nodes) and nodes != [] and not List.improper?(nodes),
      do: with({:ok, lists} <- Error.map(nodes, &on_node/1), do: {:ok, Enum.concat(lists)}),
      else: Arguments.invalid(:nodes, nodes, "a list of names of connected nodes")
  end

  defp on_node(node) when is_atom(node) and node != nil do
    with {:ok, found} <- Client.call(node, &Local.list/0, []),
         do: {:ok, for(d <- found, do: new(%{d | id: {node, d.id}, adapter: {node, d.adapter}}))}
  end

  defp on_node(other), do: Arguments.invalid(:nodes, other, "names of connected nodes")
end
