defmodule ExCubecl.Telemetry.Counter do
  @moduledoc false
  # Counts what happens often, such as launches, with or without `:telemetry`: an atomic counter for each key of a group.

  @opaque t :: :counters.counters_ref()

  @doc "Adds to the counter of a key."
  @spec add(atom, term, pos_integer) :: :ok
  def add(group, key, count \\ 1), do: add_to(counter(group, key), count)

  @doc "Adds to a counter that was looked up before."
  @spec add_to(t, pos_integer) :: :ok
  def add_to(counter, count \\ 1), do: :counters.add(counter, 1, count)

  @doc "The counter of a key, which is the same for all processes."
  @spec counter(atom, term) :: t
  def counter(group, key) do
    key = {__MODULE__, group, key}

    # Processes that make the first counter of a key at once must agree on one.
    with nil <- :persistent_term.get(key, nil) do
      :global.trans(
        {key, self()},
        fn -> with(nil <- :persistent_term.get(key, nil), do: made(key)) end,
        [node()]
      )
    end
  end

  defp made(key) do
    counter = :counters.new(1, [])
    :persistent_term.put(key, counter)
    counter
  end

  @doc "The counts of a group by key, since the VM started."
  @spec all(atom) :: %{term => non_neg_integer}
  def all(group) do
    for {{__MODULE__, ^group, key}, counter} <- :persistent_term.get(), into: %{} do
      {key, :counters.get(counter, 1)}
    end
  end
end
