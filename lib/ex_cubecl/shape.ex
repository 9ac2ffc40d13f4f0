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
  def validate(shape, dtype) when is_tuple(shape) do
    with {:error, details} <- validate(Tuple.to_list(shape), dtype),
         do: {:error, %{details | shape: shape}}
  end

  def validate(shape, dtype) when is_list(shape) do
    with count when is_integer(count) <- product(shape, 1, @most_axes),
         true <- count * DType.size!(dtype) <= @most do
      {:ok, shape, count}
    else
      _ -> {:error, invalid(shape)}
    end
  end

  def validate(other, _dtype), do: {:error, %{shape: other}}

  @doc """
  The shape with its -1 replaced by the dimension that makes `count` elements; `{:misfit, known}` if there is none, where `known` is the product of the
  other dimensions. A shape with several, or with other terms, is returned as it is, for the check of shapes.

      iex> ExCubecl.Shape.infer({2, -1}, 6)
      {:ok, [2, 3]}
      iex> ExCubecl.Shape.infer([4, -1], 6)
      {:misfit, 4}
  """
  @spec infer(term, non_neg_integer) :: {:ok, term} | {:misfit, non_neg_integer}
  def infer(shape, count) when is_tuple(shape), do: infer(Tuple.to_list(shape), count)

  def infer(shape, count) when is_list(shape) do
    with true <- not List.improper?(shape) and Enum.count(shape, &(&1 == -1)) == 1,
         known when is_integer(known) <- product(List.delete(shape, -1), 1, @most_axes) do
      if known > 0 and rem(count, known) == 0,
        do: {:ok, for(dim <- shape, do: if(dim == -1, do: div(count, known), else: dim))},
        else: {:misfit, known}
    else
      _ -> {:ok, shape}
    end
  end

  def infer(other, _count), do: {:ok, other}

  @doc "The number of elements of a valid shape."
  @spec size(t) :: non_neg_integer
  def size(shape), do: product(shape, 1, @most_axes)

  # Each dimension must be in range even if another one is zero: the native side receives all of them.
  defp product([], count, _axes_left), do: count

  defp product([dim | rest], count, axes_left)
       when is_integer(dim) and dim >= 0 and dim <= @most and axes_left > 0,
       do: product(rest, dim * count, axes_left - 1)

  defp product(_other, _count, _axes_left), do: :invalid

  defp invalid(shape) do
    cond do
      not dimensions?(shape) -> %{shape: shape}
      length(shape) > @most_axes -> %{shape: shape, axes: length(shape)}
      true -> %{shape: shape, elements: :too_many}
    end
  end

  defp dimensions?([dim | rest]) when is_integer(dim) and dim >= 0, do: dimensions?(rest)
  defp dimensions?(rest), do: rest == []
end
