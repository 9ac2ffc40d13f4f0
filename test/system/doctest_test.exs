defmodule ExCubecl.DoctestTest do
  # Examples set limits and count live buffers, so none runs concurrently with another.
  use ExUnit.Case, async: false

  doctest ExCubecl
  doctest ExCubecl.Buffer
  doctest ExCubecl.Compat
  doctest ExCubecl.Device
  doctest ExCubecl.DType
  doctest ExCubecl.Error
  doctest ExCubecl.Memory
  doctest ExCubecl.Memory.Chart
  doctest ExCubecl.Memory.Chart.Svg
  doctest ExCubecl.Telemetry
  doctest ExCubecl.Pool
  doctest ExCubecl.Arena
  doctest ExCubecl.Shape
  doctest ExCubecl.Error.Text
  doctest ExCubecl.Replicated
  doctest ExCubecl.Kernel
  doctest ExCubecl.Ops
  doctest ExCubecl.Batch
  doctest ExCubecl.View
end
