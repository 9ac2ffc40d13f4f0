defmodule ExCubecl.ChartTest do
  # Timelines, maps and their charts.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.Memory.Chart
  alias ExCubecl.Memory.Chart.Svg.Timeline

  setup do
    # The buffers of earlier tests have the tags of these.
    settled()
    on_exit(fn -> Memory.timeline(false) end)
  end

  # Checks that the SVG is well-formed, with Erlang's own parser, which loads no external files.
  defp parse(svg) do
    {document, []} = svg |> :erlang.binary_to_list() |> :xmerl_scan.string(quiet: true)
    document
  end

  # The rectangles with a tooltip: their attributes, and the tooltip as `title`.
  defp boxes(svg) do
    for {:xmlElement, :rect, _, _, _, _, _, attributes, content, _, _, _} <- elements(parse(svg)),
        [{:xmlElement, :title, _, _, _, _, _, _, text, _, _, _}] <- [content] do
      for(
        {:xmlAttribute, name, _, _, _, _, _, _, value, _} <- attributes,
        into: %{},
        do: {name, "#{value}"}
      )
      |> Map.put(:title, Enum.map_join(text, fn part -> "#{elem(part, 4)}" end))
    end
  end

  defp elements(element) do
    [element | for(child <- elem(element, 8), elem(child, 0) == :xmlElement, do: elements(child))]
    |> List.flatten()
  end

  defp area(box), do: to_number(box.width) * to_number(box.height)

  defp to_number(text), do: text |> Float.parse() |> elem(0)

  defp sample(at, live, changes) do
    Map.merge(
      %{
        at: at,
        live_bytes: live,
        live_buffers: 1,
        reserved_bytes: 3_000_000,
        peak_bytes: live,
        limit: nil,
        reclaims: 0,
        failed: 0,
        by_tag: nil
      },
      Map.new(changes)
    )
  end

  defp samples do
    {:ok, all} = Memory.timeline()
    Map.get(all, ExCubecl.default_device!(), [])
  end

  test "a map tells of each buffer its type, shape, owner and tag, with an area in proportion to its bytes" do
    buffers =
      for {tag, size} <- [{:large, 2_900_000}, {:small, 1_100_000}, {"two & <b>", 100_000}],
          do: Buffer.zeros!([size], :u8, tag: tag)

    for by <- [:tag, :owner, :page] do
      svg = Chart.svg!(Chart.map!(by: by))
      boxes = boxes(svg)
      [large, small, _] = for tag <- [":large", ":small", ~s("two & <b>")], do: find(boxes, tag)
      assert large.title =~ "u8[2900000], 2.8 MiB, owner #PID<"
      assert large.title =~ "storage #{Buffer.storage_id!(hd(buffers))}, page "
      # Positions have one decimal.
      assert_in_delta area(large) / area(small), 2.9 / 1.1, 0.02
      refute svg =~ "<b>"
    end

    assert Enum.all?(buffers, &(Buffer.size!(&1) > 0))
  end

  defp find(boxes, tag), do: Enum.find(boxes, &(&1.title =~ "tag #{tag}, storage"))

  test "allocations too small to see are drawn as one, groups too small as one group, and all can be found" do
    large = Buffer.zeros!([30_000_000], :u8, tag: :large)
    small = for n <- 1..40, do: Buffer.zeros!([16], :u8, tag: {:small, n})
    chart = Chart.map!()
    boxes = boxes(Chart.svg!(chart))

    refute Enum.any?(
             boxes,
             &(&1.title =~ "tag {:small, 7}, storage" and not (&1.title =~ "smaller buffers"))
           )

    assert Enum.any?(boxes, &(&1.title =~ ~r/^\d+ smaller buffers of/))

    html = Chart.html!(chart)
    rows = length(Regex.scan(~r/<tr data-bytes=/, html))

    drawn =
      for %{"data-n": indices} <- boxes, n <- String.split(indices), do: String.to_integer(n)

    assert Enum.sort(drawn) == Enum.to_list(0..(rows - 1))
    for n <- 1..40, do: assert(html =~ ~s(<div class="t">{:small, #{n}}</div>))
    assert Buffer.size!(large) + length(small) == 30_000_040
  end

  test "a long tag is complete in tooltips and in the table" do
    long = String.duplicate("part of a path/", 30)
    buffer = Buffer.zeros!([500_000], :u8, tag: long)
    svg = Chart.svg!(Chart.map!())
    assert Enum.any?(boxes(svg), &(&1.title =~ "tag \"#{long}\", storage"))
    assert Chart.html!(Chart.map!()) =~ ~s(<div class="t">&quot;#{long}&quot;</div>)
    assert Buffer.size!(buffer) == 500_000
  end

  test "the colour of a tag is the same in both charts" do
    Memory.timeline(every: 2, tags: true)
    buffer = Buffer.zeros!([20_000_000], :u8, tag: :coloured)
    until(fn -> Enum.any?(samples(), &match?(%{by_tag: %{coloured: 20_000_000}}, &1)) end)
    Memory.timeline(false)
    alone = Chart.Colour.assign([{:tag, :coloured}])[{:tag, :coloured}]

    [map, timeline] =
      for chart <- [Chart.map!(), Chart.timeline!(by: :tag)], do: boxes(Chart.svg!(chart))

    # Others may be live, whose colours are similar: then both differ from the first choice, or one of them.
    assert %{fill: fill} = find(map, ":coloured")
    assert %{fill: of_layer} = Enum.find(timeline, &(&1.title =~ "tag :coloured: now 19.1 MiB"))
    assert fill =~ ~r/^#[0-9A-F]{6}$/ and of_layer =~ ~r/^#[0-9A-F]{6}$/
    if map_size(Memory.report!().by_tag) <= 2, do: assert([fill, of_layer] == [alone, alone])
    assert Buffer.size!(buffer) == 20_000_000
  end

  test "a timeline has round ticks, its title, and the limit as a line unless that is far away" do
    samples = [sample(1000, 0, limit: 5_000_000), sample(3000, 1_500_000, limit: 5_000_000)]
    svg = IO.iodata_to_binary(Timeline.draw(samples, "Memory of <x>", nil))
    parse(svg)

    assert svg =~ "<title>Memory of &lt;x&gt;</title>" and
             svg =~ "font-weight=\"bold\">Memory of &lt;x&gt;</text>"

    for label <- ["0 MiB", "2 MiB", "4 MiB", "6 MiB", "0 s", "0.5 s", "1 s", "1.5 s", "2 s"],
        do: assert(svg =~ ">#{label}</text>")

    assert svg =~ "stroke-dasharray" and svg =~ ">limit 4.8 MiB</text>"
    far = IO.iodata_to_binary(Timeline.draw([sample(0, 10, limit: 8_000_000_000)], "", nil))
    refute far =~ "stroke-dasharray"
    assert far =~ ">limit 7.5 GiB</text>"
  end

  test "a timeline marks reclaims and failed allocations when they happened" do
    samples = [
      sample(0, 10, reclaims: 3, failed: 5),
      sample(100, 10, reclaims: 5, failed: 5),
      sample(200, 10, reclaims: 5, failed: 6)
    ]

    svg = IO.iodata_to_binary(Timeline.draw(samples, "", nil))
    parse(svg)
    marks = Regex.scan(~r|<polygon [^>]*points="([0-9.]+),[^>]*><title>(.*?)</title>|, svg)
    # The axis is 900 pixels wide, from 80.
    assert [["530.0", "0.10 s: 2 reclaims"], ["980.0", "0.20 s: 1 failed allocation"]] ==
             Enum.map(marks, &tl/1)

    refute IO.iodata_to_binary(Timeline.draw(Enum.take(samples, 1), "", nil)) =~ "<polygon"
  end

  test "layers of a timeline add up to the live bytes" do
    samples = [
      sample(0, 100, by_tag: %{nil => 60, a: 30}),
      sample(100, 200, by_tag: Map.new(1..20, &{{:t, &1}, &1}))
    ]

    layers = Chart.Layers.of(samples)
    assert Enum.zip_with(Enum.map(layers, & &1.bytes), &Enum.sum/1) == [100, 200]
    assert ["without a tag", "tag :a", "tag {:t, 20}" | _] = Enum.map(layers, & &1.name)
    assert List.last(layers).name == "other tags"
    assert length(layers) == 13
    parse(IO.iodata_to_binary(Timeline.draw(samples, "", :tag)))
  end

  test "pages do not overlap, and allocations lie inside of theirs, beside each other" do
    buffers = for n <- 1..200, do: Buffer.zeros!([n * 37], :u16)
    {:ok, %{pages: pages, allocations: allocations}} = Memory.map(most: 10_000)
    assert length(allocations) >= 200
    sizes = Map.new(pages, &{&1.page, &1.bytes})

    for {page, on} <- Enum.group_by(allocations, & &1.page) do
      on
      |> Enum.sort_by(& &1.offset)
      |> Enum.reduce(0, fn allocation, past ->
        assert allocation.offset >= past
        assert allocation.offset + allocation.bytes <= sizes[page]
        allocation.offset + allocation.bytes
      end)
    end

    assert length(buffers) == 200
  end

  test "a document is complete in itself and cannot be led astray by tags" do
    evil = "</title><script>alert(1)</script><img src=http://example.com/x>\x01"
    buffer = Buffer.zeros!([1000], :u8, tag: evil)
    chart = Chart.map!()
    svg = Chart.svg!(chart)
    parse(svg)
    refute svg =~ "<script" or svg =~ "<img"
    html = Chart.html!(chart)
    # The only script is that of the search.
    assert [_, _] = String.split(html, "<script")
    refute html =~ "<img" or html =~ "alert(1)</"
    addresses = Regex.scan(~r/(?:href|src|url|@import|xmlns)[^"'>]*["'(]([^"')]*)/, html)
    assert Enum.uniq(List.flatten(Enum.map(addresses, &tl/1))) == ["http://www.w3.org/2000/svg"]
    assert Buffer.size!(buffer) == 1000
  end

  test "a timeline is off until asked for, bounded, and shows what came and went" do
    assert Memory.timeline(every: 5, keep: 8) == :ok
    buffer = Buffer.zeros!([3_000_000], :u8)
    peak = Memory.usage!().live_bytes
    until(fn -> length(samples()) == 8 end)
    [last] = Enum.take(samples(), -1)
    # The oldest samples are dropped.
    until(fn -> hd(samples()).at > last.at end)
    assert Buffer.size!(buffer) == 3_000_000
    assert Memory.timeline(false) == :ok
    {:ok, all} = Memory.timeline()
    samples = all[ExCubecl.default_device!()]
    assert length(samples) == 8
    assert samples == Enum.sort_by(samples, & &1.at)
    assert Enum.all?(samples, &(&1.live_bytes <= &1.reserved_bytes))
    assert Enum.max(Enum.map(samples, & &1.peak_bytes)) >= peak
    # No samples are recorded after the stop: a pending timer message is ignored.
    send(ExCubecl.Memory.Timeline, {:sample, make_ref()})
    assert {:ok, ^all} = Memory.timeline()
    assert Memory.timeline(every: 60_000) == :ok
    until(fn -> samples() != [] end)
    assert [_] = samples()
  end

  test "a timeline goes on where a device is lost, and the recorder is given nonsense" do
    Memory.timeline(every: 2)
    buffer = Buffer.zeros!([1000], :u8)
    send(ExCubecl.Memory.Timeline, :nonsense)
    send(ExCubecl.Memory.Timeline, {:sample, make_ref()})
    recorder = Process.whereis(ExCubecl.Memory.Timeline)
    assert Device.reset(nil) == :ok
    assert reason(Buffer.read(buffer)) == :device_lost
    new = Buffer.zeros!([1000], :u8)
    count = length(samples())
    until(fn -> length(samples()) > count end)
    assert Process.whereis(ExCubecl.Memory.Timeline) == recorder
    chart = Chart.timeline!()
    parse(Chart.svg!(chart))
    assert Chart.svg!(chart) =~ "live in"
    assert Buffer.size!(new) == 1000
  end

  test "a device of another node is drawn too" do
    assert {:ok, chart} = Chart.map(device: {node(), ExCubecl.default_device!()})
    assert chart.title =~ "Memory of"
  end

  test "bad arguments" do
    for bad <- [
          [tags: 1],
          nil,
          1,
          "on",
          [every: 0],
          [every: -1],
          [keep: 0],
          [keep: 1.5],
          [often: 1],
          [:x]
        ],
        do: refused(Memory.timeline(bad), :invalid_argument)

    for bad <- [[most: -1], [most: :all], [least: 1], [by: :size], [by: nil], 1],
        do: refused(Chart.map(bad), :invalid_argument)

    refused(Chart.map(device: {:vulkan, 99}), :unknown_device)
    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, fresh} = Device.open(id, as: {runtime, 7555})
    Memory.timeline(every: 1000)
    Memory.timeline(false)
    refused(Chart.timeline(device: {runtime, 99}), :unknown_device)
    chart = Chart.map!(device: fresh)
    parse(Chart.svg!(chart))

    # Opens the default device, if no other test did.
    buffer = Buffer.zeros!([10], :u8)
    Memory.timeline(every: 1)
    until(fn -> samples() != [] end)
    assert Buffer.size!(buffer) == 10
    Memory.timeline(false)
    refused(Chart.timeline(by: :tag), :invalid_argument, says: "tags: true")
    refused(Chart.timeline(by: :owner), :invalid_argument, says: ":tag")

    for name <- ["/tmp/x.png", "/tmp/x", "/tmp/x.svg.gz", ""],
        do: refused(Chart.save(chart, name), :invalid_argument, says: ".html or .svg")

    refused(Chart.save(chart, "/nowhere/at/all.svg"), :file, says: "no such file")
    refused(Chart.save(chart, 5), :invalid_argument, says: "name of a file")
    refused(Chart.save(:chart, "/tmp/x.svg"), :invalid_argument, says: "Chart")
    refused(Chart.save(%{chart | svg: 5}, "/tmp/x.svg"), :invalid_argument)
    refused(Chart.save(%{chart | html: 5}, "/tmp/x.html"), :invalid_argument)

    for bad <- [nil, %{}, %{chart | svg: nil}],
        do: raises(:invalid_argument, fn -> Chart.svg!(bad) end)

    for bad <- [nil, %{chart | title: 1}],
        do: raises(:invalid_argument, fn -> Chart.html!(bad) end)

    refused(Chart.svg(nil), :invalid_argument, says: "Chart")
    refused(Chart.html(nil), :invalid_argument, says: "Chart")
    for bad <- [nil, :vulkan, {:vulkan, 0}], do: refused(Memory.usage(bad), :invalid_argument)
  end
end
