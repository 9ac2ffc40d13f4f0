defmodule ExCubecl.Native.Waiting do
  @moduledoc false
  # Shows in IEx and in Livebook what a call is doing that takes longer than half a second, such as opening a device, from
  # a process of its own, because the caller waits for the native library meanwhile.

  @default 500
  @every 1_000

  alias ExCubecl.{Error, Native}

  @doc """
  Runs `call`; while it takes long, and where a person sees it, a line has this text, the name of the device unless that is `nil`, and the
  seconds that passed.
  """
  @spec show(iodata, {atom, non_neg_integer} | nil, (() -> result)) :: result when result: term
  def show(text, id, call),
    do: if(interactive?(), do: shown([text, name(id)], call), else: call.())

  defp name(nil), do: []
  defp name({runtime, index}), do: " #{runtime}:#{index}"

  @doc "Opens a device that no call of this function has seen yet, so that a person sees that it is being opened."
  @spec open({atom, non_neg_integer}) :: :ok
  def open(id) do
    if interactive?() and :persistent_term.get({__MODULE__, id}, nil) == nil do
      usage = show("opening", id, fn -> Error.from_native(fn -> Native.memory_usage(id) end) end)
      # The caller's own call returns an error.
      if match?({:ok, _}, usage), do: :persistent_term.put({__MODULE__, id}, :opened)
    end

    :ok
  end

  defp shown(text, call) do
    caller = self()
    {pid, monitor} = spawn_monitor(fn -> wait(caller, text) end)

    try do
      call.()
    after
      send(pid, :done)

      receive do
        {:DOWN, ^monitor, :process, _, _} -> :ok
      end
    end
  end

  defp wait(caller, text) do
    draw(Process.monitor(caller), text, now(), delay(), false)
  end

  defp draw(monitor, text, started, pause, drawn?) do
    receive do
      :done -> if drawn? or long?(started), do: write(text, started, "\n")
      {:DOWN, ^monitor, :process, _, _} -> if drawn?, do: IO.write("\n")
    after
      pause ->
        if write(text, started, ""), do: draw(monitor, text, started, @every, true)
    end
  end

  defp write(text, started, last) do
    if terminal?() do
      seconds = :erlang.float_to_binary((now() - started) / 1000, decimals: 1)
      IO.write(["\r", text, ": ", seconds, " s", last])
      true
    end
  end

  @doc "Whether a person may look: this is asked at each call, `terminal?/0` only once a call has taken long."
  @spec interactive?() :: boolean
  def interactive? do
    (:erlang.module_loaded(IEx) and apply(IEx, :started?, [])) or livebook?()
  end

  # Neither IEx nor Livebook is a dependency, so both are looked up at run time.
  defp livebook?, do: :erlang.module_loaded(Livebook.Runtime.Evaluator)

  @doc """
  Whether the output of this process is a terminal or a notebook, in which its evaluator started the call: not in a release, and not in a
  process of an application, such as a web server beside IEx.
  """
  @spec terminal?() :: boolean
  def terminal? do
    System.get_env("RELEASE_NAME") == nil and
      (livebook?() or
         (match?({:ok, _}, :io.columns()) and :application.get_application(self()) == :undefined))
  end

  @doc "The time in milliseconds from which on a call takes long; `config :ex_cubecl, progress_after: :infinity` shows nothing."
  @spec delay() :: timeout
  def delay do
    case Application.get_env(:ex_cubecl, :progress_after, @default) do
      :infinity -> :infinity
      ms when is_integer(ms) and ms in 0..0xFFFF_FFFF -> ms
      _ -> @default
    end
  end

  @doc "Whether a call that started at `now/0` has taken long."
  @spec long?(integer) :: boolean
  def long?(started), do: now() - started >= delay()

  def now, do: System.monotonic_time(:millisecond)
end
