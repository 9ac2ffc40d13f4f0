defmodule ExCubecl.Memory.Chart.ColourTest do
  use ExUnit.Case, async: true

  alias ExCubecl.Memory.Chart.Colour

  defp channels("#" <> hex),
    do: for(<<pair::binary-size(2) <- hex>>, do: String.to_integer(pair, 16))

  # The relative luminance of WCAG 2.
  defp luminance(hex) do
    [r, g, b] =
      for c <- channels(hex) do
        c = c / 255
        if c <= 0.04045, do: c / 12.92, else: :math.pow((c + 0.055) / 1.055, 2.4)
      end

    0.2126 * r + 0.7152 * g + 0.0722 * b
  end

  test "the colour of a key does not depend on the others, unless an earlier one has the same" do
    alone = Map.new(1..40, fn n -> {n, Colour.assign([n])[n]} end)
    together = Colour.assign(1..12)
    first = for n <- 1..12, Enum.all?(1..(n - 1)//1, &(together[&1] != alone[n])), do: n
    assert 1 in first
    for n <- first, do: assert(together[n] == alone[n])
  end

  test "more keys than a palette of twelve have different colours" do
    keys = for n <- 1..40, do: {:tag, {:layer, n}}
    colours = Map.values(Colour.assign(keys))
    assert length(Enum.uniq(colours)) == 40
    # With more keys than colours every key still has one.
    many = Colour.assign(for n <- 1..500, do: {:tag, n})
    assert map_size(many) == 500
    assert length(Enum.uniq(Map.values(many))) == Colour.count()
  end

  test "any two colours differ" do
    colours = Enum.uniq(Map.values(Colour.assign(for n <- 1..500, do: {:tag, n})))

    for {a, n} <- Enum.with_index(colours), b <- Enum.drop(colours, n + 1) do
      distance = Enum.sum(Enum.zip_with(channels(a), channels(b), &abs(&1 - &2)))
      assert distance > 15, "#{a} and #{b}"
    end
  end

  test "dark text is readable on every colour" do
    text = luminance("#222222")

    for {_, colour} <- Colour.assign(for n <- 1..500, do: n),
        do: assert((luminance(colour) + 0.05) / (text + 0.05) > 4.5)
  end
end
