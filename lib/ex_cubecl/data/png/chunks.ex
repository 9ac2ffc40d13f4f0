defmodule ExCubecl.Data.Png.Chunks do
  @moduledoc false
  # The chunks of a PNG file: a length, a type of four letters, bytes, and a checksum.

  alias ExCubecl.Data.Reader

  # The header, a palette and its transparency have fewer bytes.
  @most_small 1024

  @doc "The chunk at an offset, of at most 1 KiB: its type, its bytes, and the offset of the next one."
  def small(file, offset) do
    with {:ok, type, length} <- head(file, offset),
         :ok <- bounded(file, type, length),
         {:ok, bytes} <- Reader.bytes(file, offset + 8, length, "a chunk"),
         :ok <- checksum(file, type, offset + 8 + length, :erlang.crc32([type, bytes])),
         do: {:ok, type, bytes, offset + 12 + length}
  end

  defp bounded(_file, _type, length) when length <= @most_small, do: :ok

  defp bounded(file, type, length),
    do: Reader.invalid(file, "its chunk #{inspect(type)} has #{length} bytes")

  defp head(file, offset) do
    with {:ok, <<length::32, type::binary-size(4)>>} <- Reader.bytes(file, offset, 8, "a chunk"),
         :ok <- Reader.inside(file, offset, length + 12, "a chunk"),
         do: {:ok, type, length}
  end

  defp checksum(file, type, offset, crc) do
    case Reader.bytes(file, offset, 4, "a chunk") do
      {:ok, <<^crc::32>>} -> :ok
      {:ok, _} -> Reader.invalid(file, "the checksum of its chunk #{inspect(type)} is wrong")
      error -> error
    end
  end

  @doc """
  The offset of the first chunk of data, from the chunk at an offset on, and the bytes of the chunks before it whose types are `wanted`, by type.
  """
  def data(file, offset, wanted, found \\ %{}) do
    with {:ok, type, length} <- head(file, offset) do
      cond do
        type == "IDAT" ->
          {:ok, offset, found}

        type == "IEND" ->
          Reader.invalid(file, "it has no data")

        is_map_key(found, type) ->
          Reader.invalid(file, "its chunk #{inspect(type)} is there twice")

        type in wanted ->
          found(file, offset, wanted, found)

        true ->
          data(file, offset + 12 + length, wanted, found)
      end
    end
  end

  defp found(file, offset, wanted, found) do
    with {:ok, type, bytes, next} <- small(file, offset),
         do: data(file, next, wanted, Map.put(found, type, bytes))
  end

  @doc "The stream of the compressed bytes of all chunks of data; the first is at this offset."
  def compressed(file, offset) do
    fn ->
      with {:ok, type, length} <- head(file, offset) do
        if type == "IDAT" do
          file
          |> Reader.range(offset + 8, length, "a chunk")
          |> chunk(file, offset + 8 + length, :erlang.crc32(type))
          |> then(& &1.())
        else
          :done
        end
      end
    end
  end

  defp chunk(bytes, file, offset, crc) do
    fn ->
      case bytes.() do
        {:ok, part, next} ->
          {:ok, part, chunk(next, file, offset, :erlang.crc32(crc, part))}

        :done ->
          with :ok <- checksum(file, "IDAT", offset, crc), do: compressed(file, offset + 4).()

        error ->
          error
      end
    end
  end

  @doc "A chunk as it is written."
  def of(type, bytes),
    do: [<<byte_size(bytes)::32>>, type, bytes, <<:erlang.crc32([type, bytes])::32>>]
end
