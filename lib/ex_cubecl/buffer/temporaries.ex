defmodule ExCubecl.Buffer.Temporaries do
  @moduledoc false
  # Frees the buffers that this process makes for a result, but those of the result itself: at once, instead of after a garbage collection.
  #
  # A buffer of which other handles exist is kept with those that wait for a garbage collection, which runs once these hold many bytes.

  alias ExCubecl.Buffer.Info
  alias ExCubecl.Native.Rehearsal

  @made {__MODULE__, :made}
  @held {__MODULE__, :held}
  # Bytes that wait for a garbage collection.
  @most Rehearsal.most_small()

  @doc "Runs a function in which buffers are freed by this module."
  @spec run((() -> result)) :: result when result: term
  def run(fun) do
    made = Process.get(@made)
    held = Process.put(@held, {%{}, 0})

    try do
      fun.()
    after
      put(@made, made)
      put(@held, held)
    end
  end

  @doc "The most bytes that wait for a garbage collection."
  def most, do: @most

  @doc "The buffers that wait for a garbage collection."
  def state, do: Process.get(@held)

  @doc "Continues from a state."
  def put(state), do: Process.put(@held, state)

  defp put(key, nil), do: Process.delete(key)
  defp put(key, value), do: Process.put(key, value)

  @doc "Notes a new buffer of some bytes."
  @spec made(reference, non_neg_integer) :: term
  def made(ref, bytes) do
    made = Process.get(@made)
    if made, do: Process.put(@made, [{ref, bytes} | made])
  end

  @doc "The result of a function. Of the buffers that it made, those are freed whose references are not among `kept.(result)`."
  @spec free((() -> result), (result -> [reference])) :: result when result: term
  def free(fun, kept) do
    outer = Process.put(@made, [])
    result = fun.()
    made = Process.get(@made)
    refs = if made == [], do: [], else: kept.(result)
    {kept, others} = Enum.split_with(made, fn {ref, _bytes} -> ref in refs end)
    put(@made, outer && kept ++ outer)
    for {ref, bytes} <- others, do: release(%{ref: ref}, bytes, refs)
    result
  end

  @doc "Frees a buffer of some bytes, or once it is the only handle. A buffer that shares its memory with others that are needed stays."
  @spec release(%{ref: reference}, non_neg_integer, [reference]) :: :ok
  def release(buffer, bytes, needed \\ []) do
    case Info.release(buffer) do
      {:ok, false} -> if waits?(buffer, needed), do: hold(buffer, bytes)
      _freed -> :ok
    end

    :ok
  end

  # A buffer that is free already has one handle.
  defp waits?(buffer, needed) do
    match?({:ok, count} when count > 1, Info.ref_count(buffer)) and
      not Enum.any?(needed, &Info.same_storage?(buffer.ref, &1))
  end

  defp hold(buffer, bytes) do
    with {buffers, sum} <- Process.get(@held),
         {:ok, id} <- Info.storage_id(buffer),
         false <- is_map_key(buffers, id) do
      Process.put(@held, {Map.put(buffers, id, buffer), sum + bytes})
      if bytes < @most, do: Rehearsal.held(bytes)
      if sum + bytes >= @most, do: collect()
    end
  end

  @doc "Frees the buffers that wait for a garbage collection, so that the rounds of a loop do not add to them."
  def collect do
    {buffers, _} = Process.get(@held, {%{}, 0})
    if buffers != %{}, do: collect(buffers)
  end

  defp collect(buffers) do
    Process.put(@held, {%{}, 0})

    # What is left then has other owners.
    Enum.reduce([:minor, :major], Map.values(buffers), fn type, buffers ->
      if buffers != [], do: garbage(type)

      Enum.filter(buffers, fn %{ref: ref} = buffer ->
        if Rehearsal.on?(), do: Rehearsal.collected(ref)
        Info.release(buffer) == {:ok, false}
      end)
    end)
  end

  # The destructors of handles run when the process is scheduled again.
  defp garbage(type) do
    :erlang.garbage_collect(self(), type: type)
    :erlang.yield()
  end

  @doc "Whether a buffer of some bytes is the only handle of its memory, after garbage that could have others was collected."
  @spec alone?(%{ref: reference}, non_neg_integer) :: boolean
  def alone?(%{ref: ref} = buffer, bytes) do
    case Info.ref_count(buffer) do
      {:ok, 1} ->
        true

      {:ok, _handles} ->
        bytes >= @most and
          Enum.any?([:minor, :major], fn type ->
            garbage(type)
            if Rehearsal.on?(), do: Rehearsal.collected(ref)
            Info.ref_count(buffer) == {:ok, 1}
          end)

      _error ->
        false
    end
  end
end
