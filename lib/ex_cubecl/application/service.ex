defmodule ExCubecl.Application.Service do
  @moduledoc false
  # A GenServer of the library. It refuses unknown calls and drops unknown messages instead of crashing; callers
  # find it again after it was killed and restarted.

  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  # How long a caller waits for the supervisor to start a process again, in milliseconds.
  @patience 1_000
  @pause 2

  defmacro __using__(_opts) do
    quote do
      # Not `use GenServer`, because it defines its own clauses for unknown messages.
      @behaviour GenServer
      @before_compile ExCubecl.Application.Service

      def child_spec(arg), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [arg]}}
    end
  end

  # Appended after the clauses of the module itself.
  defmacro __before_compile__(_env) do
    quote do
      def handle_call(message, from, state),
        do: ExCubecl.Application.Service.refuse(message, from, state)

      def handle_cast(_message, state), do: {:noreply, state}

      def handle_info(_message, state), do: {:noreply, state}
    end
  end

  @doc "Replies to an unknown call with an error, if `from` has a pid to reply to."
  def refuse(message, {pid, _tag}, state) when is_pid(pid),
    do: {:reply, Arguments.invalid(:message, message, "one of the library's own"), state}

  def refuse(_message, _from, state), do: {:noreply, state}

  @doc """
  Calls a service and returns its reply, or an error if the service is not running. Starts the application if only
  its code was loaded; calls again if the process was killed, once it is restarted.
  """
  @spec call(module, term) :: term | {:error, Error.t()}
  def call(name, message), do: call(name, message, deadline())

  defp call(name, message, deadline) do
    with {:ok, pid} <- whereis(name, deadline) do
      try do
        GenServer.call(pid, message, :infinity)
      catch
        :exit, {reason, _} when reason in [:noproc, :killed, :shutdown] ->
          call(name, message, deadline)
      end
    end
  end

  @doc "The pid of a service, as in `call/2`."
  @spec whereis(module) :: {:ok, pid} | {:error, Error.t()}
  def whereis(name), do: whereis(name, deadline())

  defp whereis(name, deadline) do
    case Process.whereis(name) do
      nil -> started(name, deadline)
      pid -> {:ok, pid}
    end
  end

  defp started(name, deadline) do
    with {:ok, _} <- Application.ensure_all_started(:ex_cubecl),
         true <- now() < deadline do
      Process.sleep(@pause)
      whereis(name, deadline)
    else
      _ ->
        Error.new(:invalid_argument, argument: :application, expected: ":ex_cubecl to be started")
    end
  end

  defp deadline, do: now() + @patience
  defp now, do: System.monotonic_time(:millisecond)
end
