defmodule ExCubecl.Kernel.Lookup do
  @moduledoc false
  # Finds the kernel that a caller gives: one of `ExCubecl.Kernel.kernel/1`, or the one of a name in a module that uses `ExCubecl.Kernel`.
  # Kernels are known by their fields here, so that this module does not depend on theirs.

  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  @doc "The kernel of a term, for this number of arguments."
  def kernel(%{__struct__: _, parsed: _, key: _} = kernel, _arity), do: {:ok, kernel}

  def kernel({module, name}, arity) do
    with true <- is_atom(module) and is_atom(name),
         {:module, _} <- Code.ensure_loaded(module),
         true <- function_exported?(module, :__kernel__, 2),
         {_, %{parsed: _, key: _} = kernel} <- {module, module.__kernel__(name, arity)} do
      {:ok, kernel}
    else
      {^module, nil} -> unknown(module, name, arity)
      _ -> no_kernel({module, name})
    end
  end

  def kernel(other, _arity), do: no_kernel(other)

  defp unknown(module, name, arity) do
    kernels = module.__kernels__()

    case Enum.find(kernels, &match?({^name, _}, &1)) do
      nil ->
        known = Enum.map_join(kernels, ", ", fn {name, arity} -> "#{name}/#{arity}" end)
        Arguments.invalid(:kernel, {module, name}, "a kernel of #{inspect(module)}: #{known}")

      {_, other} ->
        names = module.__kernel__(name, other).parsed.args
        details = [argument: :args, kernel: name, names: names, given: arity]
        Error.new(:invalid_argument, details)
    end
  end

  defp no_kernel(other),
    do:
      Arguments.invalid(
        :kernel,
        other,
        "a kernel of ExCubecl.Kernel.kernel/1, or {module, name} of a module that uses ExCubecl.Kernel"
      )
end
