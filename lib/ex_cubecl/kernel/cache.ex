defmodule ExCubecl.Kernel.Cache do
  @moduledoc false
  # Caches compiled kernels by kernel, kinds of arguments and device. The ETS table is public; this process only owns it. Without the
  # table, as before the application is started, kernels run and nothing is cached.
  #
  # Each entry has the generation of its last use. A generation ends after as many misses as fill a quarter of the table. When the table is
  # full, the entries that were used neither in this generation nor in the previous one are evicted.

  use ExCubecl.Application.Service

  @max 1024
  @generation div(@max, 4)
  @hits 1
  @misses 2

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "The map that is cached under a key, or the result of `make`: `{:ok, map}` is cached, an error is not."
  def fetch(key, make) do
    counters = counters()

    case lookup(key) do
      [{_, entry, used}] ->
        :counters.add(counters, @hits, 1)
        now = generation(counters)
        if used != now, do: touch(key, now)
        {:ok, entry}

      [] ->
        :counters.add(counters, @misses, 1)
        with {:ok, entry} <- make.(), do: insert(key, entry, generation(counters))
    end
  end

  defp lookup(key) do
    :ets.lookup(__MODULE__, key)
  rescue
    ArgumentError -> []
  end

  @doc "The keys and maps of all entries."
  def all,
    do: for({key, entry, _} <- table([], fn -> :ets.tab2list(__MODULE__) end), do: {key, entry})

  def stats do
    [hits, misses] = for at <- [@hits, @misses], do: :counters.get(counters(), at)
    %{size: size(), max: @max, hits: hits, misses: misses}
  end

  defp generation(counters), do: div(:counters.get(counters, @misses), @generation)

  defp touch(key, now), do: table(false, fn -> :ets.update_element(__MODULE__, key, {3, now}) end)

  defp insert(key, entry, now) do
    table(nil, fn ->
      if size() >= @max, do: evict(now)
      :ets.insert(__MODULE__, {key, entry, now})
    end)

    {:ok, entry}
  end

  # The misses of two generations fill at most half of the table. If older kernels that are still used fill the rest, all are evicted.
  defp evict(now) do
    :ets.select_delete(__MODULE__, [{{:_, :_, :"$1"}, [{:<, :"$1", now - 1}], [true]}])
    if size() >= @max, do: :ets.delete_all_objects(__MODULE__)
  end

  defp size do
    case :ets.info(__MODULE__, :size) do
      :undefined -> 0
      size -> size
    end
  end

  # The result of `call`, or `otherwise` if there is no table.
  defp table(otherwise, call) do
    call.()
  rescue
    ArgumentError -> otherwise
  end

  # The counters outlive this process if it is killed.
  defp counters do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      counters = :counters.new(2, [])
      :persistent_term.put(__MODULE__, counters)
      counters
    end
  end

  @impl true
  def init(_) do
    :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    {:ok, nil}
  end
end
