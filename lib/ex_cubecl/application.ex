defmodule ExCubecl.Application do
  @moduledoc false
  # Two processes for buffers on other nodes, and one that records a timeline on demand; everything else works without any.

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      ExCubecl.Remote.Keeper,
      ExCubecl.Remote.Releaser,
      ExCubecl.Memory.Timeline,
      ExCubecl.Kernel.Cache
    ]

    # Each starts again with nothing that could be wrong, however often somebody kills it.
    Supervisor.start_link(children,
      strategy: :one_for_one,
      max_restarts: 1_000,
      max_seconds: 1,
      name: ExCubecl.Supervisor
    )
  end
end
