defmodule ExCubecl.DoctestTest do
  # Examples set limits and count live buffers, so none runs concurrently with another.
  use ExUnit.Case, async: false

  # Those for Nx, which is loaded in the VMs of test/nx, have none.
  for module <- ExCubecl.Sweep.modules(),
      ExCubecl.Policy.example?(Code.fetch_docs(module)),
      do: doctest(module)

  doctest ExCubecl.Memory.Chart.Svg
  doctest ExCubecl.Shape
  doctest ExCubecl.Error.Text
  doctest ExCubecl.Error.Suggestion
end
