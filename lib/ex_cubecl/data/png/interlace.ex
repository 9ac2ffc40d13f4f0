defmodule ExCubecl.Data.Png.Interlace do
  @moduledoc false
  # Adam7: an image as seven smaller ones, each with the pixels of a grid.

  alias ExCubecl.Data.Upload

  # The first column and row of each image, and the distances between its columns and rows.
  @grids [
    {0, 0, 8, 8},
    {4, 0, 8, 8},
    {0, 4, 4, 8},
    {2, 0, 4, 4},
    {0, 2, 2, 4},
    {1, 0, 2, 2},
    {0, 1, 1, 2}
  ]

  # Rows are joined in parts of this many bytes.
  @part 4 * 1024 * 1024

  @doc "The widths and heights of the smaller images, without those that have no pixel."
  def sizes(width, height) do
    for grid <- @grids, {w, h} = size = size(grid, width, height), w > 0 and h > 0, do: size
  end

  defp size({x, y, dx, dy}, width, height),
    do: {div(max(width - x, 0) + dx - 1, dx), div(max(height - y, 0) + dy - 1, dy)}

  @doc "The stream of the rows of the image, whose smaller images are in `samples`, one after the other, with `pixel` bytes for each pixel."
  @spec stream(binary, pos_integer, pos_integer, pos_integer) :: Upload.stream()
  def stream(samples, width, height, pixel) do
    {images, _} =
      Enum.map_reduce(@grids, 0, fn {_, y, _, dy} = grid, offset ->
        {w, h} = size(grid, width, height)
        {{samples, offset, w * pixel, y, dy}, offset + w * h * pixel}
      end)

    rows = max(div(@part, width * pixel), 1)
    part(List.to_tuple(images), pixel, 0, height, rows)
  end

  defp part(_images, _pixel, height, height, _rows), do: fn -> :done end

  defp part(images, pixel, y, height, rows) do
    fn ->
      last = min(y + rows, height)
      bytes = for(y <- y..(last - 1), do: row(images, pixel, y)) |> IO.iodata_to_binary()
      {:ok, bytes, part(images, pixel, last, height, rows)}
    end
  end

  # The columns of a row alternate between two sets, of which the first is made in the same way.
  defp row(images, _pixel, y) when rem(y, 2) == 1, do: line(images, 7, y)

  defp row(images, pixel, y) when rem(y, 4) == 2,
    do: alternate(line(images, 5, y), line(images, 6, y), pixel, <<>>)

  defp row(images, pixel, y) do
    fourth =
      if rem(y, 8) == 4,
        do: line(images, 3, y),
        else: alternate(line(images, 1, y), line(images, 2, y), pixel, <<>>)

    fourth
    |> alternate(line(images, 4, y), pixel, <<>>)
    |> alternate(line(images, 6, y), pixel, <<>>)
  end

  # The row of a smaller image that is in row `y`.
  defp line(images, number, y) do
    {samples, offset, bytes, first, distance} = elem(images, number - 1)

    if bytes == 0,
      do: <<>>,
      else: binary_part(samples, offset + div(y - first, distance) * bytes, bytes)
  end

  defp alternate(a, b, pixel, done) do
    case {a, b} do
      {<<x::binary-size(pixel), a::binary>>, <<y::binary-size(pixel), b::binary>>} ->
        alternate(a, b, pixel, <<done::binary, x::binary, y::binary>>)

      {a, <<>>} ->
        <<done::binary, a::binary>>
    end
  end
end
