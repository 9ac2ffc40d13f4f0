defmodule ExCubecl.Memory.Timeline do
  @moduledoc false
  # Writes down from time to time what lives on each open device. The newest samples are kept, the
  # oldest go. `ExCubecl.Memory.timeline/1` is the public side.

  use GenServer

  alias ExCubecl.{Error, Native}

  @every 100
  @keep 600

  def defaults, do: [every: @every, keep: @keep]

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Starts anew with `%{every: milliseconds, keep: samples}`, or stops with `nil`."
  def record(settings), do: GenServer.call(__MODULE__, {:record, settings})

  @doc "What was written down, the oldest first, by device."
  def samples, do: GenServer.call(__MODULE__, :samples)

  @impl true
  def init(_), do: {:ok, %{settings: nil, round: nil, rings: %{}}}

  @impl true
  def handle_call({:record, nil}, _from, state),
    do: {:reply, :ok, %{state | settings: nil, round: nil}}

  def handle_call({:record, settings}, _from, state) do
    round = make_ref()
    send(self(), {:sample, round})
    {:reply, :ok, %{state | settings: settings, round: round, rings: %{}}}
  end

  def handle_call(:samples, _from, state) do
    {:reply, Map.new(state.rings, fn {id, {_, ring}} -> {id, :queue.to_list(ring)} end), state}
  end

  @impl true
  def handle_info({:sample, round}, %{round: round} = state) do
    Process.send_after(self(), {:sample, round}, state.settings.every)

    {:noreply,
     %{
       state
       | rings:
           Enum.reduce(Native.memory_open(), state.rings, &sample(&1, &2, state.settings.keep))
     }}
  end

  # Of a recording that was stopped.
  def handle_info(_message, state), do: {:noreply, state}

  defp sample(id, rings, keep) do
    case Error.from_native(fn -> Native.memory_usage(id) end) do
      {:ok, usage} ->
        Map.update(rings, id, put({0, :queue.new()}, usage, keep), &put(&1, usage, keep))

      # It was lost in this moment.
      {:error, _} ->
        rings
    end
  end

  defp put({count, ring}, usage, keep) do
    sample =
      usage
      |> Map.take([:live_bytes, :live_buffers, :reserved_bytes, :peak_bytes])
      |> Map.put(:at, System.system_time(:millisecond))

    ring = :queue.in(sample, ring)
    if count < keep, do: {count + 1, ring}, else: {count, :queue.drop(ring)}
  end
end
