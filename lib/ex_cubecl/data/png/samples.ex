defmodule ExCubecl.Data.Png.Samples do
  @moduledoc false
  # The samples of a row as they are in a buffer: colors in place of the indices of a palette, and grey of fewer than 8 bits as 8 bits.

  alias ExCubecl.Data.Reader

  # The samples of a pixel, by the color type.
  @samples %{0 => 1, 2 => 3, 3 => 1, 4 => 2, 6 => 4}
  @bits %{0 => [1, 2, 4, 8, 16], 2 => [8, 16], 3 => [1, 2, 4, 8], 4 => [8, 16], 6 => [8, 16]}

  @doc "The numbers of bits that a sample of a color type may have; `nil` for a type that does not exist."
  def bits(color), do: @bits[color]

  @doc "The bits of a pixel in the file."
  def pixel(bits, color), do: bits * @samples[color]

  @doc "The bytes of a row of pixels in the file."
  def row(width, bits, color), do: div(width * pixel(bits, color) + 7, 8)

  @doc """
  What the pixels of the file stand for: `{:ok, nil, channels}` if their samples are those of the buffer, else a table with the bytes of each pixel. `channels` are the last
  axes of the shape. `chunks` has the palette and its transparency.
  """
  def table(_file, bits, 0, _chunks) when bits < 8 do
    most = Bitwise.bsl(1, bits) - 1
    {:ok, List.to_tuple(for(grey <- 0..most, do: <<div(grey * 255, most)>>)), []}
  end

  def table(file, bits, 3, chunks) do
    palette = chunks["PLTE"] || <<>>
    alpha = chunks["tRNS"]
    count = div(byte_size(palette), 3)
    most = Bitwise.bsl(1, bits)

    cond do
      count == 0 or rem(byte_size(palette), 3) != 0 ->
        Reader.invalid(file, "it has no palette, which its color type needs")

      count > most or byte_size(alpha || <<>>) > count ->
        Reader.invalid(file, "its palette has #{count} colors, and #{bits} bits have #{most}")

      true ->
        {:ok, colors(palette, alpha, most - count), [if(alpha, do: 4, else: 3)]}
    end
  end

  def table(_file, _bits, color, _chunks),
    do: {:ok, nil, if(color == 0, do: [], else: [@samples[color]])}

  # Colors without an alpha are opaque. An index that the palette does not have gives no bytes: the row is too short then, and refused.
  defp colors(palette, alpha, missing) do
    colors = for <<color::binary-size(3) <- palette>>, do: color

    colors =
      if alpha do
        opaque = List.duplicate(255, length(colors) - byte_size(alpha))
        Enum.zip_with(colors, :binary.bin_to_list(alpha) ++ opaque, &(&1 <> <<&2>>))
      else
        colors
      end

    List.to_tuple(colors ++ List.duplicate(<<>>, missing))
  end

  @doc "The bytes of a row of `width` pixels of `bits` bits."
  def of(row, _width, _bits, nil), do: row

  def of(row, width, bits, table) do
    used = width * bits
    <<pixels::bitstring-size(used), _padding::bitstring>> = row
    for <<pixel::size(bits) <- pixels>>, into: <<>>, do: elem(table, pixel)
  end
end
