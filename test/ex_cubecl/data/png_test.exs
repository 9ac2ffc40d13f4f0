defmodule ExCubecl.Data.PngTest do
  # Images of all kinds of pixels, with and without interlacing, are read as the format defines them.
  use ExCubecl.Case, async: false

  import ExCubecl.DataFiles

  alias ExCubecl.Data

  # The bits and the color type of a pixel, the number of its samples, and the samples of the buffer.
  @kinds [
    {1, 0, 1, []},
    {2, 0, 1, []},
    {4, 0, 1, []},
    {8, 0, 1, []},
    {16, 0, 1, []},
    {8, 4, 2, [2]},
    {16, 4, 2, [2]},
    {8, 2, 3, [3]},
    {16, 2, 3, [3]},
    {8, 6, 4, [4]},
    {16, 6, 4, [4]},
    {1, 3, 1, [3]},
    {2, 3, 1, [3]},
    {4, 3, 1, [3]},
    {8, 3, 1, [3]},
    {4, 3, 1, [4]}
  ]
  @sizes [{1, 1}, {2, 3}, {5, 2}, {8, 8}, {13, 11}, {1, 9}, {6, 1}, {3, 5}]

  setup do: {:ok, dir: directory()}

  # Column and row of the first pixel of each of the seven images of Adam7, and the distances of their columns and rows.
  @adam7 [
    {0, 0, 8, 8},
    {4, 0, 8, 8},
    {0, 4, 4, 8},
    {2, 0, 4, 4},
    {0, 2, 2, 4},
    {1, 0, 2, 2},
    {0, 1, 1, 2}
  ]

  defp grids(0), do: [{0, 0, 1, 1}]
  defp grids(1), do: @adam7

  # The rows as they are in a file, without filters. `pixels` has the samples of each pixel by its column and row.
  defp rows(pixels, {width, height}, bits, interlaced) do
    for {x0, y0, dx, dy} <- grids(interlaced),
        x0 < width,
        y <- y0..(height - 1)//dy,
        into: <<>> do
      row =
        for x <- x0..(width - 1)//dx,
            sample <- pixels[{x, y}],
            into: <<>>,
            do: <<sample::size(bits)>>

      padding = rem(8 - rem(bit_size(row), 8), 8)
      <<0, row::bitstring, 0::size(padding)>>
    end
  end

  defp palette(bits),
    do: for(n <- 0..(Bitwise.bsl(1, bits) - 1), do: [rem(n * 3, 256), 255 - n, n])

  defp alpha(n), do: if(n < 5, do: n * 50, else: 255)

  # The chunks of a palette; half of its colors are transparent if the buffer has four channels.
  defp chunks(bits, 3, channels) do
    colors = chunk("PLTE", palette(bits) |> List.flatten() |> :erlang.list_to_binary())
    if channels == [4], do: colors <> chunk("tRNS", <<0, 50, 100, 150, 200>>), else: colors
  end

  defp chunks(_bits, _color, _channels), do: ""

  # What the buffer has for the samples of a pixel.
  defp expected([index], bits, 3, [4]), do: Enum.at(palette(bits), index) ++ [alpha(index)]
  defp expected([index], bits, 3, [3]), do: Enum.at(palette(bits), index)

  defp expected([grey], bits, 0, []) when bits < 8,
    do: [div(grey * 255, Bitwise.bsl(1, bits) - 1)]

  defp expected(samples, _bits, _color, _channels), do: samples

  for interlaced <- [0, 1], {bits, color, samples, channels} <- @kinds do
    test "#{bits} bits of the color type #{color} with #{inspect(channels)}, interlaced: #{interlaced}",
         %{dir: dir} do
      {bits, color, samples, channels} = unquote({:{}, [], [bits, color, samples, channels]})

      for {width, height} = size <- @sizes do
        pixels =
          for y <- 0..(height - 1), x <- 0..(width - 1), into: %{} do
            {{x, y},
             for(s <- 1..samples, do: rem(x * 7 + y * 31 + s * 1009, Bitwise.bsl(1, bits)))}
          end

        rows = rows(pixels, size, bits, unquote(interlaced))
        header = {width, height, bits, color, unquote(interlaced)}
        path = file(dir, "x.png", png(header, rows, chunks(bits, color, channels)))
        image = Data.read!(path)
        assert image.shape == [height, width] ++ channels
        assert image.dtype == if(bits == 16, do: :u16, else: :u8)

        expected =
          for y <- 0..(height - 1), x <- 0..(width - 1) do
            expected(pixels[{x, y}], bits, color, channels)
          end

        assert ExCubecl.to_flat_list!(image) == Enum.concat(expected)
        assert [%{bytes: bytes}] = Data.list!(path)
        assert bytes == ExCubecl.size!(image)
      end
    end
  end

  test "each of the images of an interlaced one has filters of its own", %{dir: dir} do
    # Two columns and rows: one pixel at the left, one at the right, and the row below, whose filter takes the left pixel.
    rows = <<4, 10, 2, 20, 1, 30, 5>>
    path = file(dir, "x.png", png({2, 2, 8, 0, 1}, rows))
    assert ExCubecl.to_list!(Data.read!(path)) == [[10, 20], [30, 35]]
  end

  test "palettes that do not fit", %{dir: dir} do
    rows = <<0, 0b01_10_00_00>>
    header = {2, 1, 2, 3, 0}
    three = chunk("PLTE", <<1, 2, 3, 4, 5, 6, 7, 8, 9>>)

    assert ExCubecl.to_list!(Data.read!(file(dir, "x.png", png(header, rows, three)))) == [
             [[4, 5, 6], [7, 8, 9]]
           ]

    for {chunks, text} <- [
          {"", "it has no palette, which its color type needs"},
          {chunk("PLTE", <<1, 2, 3, 4>>), "it has no palette"},
          {chunk("PLTE", ""), "it has no palette"},
          {chunk("PLTE", <<1, 2, 3, 4, 5, 6>>), "a pixel whose color is not in its palette"},
          {chunk("PLTE", :binary.copy(<<0>>, 15)), "its palette has 5 colors, and 2 bits have 4"},
          {three <> chunk("tRNS", <<0, 0, 0, 0>>), "its palette has 3 colors"},
          {three <> three, "its chunk \"PLTE\" is there twice"},
          {chunk("PLTE", :binary.copy(<<0>>, 3000)), "its chunk \"PLTE\" has 3000 bytes"}
        ] do
      assert {:error, error} = Data.read(file(dir, "x.png", png(header, rows, chunks)))
      assert error.reason == :invalid_file
      assert Exception.message(error) =~ text
    end
  end
end
