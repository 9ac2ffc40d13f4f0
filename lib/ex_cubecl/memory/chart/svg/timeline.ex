defmodule ExCubecl.Memory.Chart.Svg.Timeline do
  @moduledoc false
  # Live and reserved bytes over time, with the limit, and with marks for reclaims and failed allocations.

  alias ExCubecl.Error.Text
  alias ExCubecl.Memory.Chart.{Layers, Svg, Ticks}

  @width 1000
  @left 80
  @right 980
  @top 84
  @bottom 344
  @reclaims 378
  @failures 394
  @reserved "#d5deea"
  @live "#2f6db3"
  @limit "#b00020"
  @reclaim "#b36b00"
  # A limit that is further away would flatten everything else: it is only written.
  @times 4

  @doc "The picture of samples; `by` is `:tag` for a layer for each tag, or `nil`."
  def draw([first | _] = samples, title, by) do
    last = List.last(samples)
    span = max(last.at - first.at, 1)
    most = samples |> Enum.map(&max(&1.reserved_bytes, &1.live_bytes)) |> Enum.max()
    drawn? = last.limit != nil and last.limit <= @times * most
    ticks = Ticks.bytes(if drawn?, do: max(last.limit, most), else: most)
    {top, _} = List.last(ticks)
    x = fn at -> @left + (@right - @left) * (at - first.at) / span end
    y = fn bytes -> @bottom - (@bottom - @top) * bytes / top end
    layers = if by == :tag, do: Layers.of(samples), else: [single(samples)]
    names = if by == :tag, do: layers, else: []

    Svg.document(@width, @failures + 20 + 18 * length(names), title, [
      legend(last, by),
      grid(ticks, y),
      seconds(first, span, x),
      areas(samples, [%{colour: @reserved, bytes: Enum.map(samples, & &1.reserved_bytes)}], x, y),
      areas(samples, layers, x, y),
      if(drawn?, do: limit(last.limit, y), else: []),
      hover(samples, x),
      marks(samples, :reclaims, {"reclaims", "reclaim"}, @reclaim, @reclaims, x),
      marks(samples, :failed, {"failures", "failed allocation"}, @limit, @failures, x),
      names(names)
    ])
  end

  defp single(samples), do: %{colour: @live, bytes: Enum.map(samples, & &1.live_bytes)}

  defp legend(last, by) do
    live = "live, now #{Svg.bytes(last.live_bytes)}"

    [
      if(by == nil,
        do: [Svg.box(@left, 44, 12, 12, @live, "live"), Svg.text(@left + 18, 54, live)],
        else: Svg.text(@left, 54, live)
      ),
      Svg.box(@left + 180, 44, 12, 12, @reserved, "reserved"),
      Svg.text(@left + 198, 54, "held by the runtime, now #{Svg.bytes(last.reserved_bytes)}"),
      Svg.text(@left + 440, 54, "peak of live #{Svg.bytes(last.peak_bytes)}"),
      Svg.text(@left + 610, 54, "limit #{if last.limit, do: Svg.bytes(last.limit), else: "none"}")
    ]
  end

  defp grid(ticks, y) do
    for {bytes, label} <- ticks do
      [
        Svg.line(@left, y.(bytes), @right, y.(bytes), "#e8e8e8"),
        Svg.text(@left - 8, y.(bytes) + 4, label, ~s(text-anchor="end"))
      ]
    end
  end

  defp seconds(first, span, x) do
    for {ms, label} <- Ticks.milliseconds(span) do
      at = x.(first.at + ms)

      [
        Svg.line(at, @bottom, at, @bottom + 4, "#999"),
        Svg.text(at, @bottom + 17, label, ~s(text-anchor="middle"))
      ]
    end
  end

  # The layers are on top of each other.
  defp areas(samples, layers, x, y) do
    floor = Enum.map(samples, fn _ -> 0 end)

    {areas, _} =
      Enum.map_reduce(layers, floor, fn %{bytes: bytes, colour: colour}, below ->
        above = Enum.zip_with(below, bytes, &+/2)
        {area(samples, below, above, x, y, colour), above}
      end)

    areas
  end

  # The value of a sample is drawn until the next sample.
  defp area(samples, below, above, x, y, fill) do
    points = steps(samples, above, x, y) ++ Enum.reverse(steps(samples, below, x, y))
    points = Enum.map_intersperse(points, "L", fn {x, y} -> "#{Svg.n(x)} #{Svg.n(y)}" end)
    [~s(<path fill="#{fill}" d="M), points, "Z\"/>"]
  end

  defp steps(samples, values, x, y) do
    [samples, following(samples), values]
    |> Enum.zip_with(fn [sample, next, value] ->
      [{x.(sample.at), y.(value)}, {x.(next.at), y.(value)}]
    end)
    |> Enum.concat()
  end

  defp following(samples), do: Enum.drop(samples, 1) ++ [List.last(samples)]

  defp limit(limit, y) do
    [
      Svg.line(
        @left,
        y.(limit),
        @right,
        y.(limit),
        @limit,
        ~s(stroke-dasharray="6 4" class="limit")
      ),
      Svg.text(
        @right,
        y.(limit) - 5,
        "limit #{Svg.bytes(limit)}",
        ~s(text-anchor="end" fill="#{@limit}")
      )
    ]
  end

  defp hover([first | _] = samples, x) do
    for {sample, next} <- Enum.zip(samples, following(samples)) do
      title =
        "#{at(sample, first)}: #{Svg.bytes(sample.live_bytes)} live in #{sample.live_buffers} buffers, " <>
          "#{Svg.bytes(sample.reserved_bytes)} held by the runtime, peak #{Svg.bytes(sample.peak_bytes)}"

      width = max(x.(next.at) - x.(sample.at), 1.0)
      Svg.box(x.(sample.at), @top, width, @bottom - @top, "#fff", title, ~s(class="s"))
    end
  end

  defp at(sample, first),
    do: :erlang.float_to_binary((sample.at - first.at) / 1000, decimals: 2) <> " s"

  # A mark at each sample since which before it a counter has increased.
  defp marks([first | _] = samples, counter, {name, noun}, colour, y, x) do
    marks =
      for {before, sample} <- Enum.zip(samples, Enum.drop(samples, 1)),
          count = Map.fetch!(sample, counter) - Map.fetch!(before, counter),
          count > 0 do
        title = "#{at(sample, first)}: #{Text.count(count, noun)}"
        at = x.(sample.at)
        points = "#{Svg.n(at)},#{y - 10} #{Svg.n(at - 6)},#{y} #{Svg.n(at + 6)},#{y}"

        [
          Svg.line(at, @top, at, y - 10, colour, ~s(stroke-opacity="0.5")),
          ~s(<polygon class="b" fill="#{colour}" points="#{points}"><title>#{Svg.escape(title)}</title></polygon>)
        ]
      end

    if marks == [],
      do: [],
      else: [
        marks,
        Svg.text(@left - 8, y, name, ~s(text-anchor="end" font-size="10" fill="#{colour}"))
      ]
  end

  defp names(layers) do
    for {layer, n} <- layers |> Enum.reverse() |> Enum.with_index() do
      y = @failures + 18 + 18 * n
      now = List.last(layer.bytes)
      text = "#{layer.name}: now #{Svg.bytes(now)}, at most #{Svg.bytes(Enum.max(layer.bytes))}"

      [
        Svg.box(@left, y - 10, 12, 12, layer.colour, text),
        Svg.text(@left + 18, y, Svg.fit(text, @right - @left - 18))
      ]
    end
  end
end
