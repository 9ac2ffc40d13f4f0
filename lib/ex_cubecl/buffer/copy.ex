defmodule ExCubecl.Buffer.Copy do
  @moduledoc false
  # Copies and conversions between buffers of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Device, DType, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{AllocOptions, Pressure, Progress, Temporaries, Write}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Rehearsal

  def duplicate(buffer, opts), do: derive(buffer, buffer.dtype, buffer.device, opts)

  def transfer(buffer, device, opts) do
    with {:ok, id} <- Device.resolve(device),
         {:ok, opts} <- Arguments.options(opts, [:progress | AllocOptions.options()]),
         {:ok, progress} <- Progress.check(opts[:progress]),
         do: derive(buffer, buffer.dtype, id, Keyword.delete(opts, :progress), progress)
  end

  def convert(buffer, dtype, opts) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         do: derive(buffer, dtype, buffer.device, opts)
  end

  # A new buffer with the elements of another one.
  defp derive(%{shape: shape} = buffer, dtype, id, opts, progress \\ false) do
    with {:ok, opts} <- Arguments.options(opts, AllocOptions.options()),
         {:ok, options} <- AllocOptions.from(opts) do
      bytes = Shape.size(shape) * DType.size!(dtype)

      told(buffer, id, dtype, bytes, fn ->
        with {:ok, ref} <- copied(buffer, {id, dtype, bytes}, options, progress) do
          Temporaries.made(ref, bytes)
          {:ok, %{buffer | ref: ref, dtype: dtype, device: id}}
        end
      end)
    end
  end

  defp copied(%{ref: ref, shape: shape} = buffer, {id, dtype, bytes}, options, progress) do
    if Rehearsal.on?() do
      Rehearsal.new(id, dtype, shape, options)
    else
      Pressure.create(id, bytes, fn ->
        if dtype == buffer.dtype,
          do: duplicated(buffer, id, options, progress),
          else: Native.buffer_convert(ref, dtype, shape, options)
      end)
    end
  end

  defp told(source, device, dtype, bytes, call) do
    metadata = %{device: device, source: source.device, dtype: dtype}
    Telemetry.span(:copy, bytes, metadata, call)
  end

  defp duplicated(%{ref: ref, shape: shape} = buffer, id, options, progress) do
    bytes = Shape.size(shape) * DType.size!(buffer.dtype)
    progress = if id == buffer.device, do: false, else: progress
    Progress.watch(bytes, progress, &Native.buffer_duplicate(ref, id, shape, options, &1))
  end

  def copy(source, target) do
    bytes = Shape.size(target.shape) * DType.size!(target.dtype)
    change = fn -> Write.change(target, &Native.buffer_copy(source.ref, target.ref, &1)) end

    with {:error, %{reason: :shape_mismatch} = error} <-
           told(source, target.device, target.dtype, bytes, change),
         do: {:error, %{error | details: Map.put(error.details, :operation, :copy)}}
  end
end
