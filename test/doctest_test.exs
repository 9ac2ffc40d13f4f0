defmodule ExCubecl.DoctestTest do
  use ExUnit.Case, async: true

  doctest ExCubecl
  doctest ExCubecl.Buffer
  doctest ExCubecl.Device
  doctest ExCubecl.DType
  doctest ExCubecl.Error
  doctest ExCubecl.Memory
  doctest ExCubecl.Memory.Chart
  doctest ExCubecl.Memory.Svg
  doctest ExCubecl.Pool
  doctest ExCubecl.Arena
  doctest ExCubecl.Shape
  doctest ExCubecl.Text
  doctest ExCubecl.Context
  doctest ExCubecl.Replicated
  doctest ExCubecl.Kernel
  doctest ExCubecl.Ops
  doctest ExCubecl.Batch
end
