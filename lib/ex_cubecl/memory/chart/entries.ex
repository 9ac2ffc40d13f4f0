defmodule ExCubecl.Memory.Chart.Entries do
  @moduledoc false
  # What the map draws: the live allocations as texts, and their groups.

  alias ExCubecl.Error.Text
  alias ExCubecl.Memory.Chart.{Colour, Svg}
  alias ExCubecl.Memory.Owner

  # A tag may be any term, of any size; every allocation repeats it in the document.
  @longest 2_000
  @grey "#d5d9de"

  @doc """
  The names of the pages that are in use, with numbers that count from the largest: "slab 1", "page 2".
  """
  def pages(pages) do
    for {%{page: page, kind: kind}, number} <-
          pages
          |> Enum.reject(&(&1.kind == :idle))
          |> Enum.sort_by(&{-&1.bytes, &1.page})
          |> Enum.with_index(1),
        into: %{},
        do: {page, "#{if kind == :slab, do: "slab", else: "page"} #{number}"}
  end

  @doc """
  The allocations, the largest first. `by` is `:tag`, `:owner` or `:page`; an allocation without a tag belongs to its owner. Each has
  its index `n`, the `key` of its colour, the `group` to which it belongs, and its texts.
  """
  def new(allocations, by, page_names) do
    owners =
      allocations |> Enum.map(& &1.owner) |> Enum.uniq() |> Map.new(&{&1, Owner.describe(&1)})

    tags = allocations |> Enum.map(& &1.tag) |> Enum.uniq() |> Map.new(&{&1, full(&1)})
    colours = allocations |> Enum.map(&key(&1, by)) |> Colour.assign()

    allocations
    |> Enum.sort_by(&{-&1.bytes, &1.storage_id})
    |> Enum.with_index()
    |> Enum.map(fn {allocation, n} ->
      key = key(allocation, by)

      %{
        n: n,
        bytes: allocation.bytes,
        group: if(by == :page, do: {:page, allocation.page}, else: key),
        colour: colours[key],
        name: name(key, tags, owners),
        tag: tags[allocation.tag],
        owner: owners[allocation.owner],
        type: "#{allocation.dtype}#{Enum.map_join(allocation.shape, &"[#{&1}]")}",
        age: age(allocation.age_ms),
        storage: allocation.storage_id,
        location: "#{page_names[allocation.page]} at byte #{allocation.offset}"
      }
    end)
  end

  defp key(%{tag: tag}, by) when tag != nil and by != :owner, do: {:tag, tag}
  defp key(%{owner: owner}, _by), do: {:owner, owner}

  defp name({:tag, tag}, tags, _owners), do: "tag #{tags[tag]}"
  defp name({:owner, owner}, _tags, owners), do: "owner #{owners[owner]}"

  defp full(nil), do: nil
  defp full(tag), do: text(tag)

  @doc "A tag as text, cut only where it is very long."
  def text(tag) do
    text = inspect(tag, charlists: :as_lists, limit: @longest, printable_limit: @longest)
    size = String.length(text)

    if size > @longest,
      do: "#{String.slice(text, 0, @longest)}... (#{Text.count(size, "character")})",
      else: text
  end

  defp age(ms) when ms < 120_000, do: "#{div(ms, 1000)} s"
  defp age(ms) when ms < 7_200_000, do: "#{div(ms, 60_000)} min"
  defp age(ms), do: "#{div(ms, 3_600_000)} h"

  @doc "The groups of the entries with their sums, the largest first. The bytes of a page are those of all of it."
  def groups(entries, pages, page_names) do
    pages = Map.new(pages, &{&1.page, &1})

    entries
    |> Enum.group_by(& &1.group)
    |> Enum.map(fn {key, entries} ->
      group(
        key,
        %{key: key, bytes: sum(entries), count: length(entries), entries: entries},
        pages,
        page_names
      )
    end)
    |> Enum.sort_by(&{-&1.bytes, &1.key})
  end

  defp group({:page, page}, group, pages, page_names) do
    %{bytes: bytes} = pages[page]
    name = page_names[page]
    free = max(bytes - group.bytes, 0)

    Map.merge(group, %{
      name: "#{name} of #{Svg.bytes(bytes)}",
      short: name,
      colour: @grey,
      bytes: bytes,
      free: free
    })
  end

  defp group(_key, %{entries: [%{name: name, colour: colour} | _]} = group, _, _),
    do: Map.merge(group, %{name: name, colour: colour, free: 0})

  def sum(all), do: all |> Enum.map(& &1.bytes) |> Enum.sum()

  @doc "The tooltip of an allocation."
  def describe(entry) do
    tag = if entry.tag, do: ", tag #{entry.tag}", else: ""

    "#{entry.type}, #{Svg.bytes(entry.bytes)}, owner #{entry.owner}#{tag}, storage #{entry.storage}, " <>
      "#{entry.location}, #{entry.age} old"
  end

  @doc "Rows `{colour, texts}` of the largest groups, and a line about the others."
  def sums(groups, most) do
    {shown, hidden} = Enum.split(groups, most)

    rest =
      if hidden == [], do: [], else: ["and #{length(hidden)} more of #{Svg.bytes(sum(hidden))}"]

    total = sum(groups)

    rows =
      for group <- shown do
        cells = [
          group.name,
          Svg.bytes(group.bytes),
          Svg.percent(group.bytes, total),
          Text.count(group.count, "buffer")
        ]

        {group.colour, cells}
      end

    {rows, rest}
  end

  @doc "As `sums/2`, for allocations."
  def largest(entries, most) do
    {shown, hidden} = Enum.split(entries, most)

    rows =
      for entry <- shown,
          do:
            {entry.colour,
             [entry.type, Svg.bytes(entry.bytes), entry.tag || "", entry.owner, entry.age]}

    rest =
      if hidden == [], do: [], else: ["and #{length(hidden)} more of #{Svg.bytes(sum(hidden))}"]

    {rows, rest}
  end
end
