defmodule ExCubecl.Replicated.Options do
  @moduledoc false
  # The options of `ExCubecl.Replicated.new/3`: the devices, and the shape on each of them.

  alias ExCubecl.{Buffer, Device, DType, Error}
  alias ExCubecl.Buffer.AllocOptions
  alias ExCubecl.Cluster.Location
  alias ExCubecl.Error.Arguments

  @doc "The checked options; `part` is the shape of the buffer on each device, `alloc` the options of these buffers."
  @spec check(Buffer.shape(), DType.t(), term) :: {:ok, map} | {:error, Error.t()}
  def check(shape, dtype, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:devices, :shards] ++ AllocOptions.options()),
         {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, shape, _count} <- Arguments.shape(shape, dtype),
         {:ok, devices} <- devices(opts[:devices]),
         {:ok, shards} <- shards(Keyword.get(opts, :shards, false)),
         {:ok, part} <- part(shape, length(devices), shards) do
      alloc = Keyword.take(opts, AllocOptions.options())

      {:ok,
       %{
         devices: devices,
         shape: shape,
         part: part,
         dtype: dtype,
         shards: shards,
         alloc: alloc
       }}
    end
  end

  defp devices(nil), do: Device.adapters()

  defp devices(devices) do
    if is_list(devices) and devices != [] and not List.improper?(devices),
      do: existing(devices, devices, []),
      else: invalid(devices)
  end

  defp existing([], devices, ids) do
    if Enum.uniq(ids) == ids, do: {:ok, Enum.reverse(ids)}, else: invalid(devices)
  end

  defp existing([device | rest], devices, ids) do
    with {:ok, id} <- existing(device), do: existing(rest, devices, [id | ids])
  end

  defp existing(device) do
    case Location.locate(device) do
      {nil, device} ->
        Device.existing(device)

      {node, _} ->
        with {:ok, found} <- Device.info(device), do: {:ok, {node, found.id}}
    end
  end

  defp invalid(devices),
    do: Arguments.invalid(:devices, devices, "a list of one or more different devices")

  defp shards(value) when is_boolean(value), do: {:ok, value}
  defp shards(value), do: Arguments.invalid(:shards, value, "true or false")

  defp part(shape, _devices, false), do: {:ok, shape}

  defp part([rows | rest], devices, true) when rem(rows, devices) == 0,
    do: {:ok, [div(rows, devices) | rest]}

  defp part(shape, devices, true),
    do: Arguments.invalid(:shape, shape, "a first dimension that #{devices} devices divide")
end
