defmodule ExCubecl.Buffer.Write do
  @moduledoc false
  # Changes the elements of a buffer of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{Pressure, Progress}
  alias ExCubecl.Error.Arguments

  def write(buffer, data, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:offset, :progress]),
         {:ok, progress} <- Progress.check(opts[:progress]),
         {:ok, data} <- Arguments.data(data, buffer.shape),
         {:ok, offset, shape} <- range(buffer, data, opts[:offset]),
         do: upload(buffer, {offset, shape}, data, progress)
  end

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

  defp upload(%{ref: ref, dtype: dtype} = buffer, {offset, shape}, data, progress) do
    bytes = if shape, do: Shape.size(shape) * DType.size!(dtype), else: byte_size(data)

    Telemetry.span(:upload, bytes, %{device: buffer.device, dtype: dtype}, fn ->
      change(buffer, bytes, fn -> send_data(ref, {offset, shape}, data, progress) end)
    end)
  end

  defp send_data(ref, {offset, nil}, binary, progress) do
    Progress.watch(byte_size(binary), progress, fn watcher ->
      Native.buffer_write(ref, offset, binary, watcher)
    end)
  end

  defp send_data(ref, {offset, shape}, list, _progress),
    do: Native.buffer_write_list(ref, offset, shape, list)

  def fill(buffer, value) do
    change(buffer, Shape.size(buffer.shape), fn -> Native.buffer_fill(buffer.ref, value) end)
  end

  def ensure_allocated(buffer),
    do: change(buffer, 1, fn -> Native.buffer_allocate(buffer.ref) end)

  @doc """
  Changes `count` elements of a buffer by `call`.

  A write to a buffer without memory allocates it. A write of zero elements allocates nothing.
  """
  def change(buffer, 0, call), do: Pressure.create(buffer.device, 0, call)

  def change(%{ref: ref} = buffer, _count, call) do
    case Error.from_native(fn -> Native.buffer_missing(ref) end) do
      {:ok, bytes} -> Pressure.create(buffer.device, bytes, call)
      {:error, error} -> {:error, error}
    end
  end
end
