defmodule ExCubecl.View.Strides do
  @moduledoc false
  # The arithmetic of views. No function here but `buffer/1` calls the native side, and none moves an element. The arguments were checked
  # before, by `ExCubecl.View` or by the operation.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Ops.Layout

  @typedoc "Elements of a buffer from an offset on, with a shape and the stride of each axis, in elements. A broadcast has the stride 0, a reversed axis a negative one."
  @type t :: %{
          :buffer => Buffer.t(),
          :offset => non_neg_integer,
          :shape => [non_neg_integer],
          :strides => [integer],
          # The other fields of ExCubecl.View.
          optional(atom) => term
        }

  @doc "Repeats axes of length 1, and along new leading axes."
  @spec broadcast(t, [non_neg_integer]) :: t
  def broadcast(%{shape: shape} = view, shape), do: view

  def broadcast(%{shape: from, strides: strides} = view, shape) do
    strides =
      for {length, stride} <- Enum.zip(from, strides), do: if(length == 1, do: 0, else: stride)

    %{view | shape: shape, strides: Layout.padded(strides, length(shape), 0)}
  end

  @doc "Axis `at` of the result is axis `Enum.at(axes, at)` of the view."
  @spec transpose(t, [non_neg_integer]) :: t
  def transpose(view, axes) do
    [shape, strides] =
      for list <- [view.shape, view.strides], do: Enum.map(axes, &Enum.at(list, &1))

    %{view | shape: shape, strides: strides}
  end

  @doc "`lengths` elements of each axis from `starts` on, `steps` apart; all of them exist."
  @spec slice(t, [non_neg_integer], [non_neg_integer], [pos_integer]) :: t
  def slice(view, starts, lengths, steps) do
    moves = for {start, stride} <- Enum.zip(starts, view.strides), do: start * stride
    # Without elements, a start may lie behind the end.
    offset = if 0 in lengths, do: view.offset, else: view.offset + Enum.sum(moves)
    strides = for {step, stride} <- Enum.zip(steps, view.strides), do: step * stride
    %{view | offset: offset, shape: lengths, strides: strides}
  end

  @doc "Reverses the order along some axes."
  @spec reverse(t, [non_neg_integer]) :: t
  def reverse(view, axes) do
    if 0 in view.shape, do: view, else: Enum.reduce(axes, view, &reverse_axis(&2, &1))
  end

  defp reverse_axis(%{offset: offset, strides: strides} = view, axis) do
    stride = Enum.at(strides, axis)
    offset = offset + (Enum.at(view.shape, axis) - 1) * stride
    %{view | offset: offset, strides: List.replace_at(strides, axis, -stride)}
  end

  @doc "Inserts an axis of length 1 before the axis `at`."
  @spec new_axis(t, non_neg_integer) :: t
  def new_axis(view, at) do
    [shape, strides] =
      for {list, value} <- [{view.shape, 1}, {view.strides, 0}],
          do: List.insert_at(list, at, value)

    %{view | shape: shape, strides: strides}
  end

  @doc "Removes axes, which have the length 1."
  @spec squeeze(t, [non_neg_integer]) :: t
  def squeeze(view, axes) do
    keep = Enum.to_list(0..(length(view.shape) - 1)//1) -- axes
    transpose(view, keep)
  end

  @doc "The same elements in row-major order with another shape of as many elements, or `:copy` if strides cannot express it."
  @spec reshape(t, [non_neg_integer]) :: {:ok, t} | :copy
  def reshape(view, shape) do
    if 0 in shape do
      {:ok, %{view | shape: shape, strides: Layout.strides(shape)}}
    else
      {lengths, [strides]} = Layout.joined(view.shape, [view.strides])

      case split(Enum.reverse(shape), Enum.reverse(Enum.zip(lengths, strides)), []) do
        :copy -> :copy
        strides -> {:ok, %{view | shape: shape, strides: strides}}
      end
    end
  end

  # The strides of the new axes, from the last one on, each of which must divide a joined axis.
  defp split([], _joined, strides), do: strides
  defp split([1 | rest], joined, strides), do: split(rest, joined, [0 | strides])
  defp split(shape, [{1, _stride} | joined], strides), do: split(shape, joined, strides)

  defp split([length | rest], [{whole, stride} | joined], strides) do
    if rem(whole, length) == 0,
      do: split(rest, [{div(whole, length), stride * length} | joined], [stride | strides]),
      else: :copy
  end

  @doc "Whether the elements are contiguous in row-major order."
  def contiguous?(%{shape: shape, strides: strides}), do: Layout.contiguous?(shape, strides)

  @doc "A buffer that shares the memory of contiguous elements: `{:ok, buffer}`."
  @spec buffer(t) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def buffer(%{buffer: %{shape: shape} = buffer, offset: 0, shape: shape}), do: {:ok, buffer}

  def buffer(%{buffer: buffer, offset: offset, shape: shape}) do
    offset = if Shape.size(shape) == 0, do: 0, else: offset
    Buffer.view(buffer, offset, shape)
  end
end
