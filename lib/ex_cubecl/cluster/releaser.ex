defmodule ExCubecl.Cluster.Releaser do
  @moduledoc false
  # Notifies the node of a remote buffer when a handle on this node is garbage collected.

  use ExCubecl.Application.Service

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Cluster.Keeper

  # Milliseconds until the next attempt to notify a node whose distribution connection is busy.
  @again 100

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  # It also gets the notifications for the handles of its predecessor: the newest process that a handle was made for
  # gets all of them.
  @impl true
  def init(nil) do
    Error.from_native(fn -> Native.remote_handle(self(), :erlang.term_to_binary(:none)) end)
    {:ok, nil}
  end

  @impl true
  def handle_info({:released, handle} = message, state) do
    with {node, key} when is_atom(node) <- owner(handle),
         # A node that is disconnected (`:noconnect`) has released the buffers by itself.
         :nosuspend <-
           :erlang.send({Keeper, node}, {:release, key}, [:nosuspend, :noconnect]),
         do: Process.send_after(self(), message, @again)

    {:noreply, state}
  end

  defp owner(handle) do
    :erlang.binary_to_term(handle)
  rescue
    ArgumentError -> :none
  end
end
