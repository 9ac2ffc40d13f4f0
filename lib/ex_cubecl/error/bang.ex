defmodule ExCubecl.Error.Bang do
  @moduledoc false
  # Generates the raising variant, with a `!`, of each listed function.
  #
  #     use ExCubecl.Error.Bang, read: 1, write: 2, write: 3

  defmacro __using__(functions) do
    for {name, arity} <- functions do
      args = Macro.generate_arguments(arity, __MODULE__)

      quote do
        @doc "As `#{unquote(name)}/#{unquote(arity)}`, but returns the value itself or raises `ExCubecl.Error`."
        def unquote(:"#{name}!")(unquote_splicing(args)),
          do: ExCubecl.Error.unwrap!(unquote(name)(unquote_splicing(args)))
      end
    end
  end
end
