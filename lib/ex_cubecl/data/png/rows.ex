defmodule ExCubecl.Data.Png.Rows do
  @moduledoc false
  # The rows of an image: each has the number of its filter before it. An interlaced image has those of seven smaller images, one after the other.

  alias ExCubecl.Data.{Reader, Upload}
  alias ExCubecl.Data.Png.{Filter, Samples}

  @doc """
  The stream of the samples of the rows in `stream`, of images with these widths and heights, one after the other. `image` has the bits, the color type and the table of
  `ExCubecl.Data.Png.Samples.table/4`.
  """
  @spec stream(Upload.stream(), Reader.t(), [{pos_integer, pos_integer}], map) :: Upload.stream()
  def stream(stream, file, sizes, image) do
    pixel = max(div(Samples.pixel(image.bits, image.color), 8), 1)
    state = %{file: file, image: image, pixel: pixel, width: 0, row: 0, prior: <<>>, left: 0}
    next(stream, start(state, sizes), [], 0)
  end

  # The next of the images: the row above its first one is zeros.
  defp start(state, [{width, height} | sizes]) do
    row = Samples.row(width, state.image.bits, state.image.color)
    zeros = :binary.copy(<<0>>, row)
    Map.merge(state, %{width: width, row: row, prior: zeros, left: height, sizes: sizes})
  end

  defp start(state, []), do: Map.merge(state, %{left: 0, sizes: []})

  # `parts` are the first bytes of a row, which are joined once the row is complete: joined with each part of the stream, a long row would be copied
  # thousands of times.
  defp next(stream, state, parts, count) do
    fn ->
      case stream.() do
        {:ok, bytes, stream} ->
          joined([parts, bytes], count + byte_size(bytes), stream, state)

        :done when state.left == 0 and count == 0 ->
          :done

        :done ->
          Reader.invalid(state.file, "it has fewer rows than its header says")

        error ->
          error
      end
    end
  end

  defp joined(parts, count, stream, %{row: row, left: left} = state)
       when left > 0 and count <= row,
       do: next(stream, state, parts, count).()

  defp joined(parts, _count, stream, state) do
    with {:ok, samples, state, rest} <- rows(IO.iodata_to_binary(parts), state, []),
         do: {:ok, samples, next(stream, state, [rest], byte_size(rest))}
  end

  defp rows(bytes, %{left: 0, sizes: [_ | _] = sizes} = state, done),
    do: rows(bytes, start(state, sizes), done)

  defp rows(bytes, %{row: row, left: left} = state, done) do
    case bytes do
      <<filter, line::binary-size(row), rest::binary>> when left > 0 and filter in 0..4 ->
        line = Filter.undo(filter, state.pixel, line, state.prior)

        with {:ok, samples} <- samples(line, state),
             do: rows(rest, %{state | prior: line, left: left - 1}, [samples | done])

      <<filter, _::binary>> when left > 0 and filter > 4 ->
        Reader.invalid(state.file, "it has a row with the filter #{filter}, which does not exist")

      <<_, _::binary>> when left == 0 ->
        Reader.invalid(state.file, "it has more rows than its header says")

      rest ->
        {:ok, done |> Enum.reverse() |> IO.iodata_to_binary(), state, rest}
    end
  end

  defp samples(line, %{image: %{table: nil}}), do: {:ok, line}

  defp samples(line, %{image: image, width: width} = state) do
    samples = Samples.of(line, width, image.bits, image.table)

    if byte_size(samples) == width * byte_size(elem(image.table, 0)),
      do: {:ok, samples},
      else: Reader.invalid(state.file, "it has a pixel whose color is not in its palette")
  end
end
