defmodule ExCubecl.Kernel.Cache do
  @moduledoc false
  # Caches compiled kernels by kernel, kinds of arguments and device.

  use ExCubecl.Application.Cache, max: 1024, store: :ets
end
