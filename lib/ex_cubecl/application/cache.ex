defmodule ExCubecl.Application.Cache do
  @moduledoc false
  # A bounded cache: `use ExCubecl.Application.Cache, max: entries, store: :ets` makes a module the owner of an ETS table, with `fetch/2`, `all/0` and `stats/0`. The table is
  # public; the process only owns it. Without the table, as before the application is started, everything works and nothing is cached.
  #
  # Each entry has the generation of its last use. A generation ends after as many misses as fill a quarter of the table. When the table is
  # full, the entries that were used neither in this generation nor in the previous one are evicted, and more only if that is not enough.
  #
  # With `store: :persistent_term` the table has the keys only, and terms are not copied at each look-up. Evicting one makes all processes look for it in their heaps: this is for
  # large terms that are evicted seldom.

  @hits 1
  @misses 2

  defmacro __using__(max: max, store: store) do
    quote do
      use ExCubecl.Application.Service
      alias ExCubecl.Application.Cache

      def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

      @doc "The term that is cached under a key, or the result of `make`: `{:ok, term}` is cached, an error is not."
      def fetch(key, make), do: Cache.fetch({__MODULE__, unquote(store)}, unquote(max), key, make)

      @doc "The keys and terms of all entries."
      def all, do: Cache.all({__MODULE__, unquote(store)})

      @doc "The number of entries, the most there can be, and how often a key was found and not found."
      def stats, do: Cache.stats(__MODULE__, unquote(max))

      @impl true
      def init(_) do
        # The terms of a table that is gone.
        for {{__MODULE__, _} = stored, _} <- :persistent_term.get(),
            do: :persistent_term.erase(stored)

        :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
        {:ok, nil}
      end
    end
  end

  def fetch({table, _store} = cache, max, key, make) do
    counters = counters(table)

    case lookup(cache, key) do
      {:ok, entry, used} ->
        :counters.add(counters, @hits, 1)
        now = generation(counters, max)
        if used != now, do: touch(table, key, now)
        {:ok, entry}

      :none ->
        :counters.add(counters, @misses, 1)

        with {:ok, entry} <- make.() do
          insert(cache, max, key, entry, generation(counters, max))
          {:ok, entry}
        end
    end
  end

  defp lookup({table, _store} = cache, key) do
    with [{_, entry, used}] <- owned([], fn -> :ets.lookup(table, key) end),
         {:ok, entry} <- stored(cache, key, entry),
         do: {:ok, entry, used},
         else: (_ -> :none)
  end

  defp stored({_table, :ets}, _key, entry), do: {:ok, entry}

  # The entry is `nil` in the table. Another process may have evicted it, or not stored it yet.
  defp stored({table, :persistent_term}, key, nil) do
    case :persistent_term.get({table, key}, nil) do
      nil -> :none
      entry -> {:ok, entry}
    end
  end

  def all({table, _store} = cache) do
    for {key, entry, _} <- owned([], fn -> :ets.tab2list(table) end),
        {:ok, entry} <- [stored(cache, key, entry)],
        do: {key, entry}
  end

  def stats(table, max) do
    [hits, misses] = for at <- [@hits, @misses], do: :counters.get(counters(table), at)
    %{size: size(table), max: max, hits: hits, misses: misses}
  end

  defp generation(counters, max), do: div(:counters.get(counters, @misses), div(max, 4))

  defp touch(table, key, now),
    do: owned(false, fn -> :ets.update_element(table, key, {3, now}) end)

  defp insert({table, store} = cache, max, key, entry, now) do
    owned(nil, fn ->
      if size(table) >= max, do: evict(cache, max, now)
      :ets.insert(table, {key, if(store == :ets, do: entry), now})
      if store == :persistent_term, do: :persistent_term.put({table, key}, entry)
    end)
  end

  # The misses of two generations fill at most half of the table. If older entries that are still used fill the rest, only
  # those of this generation stay; if these fill the table, none.
  defp evict({table, _store} = cache, max, now) do
    for oldest <- [now - 1, now, now + 1], size(table) >= max, do: evict_before(cache, oldest)
  end

  defp evict_before({table, :ets}, oldest),
    do: :ets.select_delete(table, [{{:_, :_, :"$1"}, [{:<, :"$1", oldest}], [true]}])

  defp evict_before({table, :persistent_term}, oldest),
    do: erase(table, :ets.select(table, [{{:"$1", :_, :"$2"}, [{:<, :"$2", oldest}], [:"$1"]}]))

  defp erase(table, keys) do
    for key <- keys do
      :ets.delete(table, key)
      :persistent_term.erase({table, key})
    end
  end

  defp size(table) do
    case :ets.info(table, :size) do
      :undefined -> 0
      size -> size
    end
  end

  # The result of `call`, or `otherwise` if there is no table.
  defp owned(otherwise, call) do
    call.()
  rescue
    ArgumentError -> otherwise
  end

  # The counters outlive the owner of the table if it is killed.
  defp counters(table) do
    with nil <- :persistent_term.get(table, nil) do
      counters = :counters.new(2, [])
      :persistent_term.put(table, counters)
      counters
    end
  end
end
