defmodule ExCubecl.Ops.Layout do
  @moduledoc false
  # Arithmetic on shapes and strides, which are counted in elements.

  @doc "A view of row-major elements without a buffer, for plans."
  @spec view([non_neg_integer], atom, term) :: map
  def view(shape, dtype, device) do
    %{shape: shape, strides: strides(shape), offset: 0, dtype: dtype, device: device, buffer: nil}
  end

  @doc "The strides of contiguous elements in row-major order."
  def strides(shape) do
    {strides, _} = shape |> Enum.reverse() |> Enum.map_reduce(1, &{&2, &1 * &2})
    Enum.reverse(strides)
  end

  @doc "Whether elements with these strides are contiguous in row-major order."
  def contiguous?(shape, strides) do
    0 in shape or
      Enum.all?(Enum.zip([shape, strides, strides(shape)]), fn {length, stride, expected} ->
        length == 1 or stride == expected
      end)
  end

  @doc """
  Joins the axes that every operand traverses as one, and drops those of length 1. `strides` has a list for each operand. Returns the
  lengths of the joined axes, and the strides of each operand along them.
  """
  def joined(shape, strides) do
    axes =
      [shape | strides]
      |> Enum.zip()
      |> Enum.map(&Tuple.to_list/1)
      |> Enum.reject(&(hd(&1) == 1))
      |> Enum.reduce([], &join/2)
      |> Enum.reverse()

    {Enum.map(axes, &hd/1),
     for(at <- 1..length(strides)//1, do: Enum.map(axes, &Enum.at(&1, at)))}
  end

  defp join([length | inner] = axis, [[before | outer] | rest] = done) do
    if Enum.all?(Enum.zip(outer, inner), fn {outer, inner} -> outer == length * inner end),
      do: [[before * length | inner] | rest],
      else: [axis | done]
  end

  defp join(axis, []), do: [axis]

  @doc "The list with leading elements added up to a length."
  def padded(list, length, element), do: List.duplicate(element, length - length(list)) ++ list

  @doc "The shape as `{outer, n, inner}`, where n is the length of the axis."
  def around(shape, axis) do
    {before, [n | behind]} = Enum.split(shape, axis)
    {Enum.product(before), n, Enum.product(behind)}
  end
end
