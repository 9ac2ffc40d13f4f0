defmodule ExCubecl.Remote.Releaser do
  @moduledoc false
  # Tells the owners of remote buffers that a handle of this node was collected.

  use ExCubecl.Service

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Remote.Keeper

  # Milliseconds until an owner whose connection is full is told again.
  @again 100

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  # It is told of the handles of its predecessor too: the newest process that a handle was made for is told of all.
  @impl true
  def init(nil) do
    Error.from_native(fn -> Native.remote_handle(self(), :erlang.term_to_binary(:none)) end)
    {:ok, nil}
  end

  @impl true
  def handle_info({:released, handle} = message, state) do
    with {node, key} when is_atom(node) <- owner(handle),
         # A node that has gone away has released everything by itself.
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
