defmodule ExCubecl.Buffer.Reclaim do
  @moduledoc false
  # Makes other processes collect their garbage, so that the buffers in it are freed. One run at a time
  # in the whole VM: concurrent callers wait for the run in progress and share its result.

  alias ExCubecl.{Error, Native}

  # Milliseconds to wait for replies, so that a process that is busy in a long call does not block the callers.
  @patience 100

  @doc "Collects garbage in the processes that made buffers of device `id`, or in all processes."
  @spec run(:owners | :all, ExCubecl.Device.id()) :: :ok
  def run(which, id) do
    {_, ref} = spawn_monitor(fn -> work(which, id) end)

    receive do
      {:DOWN, ^ref, :process, _, _} -> :ok
    end
  end

  defp work(which, id) do
    Process.register(self(), __MODULE__)
    collect(processes(which, id))
  rescue
    ArgumentError -> wait_for_other()
  end

  defp wait_for_other do
    ref = Process.monitor(__MODULE__)

    receive do
      {:DOWN, ^ref, :process, _, _} -> :ok
    after
      @patience -> :ok
    end
  end

  defp processes(:all, _id), do: Process.list()

  defp processes(:owners, id) do
    case Error.from_native(fn -> Native.memory_owners(id) end) do
      {:ok, owners} -> Enum.map(owners, &elem(&1, 0))
      {:error, _} -> []
    end
  end

  # All requests are sent before the first reply is received; a late reply is sent to a process that has exited.
  defp collect(pids) do
    asked = Enum.count(pids, &(&1 != self() and ask(&1)))
    deadline = System.monotonic_time(:millisecond) + @patience
    answers(asked, deadline)
  end

  # `:erlang.garbage_collect/2` accepts only local pids, and owners are always local.
  defp ask(pid), do: :erlang.garbage_collect(pid, async: __MODULE__) == :async

  defp answers(0, _deadline), do: :ok

  defp answers(left, deadline) do
    receive do
      {:garbage_collect, __MODULE__, _} -> answers(left - 1, deadline)
    after
      max(deadline - System.monotonic_time(:millisecond), 0) -> :ok
    end
  end
end
