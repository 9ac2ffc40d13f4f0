defmodule ExCubecl.Dashboard.Top do
  @moduledoc false
  # The view of `mix ex_cubecl.top`: the snapshot is taken on the node of the buffers and drawn on the node of the task.

  alias ExCubecl.{Device, Memory, Native}
  alias ExCubecl.Error.Text
  alias ExCubecl.Memory.Chart.Svg
  alias ExCubecl.Memory.Owner

  @most 8

  @doc "The open devices of this node, with their usage and their largest owners and tags."
  def snapshot do
    opened = Native.device_list_open()
    names = with {:ok, devices} <- Device.list(), do: Map.new(devices, &{&1.id, &1.name})

    for id <- Enum.sort(opened),
        {:ok, usage} <- [Memory.usage(device: id)],
        {:ok, report} <- [Memory.report(device: id, most: 0)] do
      %{
        id: id,
        name: names[id] || "",
        usage: usage,
        owners: for({pid, sum} <- biggest(report.by_owner), do: {Owner.describe(pid), sum}),
        tags: for({tag, sum} <- biggest(report.by_tag), tag != nil, do: {Text.show(tag), sum})
      }
    end
  end

  defp biggest(sums) do
    sums |> Enum.sort_by(fn {_, sum} -> -sum.bytes end) |> Enum.take(@most)
  end

  @doc "The screen as lines of at most `width` characters."
  def draw(devices, node, width) do
    title =
      "ExCubecl memory on #{node}, #{Calendar.strftime(NaiveDateTime.local_now(), "%H:%M:%S")}"

    body =
      if devices == [],
        do: ["", "no device is open: nothing was made there yet"],
        else: Enum.flat_map(devices, &device(&1, width))

    Enum.map([title | body], &String.slice(&1, 0, width))
  end

  defp device(%{id: {runtime, index}, usage: usage} = device, width) do
    [
      "",
      "#{runtime}:#{index}  #{device.name}",
      bar(usage, width),
      "live #{Svg.bytes(usage.live_bytes)} in #{usage.live_buffers} buffers   peak #{Svg.bytes(usage.peak_bytes)}   " <>
        "reserved #{Svg.bytes(usage.reserved_bytes)}   limit #{limit(usage.limit)}",
      "allocations #{usage.allocations}   frees #{usage.frees}   failed #{usage.failed}   reclaims #{usage.reclaims}"
    ] ++ table("owner", device.owners) ++ table("tag", device.tags)
  end

  defp limit(nil), do: "none"
  defp limit(bytes), do: Svg.bytes(bytes)

  # Live bytes relative to the largest of the limit, the reserved bytes and the peak.
  defp bar(usage, width) do
    most = Enum.max([usage.limit || 0, usage.reserved_bytes, usage.peak_bytes, 1])
    wide = max(min(width, 100) - 2, 10)
    filled = min(div(usage.live_bytes * wide, most), wide)
    peak = min(div(usage.peak_bytes * wide, most), wide)

    "[" <>
      String.duplicate("|", filled) <>
      String.duplicate(".", max(peak - filled, 0)) <>
      String.duplicate(" ", wide - max(peak, filled)) <> "]"
  end

  defp table(_title, []), do: []

  defp table(title, rows) do
    ["  #{String.pad_trailing("bytes", 12)}#{String.pad_trailing("buffers", 10)}#{title}"] ++
      for {name, sum} <- rows do
        "  #{String.pad_trailing(Svg.bytes(sum.bytes), 12)}#{String.pad_trailing("#{sum.buffers}", 10)}#{name}"
      end
  end
end
