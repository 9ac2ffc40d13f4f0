defmodule ExCubecl.Cluster.Keeper do
  @moduledoc false
  # Keeps the buffers of this node that other nodes have handles of. A buffer is released when its handle is
  # garbage collected on the other node, when that node disconnects, and when the process that requested the
  # buffer dies before it has received the handle.

  use ExCubecl.Application.Service

  alias ExCubecl.Application.Service

  @table __MODULE__

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Keeps a buffer for the node of `caller`, and returns `{:ok, key}`."
  def keep(buffer, caller), do: Service.call(__MODULE__, {:keep, buffer, caller})

  @doc "The buffer of a key."
  def fetch(key) do
    case :ets.lookup(@table, key) do
      [{^key, _node, buffer}] -> {:ok, buffer}
      [] -> :error
    end
  rescue
    # The keeper was killed: the buffers that it kept are released.
    ArgumentError -> :error
  end

  @doc "How many buffers are kept."
  def count, do: :ets.info(@table, :size)

  @impl true
  def init(nil) do
    # The table is deleted with the process, so no buffer outlives its key.
    :ets.new(@table, [:named_table, :protected, read_concurrency: true])
    {:ok, %{nodes: MapSet.new(), waited_for: %{}}}
  end

  @impl true
  def handle_call({:keep, buffer, caller}, _from, state) when is_pid(caller) do
    key = make_ref()
    :ets.insert(@table, {key, node(caller), buffer})
    waited_for = Map.put(state.waited_for, Process.monitor(caller), key)
    {:reply, {:ok, key}, watch(%{state | waited_for: waited_for}, node(caller))}
  end

  defp watch(%{nodes: nodes} = state, node) do
    unless node in nodes, do: Node.monitor(node, true)
    %{state | nodes: MapSet.put(nodes, node)}
  end

  # Where a buffer is released, the process hibernates: its heap may have a reference to the buffer, too.
  @impl true
  def handle_info({:had, key}, state), do: {:noreply, had(state, key)}

  def handle_info({:release, key}, state) do
    :ets.delete(@table, key)
    {:noreply, had(state, key), :hibernate}
  end

  def handle_info({:DOWN, monitor, :process, _, _}, state) do
    {key, waited_for} = Map.pop(state.waited_for, monitor)
    :ets.delete(@table, key)
    {:noreply, %{state | waited_for: waited_for}, :hibernate}
  end

  def handle_info({:nodedown, node}, state) do
    :ets.match_delete(@table, {:_, node, :_})
    {:noreply, %{state | nodes: MapSet.delete(state.nodes, node)}, :hibernate}
  end

  # The caller has the handle: from now on the buffer lives as long as the handle, not as the caller.
  defp had(state, key) do
    {mine, others} = Enum.split_with(state.waited_for, fn {_, waiting} -> waiting == key end)
    for {monitor, _} <- mine, do: Process.demonitor(monitor, [:flush])
    %{state | waited_for: Map.new(others)}
  end
end
