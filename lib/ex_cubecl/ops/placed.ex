defmodule ExCubecl.Ops.Placed do
  @moduledoc false
  # `use ExCubecl.Ops.Placed` in a module makes each of its functions run where its buffers are (`ExCubecl.Cluster.Placement`). It stands before
  # `use ExCubecl.Error.Bang`, whose twins call these functions.

  alias ExCubecl.Error.Bang

  defmacro __using__(_opts) do
    quote do
      use ExCubecl.Cluster.Callable
      @before_compile ExCubecl.Ops.Placed
    end
  end

  defmacro __before_compile__(env) do
    for {:spec, spec, _} <- Enum.reverse(Module.get_attribute(env.module, :spec)),
        {name, arity} = Bang.function(spec) do
      # The names of the original, which the documentation and the `!` twin show.
      args = Bang.arguments(env.module, name, arity)

      quote do
        defoverridable [{unquote(name), unquote(arity)}]

        def unquote(name)(unquote_splicing(args)) do
          ExCubecl.Cluster.Placement.run(
            &(__MODULE__.unquote(name) / unquote(arity)),
            [unquote_splicing(args)],
            fn -> super(unquote_splicing(args)) end
          )
        end
      end
    end
  end
end
