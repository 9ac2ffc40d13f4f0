defmodule ExCubecl.Ops.Contraction do
  @moduledoc false
  # The operands of a product of tensors, arranged by their axes: batch axes are those of both operands and of the result, inner axes are
  # summed over, rows are the other axes of the left operand, columns those of the right one. The axes of the result are batch, rows, columns.

  alias ExCubecl.Error.Text
  alias ExCubecl.Ops.{Layout, Shapes}
  alias ExCubecl.View
  alias ExCubecl.View.Strides

  @typedoc "The views have the axes batch, rows, inner and batch, inner, columns; the other fields are the lengths of these axes."
  @type t :: %{
          left: View.t(),
          right: View.t(),
          batch: [non_neg_integer],
          rows: [non_neg_integer],
          inner: [non_neg_integer],
          columns: [non_neg_integer]
        }

  @doc "The shape of the result."
  def shape(%{batch: batch, rows: rows, columns: columns}), do: batch ++ rows ++ columns

  ## dot

  @doc """
  Checks the options `contract_axes:` and `batch_axes:` of `dot`, each a pair of lists of axes. The rules of the axes are those of `Nx.dot/6`.
  """
  def dot(left, right, opts) do
    shapes = {left.shape, right.shape}

    with {:ok, batch} <- pair(:batch_axes, Keyword.get(opts, :batch_axes, {[], []}), shapes),
         :ok <- leading(batch, shapes),
         default = default(batch, shapes),
         {:ok, inner} <- pair(:contract_axes, Keyword.get(opts, :contract_axes, default), shapes),
         :ok <- apart(inner, batch, shapes),
         :ok <- alike(:batch, batch, shapes),
         :ok <- alike(:contract, inner, shapes),
         do: {:ok, arranged(left, right, batch, inner)}
  end

  # As `Nx.dot/2`: the last axis of the left operand, and the last but one of the right operand or its only one.
  defp default({batch, _}, {left, right}) do
    case {length(left) - length(batch), length(right) - length(batch)} do
      {left, right} when left <= 0 or right <= 0 -> {[], []}
      {_, 1} -> {[-1], [-1]}
      _ -> {[-1], [-2]}
    end
  end

  defp pair(name, {left, right} = given, {left_shape, right_shape} = shapes) do
    with {:ok, left_axes} <- axes(name, given, left, left_shape, shapes),
         {:ok, right_axes} <- axes(name, given, right, right_shape, shapes) do
      if length(left_axes) == length(right_axes),
        do: {:ok, {left_axes, right_axes}},
        else: invalid(name, given, shapes, "as many of both")
    end
  end

  defp pair(name, other, shapes),
    do: invalid(name, other, shapes, "{axes of the first, axes of the second}")

  defp axes(name, given, axes, shape, shapes) do
    if is_list(axes) and not List.improper?(axes),
      do: distinct(name, given, axes, shape, shapes),
      else: invalid(name, given, shapes, "{axes of the first, axes of the second}")
  end

  defp distinct(name, given, axes, shape, shapes) do
    rank = length(shape)
    valid? = &(is_integer(&1) and &1 in -rank..(rank - 1)//1)
    found = for axis <- axes, valid?.(axis), do: Integer.mod(axis, rank)

    case {Enum.find(axes, &(not valid?.(&1))), found -- Enum.uniq(found)} do
      {nil, []} ->
        {:ok, found}

      {nil, [twice | _]} ->
        invalid(name, given, shapes, "each axis at most once, and axis #{twice} is there twice")

      {other, _} ->
        text = "axes that exist, and #{Text.show(other)} is none of #{Text.show(shape)}"
        invalid(name, given, shapes, text)
    end
  end

  defp leading({left, right} = given, shapes) do
    expected = Enum.to_list(0..(length(left) - 1)//1)
    wrong = Enum.find(Enum.zip(left ++ right, expected ++ expected), fn {a, b} -> a != b end)

    case wrong do
      nil ->
        :ok

      {axis, place} ->
        text = "the leading axes of both in their order, and axis #{axis} is in place of #{place}"
        invalid(:batch_axes, given, shapes, text)
    end
  end

  defp apart({left, right} = given, {left_batch, right_batch}, shapes) do
    case Enum.find(left, &(&1 in left_batch)) || Enum.find(right, &(&1 in right_batch)) do
      nil ->
        :ok

      axis ->
        invalid(:contract_axes, given, shapes, "none of the batch axes, and axis #{axis} is")
    end
  end

  defp alike(relation, {left, right}, {left_shape, right_shape}) do
    different =
      Enum.find(Enum.zip(left, right), fn {a, b} ->
        Enum.at(left_shape, a) != Enum.at(right_shape, b)
      end)

    if different,
      do: unlike(:dot, relation, left_shape, right_shape, different),
      else: :ok
  end

  defp unlike(operation, relation, left, right, {a, b} = axes) do
    lengths = {Enum.at(left, a), Enum.at(right, b)}
    Shapes.mismatch(operation, relation, left, right, %{axes: axes, lengths: lengths})
  end

  defp invalid(name, value, {left, right}, expected) do
    shapes = "of shapes #{Text.show(left)} and #{Text.show(right)}"
    Shapes.invalid(:dot, name, value, "axes #{shapes}: #{expected}")
  end

  defp arranged(left, right, {batch, _}, {left_inner, right_inner}) do
    all = fn shape -> Enum.to_list(0..(length(shape) - 1)//1) end
    rows = (all.(left.shape) -- batch) -- left_inner
    columns = (all.(right.shape) -- batch) -- right_inner

    %{
      left: Strides.transpose(left, batch ++ rows ++ left_inner),
      right: Strides.transpose(right, batch ++ right_inner ++ columns),
      batch: lengths(left, batch),
      rows: lengths(left, rows),
      inner: lengths(left, left_inner),
      columns: lengths(right, columns)
    }
  end

  defp lengths(view, axes), do: Enum.map(axes, &Enum.at(view.shape, &1))

  ## matmul

  @doc "The operands of `matmul`, as those of NumPy's: a vector is a row on the left and a column on the right, and the axes before the last two broadcast."
  def matmul(left, right) do
    shapes = {left.shape, right.shape}

    with :ok <- no_scalars(shapes),
         :ok <- inner(shapes),
         {left_batch, rows, [inner]} = split(left.shape, max(length(left.shape) - 2, 0)),
         {right_batch, [^inner], columns} = split_right(right.shape),
         {:ok, batch} <- batch(shapes, left_batch, right_batch) do
      {batch, more} = apart_from(batch, right_batch)
      rows = more ++ rows
      ones = Enum.take(Enum.to_list(0..(length(right_batch) - 1)//1), -length(more))

      {:ok,
       %{
         left: Strides.broadcast(left, batch ++ rows ++ [inner]),
         right: right |> Strides.squeeze(ones) |> Strides.broadcast(batch ++ [inner] ++ columns),
         batch: batch,
         rows: rows,
         inner: [inner],
         columns: columns
       }}
    end
  end

  # An error shows the shapes of the operands.
  defp batch({left, right}, left_batch, right_batch) do
    with {:error, %{details: details} = error} <-
           Shapes.broadcast(:matmul, [left_batch, right_batch]),
         do: {:error, %{error | details: %{details | shape: left, other_shape: right}}}
  end

  defp no_scalars({left, right}) do
    if left == [] or right == [],
      do: Shapes.mismatch(:matmul, :no_axis, left, right),
      else: :ok
  end

  defp inner({left, right}) do
    axes = {length(left) - 1, max(length(right) - 2, 0)}

    if List.last(left) == Enum.at(right, elem(axes, 1)),
      do: :ok,
      else: unlike(:matmul, :contract, left, right, axes)
  end

  defp split(shape, batch) do
    {batch, matrix} = Enum.split(shape, batch)
    {rows, inner} = Enum.split(matrix, -1)
    {batch, rows, inner}
  end

  defp split_right([inner]), do: {[], [inner], []}
  defp split_right(shape), do: split(shape, length(shape) - 2)

  # The last batch axes along which the right operand has one matrix are more rows: one larger product instead of many.
  defp apart_from(batch, right_batch) do
    padded = Layout.padded(right_batch, length(batch), 1)
    Enum.split(batch, length(padded |> Enum.reverse() |> Enum.drop_while(&(&1 == 1))))
  end
end
