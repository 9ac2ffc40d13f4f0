defmodule ExCubecl.Kernel.Cache do
  @moduledoc false
  # Caches typed and compiled kernels by kernel, kinds of arguments and device. The ETS table is public; this
  # process only owns it. When the table is full, entries that were not used since the last round are evicted.
  # Without the table, as before the application is started, kernels run and nothing is cached.

  use ExCubecl.Application.Service

  @most 1024
  @half 512
  @hits 1
  @misses 2
  @rounds 3

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "The map that is cached under a key, or the result of `make`: `{:ok, map}` is cached, an error is not."
  def fetch(key, make) do
    case lookup(key) do
      [{_, entry, round}] ->
        count(@hits)
        used(key, round)
        {:ok, entry}

      [] ->
        count(@misses)
        with {:ok, entry} <- make.(), do: keep(key, entry)
    end
  end

  defp lookup(key), do: table([], fn -> :ets.lookup(__MODULE__, key) end)

  @doc "The keys and maps of all entries."
  def all,
    do: for({key, entry, _} <- table([], fn -> :ets.tab2list(__MODULE__) end), do: {key, entry})

  def stats do
    [hits, misses] = for at <- [@hits, @misses], do: :counters.get(counters(), at)
    %{size: size(), max: @most, hits: hits, misses: misses}
  end

  defp keep(key, entry) do
    table(nil, fn ->
      case size() do
        size when size >= @most -> make_room()
        @half -> count(@rounds)
        _ -> :ok
      end

      :ets.insert(__MODULE__, {key, entry, round()})
    end)

    {:ok, entry}
  end

  # A round ends when the table is full, and when it is filled to half. Entries of earlier rounds were not used in this
  # one.
  defp make_room do
    :ets.select_delete(__MODULE__, [{{:_, :_, :"$1"}, [{:<, :"$1", round()}], [true]}])
    if size() >= @most, do: :ets.delete_all_objects(__MODULE__)
    count(@rounds)
  end

  defp used(key, round) do
    now = round()
    if round != now, do: table(false, fn -> :ets.update_element(__MODULE__, key, {3, now}) end)
  end

  defp round, do: :counters.get(counters(), @rounds)

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

  defp count(at), do: :counters.add(counters(), at, 1)

  # The counters outlive this process if it is killed.
  defp counters do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      counters = :counters.new(3, [])
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
