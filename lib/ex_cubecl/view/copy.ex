defmodule ExCubecl.View.Copy do
  @moduledoc false
  # Copies the elements of views into buffers.

  alias ExCubecl.{Buffer, Device, Error, Kernel, Shape}
  alias ExCubecl.Ops.{Blocks, ComputeType, Strided, Target}
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
        as_bits(view, name)

      true ->
        with {:ok, known} <- Device.dtypes(view.device), do: cast(view, name, dtype, known)
    end
  end

  @doc """
  The result of an operation that moves elements: those of a view, in the shape `shape`, by default its own. They are copied to a new buffer, or to `into` if it
  is one for the result, whose bytes they then have. For an `into`, contiguous elements are returned as they are.
  """
  @spec moved(Strides.t(), atom, Target.into(), Shape.t() | nil) ::
          {:ok, Buffer.t()} | :ok | {:error, Error.t()}
  def moved(view, name, into, shape \\ nil) do
    shape = shape || view.shape

    result =
      cond do
        into == nil -> copy(view, name)
        Strides.contiguous?(view) -> Strides.buffer(view)
        Target.fits?(into, shape, view.dtype, view.device) -> into(view, name, into)
        true -> copy(view, name)
      end

    with {:ok, buffer} <- result, do: Buffer.reshape(buffer, shape)
  end

  defp into(view, name, into) do
    with {:ok, target} <- Buffer.reshape(into, view.shape),
         {:ok, known} <- Device.dtypes(view.device) do
      if view.dtype in known,
        do: strided(view, name, view.dtype, target),
        else: as_bits(view, name)
    end
  end

  # Contiguous elements of any type can be converted.
  defp cast(view, name, dtype, known) do
    if view.dtype in known and dtype in known,
      do: strided(view, name, dtype),
      else: with({:ok, buffer} <- as_bits(view, name), do: Buffer.convert(buffer, dtype))
  end

  defp as_bits(view, name) do
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
