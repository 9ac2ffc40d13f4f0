defmodule ExCubecl.Buffer.View do
  @moduledoc false
  # Handles that share the storage of a buffer of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{DType, Error, Native, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Rehearsal

  def view(buffer, offset, shape) do
    with {:ok, shape, count} <- Arguments.shape(shape, buffer.dtype),
         :ok <- Arguments.part(offset, count, Shape.size(buffer.shape)),
         do: window(buffer, offset, shape, count)
  end

  def reshape(buffer, shape) do
    with {:ok, shape, count} <- Arguments.reshaped(shape, buffer),
         do: window(buffer, 0, shape, count)
  end

  defp window(buffer, offset, shape, count) do
    with {:ok, ref} <- handle(fn -> Native.buffer_view(buffer.ref, offset, count) end),
         do: {:ok, %{buffer | ref: ref, shape: shape}}
  end

  def slice_bytes(buffer, offset, len) do
    with :ok <- Arguments.part(offset, len, Shape.size(buffer.shape) * DType.size!(buffer.dtype)),
         {:ok, ref} <- handle(fn -> Native.buffer_slice_bytes(buffer.ref, offset, len) end) do
      {:ok, %{buffer | ref: ref, shape: [len], dtype: :u8}}
    else
      {:error, %{reason: :out_of_bounds, details: details}} ->
        Error.new(:out_of_bounds, Map.put(details, :unit, "byte"))

      error ->
        error
    end
  end

  def bitcast(buffer, dtype) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, shape} <-
           resized(buffer.shape, DType.size!(buffer.dtype), DType.size!(dtype), dtype),
         {:ok, ref} <- handle(fn -> Native.buffer_bitcast(buffer.ref, dtype) end),
         do: {:ok, %{buffer | ref: ref, shape: shape, dtype: dtype}}
  end

  # The shape for elements of `to` bytes: the last axis has as many bytes as before.
  defp resized(shape, size, size, _dtype), do: {:ok, shape}

  defp resized(shape, from, to, dtype) do
    {rows, last} = Enum.split(shape, -1)
    bytes = from * Enum.sum(last)

    if last != [] and rem(bytes, to) == 0 do
      with {:ok, shape, _count} <- Arguments.shape(rows ++ [div(bytes, to)], dtype),
           do: {:ok, shape}
    else
      Error.new(:shape_mismatch,
        operation: :bitcast,
        shape: shape,
        dtype: dtype,
        from: from,
        to: to
      )
    end
  end

  def clone(buffer) do
    with {:ok, ref} <- handle(fn -> Native.buffer_clone(buffer.ref) end),
         do: {:ok, %{buffer | ref: ref}}
  end

  # A further handle of the memory.
  defp handle(call) do
    with {:ok, ref} <- Error.from_native(call) do
      if Rehearsal.on?(), do: Rehearsal.handle(ref)
      {:ok, ref}
    end
  end
end
