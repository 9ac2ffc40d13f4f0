defmodule ExCubecl.Memory.Timeline do
  @moduledoc false
  # Samples the memory usage of each open device periodically. The newest samples are kept, the oldest are
  # dropped. `ExCubecl.Memory.timeline/1` is the public function.

  use ExCubecl.Application.Service

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Application.Service

  @every 100
  @keep 600

  def defaults, do: [every: @every, keep: @keep]

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Starts a new recording with `%{every: milliseconds, keep: samples}`, or stops it with `nil`."
  def record(settings), do: Service.call(__MODULE__, {:record, settings})

  @doc "The recorded samples by device, the oldest first."
  def samples do
    with %{} = samples <- Service.call(__MODULE__, :samples), do: {:ok, samples}
  end

  # After a crash the restarted process goes on recording with the same settings.
  @impl true
  def init(_), do: {:ok, recording(:persistent_term.get(__MODULE__, nil))}

  @impl true
  def handle_call({:record, nil}, _from, state) do
    :persistent_term.erase(__MODULE__)
    {:reply, :ok, %{state | settings: nil, round: nil}}
  end

  def handle_call({:record, %{every: every, keep: keep} = settings}, _from, _state)
      when is_integer(every) and every > 0 and is_integer(keep) and keep > 0 do
    :persistent_term.put(__MODULE__, settings)
    {:reply, :ok, recording(settings)}
  end

  def handle_call(:samples, _from, state) do
    {:reply, Map.new(state.rings, fn {id, {_, ring}} -> {id, :queue.to_list(ring)} end), state}
  end

  @impl true
  def handle_info(
        {:sample, round},
        %{round: round, settings: %{every: every, keep: keep}} = state
      ) do
    Process.send_after(self(), {:sample, round}, every)

    rings =
      case Error.from_native(&Native.device_list_open/0) do
        {:ok, ids} -> Enum.reduce(ids, state.rings, &sample(&1, &2, keep))
        {:error, _} -> state.rings
      end

    {:noreply, %{state | rings: rings}}
  end

  # A timer of a recording that was stopped.
  def handle_info({:sample, _}, state), do: {:noreply, state}

  defp recording(nil), do: %{settings: nil, round: nil, rings: %{}}

  defp recording(settings) do
    round = make_ref()
    send(self(), {:sample, round})
    %{settings: settings, round: round, rings: %{}}
  end

  defp sample(id, rings, keep) do
    case Error.from_native(fn -> Native.memory_usage(id) end) do
      {:ok, usage} ->
        Map.update(rings, id, put({0, :queue.new()}, usage, keep), &put(&1, usage, keep))

      # The device was lost after `memory_open` returned it.
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
