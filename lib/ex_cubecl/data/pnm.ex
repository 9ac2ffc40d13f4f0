defmodule ExCubecl.Data.Pnm do
  @moduledoc false
  # The binary forms of PGM (`P5`, grey) and PPM (`P6`, RGB): a short header in text, and the samples, 16-bit ones big-endian.

  alias ExCubecl.{DType, Shape}
  alias ExCubecl.Data.{Reader, Upload, Writer}
  alias ExCubecl.Error.Arguments

  # The longest header, with its comments, that is read.
  @head 4096
  @most 0x7FFFFFFF

  @doc "The image of a file: its shape, dtype, bytes and the offset of its samples."
  def of_file(file) do
    with {:ok, head} <- Reader.bytes(file, 0, min(file.size, @head), "the header"),
         {:ok, channels, rest} <- magic(file, head),
         {:ok, [width, height, most], samples} <- numbers(file, rest, 3, []),
         :ok <- highest(file, most) do
      shape = [height, width] ++ channels
      dtype = if most < 256, do: :u8, else: :u16
      bytes = Shape.size(shape) * DType.size!(dtype)
      offset = byte_size(head) - byte_size(samples)

      if offset + bytes == file.size,
        do: {:ok, %{shape: shape, dtype: dtype, bytes: bytes, offset: offset}},
        else:
          Reader.invalid(
            file,
            "its samples end at byte #{offset + bytes}, and the file has #{file.size}: it is truncated or damaged"
          )
    end
  end

  defp magic(_file, "P5" <> rest), do: {:ok, [], rest}
  defp magic(_file, "P6" <> rest), do: {:ok, [3], rest}

  defp magic(file, <<?P, form, _::binary>>) when form in ?1..?7,
    do: Reader.unsupported(file, "an image of the form P#{<<form>>}; P5 and P6 are read")

  defp magic(file, _head), do: Reader.invalid(file, "it does not start with P5 or P6")

  # One white space is behind the last number.
  defp numbers(_file, <<_space, samples::binary>>, 0, done),
    do: {:ok, Enum.reverse(done), samples}

  defp numbers(file, text, left, done) when left > 0 do
    with [start, digits] <- Regex.run(~r/\A(?:\s|#[^\n\r]*[\n\r])+(\d{1,10})(?=\s)/, text),
         number when number in 1..@most <- String.to_integer(digits) do
      rest = binary_part(text, byte_size(start), byte_size(text) - byte_size(start))
      numbers(file, rest, left - 1, [number | done])
    else
      _ -> numbers(file, "", 0, done)
    end
  end

  defp numbers(file, _text, _left, _done),
    do: Reader.invalid(file, "its header does not have a width, a height and a highest value")

  defp highest(_file, most) when most in 1..0xFFFF, do: :ok

  defp highest(file, most),
    do: Reader.invalid(file, "its highest value is #{most}, and 65535 is the largest")

  @doc "The buffer of an image."
  def load_file(file, opts) do
    with {:ok, image} <- of_file(file) do
      file
      |> Reader.range(image.offset, image.bytes, "the samples")
      |> Upload.run(:big, image.shape, image.dtype, opts)
    end
  end

  @doc "Writes an image; `magic` is that of the extension of the file."
  def save_file(file, %{shape: shape, dtype: dtype} = buffer, magic) do
    case {magic, shape, dtype} do
      {"P5", [height, width], dtype} when dtype in [:u8, :u16] and height > 0 and width > 0 ->
        write(file, buffer, magic, height, width)

      {"P6", [height, width, 3], dtype} when dtype in [:u8, :u16] and height > 0 and width > 0 ->
        write(file, buffer, magic, height, width)

      {"P5", _, _} ->
        Arguments.invalid(
          :data,
          buffer,
          "a grey image of the shape [height, width], of u8 or u16"
        )

      _ ->
        Arguments.invalid(
          :data,
          buffer,
          "an RGB image of the shape [height, width, 3], of u8 or u16"
        )
    end
  end

  defp write(file, buffer, magic, height, width) do
    most = if buffer.dtype == :u8, do: 255, else: 65_535

    with :ok <- Writer.write(file, "#{magic}\n#{width} #{height}\n#{most}\n"),
         do: Upload.each(buffer, :big, &Writer.write(file, &1))
  end
end
