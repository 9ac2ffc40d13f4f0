defmodule ExCubecl.Dashboard.Top do
  @moduledoc false
  # The view of `mix ex_cubecl.top`: the snapshot is taken on the node of the buffers and drawn on the node of the task.

  alias ExCubecl.{Device, Memory, Native}
  alias ExCubecl.Error.Text
  alias ExCubecl.Memory.Chart.Svg
  alias ExCubecl.Memory.Owner
  alias ExCubecl.Telemetry.Counter

  @most 8
  # How long a snapshot waits for the queue of a device, in milliseconds.
  @patience 1_000

  @doc "The open devices of this node, with their usage, their largest owners and tags, and their counts, at a time in microseconds."
  def snapshot do
    opened = Native.device_list_open()
    names = with {:ok, devices} <- Device.list(), do: Map.new(devices, &{&1.id, &1.name})
    launches = Counter.all(:launch)
    fallbacks = Counter.all(:fallback)

    devices =
      for id <- Enum.sort(opened), {:ok, report} <- [Memory.report(device: id, most: 0)] do
        {usage, wait} = usage(id)

        %{
          id: id,
          name: names[id] || "",
          usage: usage,
          wait: wait,
          owners: for({pid, sum} <- biggest(report.by_owner), do: {Owner.describe(pid), sum}),
          tags: for({tag, sum} <- biggest(report.by_tag), tag != nil, do: {Text.show(tag), sum}),
          launches: for({{^id, kernel}, count} <- launches, do: {Text.word(kernel), count}),
          fallbacks:
            for(
              {{operation, type, ^id}, count} <- fallbacks,
              do: {fallback(operation, type), count}
            )
        }
      end

    %{at: System.monotonic_time(:microsecond), devices: devices}
  end

  @doc "The snapshot of a node, or why there is none."
  def ask(node) do
    {:ok, :erpc.call(node, __MODULE__, :snapshot, [], 5_000)}
  rescue
    error in ErlangError -> {:error, "#{node}: #{explain(error.original)}"}
  end

  defp explain({:erpc, :noconnection}), do: "the connection is gone"
  defp explain({:erpc, :timeout}), do: "it did not answer for 5 seconds"
  defp explain({:exception, :undef, _}), do: "it does not run this version of ExCubecl"
  defp explain(other), do: Text.show(other)

  # The usage is known to the thread of the device, which answers after the calls that are queued before it: so the time
  # that this takes is what any call waits now.
  defp usage(id) do
    started = System.monotonic_time(:microsecond)
    task = Task.async(fn -> Memory.usage(device: id) end)

    case Task.yield(task, @patience) || Task.shutdown(task, :brutal_kill) do
      {:ok, {:ok, usage}} -> {usage, System.monotonic_time(:microsecond) - started}
      _ -> {nil, :longer}
    end
  end

  defp biggest(sums) do
    sums |> Enum.sort_by(fn {_, sum} -> -sum.bytes end) |> Enum.take(@most)
  end

  defp fallback(operation, type), do: "#{operation} of #{Text.show(type)}"

  @doc """
  The devices of a snapshot as texts: their title, live memory, kernels, queue wait, fallbacks, and tables of these. Rates are those since the
  snapshot `before`, if it is not `nil`.
  """
  def describe(snapshot, before),
    do: Enum.map(snapshot.devices, &describe_device(&1, elapsed(snapshot, before)))

  # Seconds, and the devices before.
  defp elapsed(_snapshot, nil), do: nil

  defp elapsed(snapshot, before),
    do: {max(snapshot.at - before.at, 1) / 1.0e6, Map.new(before.devices, &{&1.id, &1})}

  defp describe_device(%{id: {runtime, index} = id, usage: usage} = device, elapsed) do
    launches = rates(device.launches, elapsed, id, :launches)
    fallbacks = rates(device.fallbacks, elapsed, id, :fallbacks)

    tables = [
      sums("owner", device.owners),
      sums("tag", device.tags),
      counts("kernel", launches),
      counts("operation of Nx on the host", fallbacks)
    ]

    %{
      id: id,
      title: "#{runtime}:#{index}  #{device.name}",
      usage: usage,
      live: live(usage),
      kernels: total(launches),
      wait: wait(device.wait),
      fallbacks: total(fallbacks),
      tables: Enum.reject(tables, &(&1.rows == []))
    }
  end

  defp live(nil), do: "not known now: the device is busy"

  defp live(usage),
    do: "#{Svg.bytes(usage.live_bytes)} in #{Text.count(usage.live_buffers, "buffer")}"

  @doc "The screen as lines of at most `width` characters."
  def draw(snapshot, before, node, width) do
    title = "ExCubecl on #{node}, #{Calendar.strftime(NaiveDateTime.local_now(), "%H:%M:%S")}"

    body =
      case describe(snapshot, before) do
        [] -> ["", "no device is open: nothing was made there yet"]
        devices -> Enum.flat_map(devices, &device(&1, width))
      end

    Enum.map([title | body], &String.slice(&1, 0, width))
  end

  defp device(device, width) do
    ["", device.title] ++
      usage_lines(device, width) ++
      [
        "kernels #{device.kernels}   queue wait #{device.wait}   fallbacks of Nx #{device.fallbacks}"
      ] ++ Enum.flat_map(device.tables, &lines/1)
  end

  defp usage_lines(%{usage: nil, live: live}, _width), do: ["live #{live}"]

  defp usage_lines(%{usage: usage, live: live}, width) do
    [
      bar(usage, width),
      "live #{live}   peak #{Svg.bytes(usage.peak_bytes)}   " <>
        "reserved #{Svg.bytes(usage.reserved_bytes)}   limit #{limit(usage.limit)}",
      "allocations #{usage.allocations}   frees #{usage.frees}   failed #{usage.failed}   reclaims #{usage.reclaims}"
    ]
  end

  defp limit(nil), do: "none"
  defp limit(bytes), do: Svg.bytes(bytes)

  defp wait(:longer), do: "more than #{@patience} ms"
  defp wait(microseconds), do: "#{Svg.n(microseconds / 1000)} ms"

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

  # Names with their counts and, where there is an earlier snapshot, their counts per second; the most active first.
  defp rates(counts, elapsed, id, key) do
    counts
    |> Enum.map(fn {name, count} -> {name, count, rate(name, count, elapsed, id, key)} end)
    |> Enum.sort_by(fn {name, count, rate} -> {-(rate || 0), -count, name} end)
  end

  defp rate(_name, _count, nil, _id, _key), do: nil

  defp rate(name, count, {seconds, before}, id, key) do
    earlier = before |> Map.get(id, %{}) |> Map.get(key, []) |> List.keyfind(name, 0, {name, 0})
    (count - elem(earlier, 1)) / seconds
  end

  defp total(rates) do
    count = rates |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    per_second = for {_, _, rate} <- rates, rate != nil, do: rate

    if per_second == [],
      do: "#{count}",
      else: "#{count}, #{Svg.n(Enum.sum(per_second) / 1)} per second"
  end

  defp sums(title, sums) do
    rows = for {name, sum} <- sums, do: [Svg.bytes(sum.bytes), "#{sum.buffers}", name]
    %{titles: ["bytes", "buffers", title], rows: rows}
  end

  defp counts(title, rates) do
    rows =
      for {name, count, rate} <- Enum.take(rates, @most),
          do: ["#{count}", if(rate, do: Svg.n(rate / 1), else: "-"), name]

    %{titles: ["count", "a second", title], rows: rows}
  end

  defp lines(%{titles: titles, rows: rows}) do
    for [a, b, name] <- [titles | rows],
        do: "  #{String.pad_trailing(a, 12)}#{String.pad_trailing(b, 10)}#{name}"
  end
end
