defmodule ExCubecl.Memory.Chart.Drawing do
  @moduledoc false
  # Draws charts of devices of this node: `{:ok, {title, svg, html}}`. Those of another node are drawn there.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Device, Memory}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Memory.Chart.{Entries, Page, Svg}

  @most 5_000
  @groups_listed 15
  @buffers_listed 10
  @html_groups 200
  @groups [{"group", 640}, {"bytes", 110}, {"share", 110}, {"buffers", 110}]
  @buffers [{"type and shape", 230}, {"bytes", 90}, {"tag", 290}, {"owner", 290}, {"age", 60}]

  def timeline(opts) do
    with {:ok, opts} <- Arguments.options(opts, [:by, :device]),
         {:ok, by} <- by(opts[:by], [nil, :tag]),
         {:ok, id} <- Device.existing(opts[:device]),
         {:ok, samples} <- Memory.timeline(),
         {:ok, samples} <- recorded(Map.get(samples, id, []), by, id) do
      title = "Memory of #{name(id)} over time"
      svg = Svg.Timeline.draw(samples, title, by)
      {:ok, {title, svg, Page.picture(svg)}}
    end
  end

  defp recorded([], _by, id),
    do: Arguments.invalid(:device, id, "one that ExCubecl.Memory.timeline/1 has recorded")

  defp recorded([%{by_tag: nil} | _], :tag, _id),
    do: Arguments.invalid(:by, :tag, "a recording with ExCubecl.Memory.timeline(tags: true)")

  defp recorded(samples, _by, _id), do: {:ok, samples}

  def map(opts) do
    with {:ok, opts} <- Arguments.options(opts, [:by, :most, :device]),
         {:ok, by} <- by(Keyword.get(opts, :by, :tag), [:tag, :owner, :page]),
         {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, map} <- Memory.map(device: id, most: Keyword.get(opts, :most, @most)),
         {:ok, usage} <- Memory.usage(device: id) do
      title = "Memory of #{name(id)}"
      {svg, html} = map(map, usage, by, title)
      {:ok, {title, svg, html}}
    end
  end

  defp by(by, known) do
    if by in known,
      do: {:ok, by},
      else: Arguments.invalid(:by, by, "one of #{Enum.map_join(known, ", ", &inspect/1)}")
  end

  @doc "The picture of `ExCubecl.Memory.map/1` with its tables, and the same picture as HTML with a search."
  def map(%{pages: pages, allocations: allocations}, usage, by, title) do
    names = Entries.pages(pages)
    entries = Entries.new(allocations, by, names)
    groups = Entries.groups(entries, pages, names)

    picture = [
      Svg.Usage.draw(usage, pages, allocations, 34),
      Svg.Map.draw(groups, 106)
    ]

    {sums, more} = Entries.sums(groups, @groups_listed)
    {largest, smaller} = Entries.largest(entries, @buffers_listed)
    first = 106 + 520 + 14
    second = first + Svg.Table.height(sums, more)

    svg =
      Svg.document(1000, second + Svg.Table.height(largest, smaller), title, [
        picture,
        Svg.Table.draw(@groups, sums, more, first),
        Svg.Table.draw(@buffers, largest, smaller, second)
      ])

    html =
      Page.map(
        Svg.document(1000, first, title, picture),
        groups,
        Entries.sums(groups, @html_groups),
        entries
      )

    {svg, html}
  end

  defp name({runtime, index} = id) do
    case Device.info(id) do
      {:ok, %{name: name}} -> "#{runtime}:#{index}, #{name}"
      {:error, _} -> "#{runtime}:#{index}"
    end
  end
end
