defmodule ExCubecl.Ops.Scattering do
  @moduledoc false
  # Operations that put slices at index vectors, or add them. The results do not depend on the order in which threads run: of several updates of one element, the last
  # one counts, or all are added up in an order that depends on the indices alone. An atomic maximum finds the last update at each index vector, and
  # each element of the result reads the update that it gets.

  alias ExCubecl.{Buffer, Kernel, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{ComputeType, Index, Indices, Layout, Lowering, Operands}
  alias ExCubecl.Ops.{Selection, Shapes, Strided, Target, UpdateSums}

  require Kernel

  @same Kernel.kernel(fn x -> x end)
  @add Kernel.kernel(fn x, sum -> x + sum end)

  def put(target, indices, updates, opts, into \\ nil) do
    with {:ok, space} <- checked(:indexed_put, target, indices, updates, opts),
         {:ok, winners} <- Buffer.full([space.cells], :s32, -1, device: space.target.device),
         :ok <- last_updates(space, winners) do
      shape = space.target.shape
      at = along(space, winners, Enum.zip(space.axes, Layout.strides(space.lengths)))
      source = along(space, space.updates, Enum.zip(space.rest, Layout.strides(space.trailing)))
      indices = [{at, space.rows, space.width}]
      Selection.run(:indexed_put, shape, source, indices, space.target, into)
    end
  end

  # Each element of a new buffer is that of the target, plus the sum of its updates.
  def add(target, indices, updates, opts, into \\ nil) do
    with {:ok, space} <- checked(:indexed_add, target, indices, updates, opts),
         dtype = Types.mix(space.target.dtype, space.updates.dtype),
         {:ok, target} <- ComputeType.widened(space.target),
         {:ok, computed} <- ComputeType.of(dtype, target.device),
         {:ok, sums} <- UpdateSums.run(space, dtype) do
      strides = Layout.strides(space.lengths ++ space.trailing)
      sums = along(space, sums, Enum.zip(space.axes ++ space.rest, strides))
      op = Strided.named(@add, :indexed_add)
      casts = [as: sums.dtype, dtype: computed]
      into = Target.option(into, target.shape, computed, target.device)

      with {:ok, result} <- Lowering.map(op, [target, sums], casts ++ into),
           do: ComputeType.converted(result, dtype)
    end
  end

  # A view with the shape of the target, which has strides along some of its axes.
  defp along(%{target: %{shape: shape}}, buffer, strides) do
    strides =
      for axis <- 0..(length(shape) - 1)//1,
          do: strides |> List.keyfind(axis, 0, {axis, 0}) |> elem(1)

    %{View.new(buffer) | shape: shape, strides: strides}
  end

  # For each cell, which is the part of the target at an index vector, the position of its last update.
  defp last_updates(%{rows: 0}, _winners), do: :ok

  defp last_updates(%{indices: %{dtype: dtype} = indices, lengths: lengths} = space, winners) do
    {statements, inside, cell} =
      Indices.cell(length(lengths), dtype, Index.unsigned({:index, nil}))

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
         width: Shape.size(trailing),
         rows: Shape.size(batch)
       }}
    end
  end

  defp as_updates(_name, shape, shape), do: :ok
  defp as_updates(name, shape, other), do: Shapes.mismatch(name, :updates, shape, other)
end
