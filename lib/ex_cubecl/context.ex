defmodule ExCubecl.Context do
  @moduledoc """
  A list of devices that are used together: `ExCubecl.Replicated` puts its copies on them if no devices
  are given.

  Unless `set_default/1` sets another, the default context of a VM has all adapters of the default device's runtime, without
  logical devices: on a machine with an NVIDIA card and another one, it has the CUDA devices only.

      iex> {:ok, default} = ExCubecl.default_device()
      iex> {:ok, context} = ExCubecl.Context.new([default])
      iex> context.devices
      [default]
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Device, Error}
  alias ExCubecl.Error.Arguments

  @enforce_keys [:devices]
  defstruct [:devices]

  @type t :: %__MODULE__{devices: [Device.id()]}

  @key {__MODULE__, :default}

  @doc """
  Returns `{:ok, context}` of these devices, in this order.

  Errors: `:invalid_argument` for a list that is empty or names a device twice, `:unknown_device`.

      iex> {:error, error} = ExCubecl.Context.new([])
      iex> Exception.message(error)
      "invalid devices []: expected a list of one or more different devices"
  """
  @spec new([term]) :: {:ok, t} | {:error, Error.t()}
  def new(devices) do
    if is_list(devices) and devices != [] and not List.improper?(devices),
      do: resolve(devices, devices, []),
      else: invalid(devices)
  end

  defp resolve([], all, ids) do
    if Enum.uniq(ids) == ids,
      do: {:ok, %__MODULE__{devices: Enum.reverse(ids)}},
      else: invalid(all)
  end

  defp resolve([device | rest], all, ids) do
    with {:ok, id} <- Device.existing(device), do: resolve(rest, all, [id | ids])
  end

  defp invalid(devices),
    do: Arguments.invalid(:devices, devices, "a list of one or more different devices")

  @doc """
  Returns `{:ok, context}`: the context of `set_default/1` if one is set, else that of all adapters of the default device's runtime.

  Errors: `:no_device`, and `:unknown_device` if the environment or the configuration names a device that does
  not exist.

      iex> {:ok, %ExCubecl.Context{devices: [_ | _]}} = ExCubecl.Context.default()
  """
  @spec default() :: {:ok, t} | {:error, Error.t()}
  def default do
    case :persistent_term.get(@key, nil) do
      nil -> own()
      context -> {:ok, context}
    end
  end

  # One device for each adapter. At best an adapter has the same index in every runtime, so devices of different
  # runtimes cannot be matched reliably; only the runtime of the default device is used.
  defp own do
    with {:ok, {runtime, _}} <- Device.default(),
         {:ok, devices} <- Device.list() do
      {:ok, %__MODULE__{devices: for(%{id: {^runtime, _} = id, adapter: id} <- devices, do: id)}}
    end
  end

  @doc """
  Returns `:ok` and makes a context the default of this VM; `nil` removes it.

      iex> ExCubecl.Context.set_default(nil)
      :ok
  """
  @spec set_default(t | nil) :: :ok | {:error, Error.t()}
  def set_default(nil) do
    :persistent_term.erase(@key)
    :ok
  end

  def set_default(%__MODULE__{devices: devices}) do
    with {:ok, context} <- new(devices), do: :persistent_term.put(@key, context)
  end

  def set_default(other), do: Arguments.invalid(:context, other, "an %ExCubecl.Context{} or nil")
end
