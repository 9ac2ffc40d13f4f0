defmodule ExCubecl.Cluster.Dispatch do
  @moduledoc false
  # Runs functions on the node of their buffer or device. The functions themselves do not depend on other
  # nodes: each is overridden by one that first looks up the node.

  alias ExCubecl.Cluster.Remote

  defmacro __using__(functions) do
    for {name, arity} <- functions do
      args = Macro.generate_arguments(arity, __MODULE__)

      quote do
        defoverridable [{unquote(name), unquote(arity)}]

        def unquote(name)(unquote_splicing(args)) do
          case Remote.route(__MODULE__, unquote(name), unquote(args)) do
            :here -> super(unquote_splicing(args))
            {:there, call} -> call.()
          end
        end
      end
    end
  end
end
