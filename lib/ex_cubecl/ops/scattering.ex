defmodule ExCubecl.Ops.Scattering do
  @moduledoc false
  # Operations that put slices at index vectors. Several updates of one element are ordered by their position, so that the result does not depend on the
  # order in which threads run: of `indexed_put` the last one counts. An atomic maximum finds it for each index vector, and each element of the result
  # reads the update that it gets.

  alias ExCubecl.{Buffer, Kernel, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Indices, Layout, Operands, Selection, Shapes, Strided}

  require Kernel

  @same Kernel.kernel(fn x -> x end)

  def put(target, indices, updates, opts) do
    with {:ok, space} <- checked(:indexed_put, target, indices, updates, opts),
         {:ok, winners} <- Buffer.full([space.cells], :s32, -1, device: space.target.device),
         :ok <- last_updates(space, winners) do
      %{target: target, axes: axes, rows: rows} = space
      row = Enum.product(space.trailing)
      along = Enum.zip(axes, Layout.strides(space.lengths))
      at = %{View.new(winners) | shape: target.shape, strides: spread(target.shape, along)}
      along = Enum.zip(space.rest, Layout.strides(space.trailing))
      source = %{View.new(space.updates) | shape: target.shape}
      source = %{source | strides: spread(target.shape, along)}
      Selection.run(:indexed_put, target.shape, source, [{at, rows, row}], target)
    end
  end

  # The strides of a shape, of which some axes have others than 0.
  defp spread(shape, strides) do
    for axis <- 0..(length(shape) - 1)//1 do
      case List.keyfind(strides, axis, 0) do
        {_, stride} -> stride
        nil -> 0
      end
    end
  end

  # For each cell, which is the part of the target at an index vector, the position of its last update.
  defp last_updates(%{rows: 0}, _winners), do: :ok

  defp last_updates(%{indices: %{dtype: dtype} = indices, lengths: lengths} = space, winners) do
    {statements, inside, cell} = Indices.cell(length(lengths), dtype)
    note = {:atomic, 0, :max, :winners, cell, {:index, nil}, nil}
    statements = statements ++ [{:branch, 0, inside, [note], []}]
    args = [indices: indices] ++ Indices.cell_arguments(lengths) ++ [winners: winners]
    key = {:last_updates, length(lengths), dtype}
    op = Strided.named(@same, :indexed_put)
    {kernel, args} = Strided.kernel(op, key, args, [:winners], {statements, nil})
    Strided.run(kernel, args, size: space.rows)
  end

  defp checked(name, target, indices, updates, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axes, :check]),
         {:ok, target} <- Operands.view(target),
         {:ok, indices} <- Indices.integers(name, indices),
         {:ok, updates} <- Operands.contiguous(updates, name),
         {:ok, axes} <- Indices.axes(name, target.shape, indices.shape, opts[:axes]),
         rest = Enum.to_list(0..(length(target.shape) - 1)//1) -- axes,
         [lengths, trailing] =
           for(list <- [axes, rest], do: Enum.map(list, &Enum.at(target.shape, &1))),
         {batch, _} = Enum.split(indices.shape, -1),
         :ok <- as_updates(name, batch ++ trailing, updates.shape),
         :ok <- Indices.check(name, indices, axes, lengths, opts[:check]) do
      {:ok,
       %{
         target: target,
         indices: indices,
         updates: updates,
         axes: axes,
         rest: rest,
         lengths: lengths,
         trailing: trailing,
         cells: Shape.size(lengths),
         rows: Shape.size(batch)
       }}
    end
  end

  defp as_updates(_name, shape, shape), do: :ok
  defp as_updates(name, shape, other), do: Shapes.mismatch(name, :updates, shape, other)
end
