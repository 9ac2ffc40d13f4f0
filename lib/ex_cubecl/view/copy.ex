defmodule ExCubecl.View.Copy do
  @moduledoc false
  # Copies the elements of views into new buffers.

  alias ExCubecl.{Buffer, Error, Kernel}
  alias ExCubecl.Ops.Strided
  alias ExCubecl.View.Strides

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

    if Strides.contiguous?(view) do
      with {:ok, buffer} <- Strides.buffer(view), do: Buffer.convert(buffer, dtype)
    else
      indexed = Strided.indexed([x: view], view.shape)
      args = [x: view.buffer] ++ indexed.args
      result = {:cast, dtype, {:at, 0, :x, indexed.index.x}}
      key = {:copy, indexed.key, dtype}
      copy = Strided.named(@copy, name)
      {kernel, args} = Strided.kernel(copy, key, args, [], {indexed.statements, result})
      Strided.run(kernel, args, shape: view.shape)
    end
  end
end
