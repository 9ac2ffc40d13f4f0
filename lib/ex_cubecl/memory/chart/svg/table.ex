defmodule ExCubecl.Memory.Chart.Svg.Table do
  @moduledoc false
  # Tables below a picture: rows of texts, which are cut to the widths of their columns and have the full text as a tooltip.

  alias ExCubecl.Memory.Chart.Svg

  @left 10
  @row 18

  def height(rows, rest), do: @row * (length(rows) + length(rest) + 1) + 18

  @doc """
  A table from this height of the document. Columns are `{title, width}`, rows are `{colour, texts}`, and `rest` are lines below.
  """
  def draw(columns, rows, rest, y) do
    titles = Enum.map(columns, &elem(&1, 0))
    y = y + 18
    below = y + @row * (length(rows) + 1)

    [
      cells(columns, titles, y, ~s(font-weight="bold")),
      for {{colour, texts}, n} <- Enum.with_index(rows, 1) do
        [
          Svg.box(@left, y + @row * n - 10, 12, 12, colour, hd(texts)),
          cells(columns, texts, y + @row * n, "")
        ]
      end,
      for {line, n} <- Enum.with_index(rest) do
        Svg.text(@left + 20, below + @row * n, line, ~s(fill="#666"))
      end
    ]
  end

  defp cells(columns, texts, y, more) do
    {cells, _} =
      columns
      |> Enum.zip(texts)
      |> Enum.map_reduce(@left + 20, fn {{_title, width}, text}, x ->
        {cell(text, x, y, width, more), x + width}
      end)

    cells
  end

  # Labels let the pointer through: a box without colour under a text that was cut has the tooltip.
  defp cell(text, x, y, width, more) do
    case Svg.fit(text, width - 10) do
      ^text ->
        Svg.text(x, y, text, more)

      cut ->
        [
          Svg.box(x, y - 12, width - 10, 16, "#fff", text, ~s(class="s")),
          Svg.text(x, y, cut || "", more)
        ]
    end
  end
end
