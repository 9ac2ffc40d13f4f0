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

  @doc "Of matrices of n rows, those with the elements below the diagonal and ones on it, and those with the elements from the diagonal on."
  @spec split(binary, pos_integer, :f32 | :f64) :: {binary, binary}
  def split(binary, n, dtype) do
    size = DType.size!(dtype)
    row = n * size

    {lower, upper} =
      for at <- 0..(div(byte_size(binary), row) - 1)//1 do
        before = rem(at, n) * size
        left = binary_part(binary, at * row, before)
        right = binary_part(binary, at * row + before, row - before)
        {[left, one(dtype), zeros(row - before - size)], [zeros(before), right]}
      end
      |> Enum.unzip()

    {IO.iodata_to_binary(lower), IO.iodata_to_binary(upper)}
  end

  defp one(:f32), do: <<1.0::float-32-native>>
  defp one(:f64), do: <<1.0::float-64-native>>

  defp zeros(size), do: :binary.copy(<<0>>, size)
end
