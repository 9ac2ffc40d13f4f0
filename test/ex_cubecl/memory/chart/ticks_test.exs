defmodule ExCubecl.Memory.Chart.TicksTest do
  use ExUnit.Case, async: true

  alias ExCubecl.Memory.Chart.Ticks

  doctest Ticks

  defp labels(ticks), do: for({_, label} <- ticks, do: label)

  # Whether a step is 1, 2 or 5 times a power of ten.
  defp round?(step) do
    power = :math.pow(10, floor(:math.log10(step) + 1.0e-9))
    Enum.any?([1, 2, 5, 10], &(abs(step / power - &1) < 1.0e-6))
  end

  test "bytes, in one unit, up to a tick that is not below the value" do
    for most <- [
          0,
          1,
          5,
          999,
          1024,
          1500,
          1_500_000,
          65_536_001,
          3_000_000_000,
          Integer.pow(10, 15)
        ] do
      ticks = Ticks.bytes(most)
      assert elem(hd(ticks), 0) == 0
      assert elem(List.last(ticks), 0) >= most
      assert length(ticks) in 3..6

      assert [unit] =
               ticks |> labels() |> Enum.map(&(&1 |> String.split() |> tl())) |> Enum.uniq()

      size = Enum.find_index(~w(B KiB MiB GiB TiB), &([&1] == unit))
      [{_, _}, {step, _} | _] = ticks
      assert round?(step / Integer.pow(1024, size)), "#{most}: #{inspect(ticks)}"
    end

    assert labels(Ticks.bytes(3_000_000_000)) == ["0 GiB", "1 GiB", "2 GiB", "3 GiB"]
  end

  test "times, up to the value" do
    assert labels(Ticks.milliseconds(0)) == ["0 ms"]

    assert labels(Ticks.milliseconds(100)) == [
             "0 ms",
             "20 ms",
             "40 ms",
             "60 ms",
             "80 ms",
             "100 ms"
           ]

    assert labels(Ticks.milliseconds(61_000)) == ["0 s", "20 s", "40 s", "60 s"]
    assert List.last(labels(Ticks.milliseconds(3_600_000))) == "60 min"
    assert List.last(labels(Ticks.milliseconds(86_400_000))) == "20 h"
    for most <- 0..5000//37, {at, _} <- Ticks.milliseconds(most), do: assert(at <= most)
  end
end
