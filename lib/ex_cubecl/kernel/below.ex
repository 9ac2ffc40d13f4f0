defmodule ExCubecl.Kernel.Below do
  @moduledoc false
  # A kernel calls something that is not there yet. What that is is known at the end of its module.

  defexception [:called, :kernel, :file, :line]

  @impl true
  def message(%{called: {name, arity}}), do: ExCubecl.Kernel.Unknown.call(name, arity, :unknown)
end
