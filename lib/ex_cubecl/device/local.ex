defmodule ExCubecl.Device.Local do
  @moduledoc false
  # The devices of this node: listed, described, opened, removed, waited for and reset.

  use ExCubecl.Cluster.Callable
  require ExCubecl.Device.Id

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Device.{Id, Limits}
  alias ExCubecl.Error.Arguments

  @doc "The id of a device that is given in any of its forms; `nil` is the default device."
  @spec resolve(term) :: {:ok, Id.t()} | {:error, Error.t()}
  def resolve(device), do: with(:ok <- Limits.apply_once(), do: Id.parse(device))

  def list, do: Id.list()

  def info(device) do
    with {:ok, id} <- resolve(device), {:ok, devices} <- list() do
      case Enum.find(devices, &(&1.id == id)) do
        nil -> Id.unknown(id)
        found -> {:ok, found}
      end
    end
  end

  def open(adapter, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:as]),
         {:ok, on} <- resolve(adapter),
         {:ok, id} <- new_id(opts[:as]),
         {:ok, added} <- Error.from_native(fn -> Native.device_open(on, id) end) do
      Id.forget()
      {:ok, Id.describe(added)}
    end
  end

  defp new_id(id) when Id.is_id(id), do: {:ok, id}
  defp new_id(other), do: Arguments.invalid(:as, other, "an id such as {:vulkan, 10}")

  def remove(device) do
    with {:ok, id} <- resolve(device),
         :ok <- Error.from_native(fn -> Native.device_remove(id) end),
         do: Id.forget()
  end

  def synchronize(device), do: on(device, &Native.device_synchronize/1)

  def reset(device), do: with(:ok <- on(device, &Native.device_reset/1), do: Id.forget())

  defp on(device, call) do
    with {:ok, id} <- resolve(device), do: Error.from_native(fn -> call.(id) end)
  end
end
