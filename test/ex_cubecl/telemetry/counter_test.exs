defmodule ExCubecl.Telemetry.CounterTest do
  use ExUnit.Case, async: true

  alias ExCubecl.Telemetry.Counter

  test "processes that count a new key at once count on one counter" do
    1..20
    |> Enum.map(fn n -> Task.async(fn -> Counter.add(:of_a_test, :key, n) end) end)
    |> Task.await_many(:infinity)

    Counter.add(:of_a_test, {:other, 1})
    assert Counter.all(:of_a_test) == %{:key => 210, {:other, 1} => 1}
    assert Counter.all(:of_another_test) == %{}
  end
end
