defmodule ExCubecl.Pool.Server do
  @moduledoc false
  # The process with which a pool ends, and the queue of those who wait for a buffer of it.

  use ExCubecl.Service

  alias ExCubecl.{Error, Native}

  @impl true
  def init({pool, max}) do
    :ok = Error.from_native(fn -> Native.pool_run(pool) end)
    {:ok, %{max: max, queue: :queue.new()}}
  end

  @impl true
  def handle_call({:wait, note, timeout}, {holder, _} = from, state)
      when is_pid(holder) and (timeout == :infinity or timeout in 0..0xFFFF_FFFF) do
    Native.pool_count_wait(self())
    timer = if timeout != :infinity, do: Process.send_after(self(), {:late, from}, timeout)
    waiter = %{from: from, holder: holder, note: note, timer: timer, timeout: timeout}
    {:noreply, serve(%{state | queue: :queue.in(waiter, state.queue)})}
  end

  @impl true
  def handle_info(:returned, state), do: {:noreply, serve(state)}

  def handle_info({:late, from}, state) do
    {late, queue} = Enum.split_with(:queue.to_list(state.queue), &(&1.from == from))

    for waiter <- late,
        do: reply(waiter, Error.new(:pool_exhausted, max: state.max, timeout: waiter.timeout))

    {:noreply, serve(%{state | queue: :queue.from_list(queue)})}
  end

  # In the order of their coming. A buffer may come back between a try and the wait for it, so
  # that the wait is announced before the try.
  defp serve(state) do
    Native.pool_set_waiting(self(), :queue.len(state.queue))

    case :queue.out(state.queue) do
      {:empty, _} -> state
      {{:value, waiter}, rest} -> serve(waiter, rest, state)
    end
  end

  defp serve(waiter, rest, state) do
    call = fn -> Native.pool_check_out(self(), waiter.holder, waiter.note) end

    case Error.from_native(call) do
      {:error, %Error{reason: :pool_exhausted}} ->
        state

      result ->
        if waiter.timer, do: Process.cancel_timer(waiter.timer)
        reply(waiter, result)
        serve(%{state | queue: rest})
    end
  end

  # Who waits no longer, or is dead, does not take the answer: what it holds is collected and
  # comes back.
  defp reply(waiter, result), do: GenServer.reply(waiter.from, result)
end
