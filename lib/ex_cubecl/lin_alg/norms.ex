defmodule ExCubecl.LinAlg.Norms do
  @moduledoc false
  # Norms of matrices. Singular values are the eigenvalues of [[0, A], [A', 0]] that are not negative: as accurate as those of eigh, unlike the roots of the
  # eigenvalues of A' A.

  alias ExCubecl.{Buffer, Error, Ops, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Decompositions, Host, Operands}
  alias ExCubecl.LinAlg.Device.Jacobi
  alias ExCubecl.LinAlg.Host.Rows
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

  defp singular(%{shape: shape} = view, [rows, columns] = axes, reduction) do
    batch = without(Enum.to_list(0..(length(shape) - 1)), axes)
    [m, n] = for axis <- axes, do: Enum.at(shape, axis)

    with {:ok, turned} <- View.transpose(view, axes: batch ++ [rows, columns]) do
      if min(m, n) > 0 and Jacobi.few?(div(Shape.size(shape), m * n) * (m + n) * (m + n)),
        do: on_host(turned, reduction),
        else: by_operations(turned, {m, n}, reduction)
    end
  end

  # The values are in ascending order, those that are not negative last.
  defp on_host(view, reduction) do
    with {:ok, %{m: m, n: n} = a} <- Operands.matrices(@name, view),
         {:ok, matrices} <- Host.matrices(a),
         augmented = Enum.map(matrices, &augmented(&1, m, n)),
         {:ok, values} <- Decompositions.eigenvalues(a, augmented, m + n),
         {:ok, norms} <-
           Host.each(Enum.map(values, &{Enum.drop(&1, max(m, n))}), a, norm(reduction)),
         do: Buffer.new(norms, a.batch, a.dtype, device: a.buffer.device)
  end

  defp norm(:reduce_max), do: &max(List.last(&1), 0.0)
  defp norm(:reduce_min), do: &max(hd(&1), 0.0)
  defp norm(:sum), do: &Enum.reduce(&1, 0.0, fn x, sum -> sum + max(x, 0.0) end)

  # The lower triangle of [[0, A], [A', 0]] is read, which has A' in its corner.
  defp augmented(rows, m, n) do
    above = List.duplicate(Rows.zeros(m + n), m)
    above ++ for(column <- Rows.transpose(rows, n), do: column ++ Rows.zeros(n))
  end

  defp by_operations(%{shape: shape} = view, {m, n}, reduction) do
    {batch, _} = Enum.split(shape, -2)
    padding = Enum.map(batch, fn _ -> {0, 0, 0} end) ++ [{m, 0, 0}, {0, n, 0}]
    starts = Enum.map(batch, fn _ -> 0 end) ++ [max(m, n)]

    with {:ok, turned} <- View.transpose(view, axes: exchanged(length(batch))),
         {:ok, matrices} <- Ops.pad(turned, 0, padding),
         {:ok, {values, _vectors}} <- Decompositions.eigh(matrices, @name),
         {:ok, values} <- View.slice(values, starts, batch ++ [min(m, n)]),
         {:ok, values} <- Ops.max(values, 0),
         do: apply(Ops, reduction, [values, [axis: -1]])
  end

  defp exchanged(rank), do: Enum.to_list(0..(rank - 1)//1) ++ [rank + 1, rank]
end
