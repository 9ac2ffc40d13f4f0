defmodule ExCubecl.Pool.Server do
  @moduledoc false
  # The process of a pool: the pool ends when it exits. It has the queue of callers that wait for a buffer.

  use ExCubecl.Application.Service

  alias ExCubecl.{Error, Native}

  @impl true
  def init({pool, max}) do
    :ok = Error.from_native(fn -> Native.pool_set_server(pool) end)
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

  # Serves the waiting callers in FIFO order. A buffer may be returned between an attempt to take it and the wait
  # for it, so the wait is announced before the attempt.
  defp serve(state) do
    Native.pool_set_waiting(self(), :queue.len(state.queue))

    case :queue.out(state.queue) do
      {:empty, _} -> state
      {{:value, waiter}, rest} -> serve(waiter, rest, state)
    end
  end

  defp serve(waiter, rest, state) do
    call = fn -> Native.pool_checkout(self(), waiter.holder, waiter.note) end

    case Error.from_native(call) do
      {:error, %Error{reason: :pool_exhausted}} ->
        state

      result ->
        if waiter.timer, do: Process.cancel_timer(waiter.timer)
        reply(waiter, result)
        serve(%{state | queue: rest})
    end
  end

  # A caller that no longer waits, or is dead, ignores the reply: the buffer in it is garbage collected and returns
  # to the pool.
  defp reply(waiter, result), do: GenServer.reply(waiter.from, result)
end
