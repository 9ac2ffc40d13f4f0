defmodule ExCubecl.Application do
  @moduledoc false
  # Starts two processes for buffers on other nodes, one that records a timeline on demand, and the owners of the caches of
  # kernels and programs; all other functions work without these processes.

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      ExCubecl.Cluster.Keeper,
      ExCubecl.Cluster.Releaser,
      ExCubecl.Memory.Timeline,
      ExCubecl.Kernel.Cache,
      ExCubecl.Compiler.Cache
    ]

    inner = %{
      id: ExCubecl.Supervisor,
      type: :supervisor,
      start:
        {Supervisor, :start_link,
         [children, [strategy: :one_for_one, name: ExCubecl.Supervisor] ++ often()]}
    }

    # The outer supervisor has no name, so that no stray message can reach it: a supervisor exits at a call that it
    # does not know, and the application stops with its top supervisor.
    Supervisor.start_link([inner], [strategy: :one_for_one] ++ often())
  end

  # Each process restarts with empty state, so it can be restarted any number of times.
  defp often, do: [max_restarts: 1_000, max_seconds: 1]
end
