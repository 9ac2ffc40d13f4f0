defmodule ExCubecl.Buffer.Write do
  @moduledoc false
  # Changes the elements of a buffer of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{Create, Pressure, Progress}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Rehearsal

  def write(buffer, data, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:offset, :progress]),
         {:ok, progress} <- Progress.check(opts[:progress]),
         {:ok, data} <- Arguments.data(data, buffer.shape),
         {:ok, offset, shape} <- range(buffer, data, opts[:offset]) do
      buffer |> upload({offset, shape}, data, progress) |> misfit()
    else
      error -> misfit(error)
    end
  end

  # The option that takes fewer elements.
  defp misfit({:error, %Error{reason: :shape_mismatch} = error}),
    do: {:error, %{error | details: Map.put(error.details, :option, :offset)}}

  defp misfit(result), do: result

  # The offset to write at, and the shape of a list (`nil` for a binary). Without an offset the data must fill
  # the buffer; with an offset it is flat, and its length is the number of elements to write.
  defp range(buffer, data, nil) when is_binary(data) do
    case Shape.size(buffer.shape) * DType.size!(buffer.dtype) do
      expected when expected == byte_size(data) ->
        {:ok, 0, nil}

      expected ->
        Error.new(:shape_mismatch, expected_bytes: expected, actual_bytes: byte_size(data))
    end
  end

  defp range(buffer, _data, nil), do: {:ok, 0, buffer.shape}

  defp range(buffer, data, offset) when is_binary(data) do
    count = div(byte_size(data), DType.size!(buffer.dtype))
    with :ok <- Arguments.part(offset, count, Shape.size(buffer.shape)), do: {:ok, offset, nil}
  end

  defp range(buffer, data, offset) do
    if List.improper?(data) do
      Error.new(:invalid_argument, argument: :data, reason: :improper_list)
    else
      with :ok <- Arguments.part(offset, length(data), Shape.size(buffer.shape)),
           do: {:ok, offset, [length(data)]}
    end
  end

  defp upload(%{dtype: dtype} = buffer, {offset, shape}, data, progress) do
    bytes = if shape, do: Shape.size(shape) * DType.size!(dtype), else: byte_size(data)

    Telemetry.span(:upload, bytes, %{device: buffer.device, dtype: dtype}, fn ->
      send_data(buffer, {offset, shape}, data, progress)
    end)
  end

  defp send_data(%{ref: ref} = buffer, {offset, nil}, binary, progress) do
    Progress.watch(byte_size(binary), progress, fn watcher ->
      change(buffer, &Native.buffer_write(ref, offset, binary, watcher, &1))
    end)
  end

  defp send_data(%{ref: ref} = buffer, {offset, shape}, list, _progress),
    do: change(buffer, &Native.buffer_write_list(ref, offset, shape, list, &1))

  def fill(%{ref: ref, device: id, dtype: dtype, shape: shape} = buffer, value) do
    bytes = Shape.size(shape) * DType.size!(dtype)

    Telemetry.span(:fill, bytes, %{device: id, dtype: dtype}, fn ->
      if Rehearsal.on?(),
        do: Rehearsal.fill(ref, value),
        else: buffer |> change(&Native.buffer_fill(ref, value, &1)) |> Create.one_value()
    end)
  end

  def copy_from_pointer(%{ref: ref} = buffer, address),
    do: change(buffer, &Native.buffer_copy_from_pointer(ref, address, &1))

  def ensure_allocated(%{ref: ref} = buffer),
    do: change(buffer, &Native.buffer_allocate(ref, &1))

  @doc """
  Changes a buffer by `call`, whose argument is whether it may allocate the memory of a lazy buffer.

  If `call` would allocate and may not, it returns the number of bytes. These are counted before it is called again. So a change of a
  buffer that has its memory calls the native library once.
  """
  def change(%{device: id, ref: ref}, call) do
    if Rehearsal.on?() do
      Rehearsal.allocate(ref)
    else
      with {:ok, {:allocate, bytes}} <- Pressure.create(id, 0, fn -> call.(false) end),
           do: Pressure.create(id, bytes, fn -> call.(true) end)
    end
  end
end
