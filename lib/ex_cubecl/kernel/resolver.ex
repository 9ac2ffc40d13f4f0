defmodule ExCubecl.Kernel.Resolver do
  @moduledoc false
  # Finds the kernel that a call in a kernel refers to, or reports what else the name means.

  @typedoc """
  The meaning of a name that is not a kernel:

    * `:unknown` - not found
    * `:forward` - possibly defined further down in the module being compiled
    * `:plain` - a function of the module being compiled
    * `{:function, module}` - a function or macro of Elixir
    * `{:import, module}` - a kernel of an imported module
    * `{:arities, list}` - a kernel with other arities
    * `{:no_module, module}` - the module does not exist
    * `{:kernels, module, list}` - the module has only these kernels
  """
  @type other ::
          :unknown
          | :forward
          | :plain
          | {:function, module}
          | {:import, module}
          | {:arities, [arity]}
          | {:no_module, module}
          | {:kernels, module, keyword(arity)}

  @doc "The parsed kernel, or what else the name means."
  @spec resolve(Macro.t() | nil, atom, arity, Macro.Env.t()) :: map | {:other, other}
  def resolve(nil, name, arity, env) do
    kernels = defined(env)

    case List.keyfind(kernels, {name, arity}, 0) do
      {_, kernel} -> kernel.parsed
      nil -> {:other, local(kernels, name, arity, env)}
    end
  end

  def resolve(module, name, arity, env) do
    case Macro.expand(module, env) do
      module when module == env.module -> resolve(nil, name, arity, env)
      module when is_atom(module) -> of_module(module, name, arity)
      _ -> {:other, :unknown}
    end
  end

  defp of_module(module, name, arity) do
    with {:module, _} <- Code.ensure_compiled(module),
         true <- function_exported?(module, :__kernel__, 2),
         %{parsed: parsed} <- module.__kernel__(name, arity) do
      parsed
    else
      {:error, _} -> {:other, {:no_module, module}}
      false -> {:other, function(module, name, arity)}
      nil -> {:other, of_kernels(module, name, arity)}
    end
  end

  @doc "The kernels defined so far in the module being compiled, the latest first."
  def defined(%{module: module}) do
    if module && Module.open?(module),
      do: Module.get_attribute(module, :ex_cubecl_kernels) || [],
      else: []
  end

  @doc "The meaning of a name that is not a kernel of the module being compiled."
  @spec local(list, atom, arity, Macro.Env.t()) :: other
  def local(kernels, name, arity, env) do
    others = for {{^name, other}, _} <- kernels, do: other

    cond do
      others != [] -> {:arities, Enum.sort(others)}
      plain?(env, name, arity) -> :plain
      module = importer(env, name, arity) -> imported(module, name, arity)
      env.module && Module.open?(env.module) -> :forward
      true -> :unknown
    end
  end

  # `Module.defines?/2` and `macro_exported?/3` raise for more arguments than a function has. A block is a call with its statements as arguments.
  @most 255

  defp plain?(%{module: module}, name, arity) do
    module != nil and arity <= @most and Module.open?(module) and
      Module.defines?(module, {name, arity})
  end

  defp importer(env, name, arity) do
    Enum.find_value(env.functions ++ env.macros, fn {module, functions} ->
      if {name, arity} in functions, do: module
    end)
  end

  # Calling it without the module name would work, but Elixir would warn that the import is unused.
  defp imported(module, name, arity) do
    cond do
      not function_exported?(module, :__kernel__, 2) -> {:function, module}
      module.__kernel__(name, arity) != nil -> {:import, module}
      true -> of_kernels(module, name, arity)
    end
  end

  defp function(module, name, arity) do
    if function_exported?(module, name, arity) or macro?(module, name, arity),
      do: {:function, module},
      else: :unknown
  end

  @doc "Whether a loaded module has the macro."
  @spec macro?(module, atom, arity) :: boolean
  def macro?(module, name, arity), do: arity <= @most and macro_exported?(module, name, arity)

  # A module with kernels may also have functions.
  defp of_kernels(module, name, arity) do
    kernels = module.__kernels__()

    case for({^name, other} <- kernels, do: other) do
      [] when kernels != [] ->
        case function(module, name, arity) do
          :unknown -> {:kernels, module, kernels}
          found -> found
        end

      [] ->
        function(module, name, arity)

      others ->
        {:arities, Enum.sort(others)}
    end
  end
end
