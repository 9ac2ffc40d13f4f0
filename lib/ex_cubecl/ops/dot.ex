defmodule ExCubecl.Ops.Dot do
  @moduledoc false
  # Products of tensors: the types of the calculation, and the choice of the kernel. The matrix product of the device's library
  # (`ExCubecl.Ops.LibraryProduct`) is for large products, an element-wise operation for those without a sum, a reduction for results of
  # one row, of one column or of few elements, and a kernel that accumulates tiles (`ExCubecl.Ops.TiledProduct`) for all others. Operands
  # are read through their strides.

  alias ExCubecl.{Buffer, Kernel, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{Contraction, LibraryProduct, Lowering, Operands, Reduction, Strided}
  alias ExCubecl.Ops.TiledProduct
  alias ExCubecl.View.Strides

  require Kernel

  @multiply Kernel.kernel(fn left, right -> left * right end)
  # The sum of one product: a sum starts with 0, which makes a negative zero positive.
  @multiply_once Kernel.kernel(fn left, right -> 0 + left * right end)
  @add Kernel.kernel(fn acc, x -> acc + x end)

  # A tile has one invocation for its whole sum, a reduction many, but reads each element more often.
  @few_tiles 64
  @long 256

  @doc """
  The product over the axes of the options `contract_axes:` and `batch_axes:`. `dtype` is the type of the result, by default the type to which those
  of the operands merge.
  """
  def run(left, right, opts, dtype \\ nil) do
    with {:ok, opts} <- Arguments.options(opts, [:contract_axes, :batch_axes]),
         {:ok, [left, right]} <- Operands.view_all([left, right]),
         {:ok, contraction} <- Contraction.dot(left, right, opts),
         do: product(:dot, contraction, dtype)
  end

  @doc "The product of matrices, or of stacks of matrices."
  def matmul(left, right) do
    with {:ok, [left, right]} <- Operands.view_all([left, right]),
         {:ok, contraction} <- Contraction.matmul(left, right),
         do: product(:matmul, contraction, nil)
  end

  defp product(name, %{left: left, right: right} = contraction, dtype) do
    dtype = dtype || Types.mix(left.dtype, right.dtype)

    with {:ok, types} <- Operands.types(dtype, left.device),
         do: calculated(name, contraction, types, left.device)
  end

  defp calculated(name, contraction, types, device) do
    shape = Contraction.shape(contraction)

    if 0 in shape or 0 in contraction.inner do
      Buffer.zeros(shape, types.dtype, device: device)
    else
      with :none <- LibraryProduct.run(contraction, types),
           {:ok, left} <- Operands.loaded(contraction.left, types),
           {:ok, right} <- Operands.loaded(contraction.right, types),
           {:ok, result} <- kernel(name, %{contraction | left: left, right: right}, types),
           do: Operands.converted(result, types.dtype)
    end
  end

  defp kernel(name, contraction, types) do
    [rows, columns, inner] =
      for key <- [:rows, :columns, :inner], do: Shape.size(contraction[key])

    tiles = TiledProduct.tiles(Shape.size(contraction.batch), rows, columns)

    cond do
      inner == 1 ->
        without_sum(name, contraction, types)

      1 in [rows, columns] or (tiles < @few_tiles and inner >= @long) ->
        reduced(name, contraction, types)

      true ->
        TiledProduct.run(name, contraction, types)
    end
  end

  ## Products as other operations, on operands that are broadcast to the axes batch, rows, columns, inner

  defp without_sum(name, contraction, types) do
    inner = inner_axes(contraction)
    operands = for view <- spread(contraction), do: Strides.squeeze(view, inner)
    op = Strided.named(@multiply_once, name)
    Lowering.map(op, operands, as: types.acc, dtype: types.stored)
  end

  defp reduced(name, contraction, types) do
    spec = %{
      name: name,
      first: 0,
      step: @add,
      operands: types.acc,
      as: types.acc,
      dtype: types.stored
    }

    Reduction.run(spec, @multiply, spread(contraction), inner_axes(contraction), false)
  end

  defp inner_axes(%{inner: inner} = contraction) do
    kept = length(Contraction.shape(contraction))
    Enum.to_list(kept..(kept + length(inner) - 1)//1)
  end

  defp spread(
         %{left: left, right: right, batch: batch, rows: rows, columns: columns} = contraction
       ) do
    shape = Contraction.shape(contraction) ++ contraction.inner
    none = fn lengths -> List.duplicate(0, length(lengths)) end
    {left_kept, left_inner} = Enum.split(left.strides, length(batch ++ rows))
    {right_batch, rest} = Enum.split(right.strides, length(batch))
    {right_inner, right_columns} = Enum.split(rest, length(contraction.inner))

    [
      %{left | shape: shape, strides: left_kept ++ none.(columns) ++ left_inner},
      %{right | shape: shape, strides: right_batch ++ none.(rows) ++ right_columns ++ right_inner}
    ]
  end
end
