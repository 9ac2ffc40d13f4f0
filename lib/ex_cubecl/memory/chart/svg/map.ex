defmodule ExCubecl.Memory.Chart.Svg.Map do
  @moduledoc false
  # The live allocations of a device as a treemap, in groups by tag, owner or page: areas are proportional to bytes.

  alias ExCubecl.Memory.Chart.{Entries, Svg, Treemap}

  @width 980.0
  @height 520.0
  @left 10.0
  # Boxes of fewer square pixels are drawn as one: a smaller one cannot be seen or pointed at.
  @smallest_group 150.0
  @smallest_box 16.0
  # The height of a line of text.
  @line 15
  @grey "#d5d9de"
  @free "#f1f2f4"

  @doc "The treemap at this height of the document, 520 pixels high."
  def draw([], y) do
    [
      Svg.box(@left, y, @width, @height, @free, "no live allocations"),
      Svg.text(@left + 20, y + 35, "no live allocations", ~s(font-size="14"))
    ]
  end

  def draw(groups, y) do
    total = Entries.sum(groups)
    per_byte = @width * @height / total
    {large, small} = Enum.split_with(groups, &(&1.bytes * per_byte >= @smallest_group))
    shown = large ++ rest(small)
    placed = Treemap.layout(Enum.map(shown, &{&1.bytes, &1}), {@left, y, @width, @height})
    [for({group, at} <- placed, do: group(group, at, total, per_byte)), outlines(placed)]
  end

  defp rest([]), do: []
  defp rest([group]), do: [group]

  defp rest(groups) do
    entries = Enum.flat_map(groups, & &1.entries)

    [
      %{
        key: :rest,
        name: "#{length(groups)} smaller groups",
        bytes: Entries.sum(groups),
        count: length(entries),
        entries: entries,
        colour: @grey,
        free: groups |> Enum.map(& &1.free) |> Enum.sum()
      }
    ]
  end

  defp group(group, {x, y, width, _height} = at, total, per_byte) do
    {large, small} = Enum.split_with(group.entries, &(&1.bytes * per_byte >= @smallest_box))

    items =
      Enum.map(large, &{&1.bytes, {:one, &1}}) ++
        many(small, group.colour) ++ free(group.free)

    heading = if named?(group) and elem(at, 3) >= 18, do: heading(group, total, width - 8)

    boxes =
      for {item, place} <- Treemap.layout(items, at) do
        [box(item, place), label(item, place, group, if(heading, do: y))]
      end

    if heading,
      do: [boxes, Svg.text(x + 4, y + 13, heading, halo(group.colour))],
      else: boxes
  end

  # The borders of small boxes do not cross the letters.
  defp halo(colour),
    do: ~s(font-weight="bold" paint-order="stroke" stroke="#{colour}" stroke-width="3")

  # The only allocation of a page has its own label.
  defp named?(%{key: {:page, _}, count: 1}), do: false
  defp named?(_group), do: true

  defp heading(%{key: {:page, _}} = group, total, width) do
    full = "#{group.name}, #{Svg.percent(group.bytes, total)}"
    Enum.find([full, group.name, group.short], &Svg.fits?(&1, width))
  end

  defp heading(%{name: name, bytes: bytes}, total, width) do
    name = String.replace_prefix(name, "tag ", "")
    full = "#{name}: #{Svg.bytes(bytes)}, #{Svg.percent(bytes, total)}"
    if Svg.fits?(full, width), do: full, else: Svg.fit(name, width)
  end

  defp many([], _colour), do: []
  defp many([entry], _colour), do: [{entry.bytes, {:one, entry}}]
  defp many(entries, colour), do: [{Entries.sum(entries), {:many, entries, colour}}]

  defp free(0), do: []
  defp free(bytes), do: [{bytes, {:free, bytes}}]

  defp box({:one, entry}, at), do: box(at, entry.colour, Entries.describe(entry), [entry])

  defp box({:many, entries, colour}, at) do
    {first, more} = Enum.split(entries, 10)
    more = if more == [], do: "", else: "; and #{length(more)} more"
    title = "#{smaller(entries)}: #{Enum.map_join(first, "; ", &Entries.describe/1)}#{more}"
    box(at, colour, title, entries)
  end

  defp box({:free, bytes}, at),
    do: box(at, @free, "#{Svg.bytes(bytes)} free, padding, or kept by pools", [])

  defp box({x, y, width, height}, colour, title, entries) do
    more = ~s(class="b" stroke="#fff" stroke-width="0.7")
    indices = Enum.map_join(entries, " ", & &1.n)
    more = if entries == [], do: more, else: ~s(#{more} data-n="#{indices}")
    Svg.box(x, y, width, height, colour, title, more)
  end

  defp smaller(entries),
    do: "#{length(entries)} smaller buffers of #{Svg.bytes(Entries.sum(entries))}"

  # Below the heading of the group, where the box touches it. What does not fit is left to the tooltip.
  defp label(item, {x, y, width, height}, group, top) do
    skip = if top && y - top < 1, do: @line, else: 0

    with true <- height - skip >= @line + 2,
         text when is_binary(text) <-
           item |> labels(group) |> Enum.find(&Svg.fits?(&1, width - 8)) do
      Svg.text(x + 4, y + skip + 13, text, ~s(font-size="11"))
    else
      _ -> []
    end
  end

  # The longest label first. A group by tag names its tag.
  defp labels({:one, entry}, %{key: key}) do
    bytes = Svg.bytes(entry.bytes)

    case name(entry, key) do
      nil -> ["#{entry.type}, #{bytes}", bytes]
      name -> ["#{name}, #{entry.type}, #{bytes}", "#{name}, #{bytes}", name, bytes]
    end
  end

  defp labels({:many, entries, _}, _group),
    do: [smaller(entries), "#{length(entries)} buffers", "#{length(entries)}"]

  defp labels({:free, bytes}, _group), do: ["#{Svg.bytes(bytes)} free"]

  defp name(_entry, {:tag, _}), do: nil
  defp name(entry, {:owner, _}), do: entry.tag
  defp name(entry, _key), do: entry.tag || entry.name

  defp outlines(placed) do
    for {_, {x, y, width, height}} <- placed do
      ~s(<rect x="#{Svg.n(x)}" y="#{Svg.n(y)}" width="#{Svg.n(width)}" height="#{Svg.n(height)}" ) <>
        ~s(fill="none" stroke="#555" pointer-events="none"/>)
    end
  end
end
