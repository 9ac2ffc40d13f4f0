defmodule ExCubecl.Kernel.Cache do
  @moduledoc false
  # Typed kernels by what they are and the kinds of their arguments. The table is everybody's; this
  # process only owns it. Full, it starts anew: what is in use comes back with its next call.

  use GenServer

  @most 1024
  @hits 1
  @misses 2

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "The map that is kept under a key, or what `make` makes for it: `{:ok, map}` is kept, an error is not."
  def fetch(key, make) do
    case :ets.lookup(__MODULE__, key) do
      [{_, entry}] ->
        count(@hits)
        {:ok, entry}

      [] ->
        count(@misses)
        with {:ok, entry} <- make.(), do: keep(key, entry)
    end
  end

  @doc "Keys and maps of all that is kept."
  def all, do: :ets.tab2list(__MODULE__)

  def stats do
    [hits, misses] = for at <- [@hits, @misses], do: :counters.get(counters(), at)
    %{size: :ets.info(__MODULE__, :size), max: @most, hits: hits, misses: misses}
  end

  defp keep(key, entry) do
    if :ets.info(__MODULE__, :size) >= @most, do: :ets.delete_all_objects(__MODULE__)
    :ets.insert(__MODULE__, {key, entry})
    {:ok, entry}
  end

  defp count(at), do: :counters.add(counters(), at, 1)
  defp counters, do: :persistent_term.get(__MODULE__)

  @impl true
  def init(_) do
    :persistent_term.put(__MODULE__, :counters.new(2, [:write_concurrency]))
    :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    {:ok, nil}
  end
end
