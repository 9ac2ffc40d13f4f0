defmodule ExCubecl.Remote.Dispatch do
  @moduledoc false
  # Lets functions run where their buffer or device is. The functions themselves know of no other
  # node: each is overridden by one that asks first.

  alias ExCubecl.Remote

  defmacro __using__(functions) do
    for {name, arity} <- functions do
      args = Macro.generate_arguments(arity, __MODULE__)

      quote do
        defoverridable [{unquote(name), unquote(arity)}]

        def unquote(name)(unquote_splicing(args)) do
          case Remote.elsewhere(__MODULE__, unquote(name), unquote(args)) do
            :here -> super(unquote_splicing(args))
            {:there, call} -> call.()
          end
        end
      end
    end
  end
end
