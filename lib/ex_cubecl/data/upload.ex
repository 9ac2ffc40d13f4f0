defmodule ExCubecl.Data.Upload do
  @moduledoc false
  # Moves elements between streams of bytes and devices, a chunk at a time.

  alias ExCubecl.{Buffer, DType, Error, Shape, View}
  alias ExCubecl.Data.{ByteOrder, Reader}
  alias ExCubecl.Error.Arguments

  @typedoc "The rest of a stream: see `ExCubecl.Data.Reader.range/4`."
  @type stream :: (() -> {:ok, binary, stream} | :done | {:error, Error.t()})

  @doc """
  A new buffer with the elements of a stream, which has their bytes in this order.

  A chunk that ends inside of an element is joined with the next one. The first write allocates the memory.
  """
  @spec run(stream, :little | :big, Shape.t(), DType.t(), keyword) ::
          {:ok, Buffer.t()} | {:error, Error.t()}
  def run(stream, order, shape, dtype, opts) do
    with {:ok, buffer} <- Buffer.empty(shape, dtype, opts),
         {:ok, bytes} <- Buffer.size(buffer),
         :ok <- write(stream, buffer, {order, DType.size!(dtype)}, 0, bytes, <<>>),
         # Without elements nothing was written.
         :ok <- Buffer.ensure_allocated(buffer),
         do: {:ok, buffer}
  end

  defp write(stream, buffer, {order, size} = elements, offset, bytes, rest) do
    case stream.() do
      {:ok, chunk, next} ->
        chunk = if rest == <<>>, do: chunk, else: rest <> chunk
        whole = div(byte_size(chunk), size) * size
        <<ready::binary-size(whole), rest::binary>> = chunk

        with :ok <- fits(offset + byte_size(chunk), bytes),
             :ok <- put(buffer, ByteOrder.native(ready, order, size), div(offset, size)) do
          # The chunk is a garbage binary outside of the heap, which would be collected too late.
          :erlang.garbage_collect(self(), type: :minor)
          write(next, buffer, elements, offset + whole, bytes, rest)
        end

      :done when offset == bytes and rest == <<>> ->
        :ok

      :done ->
        Error.new(:shape_mismatch,
          expected_bytes: bytes,
          actual_bytes: offset + byte_size(rest)
        )

      error ->
        error
    end
  end

  defp put(_buffer, <<>>, _offset), do: :ok
  defp put(buffer, elements, offset), do: Buffer.write(buffer, elements, offset: offset)

  defp fits(end_of_chunk, bytes) when end_of_chunk <= bytes, do: :ok

  defp fits(end_of_chunk, bytes),
    do: Error.new(:shape_mismatch, expected_bytes: bytes, actual_bytes: end_of_chunk)

  @doc "The elements of a buffer or view in row-major order, as a buffer."
  @spec buffer(term) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def buffer(%View{} = view), do: View.to_buffer(view)
  def buffer(%Buffer{} = buffer), do: Buffer.check(buffer)
  def buffer(other), do: Arguments.invalid(:data, other, "a buffer or a view")

  @doc "Calls `write` with the bytes of a buffer in an order, a chunk of a multiple of `unit` elements at a time."
  @spec each(Buffer.t(), :little | :big, pos_integer, (binary -> :ok | {:error, Error.t()})) ::
          :ok | {:error, Error.t()}
  def each(%{shape: shape, dtype: dtype} = buffer, order, unit \\ 1, write) do
    size = DType.size!(dtype)
    most = max(div(Reader.chunk(), size * unit), 1) * unit
    each(buffer, &write.(ByteOrder.native(&1, order, size)), 0, Shape.size(shape), most)
  end

  defp each(_buffer, _write, count, count, _most), do: :ok

  defp each(buffer, write, offset, count, most) do
    length = min(count - offset, most)

    with {:ok, bytes} <- Buffer.read_part(buffer, offset, length),
         :ok <- write.(bytes) do
      :erlang.garbage_collect(self(), type: :minor)
      each(buffer, write, offset + length, count, most)
    end
  end
end
