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

    inner = %{
      id: ExCubecl.Supervisor,
      type: :supervisor,
      start:
        {Supervisor, :start_link,
         [children, [strategy: :one_for_one, name: ExCubecl.Supervisor] ++ often()]}
    }

    # The outer one has no name, by which a stray message could reach it: a supervisor ends with a call that is none
    # of its own, and the application with its last supervisor.
    Supervisor.start_link([inner], [strategy: :one_for_one] ++ often())
  end

  # Each process starts again with nothing that could be wrong, however often somebody kills it.
  defp often, do: [max_restarts: 1_000, max_seconds: 1]
end
