defmodule ExCubecl.Application.CacheTest do
  use ExUnit.Case, async: false

  defmodule Tables do
    use ExCubecl.Application.Cache, max: 8, store: :ets
  end

  defmodule Terms do
    use ExCubecl.Application.Cache, max: 8, store: :persistent_term
  end

  for cache <- [Tables, Terms] do
    test "#{inspect(cache)}: a term is made once, and an error is not cached" do
      start_supervised!(unquote(cache))

      assert unquote(cache).fetch(:key, fn -> {:ok, %{term: [1, 2]}} end) ==
               {:ok, %{term: [1, 2]}}

      assert unquote(cache).fetch(:key, fn -> flunk("made again") end) == {:ok, %{term: [1, 2]}}
      assert unquote(cache).fetch(:other, fn -> {:error, :reason} end) == {:error, :reason}
      assert unquote(cache).fetch(:other, fn -> {:ok, 2} end) == {:ok, 2}
      assert Enum.sort(unquote(cache).all()) == [key: %{term: [1, 2]}, other: 2]
    end

    test "#{inspect(cache)}: the entries are bounded, and those in use stay" do
      start_supervised!(unquote(cache))

      for n <- 0..50 do
        assert unquote(cache).fetch(n, fn -> {:ok, {n}} end) == {:ok, {n}}
        assert unquote(cache).fetch(0, fn -> flunk("made again") end) == {:ok, {0}}
        assert unquote(cache).stats().size <= 8
      end
    end

    test "#{inspect(cache)}: without its process nothing is cached" do
      assert unquote(cache).fetch(:key, fn -> {:ok, 1} end) == {:ok, 1}
      assert unquote(cache).fetch(:key, fn -> {:ok, 2} end) == {:ok, 2}
      assert unquote(cache).all() == []
    end
  end

  test "persistent terms are erased with their entries, and those of a process that died" do
    start_supervised!(Terms)
    for n <- 0..50, do: Terms.fetch(n, fn -> {:ok, {n}} end)
    assert Enum.sort(terms()) == Enum.sort(for {key, _} <- Terms.all(), do: key)
    assert length(terms()) in 1..8
    :ok = stop_supervised(Terms)
    start_supervised!(Terms)
    assert terms() == []
    assert Terms.fetch(50, fn -> {:ok, :new} end) == {:ok, :new}
  end

  defp terms, do: for({{Terms, key}, _} <- :persistent_term.get(), do: key)
end
