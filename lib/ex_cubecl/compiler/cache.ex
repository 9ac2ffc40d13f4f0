defmodule ExCubecl.Compiler.Cache do
  @moduledoc false
  # Caches programs by the structure of their expression and the options of the backend.

  # A program is some hundred kilobytes, and a call of `jit` looks it up.
  use ExCubecl.Application.Cache, max: 256, store: :persistent_term
end
