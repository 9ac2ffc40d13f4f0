defmodule ExCubecl.LinAlg.Norms do
  @moduledoc false
  # Norms of matrices.

  alias ExCubecl.{Buffer, Error, Ops, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Operands, SVD}
  alias ExCubecl.Ops.Shapes

  @name :matrix_norm

  def matrix_norm(x, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:order, :axes, :keep_axes]),
         {:ok, view} <- Ops.Operands.view(x),
         {:ok, axes} <- axes(view.shape, Keyword.get(opts, :axes, [-2, -1])),
         {:ok, keep?} <- Shapes.keep_axes(@name, opts),
         {:ok, norms} <- norms(Keyword.get(opts, :order, :frobenius), view, axes) do
      shape = if keep?, do: Shapes.kept(view.shape, axes), else: without(view.shape, axes)
      Buffer.reshape(norms, shape)
    end
  end

  defp axes(shape, [_, _] = axes) when length(shape) > 1 do
    with {:ok, [rows, columns] = axes} <- Error.map(axes, &Shapes.axis(@name, shape, &1)) do
      if rows == columns,
        do: Shapes.invalid(@name, :axes, axes, "two different axes"),
        else: {:ok, axes}
    end
  end

  defp axes(shape, _axes) when length(shape) < 2,
    do: Operands.refuse(@name, shape, "matrices: at least two axes")

  defp axes(_shape, other),
    do: Shapes.invalid(@name, :axes, other, "a list of two axes: rows and columns")

  defp without(list, axes),
    do: for({element, axis} <- Enum.with_index(list), axis not in axes, do: element)

  defp norms(:frobenius, view, axes), do: Ops.norm(view, axes: axes)
  defp norms(one, view, [rows, columns]) when one == 1, do: sums(view, rows, columns, :reduce_max)

  defp norms(one, view, [rows, columns]) when one == -1,
    do: sums(view, rows, columns, :reduce_min)

  defp norms(:infinity, view, [rows, columns]), do: sums(view, columns, rows, :reduce_max)
  defp norms(:neg_infinity, view, [rows, columns]), do: sums(view, columns, rows, :reduce_min)
  defp norms(two, view, axes) when two == 2, do: singular(view, axes, :reduce_max)
  defp norms(two, view, axes) when two == -2, do: singular(view, axes, :reduce_min)
  defp norms(:nuclear, view, axes), do: singular(view, axes, :sum)

  defp norms(other, _view, _axes) do
    expected = "1, -1, 2, -2, :infinity, :neg_infinity, :frobenius or :nuclear"
    Shapes.invalid(@name, :order, other, expected)
  end

  # The extreme of the sums of magnitudes along an axis.
  defp sums(view, along, beside, extreme) do
    with {:ok, sums} <- Ops.norm(view, axis: along, order: 1, keep_axes: true),
         do: apply(Ops, extreme, [sums, [axis: beside]])
  end

  defp singular(%{shape: shape} = view, axes, reduction) do
    batch = without(Enum.to_list(0..(length(shape) - 1)), axes)

    with {:ok, matrices} <- View.transpose(view, axes: batch ++ axes),
         {:ok, values} <- SVD.values(matrices, @name),
         do: apply(Ops, reduction, [values, [axis: -1]])
  end
end
