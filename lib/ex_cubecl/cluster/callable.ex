defmodule ExCubecl.Cluster.Callable do
  @moduledoc false
  # `use ExCubecl.Cluster.Callable` in a module allows other nodes to call its functions. `ExCubecl.Cluster.Server`
  # refuses all others.

  @attribute :ex_cubecl_callable

  defmacro __using__(_opts) do
    quote do
      Module.register_attribute(__MODULE__, unquote(@attribute), persist: true)
      Module.put_attribute(__MODULE__, unquote(@attribute), true)
    end
  end

  @doc "Whether other nodes may call `fun`."
  @spec callable?(term) :: boolean
  def callable?(fun) when is_function(fun) do
    {:module, module} = Function.info(fun, :module)
    Function.info(fun, :type) == {:type, :external} and marked?(module)
  end

  def callable?(_other), do: false

  defp marked?(module) do
    Code.ensure_loaded?(module) and function_exported?(module, :__info__, 1) and
      Keyword.has_key?(module.__info__(:attributes), @attribute)
  end
end
