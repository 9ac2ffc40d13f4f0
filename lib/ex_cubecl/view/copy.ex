defmodule ExCubecl.View.Copy do
  @moduledoc false
  # Copies the elements of views into new buffers.

  alias ExCubecl.{Buffer, Device, Error, Kernel}
  alias ExCubecl.Ops.{Blocks, ComputeType, Strided}
  alias ExCubecl.View.{Bits, Strides, Transpose}

  require Kernel

  @copy Kernel.kernel(fn x -> x end)

  @doc "A buffer with the elements of a view, which shares the memory if they are contiguous. `name` is as for `copy/3`."
  @spec contiguous(Strides.t(), atom) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def contiguous(view, name),
    do: if(Strides.contiguous?(view), do: Strides.buffer(view), else: copy(view, name))

  @doc """
  A new buffer with the elements of a view, of the type `dtype` or of its own. `name` is the operation that errors and telemetry show.
  """
  @spec copy(Strides.t(), atom, atom) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def copy(view, name, dtype \\ nil) do
    dtype = dtype || view.buffer.dtype

    cond do
      Strides.contiguous?(view) ->
        with {:ok, buffer} <- Strides.buffer(view), do: Buffer.convert(buffer, dtype)

      dtype == view.dtype ->
        moved(view, name)

      true ->
        with {:ok, known} <- Device.dtypes(view.device), do: cast(view, name, dtype, known)
    end
  end

  @doc "Copies the elements of a view that is not contiguous to a buffer of its shape and type."
  @spec into(Strides.t(), atom, Buffer.t()) :: {:ok, Buffer.t()} | :ok | {:error, Error.t()}
  def into(view, name, target) do
    with {:ok, known} <- Device.dtypes(view.device) do
      if view.dtype in known,
        do: strided(view, name, view.dtype, target),
        else: moved(view, name)
    end
  end

  # Contiguous elements of any type can be converted.
  defp cast(view, name, dtype, known) do
    if view.dtype in known and dtype in known,
      do: strided(view, name, dtype),
      else: with({:ok, buffer} <- moved(view, name), do: Buffer.convert(buffer, dtype))
  end

  defp moved(view, name) do
    case Bits.of(view) do
      {:ok, bits} ->
        with {:ok, buffer} <- strided(bits, name, bits.dtype), do: Bits.back(buffer, view)

      :none ->
        with {:ok, wide} <- ComputeType.widened(view),
             {:ok, buffer} <- strided(wide, name, wide.dtype),
             do: ComputeType.converted(buffer, view.dtype)

      error ->
        error
    end
  end

  defp strided(view, name, dtype, target \\ nil) do
    op = Strided.named(@copy, name)
    reads = [{:x, :strided, view}]

    if Blocks.many?(view.shape) and Blocks.fits?(op, reads, dtype) do
      with {:ok, out} <- target(target, view, dtype),
           :ok <- in_blocks(op, view, dtype, out),
           do: {:ok, out}
    else
      indexed = Strided.indexed([x: view], view.shape)
      args = [x: view.buffer] ++ indexed.args
      result = {:cast, dtype, {:at, 0, :x, indexed.index.x}}
      key = {:copy, indexed.key, dtype}
      {kernel, args} = Strided.kernel(op, key, args, [], {indexed.statements, result})
      Strided.run(kernel, args, [shape: view.shape] ++ if(target, do: [into: target], else: []))
    end
  end

  defp target(nil, view, dtype),
    do: Buffer.empty(view.shape, dtype, device: view.buffer.device, lazy: false)

  defp target(target, _view, _dtype), do: {:ok, target}

  defp in_blocks(op, view, dtype, out) do
    case Transpose.tiles(view, out) do
      {:ok, tiles} -> Transpose.run(op, tiles, view, out)
      :no -> Blocks.run(op, [{:x, :strided, view}], {nil, dtype}, out)
    end
  end
end
