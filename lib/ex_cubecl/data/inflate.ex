defmodule ExCubecl.Data.Inflate do
  @moduledoc false
  # Decompresses a stream of deflated bytes in bounded memory. zlib's state belongs to the process that opened it and is freed with it; `with_zlib/1` closes
  # it earlier.

  alias ExCubecl.Data.{Reader, Upload}
  alias ExCubecl.Error

  # deflate cannot compress more than 1032 to 1, besides the bytes of a block.
  @most_ratio 1032

  @doc "Whether `compressed` bytes can be those of `size` bytes. A larger claim is refused before anything is allocated."
  def plausible?(compressed, size), do: size <= @most_ratio * (compressed + 1)

  @doc "The result of `fun` with an open zlib stream."
  def with_zlib(fun) do
    zlib = :zlib.open()

    try do
      fun.(zlib)
    after
      :zlib.close(zlib)
    end
  end

  @doc "The stream of the decompressed bytes of a stream. `bits` is -15 for raw deflate and 15 for the format of zlib."
  @spec stream(Upload.stream(), :zlib.zstream(), integer, Reader.t()) :: Upload.stream()
  def stream(compressed, zlib, bits, file) do
    fn ->
      :ok = :zlib.inflateInit(zlib, bits)
      step(&:zlib.safeInflate(&1, []), compressed, zlib, file)
    end
  end

  # `:zlib.safeInflate/2` returns after a bounded number of bytes, and continues with an empty input.
  defp step(call, compressed, zlib, file) do
    case inflate(call, zlib) do
      {:continue, []} ->
        feed(compressed, zlib, file)

      {:continue, bytes} ->
        chunk(bytes, fn -> step(&:zlib.safeInflate(&1, []), compressed, zlib, file) end)

      {:finished, []} ->
        feed(compressed, zlib, file)

      {:finished, bytes} ->
        chunk(bytes, fn -> feed(compressed, zlib, file) end)

      _ ->
        Reader.invalid(file, "its compressed data is damaged")
    end
  end

  defp inflate(call, zlib) do
    call.(zlib)
  rescue
    # data_error, or more data behind the end
    _ in [ErlangError, ArgumentError] -> :error
  end

  defp chunk(bytes, next) do
    case IO.iodata_to_binary(bytes) do
      <<>> -> next.()
      bytes -> {:ok, bytes, next}
    end
  end

  defp feed(compressed, zlib, file) do
    case compressed.() do
      {:ok, bytes, rest} -> step(&:zlib.safeInflate(&1, bytes), rest, zlib, file)
      :done -> finish(zlib, file)
      error -> error
    end
  end

  # An error if the compressed data ended too early.
  defp finish(zlib, file) do
    :zlib.inflateEnd(zlib)
    :done
  rescue
    _ in [ErlangError, ArgumentError] ->
      Reader.invalid(file, "its compressed data ends too early")
  end

  @doc "The decompressed bytes of a stream, at most `most` of them."
  @spec bytes(Upload.stream(), non_neg_integer) :: {:ok, binary} | {:error, Error.t()}
  def bytes(stream, most), do: collect(stream, most, [], 0)

  defp collect(stream, most, parts, count) do
    case if(count < most, do: stream.(), else: :done) do
      {:ok, part, next} ->
        collect(next, most, [part | parts], count + byte_size(part))

      :done ->
        all = parts |> Enum.reverse() |> IO.iodata_to_binary()
        {:ok, binary_part(all, 0, min(byte_size(all), most))}

      error ->
        error
    end
  end
end
