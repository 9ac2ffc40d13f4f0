defmodule ExCubecl.Compiler.Cache do
  @moduledoc false
  # Caches programs by the structure of their expression and the options of the backend.

  use ExCubecl.Application.Cache, max: 256
end
