defmodule ExCubecl.Buffer.Progress do
  @moduledoc false
  # Reports the progress of a transfer from a separate process, because the caller waits for the
  # native library meanwhile. A callback is called for every transfer that it was passed to; without
  # one, IEx and Livebook show a progress bar for transfers that take longer than half a second.

  alias ExCubecl.Error.Arguments
  alias ExCubecl.Native.Waiting

  @width 30

  @type t :: nil | false | (non_neg_integer, non_neg_integer -> term)

  @spec check(term) :: {:ok, t} | {:error, ExCubecl.Error.t()}
  def check(progress) when progress in [nil, false] or is_function(progress, 2),
    do: {:ok, progress}

  def check(other), do: Arguments.invalid(:progress, other, "a function of two numbers, or false")

  @doc """
  Runs `call` with the pid of the process that receives progress messages, or with `nil` if progress is not reported.
  """
  @spec watch(non_neg_integer, t, (pid | nil -> result)) :: result when result: term
  def watch(bytes, progress, call) do
    case listener(progress) do
      nil -> call.(nil)
      {listener, pause} -> watched(bytes, listener, pause, call)
    end
  end

  # With the time after which the listener is called even if nothing was transferred yet.
  defp listener(progress) when is_function(progress, 2), do: {progress, :infinity}
  defp listener(false), do: nil
  defp listener(nil), do: if(Waiting.interactive?(), do: {bar(Waiting.now()), Waiting.delay()})

  defp watched(bytes, listener, pause, call) do
    caller = self()
    {teller, monitor} = spawn_monitor(fn -> tell_until_done(caller, bytes, listener, pause) end)
    result = call.(teller)
    send(teller, {:done, result})

    receive do
      {:DOWN, ^monitor, :process, _, _} -> result
    end
  end

  defp tell_until_done(caller, total, listener, pause) do
    tell(Process.monitor(caller), total, 0, listener, pause)
  end

  defp tell(monitor, total, told, listener, pause) do
    receive do
      {:progress, bytes} ->
        tell(monitor, total, newest(bytes, told, total, listener), listener, pause)

      {:done, {:error, _}} ->
        :ok

      {:done, _} ->
        if told < total, do: listener.(total, total)

      {:DOWN, ^monitor, :process, _, _} ->
        :ok
    after
      pause ->
        listener.(told, total)
        tell(monitor, total, told, listener, :infinity)
    end
  end

  # A listener that is slower than the transfer is called with the newest state only.
  defp newest(bytes, told, total, listener) do
    receive do
      {:progress, more} -> newest(max(bytes, more), told, total, listener)
    after
      0 ->
        if bytes > told, do: listener.(min(bytes, total), total)
        max(bytes, told)
    end
  end

  defp bar(started) do
    fn done, total ->
      if Waiting.long?(started) and Waiting.terminal?(), do: draw(done, total, started)
    end
  end

  defp draw(done, total, started) do
    filled = div(done * @width, total)
    elapsed = max(Waiting.now() - started, 1)
    bar = String.duplicate("=", filled) <> String.duplicate(" ", @width - filled)
    speed = done / elapsed / 1.0e6
    finished = if done == total, do: "\n", else: ""

    IO.write(
      "\r[#{bar}] #{div(done * 100, total)} %  #{mib(done)} of #{mib(total)} MiB  " <>
        "#{Float.round(speed, 2)} GB/s #{finished}"
    )
  end

  defp mib(bytes), do: Float.round(bytes / (1024 * 1024), 1)
end
