defmodule ExCubecl.View.Check do
  @moduledoc false
  # Checks views that callers pass: a struct that was built by hand may hold any terms.

  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Shape

  @doc "The view, if its fields agree with each other and with its buffer, which is of this node."
  def check(%{buffer: buffer, shape: shape, offset: offset, strides: strides} = view) do
    with {:ok, buffer} <- Handle.local(buffer) do
      if list?(shape, &(&1 >= 0)) and list?([offset | List.wrap(strides)], &is_integer/1) and
           is_list(strides) and length(shape) == length(strides) and
           match?({:ok, _, _}, Shape.validate(shape, buffer.dtype)) and
           {view.dtype, view.device} == {buffer.dtype, buffer.device} and
           inside?(view, Shape.size(buffer.shape)),
         do: {:ok, view},
         else: Arguments.invalid(:view, view, "one that ExCubecl.View made")
    end
  end

  defp list?(list, valid?),
    do:
      is_list(list) and not List.improper?(list) and
        Enum.all?(list, &(is_integer(&1) and valid?.(&1)))

  defp inside?(%{shape: shape, strides: strides, offset: offset}, count) do
    spans = for {length, stride} <- Enum.zip(shape, strides), do: (length - 1) * stride
    first = offset + Enum.sum(Enum.filter(spans, &(&1 < 0)))
    last = offset + Enum.sum(Enum.filter(spans, &(&1 > 0)))
    0 in shape or (first >= 0 and last < count)
  end
end
