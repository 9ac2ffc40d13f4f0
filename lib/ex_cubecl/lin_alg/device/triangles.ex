defmodule ExCubecl.LinAlg.Device.Triangles do
  @moduledoc false
  # Rows of matrices as bytes, which the host puts together from parts.

  alias ExCubecl.DType

  @doc "The identity matrix of n rows."
  @spec identity(non_neg_integer, :f32 | :f64) :: binary
  def identity(n, dtype),
    do: IO.iodata_to_binary(for row <- 0..(n - 1)//1, do: unit(n, row, dtype))

  @doc "Row `at` of an identity matrix of n rows."
  @spec unit(pos_integer, non_neg_integer, :f32 | :f64) :: iodata
  def unit(n, at, dtype) do
    size = DType.size!(dtype)
    [zeros(at * size), one(dtype), zeros((n - 1 - at) * size)]
  end

  defp one(:f32), do: <<1.0::float-32-native>>
  defp one(:f64), do: <<1.0::float-64-native>>

  defp zeros(size), do: :binary.copy(<<0>>, size)
end
