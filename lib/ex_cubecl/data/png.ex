defmodule ExCubecl.Data.Png do
  @moduledoc false
  # PNG images. Rows are written without a filter and without interlacing.

  alias ExCubecl.{DType, Shape}
  alias ExCubecl.Data.{Inflate, Reader, Upload, Writer}
  alias ExCubecl.Data.Png.{Chunks, Interlace, Rows, Samples}
  alias ExCubecl.Error.Arguments

  @signature <<137, "PNG\r\n", 26, 10>>
  @most 0x7FFFFFFF
  # A row, and the one before it, are in host memory. Of an interlaced image all rows are.
  @most_row 64 * 1024 * 1024
  @most_interlaced 128 * 1024 * 1024

  # The color types that are written, by the last axes of a shape.
  @colors %{[] => 0, [2] => 4, [3] => 2, [4] => 6}

  @doc """
  The image of a file: its shape, dtype and bytes, the bits and the color type of its pixels and what these stand for, the sizes of its interlaced images (or its own), and
  the offset of the first chunk of data.
  """
  def of_file(file) do
    with {:ok, @signature} <- Reader.bytes(file, 0, 8, "the signature"),
         {:ok, "IHDR", header, next} when byte_size(header) == 13 <- Chunks.small(file, 8),
         <<width::32, height::32, bits, color, 0, 0, interlaced>> <- header,
         true <- width in 1..@most and height in 1..@most and interlaced in 0..1,
         :ok <- readable(file, bits, color),
         {:ok, offset, chunks} <-
           Chunks.data(file, next, if(color == 3, do: ["PLTE", "tRNS"], else: [])),
         {:ok, table, channels} <- Samples.table(file, bits, color, chunks) do
      dtype = if bits == 16, do: :u16, else: :u8
      pixel = Enum.product(channels) * DType.size!(dtype)

      bounded(file, %{
        shape: [height, width] ++ channels,
        dtype: dtype,
        bytes: height * width * pixel,
        bits: bits,
        color: color,
        table: table,
        pixel: pixel,
        interlaced?: interlaced == 1,
        sizes: if(interlaced == 1, do: Interlace.sizes(width, height), else: [{width, height}]),
        offset: offset
      })
    else
      {:error, _} = error -> error
      _ -> Reader.invalid(file, "it does not start as a PNG image does")
    end
  end

  defp readable(file, bits, color) do
    if bits in (Samples.bits(color) || []),
      do: :ok,
      else:
        Reader.invalid(file, "an image of #{bits} bits of the color type #{color} does not exist")
  end

  # The claims of a header are compared with the size of the file before anything is allocated.
  defp bounded(file, %{shape: [height | _], bytes: bytes} = image) do
    row = div(bytes, height)

    compressed =
      for {width, height} <- image.sizes,
          do: height * (1 + Samples.row(width, image.bits, image.color))

    cond do
      row > @most_row ->
        Reader.unsupported(file, "rows of #{row} bytes, and at most #{@most_row} are read")

      not Inflate.plausible?(file.size, Enum.sum(compressed)) ->
        Reader.invalid(
          file,
          "its rows have #{Enum.sum(compressed)} bytes, which #{file.size} compressed ones cannot make"
        )

      image.interlaced? and bytes > @most_interlaced ->
        Reader.unsupported(
          file,
          "an interlaced image of #{bytes} bytes, and at most #{@most_interlaced} are read"
        )

      true ->
        {:ok, image}
    end
  end

  ## Reading

  @doc "The buffer of an image."
  def load_file(file, opts) do
    with {:ok, image} <- of_file(file) do
      Inflate.with_zlib(fn zlib ->
        samples =
          file
          |> Chunks.compressed(image.offset)
          |> Inflate.stream(zlib, 15, file)
          |> Rows.stream(file, image.sizes, image)

        with {:ok, rows} <- in_order(samples, image),
             do: Upload.run(rows, :big, image.shape, image.dtype, opts)
      end)
    end
  end

  defp in_order(samples, %{interlaced?: false}), do: {:ok, samples}

  # One byte more than there should be is asked for, so that the stream is read to its end.
  defp in_order(samples, %{shape: [height, width | _]} = image) do
    with {:ok, bytes} <- Inflate.bytes(samples, image.bytes + 1),
         do: {:ok, Interlace.stream(bytes, width, height, image.pixel)}
  end

  ## Writing

  @doc "Writes an image of the shape [height, width], or [height, width, channels] with 2 to 4 channels."
  def save_file(file, %{shape: shape, dtype: dtype} = buffer) do
    with [height, width | channels] when height in 1..@most and width in 1..@most <- shape,
         true <- dtype in [:u8, :u16] and is_map_key(@colors, channels) do
      bits = 8 * DType.size!(dtype)
      header = <<width::32, height::32, bits, @colors[channels], 0, 0, 0>>

      with :ok <- Writer.write(file, [@signature, Chunks.of("IHDR", header)]),
           :ok <- data_of(file, buffer, div(Shape.size(shape), height)),
           do: Writer.write(file, Chunks.of("IEND", <<>>))
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
      bytes -> Writer.write(file, Chunks.of("IDAT", bytes))
    end
  end
end
