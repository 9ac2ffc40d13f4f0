defmodule ExCubecl.Memory.Timeline do
  @moduledoc false
  # Samples the memory usage of each open device periodically. The newest samples are kept, the oldest are
  # dropped. `ExCubecl.Memory.timeline/1` is the public function.

  use ExCubecl.Application.Service

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Application.Service

  @every 100
  @keep 600
  @kept [:live_bytes, :live_buffers, :reserved_bytes, :peak_bytes, :limit, :reclaims, :failed]

  # The largest tags of a sample; what is missing of the live bytes are those of other tags.
  @tags 200

  def defaults, do: [every: @every, keep: @keep, tags: false]

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Starts a new recording with `%{every: milliseconds, keep: samples, tags: boolean}`, or stops it with `nil`."
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

  def handle_call({:record, %{every: every, keep: keep, tags: tags} = settings}, _from, _state)
      when is_integer(every) and every > 0 and is_integer(keep) and keep > 0 and is_boolean(tags) do
    :persistent_term.put(__MODULE__, settings)
    {:reply, :ok, recording(settings)}
  end

  def handle_call(:samples, _from, state) do
    {:reply, Map.new(state.rings, fn {id, {_, ring}} -> {id, :queue.to_list(ring)} end), state}
  end

  @impl true
  def handle_info(
        {:sample, round},
        %{round: round, settings: %{every: every} = settings} = state
      ) do
    Process.send_after(self(), {:sample, round}, every)

    rings =
      case Error.from_native(&Native.device_list_open/0) do
        {:ok, ids} -> Enum.reduce(ids, state.rings, &sample(&1, &2, settings))
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

  defp sample(id, rings, %{keep: keep, tags: tags}) do
    with {:ok, usage} <- Error.from_native(fn -> Native.memory_usage(id) end),
         {:ok, by_tag} <- if(tags, do: by_tag(id), else: {:ok, %{by_tag: nil}}) do
      sample =
        usage
        |> Map.take(@kept)
        |> Map.put(:at, System.system_time(:millisecond))
        |> Map.merge(by_tag)

      Map.update(rings, id, put({0, :queue.new()}, sample, keep), &put(&1, sample, keep))
    else
      # The device was lost after `device_list_open` returned it.
      {:error, _} -> rings
    end
  end

  # The live bytes are those of the same moment, so that the tags never have more.
  defp by_tag(id) do
    with {:ok, %{by_tag: sums}} <- Error.from_native(fn -> Native.memory_report(id, 0) end) do
      bytes = Enum.map(sums, fn {tag, %{bytes: bytes}} -> {tag, bytes} end)
      largest = bytes |> Enum.sort_by(&elem(&1, 1), :desc) |> Enum.take(@tags) |> Map.new()
      buffers = for {_, sum} <- sums, do: sum.buffers
      live = Enum.sum(for {_, bytes} <- bytes, do: bytes)
      {:ok, %{by_tag: largest, live_bytes: live, live_buffers: Enum.sum(buffers)}}
    end
  end

  defp put({count, ring}, sample, keep) do
    ring = :queue.in(sample, ring)
    if count < keep, do: {count + 1, ring}, else: {count, :queue.drop(ring)}
  end
end
