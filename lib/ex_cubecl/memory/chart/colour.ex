defmodule ExCubecl.Memory.Chart.Colour do
  @moduledoc false
  # Fill colours for tags and owners. A colour is derived from its key, so that a tag has the same colour in every chart;
  # where two keys of a chart have the same one, the second in term order takes its next choice. All are light enough for dark text.

  @hues 16
  # Lightness and chroma of OKLCH, a colour space in which equal distances look equal.
  @levels [{0.70, 0.13}, {0.80, 0.12}, {0.89, 0.08}]
  @choices 24

  palette =
    for {{lightness, chroma}, level} <- Enum.with_index(@levels), hue <- 0..(@hues - 1) do
      angle = 2 * :math.pi() * (hue + level / length(@levels)) / @hues
      {a, b} = {chroma * :math.cos(angle), chroma * :math.sin(angle)}
      l = :math.pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3)
      m = :math.pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3)
      s = :math.pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3)

      for linear <- [
            4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
            -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
            -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s
          ],
          into: "#" do
        clamped = linear |> max(0.0) |> min(1.0)

        encoded =
          if clamped <= 0.0031308,
            do: 12.92 * clamped,
            else: 1.055 * :math.pow(clamped, 1 / 2.4) - 0.055

        (255 * encoded) |> round() |> Integer.to_string(16) |> String.pad_leading(2, "0")
      end
    end

  @palette List.to_tuple(palette)

  @doc "The number of different colours."
  def count, do: tuple_size(@palette)

  @doc "A map from keys to colours, which differ for up to `count/0` keys unless all choices of a key are taken."
  @spec assign([term]) :: %{term => String.t()}
  def assign(keys) do
    {colours, _taken} =
      keys
      |> Enum.uniq()
      |> Enum.sort()
      |> Enum.reduce({%{}, []}, fn key, {colours, taken} ->
        index = choose(key, taken)
        {Map.put(colours, key, elem(@palette, index)), [index | taken]}
      end)

    colours
  end

  defp choose(key, taken) do
    choices = for n <- 1..@choices, do: :erlang.phash2({key, n}, tuple_size(@palette))
    Enum.find(choices, hd(choices), &(&1 not in taken))
  end
end
