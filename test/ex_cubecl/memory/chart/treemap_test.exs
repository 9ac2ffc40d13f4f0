defmodule ExCubecl.Memory.Chart.TreemapTest do
  use ExUnit.Case, async: true

  alias ExCubecl.Memory.Chart.Treemap

  doctest Treemap

  @rectangle {10.0, 20.0, 980.0, 520.0}

  defp weights(count), do: for(n <- 1..count, do: 1 + :erlang.phash2({n, :weight}, 1_000_000))

  defp overlap({x, y, w, h}, {x2, y2, w2, h2}) do
    wide = min(x + w, x2 + w2) - max(x, x2)
    high = min(y + h, y2 + h2) - max(y, y2)
    if wide > 1.0e-6 and high > 1.0e-6, do: wide * high, else: 0.0
  end

  for count <- [1, 2, 5, 60, 300] do
    test "#{count} rectangles have areas in proportion, lie inside and do not overlap" do
      weights = weights(unquote(count))
      placed = Treemap.layout(Enum.map(weights, &{&1, &1}), @rectangle)
      assert Enum.sort(for {weight, _} <- placed, do: weight) == Enum.sort(weights)
      per_weight = 980.0 * 520.0 / Enum.sum(weights)

      for {weight, {x, y, w, h}} <- placed do
        assert_in_delta w * h, weight * per_weight, 1.0e-6 * 980 * 520
        assert x >= 10 - 1.0e-6 and y >= 20 - 1.0e-6
        assert x + w <= 990 + 1.0e-6 and y + h <= 540 + 1.0e-6
      end

      areas = for {_, at} <- placed, do: at

      for {a, n} <- Enum.with_index(areas),
          b <- Enum.drop(areas, n + 1),
          do: assert(overlap(a, b) < 1.0e-3)
    end
  end

  test "equal weights give rectangles that are almost squares" do
    placed = Treemap.layout(for(n <- 1..100, do: {1, n}), {0.0, 0.0, 1000.0, 1000.0})
    assert Enum.all?(placed, fn {_, {_, _, w, h}} -> max(w / h, h / w) < 2 end)
  end

  test "nothing, and weights that differ by a factor of 2^60" do
    assert Treemap.layout([], @rectangle) == []
    placed = Treemap.layout([{1, :a}, {Integer.pow(2, 60), :b}, {1, :c}], @rectangle)
    assert [:b, :a, :c] == for({item, _} <- placed, do: item)
  end
end
