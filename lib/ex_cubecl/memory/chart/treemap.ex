defmodule ExCubecl.Memory.Chart.Treemap do
  @moduledoc false
  # A squarified treemap (Bruls, Huizing and van Wijk, 2000): rectangles whose areas are proportional to their weights, as
  # close to squares as the order by weight allows.

  @type rectangle :: {x :: float, y :: float, width :: float, height :: float}

  @doc """
  Divides a rectangle among `{weight, item}`, the largest weight first: `[{item, rectangle}]`. Weights are positive.

      iex> ExCubecl.Memory.Chart.Treemap.layout([{1, :small}, {3, :large}], {0.0, 0.0, 4.0, 1.0})
      [large: {0.0, 0.0, 3.0, 1.0}, small: {3.0, 0.0, 1.0, 1.0}]
  """
  @spec layout([{number, item}], rectangle) :: [{item, rectangle}] when item: term
  def layout(items, {_x, _y, width, height} = rectangle) do
    total = items |> Enum.map(&elem(&1, 0)) |> Enum.sum()

    items
    |> Enum.sort_by(&elem(&1, 0), :desc)
    |> Enum.map(fn {weight, item} -> {weight / total * width * height, item} end)
    |> rows(rectangle)
  end

  # Each row fills the shorter side of what is left of the rectangle.
  defp rows([], _rectangle), do: []

  defp rows([{area, _} = first | rest], {_x, _y, width, height} = rectangle) do
    side = min(width, height)
    {row, sum, rest} = row([first], area, area, rest, side)
    {placed, left} = place(Enum.reverse(row), sum, rectangle)
    placed ++ rows(rest, left)
  end

  # Adds items to a row as long as that does not make its most elongated rectangle more elongated.
  defp row(row, sum, largest, [{area, _} = next | rest] = items, side) do
    [{smallest, _} | _] = row

    if elongation(sum + area, largest, area, side) <= elongation(sum, largest, smallest, side),
      do: row([next | row], sum + area, largest, rest, side),
      else: {row, sum, items}
  end

  defp row(row, sum, _largest, [], _side), do: {row, sum, []}

  defp elongation(sum, largest, smallest, side),
    do: max(side * side * largest / (sum * sum), sum * sum / (side * side * smallest))

  defp place(row, sum, {x, y, width, height}) when width >= height do
    wide = min(sum / height, width)

    {placed, _} =
      Enum.map_reduce(row, y, fn {area, item}, y ->
        high = height * area / sum
        {{item, {x, y, wide, high}}, y + high}
      end)

    {placed, {x + wide, y, max(width - wide, least(width)), height}}
  end

  defp place(row, sum, {x, y, width, height}) do
    high = min(sum / width, height)

    {placed, _} =
      Enum.map_reduce(row, x, fn {area, item}, x ->
        wide = width * area / sum
        {{item, {x, y, wide, high}}, x + wide}
      end)

    {placed, {x, y + high, width, max(height - high, least(height))}}
  end

  # Rounding may leave nothing for the last row, which would divide by zero.
  defp least(length), do: length * 1.0e-12
end
