defmodule ExCubecl.Kernel.ForwardReference do
  @moduledoc false
  # Raised when a kernel calls a name that is not defined yet. `Definition.finish/1` checks it at the end of the module.

  defexception [:called, :kernel, :file, :line]

  @impl true
  def message(%{called: {name, arity}}),
    do: ExCubecl.Kernel.Diagnostics.call(name, arity, :unknown)
end
