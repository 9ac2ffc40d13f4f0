defmodule ExCubecl.Memory.Chart.Svg.Usage do
  @moduledoc false
  # A bar of the memory that the runtime of a device holds, used or not, and the line of text above it.

  alias ExCubecl.Error.Text
  alias ExCubecl.Memory.Chart.{Entries, Svg}

  @left 10
  @width 980
  @height 14

  @doc "Two lines of text and the bar, from this height of the document; 62 pixels high."
  def draw(usage, pages, allocations, y) do
    parts = parts(usage, pages)
    total = max(Entries.sum(for {_, bytes, _, _} <- parts, do: %{bytes: bytes}), 1)

    {boxes, _} =
      Enum.map_reduce(parts, @left * 1.0, fn {name, bytes, colour, title}, x ->
        width = @width * bytes / total
        {Svg.box(x, y + 24, width, @height, colour, "#{name}: #{title}"), x + width}
      end)

    [
      Svg.text(@left, y + 12, summary(usage, length(allocations))),
      boxes,
      legend(parts, y + 54)
    ]
  end

  defp summary(usage, listed) do
    drawn =
      if listed < usage.live_buffers, do: ", of which the #{listed} largest are drawn", else: ""

    "#{Svg.bytes(usage.live_bytes)} live in #{Text.count(usage.live_buffers, "buffer")}#{drawn}; " <>
      "peak #{Svg.bytes(usage.peak_bytes)}; limit #{limit(usage)}; #{Svg.bytes(usage.reserved_bytes)} held by the runtime:"
  end

  defp limit(%{limit: nil}), do: "none"

  defp limit(%{limit: limit, live_bytes: live}),
    do: "#{Svg.bytes(limit)} (#{round(100 * live / max(limit, 1))} % used)"

  defp parts(usage, pages) do
    {idle, busy} = Enum.split_with(pages, &(&1.kind == :idle))
    used = busy |> Enum.map(& &1.used) |> Enum.sum()
    idle = Entries.sum(idle)
    live = usage.live_bytes
    kept = max(used - live, 0)
    free = max(Entries.sum(busy) - max(used, live), 0)
    rest = max(usage.reserved_bytes - live - kept - free - idle, 0)

    for {_, bytes, _, _} = part <- [
          {"live", live, "#2f6db3", Svg.bytes(live)},
          {"padding and idle buffers of pools", kept, "#8fb0d6",
           "#{Svg.bytes(kept)} on pages, which no allocation uses"},
          {"free in slabs", free, "#c3d3e6",
           "#{Svg.bytes(free)} on pages that several buffers share"},
          {"idle pages", idle, "#dfe4ea",
           "#{Svg.bytes(idle)} kept for the next buffer of the same size"},
          {"staging and other", rest, "#c9b9a6", Svg.bytes(rest)}
        ],
        bytes > 0,
        do: part
  end

  defp legend(parts, y) do
    {items, _} =
      Enum.map_reduce(parts, @left, fn {name, bytes, colour, title}, x ->
        text = "#{name} #{Svg.bytes(bytes)}"

        item = [
          Svg.box(x, y - 10, 12, 12, colour, title),
          Svg.text(x + 18, y, text)
        ]

        {item, x + 18 + 7 * String.length(text) + 16}
      end)

    items
  end
end
