defmodule ExCubecl.Native.Rehearsal do
  @moduledoc false
  # Runs a function of this process without its launches: buffers are handles without memory, what would be launched is counted, and what would be allocated is added up. The
  # modules that call the native library ask `on?/0`, so that the code of an operation itself tells what it needs.
  #
  # A read gives ones, or the number with which a buffer was filled: no check finds an index out of bounds or a singular matrix. Where the number of launches depends on what
  # is read, the code says so (`depends/0`).
  #
  # Handles are counted from the code, not from what is alive: a garbage collection frees nothing here unless the code waits for it (`collected/1`).

  alias ExCubecl.{Error, Native, Shape}

  @key __MODULE__
  @known {__MODULE__, :known}

  @type count :: %{
          launches: non_neg_integer,
          live: non_neg_integer,
          peak: non_neg_integer,
          depends?: boolean
        }

  # The bytes of the small buffers of a rehearsal, which do not depend on the state from which it continues.
  @small {__MODULE__, :small}
  @most_small 64 * 1024

  @doc "Buffers of fewer bytes may wait for a garbage collection."
  def most_small, do: @most_small

  @doc "The bytes of all small buffers that got memory in this rehearsal."
  def small, do: Process.get(@small)

  @doc "Whether this process is in a rehearsal."
  @spec on?() :: boolean
  def on?, do: Process.get(@key) != nil

  @doc "Runs a function as a rehearsal. Rehearsals within it are apart, but share what `once/2` knows."
  @spec run((() -> result)) :: result when result: term
  def run(fun) do
    previous = state()
    put(%{launches: 0, live: 0, peak: 0, held: 0, depends?: false, mixed?: false, storages: %{}})
    small = Process.put(@small, 0)
    if previous == nil, do: Process.put(@known, %{})

    try do
      fun.()
    after
      if previous do
        put(previous)
        Process.put(@small, small)
      else
        for key <- [@key, @known, @small], do: Process.delete(key)
      end
    end
  end

  @doc "The result of a function, which is called once for a key."
  @spec once(term, (() -> result)) :: result when result: term
  def once(key, fun) do
    case Process.get(@known) do
      %{^key => result} ->
        result

      known ->
        result = fun.()
        Process.put(@known, Map.put(known, key, result))
        result
    end
  end

  @doc "What was counted so far, `nil` outside of a rehearsal; `peak` is the most that `live` was since it was put."
  @spec state() :: map | nil
  def state, do: Process.get(@key)

  @doc "Continues from a state, with other counts."
  @spec put(map) :: :ok
  def put(state) do
    Process.put(@key, state)
    :ok
  end

  @doc "Launches so far depend on the elements of buffers."
  def depends, do: if(on?(), do: put(%{state() | depends?: true}))

  @doc "What is launched from here on depends on where elements are, in host memory or on the device, which depends on more than the code."
  def mix, do: if(on?(), do: put(%{state() | mixed?: true}))

  @doc "Some bytes wait for a garbage collection, which comes earlier or later in a run."
  def held(bytes), do: if(on?(), do: put(Map.update!(state(), :held, &(&1 + bytes))))

  ## Buffers

  @doc "A buffer that `blank` makes, with or without memory."
  def create(blank, allocated?) do
    with {:ok, ref} <- Error.from_native(blank) do
      {:ok, id} = id(ref)
      {:ok, bytes} = Error.from_native(fn -> Native.buffer_total_size(ref) end)
      state = state()

      put(%{state | storages: Map.put(state.storages, id, %{bytes: bytes, handles: 1, value: 1})})
      if allocated?, do: allocate(ref)
      {:ok, ref}
    end
  end

  @doc "A new buffer with memory."
  def new(device, dtype, shape, options),
    do: create(fn -> Native.buffer_empty(device, dtype, shape, options) end, true)

  @doc "Another handle of a buffer."
  def handle(ref), do: update(ref, &%{&1 | handles: &1.handles + 1})

  @doc "The number of handles of a buffer, `nil` if it is no buffer of the rehearsal."
  def handles(ref) do
    {:ok, id} = id(ref)
    with %{handles: handles} <- state().storages[id], do: handles
  end

  @doc "Garbage was collected: handles that are gone do not count."
  def collected(ref) do
    {:ok, handles} = Error.from_native(fn -> Native.buffer_ref_count(ref) end)
    update(ref, &%{&1 | handles: handles})
  end

  @doc "The first write to a buffer allocates its memory."
  def allocate(ref) do
    %{live: live, peak: peak} = state = state()
    {:ok, id} = id(ref)

    case state.storages do
      %{^id => %{bytes: bytes} = storage} when not is_map_key(storage, :allocated) ->
        if bytes < @most_small, do: Process.put(@small, small() + bytes)
        storages = Map.put(state.storages, id, Map.put(storage, :allocated, true))
        put(%{state | live: live + bytes, peak: max(peak, live + bytes), storages: storages})

      _ ->
        :ok
    end
  end

  @doc "As `ExCubecl.Native.buffer_release/1`."
  def release(ref) do
    {:ok, id} = id(ref)
    state = state()

    case state.storages do
      %{^id => %{handles: 1} = storage} ->
        freed = if storage[:allocated], do: storage.bytes, else: 0
        put(%{state | live: state.live - freed, storages: Map.delete(state.storages, id)})
        {:ok, true}

      _ ->
        {:ok, false}
    end
  end

  @doc "All elements of a buffer are a number."
  def fill(ref, value) do
    allocate(ref)
    update(ref, &%{&1 | value: value})
  end

  defp update(ref, change) do
    {:ok, id} = id(ref)
    state = state()

    case state.storages do
      %{^id => storage} -> put(%{state | storages: %{state.storages | id => change.(storage)}})
      _ -> :ok
    end
  end

  defp id(ref), do: Error.from_native(fn -> Native.buffer_storage_id(ref) end)

  ## Launches

  @doc "A launch that writes buffers."
  def launch(outputs) do
    Enum.each(outputs, &allocate/1)
    state = state()
    put(%{state | launches: state.launches + 1})
  end

  ## Reads

  @doc "The bytes of elements."
  def binary(ref, dtype, count) do
    with {:ok, one} <-
           Error.from_native(fn -> Native.list_to_binary(dtype, [1], [value(ref)]) end),
         do: {:ok, :binary.copy(one, count)}
  end

  @doc "Elements as nested lists of a shape."
  def list(ref, dtype, shape) do
    with {:ok, binary} <- binary(ref, dtype, Shape.size(shape)),
         do: Error.from_native(fn -> Native.binary_to_list(binary, dtype, shape) end)
  end

  defp value(ref) do
    {:ok, id} = id(ref)
    with %{value: value} <- state().storages[id], do: value, else: (_ -> 1)
  end
end
