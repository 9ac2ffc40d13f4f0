# The serving of the tests of Nx.Serving, which a peer node loads, too.
defmodule ExCubecl.NxServingModel do
  # The process of a serving has no default backend of its own.
  def init(opts) do
    Nx.default_backend({ExCubecl.Backend, host_limit: 0})
    Nx.Defn.jit(&Nx.multiply(&1, 2), opts)
  end

  # The results of another node are copied to binaries before they are sent.
  def serving do
    (&init/1)
    |> Nx.Serving.new()
    |> Nx.Serving.process_options(batch_size: 4)
    |> Nx.Serving.distributed_postprocessing(&Nx.backend_copy/1)
  end

  @doc "Starts the serving under a process that lives as long as the node."
  def start(name) do
    parent = self()

    spawn(fn ->
      send(parent, {:started, Nx.Serving.start_link(name: name, serving: serving())})
      Process.sleep(:infinity)
    end)

    receive(do: ({:started, {:ok, _pid}} -> node()))
  end
end
