defmodule ExCubecl.Memory.Chart.Svg.Timeline do
  @moduledoc false
  # Live and reserved bytes over time.

  alias ExCubecl.Memory.Chart.Svg

  @width 900
  @height 320
  @left 80
  @right 880
  @top 40
  @bottom 270
  @reserved "#c9d7ea"
  @live "#2f6db3"

  def draw([first | _] = samples) do
    last = List.last(samples)
    span = max(last.at - first.at, 1)
    {step, most} = scale(Enum.max(Enum.map(samples, &max(&1.reserved_bytes, &1.live_bytes))))
    x = fn at -> @left + (@right - @left) * (at - first.at) / span end
    y = fn bytes -> @bottom - (@bottom - @top) * bytes / most end

    Svg.document(@width, @height, [
      grid(step, most, y),
      seconds(first, span, x),
      area(samples, & &1.reserved_bytes, x, y, @reserved),
      area(samples, & &1.live_bytes, x, y, @live),
      hover(samples, x),
      legend(last)
    ])
  end

  # Round numbers of bytes: a step is 1, 2 or 5 times a power of ten, in units of a power of 1024.
  defp scale(most) do
    unit = Enum.find([1024 ** 4, 1024 ** 3, 1024 ** 2, 1024, 1], &(most >= &1)) || 1
    rough = max(most / unit, 1) / 4
    power = :math.pow(10, floor(:math.log10(rough)))
    factor = Enum.find([1, 2, 5, 10], &(&1 * power >= rough))
    step = max(round(factor * power * unit), 1)
    {step, step * max(ceil(most / step), 1)}
  end

  defp grid(step, most, y) do
    for bytes <- Range.new(0, most, step) do
      [
        Svg.line(@left, y.(bytes), @right, y.(bytes), "#e8e8e8"),
        Svg.text(@left - 8, y.(bytes) + 4, Svg.bytes(bytes), ~s(text-anchor="end"))
      ]
    end
  end

  defp seconds(first, span, x) do
    for part <- 0..4 do
      at = first.at + div(span * part, 4)
      label = :erlang.float_to_binary((at - first.at) / 1000, decimals: 1) <> " s"
      Svg.text(x.(at), @bottom + 20, label, ~s(text-anchor="middle"))
    end
  end

  # The value of a sample is drawn until the next sample.
  defp area(samples, value, x, y, fill) do
    next = Enum.drop(samples, 1) ++ [List.last(samples)]

    steps =
      for {sample, next} <- Enum.zip(samples, next) do
        height = Svg.n(y.(value.(sample)) / 1)
        "L#{Svg.n(x.(sample.at) / 1)} #{height}L#{Svg.n(x.(next.at) / 1)} #{height}"
      end

    [
      ~s(<path fill="#{fill}" d="M#{@left} #{@bottom}),
      steps,
      "L#{Svg.n(x.(List.last(samples).at) / 1)} #{@bottom}Z\"/>"
    ]
  end

  defp hover([first | _] = samples, x) do
    next = Enum.drop(samples, 1) ++ [List.last(samples)]

    for {sample, next} <- Enum.zip(samples, next) do
      seconds = :erlang.float_to_binary((sample.at - first.at) / 1000, decimals: 2)

      title =
        "#{seconds} s: #{Svg.bytes(sample.live_bytes)} live in #{sample.live_buffers} buffers, " <>
          "#{Svg.bytes(sample.reserved_bytes)} reserved, peak #{Svg.bytes(sample.peak_bytes)}"

      width = max(x.(next.at) - x.(sample.at), 1.0)
      Svg.box(x.(sample.at), @top, width, @bottom - @top, "#fff", title, "s")
    end
  end

  defp legend(last) do
    [
      Svg.box(@left, 14, 12, 12, @live, "live"),
      Svg.text(@left + 18, 24, "live, now #{Svg.bytes(last.live_bytes)}"),
      Svg.box(@left + 200, 14, 12, 12, @reserved, "reserved"),
      Svg.text(@left + 218, 24, "reserved by the runtime, now #{Svg.bytes(last.reserved_bytes)}"),
      Svg.text(@left + 480, 24, "peak #{Svg.bytes(last.peak_bytes)}")
    ]
  end
end
