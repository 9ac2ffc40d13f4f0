defmodule ExCubecl.Remote.Releaser do
  @moduledoc false
  # Tells the owners of remote buffers that a handle of this node was collected.

  use GenServer

  alias ExCubecl.Remote.Keeper

  # Milliseconds until an owner whose connection is full is told again.
  @again 100

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(nil), do: {:ok, nil}

  @impl true
  def handle_info({:released, handle} = message, state) do
    {node, key} = :erlang.binary_to_term(handle)

    # A node that has gone away has released everything by itself.
    case :erlang.send({Keeper, node}, {:release, key}, [:nosuspend, :noconnect]) do
      :nosuspend -> Process.send_after(self(), message, @again)
      _ -> :ok
    end

    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}
end
