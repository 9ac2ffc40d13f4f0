defmodule ExCubecl.Shape do
  @moduledoc false
  # Shapes are lists of non-negative integers; `[]` is a scalar. Pure, no device involved.

  alias ExCubecl.DType

  # Counts of elements and of bytes cross to the native side as 63-bit numbers.
  @most 0x7FFF_FFFF_FFFF_FFFF
  # Nested lists are built and read by recursive functions, whose depth must be bounded.
  @most_axes 64

  @type t :: [non_neg_integer]

  @doc """
  Converts a list or tuple to a shape and counts its elements.

      iex> ExCubecl.Shape.validate({2, 3}, :f32)
      {:ok, [2, 3], 6}
      iex> ExCubecl.Shape.validate([], :f32)
      {:ok, [], 1}
  """
  @spec validate(term, DType.t()) :: {:ok, t, non_neg_integer} | {:error, map}
  def validate(shape, dtype) when is_tuple(shape), do: validate(Tuple.to_list(shape), dtype)

  def validate(shape, dtype) when is_list(shape) do
    cond do
      not dimensions?(shape) -> {:error, %{shape: shape}}
      length(shape) > @most_axes -> {:error, %{shape: shape, axes: length(shape)}}
      true -> sized(shape, count(shape), dtype)
    end
  end

  def validate(other, _dtype), do: {:error, %{shape: other}}

  @doc "The number of elements of a valid shape."
  @spec size(t) :: non_neg_integer
  def size(shape), do: Enum.product(shape)

  defp dimensions?([dim | rest]) when is_integer(dim) and dim >= 0, do: dimensions?(rest)
  defp dimensions?(rest), do: rest == []

  # Each dimension must be in range even if another one is zero: the native side receives all of them.
  defp count(shape) do
    cond do
      Enum.any?(shape, &(&1 > @most)) -> :too_many
      0 in shape -> 0
      true -> Enum.reduce_while(shape, 1, &multiply/2)
    end
  end

  defp multiply(dim, product) do
    if dim * product <= @most, do: {:cont, dim * product}, else: {:halt, :too_many}
  end

  defp sized(shape, count, dtype) when is_integer(count) do
    if count * DType.size(dtype) <= @most, do: {:ok, shape, count}, else: too_many(shape)
  end

  defp sized(shape, :too_many, _dtype), do: too_many(shape)

  defp too_many(shape), do: {:error, %{shape: shape, elements: :too_many}}
end
