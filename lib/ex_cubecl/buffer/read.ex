defmodule ExCubecl.Buffer.Read do
  @moduledoc false
  # Reads the elements of buffers of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{Progress, Transfer}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Rehearsal

  def read(buffer, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:progress]),
         {:ok, progress} <- Progress.check(opts[:progress]) do
      bytes = Shape.size(buffer.shape) * DType.size!(buffer.dtype)

      if Rehearsal.on?() do
        Rehearsal.binary(buffer.ref, buffer.dtype, Shape.size(buffer.shape))
      else
        download(buffer, bytes, fn ->
          Progress.watch(bytes, progress, &Native.buffer_read(buffer.ref, &1))
        end)
      end
    end
  end

  def read_part(buffer, offset, count) do
    with :ok <- Arguments.part(offset, count, Shape.size(buffer.shape)) do
      if Rehearsal.on?() do
        Rehearsal.binary(buffer.ref, buffer.dtype, count)
      else
        download(buffer, count * DType.size!(buffer.dtype), fn ->
          Native.buffer_read_part(buffer.ref, offset, count)
        end)
      end
    end
  end

  def read_all([]), do: {:ok, []}

  def read_all([%{device: device} | _] = buffers) do
    bytes = Enum.sum(Enum.map(buffers, &(Shape.size(&1.shape) * DType.size!(&1.dtype))))

    Telemetry.span(:read, bytes, %{device: device, dtype: nil}, fn ->
      Error.from_native(fn -> Native.buffer_read_all(Enum.map(buffers, & &1.ref)) end)
    end)
  end

  def to_list(buffer), do: elements(buffer, buffer.shape)
  def to_flat_list(buffer), do: elements(buffer, [Shape.size(buffer.shape)])
  def item(buffer), do: with(:ok <- one_element(buffer), do: elements(buffer, []))

  @doc "`:ok` for a buffer with exactly one element."
  def one_element(buffer) do
    case Shape.size(buffer.shape) do
      1 -> :ok
      other -> Error.new(:shape_mismatch, operation: :item, expected: 1, actual: other)
    end
  end

  defp elements(buffer, shape) do
    if Rehearsal.on?() do
      Rehearsal.list(buffer.ref, buffer.dtype, shape)
    else
      download(buffer, Shape.size(buffer.shape) * DType.size!(buffer.dtype), fn ->
        Native.buffer_to_list(buffer.ref, shape)
      end)
    end
  end

  defp download(buffer, bytes, call) do
    Telemetry.span(:read, bytes, %{device: buffer.device, dtype: buffer.dtype}, fn ->
      Error.from_native(call)
    end)
  end

  def read_async(buffer), do: Transfer.start(buffer.ref, Shape.size(buffer.shape))
end
