defmodule ExCubecl.Buffer.Create do
  @moduledoc false
  # Makes buffers on devices of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Device, DType, Native, Telemetry}
  alias ExCubecl.Buffer.{AllocOptions, Pressure, Progress, Temporaries}
  alias ExCubecl.Device.Id
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Rehearsal

  # Up to this many bytes are written on the caller's scheduler, if that does not block.
  @small 16 * 1024

  def new(data, shape, dtype, opts) do
    with {:ok, target} <- target(shape, dtype, opts, [:progress]),
         {:ok, data} <- Arguments.data(data, target.shape),
         {:ok, progress} <- Progress.check(opts[:progress]) do
      bytes = target.count * DType.size!(dtype)

      Telemetry.span(:upload, bytes, %{device: target.device, dtype: dtype}, fn ->
        create(target, bytes, fn -> from_data(target, bytes, data, progress) end)
      end)
    end
  end

  defp from_data(target, bytes, data, progress) do
    if bytes in 1..@small and (is_list(data) or byte_size(data) == bytes) do
      %{device: id, dtype: dtype, shape: shape, options: options} = target

      with {:ok, nil} <- Native.buffer_try_create(id, dtype, shape, data, options),
           do: from_large(target, data, progress)
    else
      from_large(target, data, progress)
    end
  end

  defp from_large(%{device: id, dtype: dtype, shape: shape, options: options}, data, progress)
       when is_binary(data) do
    Progress.watch(byte_size(data), progress, fn watcher ->
      Native.buffer_from_binary(id, dtype, shape, data, options, watcher)
    end)
  end

  defp from_large(%{device: id, dtype: dtype, shape: shape, options: options}, data, _progress),
    do: Native.buffer_from_list(id, dtype, shape, data, options)

  def empty(shape, dtype, opts) do
    with {:ok, target} <- target(shape, dtype, opts, [:lazy]) do
      case Keyword.get(opts, :lazy, true) do
        true -> create(target, 0, fn -> blank(target) end)
        false -> filled(target, &Native.buffer_allocate(&1, true))
        other -> Arguments.invalid(:lazy, other, "true or false")
      end
    end
  end

  def full(shape, dtype, value, opts) do
    with {:ok, target} <- target(shape, dtype, opts, []) do
      bytes = target.count * DType.size!(dtype)

      Telemetry.span(:fill, bytes, %{device: target.device, dtype: dtype}, fn ->
        target |> filled(&Native.buffer_fill(&1, value, true)) |> one_value() |> known(value)
      end)
    end
  end

  # What a rehearsal reads of it.
  defp known({:ok, %{ref: ref}} = result, value) do
    if Rehearsal.on?(), do: Rehearsal.fill(ref, value)
    result
  end

  defp known(error, _value), do: error

  def iota(shape, dtype, opts) do
    with {:ok, target} <- target(shape, dtype, opts, []) do
      create(target, target.count * DType.size!(dtype), fn ->
        Native.buffer_iota(target.device, dtype, target.shape, target.options)
      end)
    end
  end

  # Checks the arguments that all constructors share. `known` are the options that only this one has.
  defp target(shape, dtype, opts, known) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, shape, count} <- Arguments.shape(shape, dtype),
         {:ok, opts} <- options(opts, known),
         {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, options} <- AllocOptions.from(opts),
         do: {:ok, %{device: id, dtype: dtype, shape: shape, count: count, options: options}}
  end

  defp options([], _known), do: {:ok, []}

  defp options(opts, known) do
    case Arguments.options(opts, [:device | known] ++ AllocOptions.options()) do
      {:error, %{details: %{argument: :option, value: name} = details} = error}
      when name in [:shape, :dtype, :type] ->
        expected = "the shape and the element type as arguments, [2, 3], :f32, before the options"
        {:error, %{error | details: %{details | expected: expected}}}

      result ->
        result
    end
  end

  @doc "The result of a fill, whose errors are about a value and no element."
  def one_value({:error, %{reason: :invalid_value} = error}),
    do: {:error, %{error | details: Map.delete(error.details, :index)}}

  def one_value(result), do: result

  defp create(%{device: id} = target, bytes, call) do
    result =
      if Rehearsal.on?(),
        do: Rehearsal.create(fn -> blank(target) end, bytes > 0),
        else: Pressure.create(id, bytes, call)

    case result do
      {:ok, ref} ->
        Temporaries.made(ref, target.count * DType.size!(target.dtype))
        {:ok, %{ref: ref, dtype: target.dtype, shape: target.shape, device: id}}

      {:error, %{reason: reason} = error} ->
        if reason in [:device_lost, :unknown_device, :no_device], do: Id.forget()
        {:error, error}
    end
  end

  defp blank(%{device: id, dtype: dtype, shape: shape, options: options}),
    do: Native.buffer_empty(id, dtype, shape, options)

  defp filled(target, fill) do
    create(target, target.count * DType.size!(target.dtype), fn ->
      with {:ok, ref} <- blank(target), {:ok, :ok} <- fill.(ref), do: {:ok, ref}
    end)
  end
end
