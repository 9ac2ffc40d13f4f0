defmodule ExCubecl.Context do
  @moduledoc """
  A list of devices that are used together: where `ExCubecl.Replicated` puts its copies when none are
  named.

  Without one of its own, a VM uses all devices of the machine that have an adapter to themselves,
  the CUDA one where a card is reached in several ways.

      iex> {:ok, default} = ExCubecl.default_device()
      iex> {:ok, context} = ExCubecl.Context.new([default])
      iex> context.devices
      [default]
  """

  use ExCubecl.Bang, new: 1, default: 0, set_default: 1

  alias ExCubecl.{Arguments, Device, Error}

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
  Returns `{:ok, context}`: the one of `set_default/1`, else that of all devices.

  Errors: `:no_device`, and `:unknown_device` where the environment or the configuration names one that is
  not there.

      iex> {:ok, %ExCubecl.Context{devices: [_ | _]}} = ExCubecl.Context.default()
  """
  @spec default() :: {:ok, t} | {:error, Error.t()}
  def default do
    case :persistent_term.get(@key, nil) do
      nil -> own()
      context -> {:ok, context}
    end
  end

  # One device for each card. The same card has the same place in the list of each runtime at best,
  # so that one runtime is chosen: that of the default device.
  defp own do
    with {:ok, {runtime, _}} <- Device.default(),
         {:ok, devices} <- Device.list() do
      {:ok, %__MODULE__{devices: for(%{id: {^runtime, _} = id, adapter: id} <- devices, do: id)}}
    end
  end

  @doc """
  Returns `:ok` and makes a context the default of this VM; `nil` takes it back.

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
