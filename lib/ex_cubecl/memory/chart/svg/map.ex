defmodule ExCubecl.Memory.Chart.Svg.Map do
  @moduledoc false
  # The memory map of a device: a bar for each page, with its allocations at their offsets.

  alias ExCubecl.Memory.Chart.Svg
  alias ExCubecl.Error.Text

  @left 190
  @right 850
  @row 24
  @top 46

  # A palette for colour-blind readers too; keys after the last colour are grey.
  @palette ~w(#4477aa #ee6677 #228833 #ccbb44 #66ccee #aa3377 #994f00 #882255 #44aa99 #ddaa33 #117733 #332288)
  @other "#9aa3ad"

  def draw(%{pages: pages, allocations: allocations}, most) do
    {idle, busy} =
      pages |> Enum.sort_by(&{-&1.bytes, &1.page}) |> Enum.split_with(&(&1.kind == :idle))

    {shown, hidden} = Enum.split(busy, most)
    on = Enum.group_by(allocations, & &1.page)
    keys = keys(allocations)
    colours = Map.new(Enum.zip(Enum.map(keys, &elem(&1, 0)), @palette))
    rows = length(shown) + if(idle == [], do: 0, else: 1)
    height = @top + @row * (rows + 1) + 20 * div(length(keys) + 2, 3) + 30

    Svg.document(900, height, [
      summary(pages, allocations, idle),
      for({page, at} <- Enum.with_index(shown), do: row(page, @top + @row * at, on, colours)),
      idle(idle, @top + @row * length(shown)),
      legend(keys, colours, @top + @row * rows + 20),
      rest(hidden, height)
    ])
  end

  defp summary(pages, allocations, idle) do
    Svg.text(
      10,
      22,
      "#{length(allocations)} allocations of #{Svg.bytes(sum(allocations))} on #{length(pages)} pages of " <>
        "#{Svg.bytes(sum(pages))}, #{Svg.bytes(sum(idle))} of them idle",
      ~s(font-size="14")
    )
  end

  defp sum(all), do: Enum.sum(Enum.map(all, & &1.bytes))

  defp row(page, y, on, colours) do
    [
      Svg.text(10, y + 14, label(page)),
      Svg.box(@left, y, @right - @left, @row - 6, "#e3e6ea", title(page)),
      for(allocation <- Map.get(on, page.page, []), do: block(allocation, page, y, colours))
    ]
  end

  # All idle pages in one row: there may be many.
  defp idle([], _y), do: []

  defp idle(pages, y) do
    total = sum(pages)
    label = Svg.text(10, y + 14, "#{length(pages)} idle, #{Svg.bytes(total)}")

    {boxes, _} =
      Enum.map_reduce(pages, @left, fn page, x ->
        width = (@right - @left) * page.bytes / total
        {Svg.box(x, y, max(width - 1, 0.8), @row - 6, "#f0f0f0", title(page)), x + width}
      end)

    [label | boxes]
  end

  defp label(%{kind: :slab} = page),
    do: "slab, #{Svg.bytes(page.bytes)}, #{percent(page.used, page.bytes)} used"

  defp label(%{kind: :dedicated} = page), do: "page, #{Svg.bytes(page.bytes)}"

  defp title(%{kind: :slab} = page),
    do:
      "slab of #{Svg.bytes(page.bytes)}: #{Svg.bytes(page.used)} in use, padding and kept buffers of pools included"

  defp title(%{kind: :dedicated} = page),
    do: "page of #{Svg.bytes(page.bytes)}, one allocation has it"

  defp title(%{kind: :idle} = page),
    do: "idle page of #{Svg.bytes(page.bytes)}, kept for the next buffer of its size"

  defp percent(part, whole), do: "#{round(100 * part / whole)} %"

  defp block(allocation, page, y, colours) do
    width = @right - @left
    x = @left + width * allocation.offset / page.bytes
    wide = max(width * allocation.bytes / page.bytes, 0.8)
    Svg.box(x, y, wide, @row - 6, colour(colours, key(allocation)), describe(allocation))
  end

  defp describe(allocation) do
    shape = Enum.map_join(allocation.shape, &"[#{&1}]")
    tag = if allocation.tag, do: ", tag #{Text.show(allocation.tag)}", else: ""

    "#{allocation.dtype}#{shape}, #{Svg.bytes(allocation.bytes)}, owner #{inspect(allocation.owner)}#{tag}, " <>
      "storage #{allocation.storage_id}, at byte #{allocation.offset}, #{div(allocation.age_ms, 1000)} s old"
  end

  defp colour(colours, key), do: Map.get(colours, key, @other)

  defp key(%{tag: nil, owner: owner}), do: {:owner, owner}
  defp key(%{tag: tag}), do: {:tag, tag}

  # Only the largest: a legend of all keys would be longer than the picture.
  defp keys(allocations) do
    allocations
    |> Enum.group_by(&key/1)
    |> Enum.map(fn {key, all} -> {key, sum(all)} end)
    |> Enum.sort_by(fn {key, bytes} -> {-bytes, key} end)
    |> Enum.take(length(@palette))
  end

  defp legend(keys, colours, y) do
    for {{{kind, name} = key, bytes}, at} <- Enum.with_index(keys) do
      {x, y} = {10 + 290 * rem(at, 3), y + 20 * div(at, 3)}
      name = name |> Text.show() |> String.slice(0, 24)

      [
        Svg.box(x, y - 10, 12, 12, colour(colours, key), "#{kind} #{name}"),
        Svg.text(x + 18, y, "#{kind} #{name}, #{Svg.bytes(bytes)}")
      ]
    end
  end

  defp rest([], _height), do: []

  defp rest(hidden, height) do
    text = "and #{length(hidden)} smaller pages of #{Svg.bytes(sum(hidden))}"
    Svg.text(10, height - 8, text, ~s(fill="#777"))
  end
end
