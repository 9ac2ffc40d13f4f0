defmodule ExCubecl.Data.Png do
  @moduledoc false
  # PNG images of 8 and 16 bits without a palette and without interlacing. Rows are written without a filter.

  alias ExCubecl.{DType, Shape}
  alias ExCubecl.Data.{Inflate, PngFilter, Reader, Upload, Writer}
  alias ExCubecl.Error.Arguments

  @signature <<137, "PNG\r\n", 26, 10>>
  @most 0x7FFFFFFF
  # A row, and the one before it, are in host memory.
  @most_row 64 * 1024 * 1024

  # The channels of a color type of PNG.
  @channels %{0 => [], 4 => [2], 2 => [3], 6 => [4]}
  @colors Map.new(@channels, fn {color, channels} -> {channels, color} end)

  @doc "The image of a file: its shape and dtype, and the offset of the first chunk of data."
  def of_file(file) do
    with {:ok, @signature} <- Reader.bytes(file, 0, 8, "the signature"),
         {:ok, "IHDR", header, next} when byte_size(header) == 13 <- small(file, 8),
         <<width::32, height::32, bits, color, 0, 0, interlaced>> <- header,
         true <- width in 1..@most and height in 1..@most,
         :ok <- readable(file, bits, color, interlaced),
         {:ok, offset} <- data(file, next) do
      shape = [height, width] ++ @channels[color]
      dtype = if bits == 8, do: :u8, else: :u16
      bytes = Shape.size(shape) * DType.size!(dtype)
      row = div(bytes, height)

      cond do
        row > @most_row ->
          Reader.unsupported(file, "rows of #{row} bytes, and at most #{@most_row} are read")

        not Inflate.plausible?(file.size, bytes + height) ->
          Reader.invalid(
            file,
            "its image has #{bytes} bytes, which #{file.size} compressed ones cannot make"
          )

        true ->
          {:ok, %{shape: shape, dtype: dtype, bytes: bytes, row: row, offset: offset}}
      end
    else
      {:error, _} = error -> error
      _ -> Reader.invalid(file, "it does not start as a PNG image does")
    end
  end

  defp readable(file, bits, color, interlaced) do
    cond do
      bits not in [8, 16] or not is_map_key(@channels, color) ->
        Reader.unsupported(
          file,
          "an image of #{bits} bits of the color type #{color}; 8 and 16 bits of grey, RGB and alpha are read"
        )

      interlaced != 0 ->
        Reader.unsupported(file, "an interlaced image")

      true ->
        :ok
    end
  end

  ## Chunks

  defp head(file, offset) do
    with {:ok, <<length::32, type::binary-size(4)>>} <- Reader.bytes(file, offset, 8, "a chunk"),
         :ok <- Reader.inside(file, offset, length + 12, "a chunk"),
         do: {:ok, type, length}
  end

  # A chunk of at most 1 KiB.
  defp small(file, offset) do
    with {:ok, type, length} when length <= 1024 <- head(file, offset),
         {:ok, bytes} <- Reader.bytes(file, offset + 8, length, "a chunk"),
         :ok <- checksum(file, type, offset + 8 + length, :erlang.crc32([type, bytes])),
         do: {:ok, type, bytes, offset + 12 + length}
  end

  defp checksum(file, type, offset, crc) do
    case Reader.bytes(file, offset, 4, "a chunk") do
      {:ok, <<^crc::32>>} -> :ok
      {:ok, _} -> Reader.invalid(file, "the checksum of its chunk #{inspect(type)} is wrong")
      error -> error
    end
  end

  # The offset of the first chunk of data. The chunks before it do not change the samples.
  defp data(file, offset) do
    with {:ok, type, length} <- head(file, offset) do
      case type do
        "IDAT" -> {:ok, offset}
        "IEND" -> Reader.invalid(file, "it has no data")
        _ -> data(file, offset + 12 + length)
      end
    end
  end

  # The stream of the compressed bytes of all chunks of data.
  defp compressed(file, offset) do
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

  ## Reading

  @doc "The buffer of an image."
  def load_file(file, opts) do
    with {:ok, image} <- of_file(file) do
      Inflate.with_zlib(fn zlib ->
        rows = file |> compressed(image.offset) |> Inflate.stream(zlib, 15, file)
        pixel = div(image.row, Enum.at(image.shape, 1))
        prior = :binary.copy(<<0>>, image.row)
        left = hd(image.shape)

        rows
        |> rows(file, {image.row, pixel}, prior, left, <<>>)
        |> Upload.run(:big, image.shape, image.dtype, opts)
      end)
    end
  end

  # The stream of the samples: each row has the number of its filter before it.
  defp rows(stream, file, sizes, prior, left, rest) do
    fn ->
      case stream.() do
        {:ok, bytes, next} ->
          with {:ok, samples, prior, left, rest} <-
                 unfiltered(rest <> bytes, file, sizes, prior, left, []),
               do: {:ok, samples, rows(next, file, sizes, prior, left, rest)}

        :done when left == 0 and rest == <<>> ->
          :done

        :done ->
          Reader.invalid(file, "it has fewer rows than its header says")

        error ->
          error
      end
    end
  end

  defp unfiltered(bytes, file, {row, pixel} = sizes, prior, left, done) do
    case bytes do
      <<filter, line::binary-size(row), rest::binary>> when left > 0 and filter in 0..4 ->
        line = PngFilter.undo(filter, pixel, line, prior)
        unfiltered(rest, file, sizes, line, left - 1, [line | done])

      <<filter, _::binary>> when left > 0 and filter > 4 ->
        Reader.invalid(file, "it has a row with the filter #{filter}, which does not exist")

      <<_, _::binary>> when left == 0 ->
        Reader.invalid(file, "it has more rows than its header says")

      rest ->
        {:ok, done |> Enum.reverse() |> IO.iodata_to_binary(), prior, left, rest}
    end
  end

  ## Writing

  @doc "Writes an image of the shape [height, width], or [height, width, channels] with 2 to 4 channels."
  def save_file(file, %{shape: shape, dtype: dtype} = buffer) do
    with [height, width | channels] when height in 1..@most and width in 1..@most <- shape,
         true <- dtype in [:u8, :u16] and is_map_key(@colors, channels) do
      bits = 8 * DType.size!(dtype)
      header = <<width::32, height::32, bits, @colors[channels], 0, 0, 0>>

      with :ok <- Writer.write(file, [@signature, chunk_of("IHDR", header)]),
           :ok <- data_of(file, buffer, div(Shape.size(shape), height)),
           do: Writer.write(file, chunk_of("IEND", <<>>))
    else
      _ ->
        expected =
          "an image of the shape [height, width], or [height, width, channels] with 2 to 4 channels, of u8 or u16"

        Arguments.invalid(:data, buffer, expected)
    end
  end

  defp data_of(file, buffer, row) do
    Inflate.with_zlib(fn zlib ->
      :ok = :zlib.deflateInit(zlib)
      line = row * DType.size!(buffer.dtype)

      rows = fn bytes ->
        filtered = for <<samples::binary-size(line) <- bytes>>, do: [0, samples]
        deflated(file, :zlib.deflate(zlib, filtered, :none))
      end

      with :ok <- Upload.each(buffer, :big, row, rows),
           do: deflated(file, :zlib.deflate(zlib, <<>>, :finish))
    end)
  end

  defp deflated(file, bytes) do
    case IO.iodata_to_binary(bytes) do
      <<>> -> :ok
      bytes -> Writer.write(file, chunk_of("IDAT", bytes))
    end
  end

  defp chunk_of(type, bytes),
    do: [<<byte_size(bytes)::32>>, type, bytes, <<:erlang.crc32([type, bytes])::32>>]
end
