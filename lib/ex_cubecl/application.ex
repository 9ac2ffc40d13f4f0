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

    Supervisor.start_link(children, strategy: :one_for_one, name: ExCubecl.Supervisor)
  end
end
