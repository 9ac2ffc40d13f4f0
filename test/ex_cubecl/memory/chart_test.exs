defmodule ExCubecl.ChartTest do
  # Timelines, maps and their charts.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.Memory.Chart

  setup do
    on_exit(fn -> Memory.timeline(false) end)
  end

  # Checks that the SVG is well-formed, with Erlang's own parser, which loads no external files.
  defp parse(svg) do
    {document, []} = svg |> String.to_charlist() |> :xmerl_scan.string(quiet: true)
    document
  end

  # The titles of the rectangles, each with its x position and width.
  defp boxes(svg) do
    for [_, x, width, title] <-
          Regex.scan(~r|x="([0-9.]+)" y="[0-9.]+" width="([0-9.]+)".*?<title>(.*?)</title>|, svg),
        do: {to_number(x), to_number(width), title}
  end

  defp to_number(text), do: text |> Float.parse() |> elem(0)

  defp samples do
    {:ok, all} = Memory.timeline()
    Map.get(all, ExCubecl.default_device!(), [])
  end

  test "a map tells of each buffer its type, shape, owner and tag, where it lies" do
    [first, second] = for tag <- [:one, "two & <b>"], do: Buffer.zeros!([100_000], :u8, tag: tag)

    {:ok, %{pages: pages, allocations: allocations}} = Memory.map()
    found = Enum.find(allocations, &(&1.tag == :one))
    page = Enum.find(pages, &(&1.page == found.page))

    svg = Chart.svg!(Chart.map!())
    parse(svg)
    {x, width, title} = Enum.find(boxes(svg), fn {_, _, title} -> title =~ "tag :one" end)
    assert title =~ "u8[100000], 97.7 KiB, owner #PID&lt;" or title =~ "u8[100000], 97.7 KiB"
    assert title =~ "storage #{Buffer.storage_id!(first)}"
    # The bar of a page starts at x = 190 and is 660 pixels wide.
    assert_in_delta x, 190 + 660 * found.offset / page.bytes, 0.1
    assert_in_delta width, max(660 * 100_000 / page.bytes, 0.8), 0.1
    assert svg =~ "&quot;two &amp; &lt;b&gt;&quot;"
    refute svg =~ "<b>"
    assert Buffer.size!(second) == 100_000
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
    for bad <- [nil, 1, "on", [every: 0], [every: -1], [keep: 0], [keep: 1.5], [often: 1], [:x]],
        do: refused(Memory.timeline(bad), :invalid_argument)

    for bad <- [[most: -1], [most: :all], [least: 1], 1],
        do: refused(Chart.map(bad), :invalid_argument)

    refused(Chart.map(device: {:vulkan, 99}), :unknown_device)
    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, fresh} = Device.open(id, as: {runtime, 7555})
    Memory.timeline(every: 1000)
    Memory.timeline(false)
    refused(Chart.timeline(device: {runtime, 99}), :unknown_device)
    chart = Chart.map!(device: fresh)
    parse(Chart.svg!(chart))

    refused(Chart.save(chart, "/nowhere/at/all.svg"), :invalid_argument, says: "no such file")
    refused(Chart.save(chart, 5), :invalid_argument, says: "name of a file")
    refused(Chart.save(:chart, "/tmp/x.svg"), :invalid_argument, says: "Chart")
    refused(Chart.save(%{chart | svg: 5}, "/tmp/x.svg"), :invalid_argument)

    for bad <- [nil, %{}, %{chart | svg: nil}],
        do: raises(:invalid_argument, fn -> Chart.svg!(bad) end)

    for bad <- [nil, %{chart | title: 1}],
        do: raises(:invalid_argument, fn -> Chart.html!(bad) end)

    refused(Chart.svg(nil), :invalid_argument, says: "Chart")
    refused(Chart.html(nil), :invalid_argument, says: "Chart")
    for bad <- [nil, :vulkan, {:vulkan, 0}], do: refused(Memory.usage(bad), :invalid_argument)
  end
end
