defmodule ExCubecl.Ops.Dot do
  @moduledoc false
  # Products of tensors: the types of the calculation, and the choice of the kernel. The matrix product of the device's library
  # (`ExCubecl.Ops.LibraryProduct`) is for large products of matrices, an element-wise operation for those without a sum, and a kernel
  # that accumulates tiles (`ExCubecl.Ops.TiledProduct`) for all others. Operands are read through their strides.

  alias ExCubecl.{Buffer, DType, Kernel, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{Contraction, Epilogue, LibraryProduct, Lowering, Operands, Strided, Target}
  alias ExCubecl.Ops.TiledProduct

  require Kernel

  # The sum of one product: a sum starts with 0, which makes a negative zero positive.
  @multiply_once Kernel.kernel(fn left, right -> 0 + left * right end)

  @doc """
  The product over the axes of the options `contract_axes:` and `batch_axes:`. `dtype` is the type of the result, by default the type to which those
  of the operands merge. `into` is a buffer for the result, or an `ExCubecl.Ops.Epilogue`.
  """
  def run(left, right, opts, dtype \\ nil, into \\ nil) do
    with {:ok, opts} <- Arguments.options(opts, [:contract_axes, :batch_axes]),
         {:ok, [left, right]} <- Operands.view_all([left, right]),
         {:ok, contraction} <- Contraction.dot(left, right, opts),
         do: :dot |> product(contraction, dtype, into) |> Epilogue.applied(into)
  end

  @doc """
  Whether the kernel of a product is one that knows epilogues. The library, whose kernels do not, is chosen by the strides, too: views without a buffer are enough.
  """
  @spec own_kernel?(map, map, keyword, DType.t()) :: boolean
  def own_kernel?(left, right, opts, dtype) do
    with {:ok, contraction} <- Contraction.dot(left, right, opts),
         {:ok, types} <- Operands.types(dtype, left.device) do
      Shape.size(contraction.inner) > 1 and LibraryProduct.form(contraction, types) == :none
    else
      _ -> false
    end
  end

  @doc "The product of matrices, or of stacks of matrices."
  def matmul(left, right, into \\ nil) do
    with {:ok, [left, right]} <- Operands.view_all([left, right]),
         {:ok, contraction} <- Contraction.matmul(left, right),
         do: :matmul |> product(contraction, nil, into) |> Epilogue.applied(into)
  end

  defp product(name, %{left: left, right: right} = contraction, dtype, into) do
    dtype = dtype || Types.mix(left.dtype, right.dtype)

    with {:ok, types} <- Operands.types(dtype, left.device),
         do: calculated(name, contraction, types, left.device, into)
  end

  defp calculated(name, contraction, types, device, into) do
    shape = Contraction.shape(contraction)

    if 0 in shape or 0 in contraction.inner do
      Buffer.zeros(shape, types.dtype, device: device)
    else
      with {:ok, result} <- product_of(name, contraction, types, into),
           do: converted(result, types.dtype)
    end
  end

  defp converted(results, _dtype) when is_list(results), do: {:ok, results}
  defp converted(result, dtype), do: Operands.converted(result, dtype)

  # The library makes a buffer of its own for the result.
  defp product_of(name, %{left: left, right: right} = contraction, types, into) do
    with {:ok, left} <- Operands.loaded(left, types),
         {:ok, right} <- Operands.loaded(right, types),
         contraction = %{contraction | left: left, right: right},
         :none <- LibraryProduct.run(name, contraction, types),
         do: kernel(name, contraction, types, into)
  end

  defp kernel(name, contraction, types, into) do
    if Shape.size(contraction.inner) == 1,
      do: without_sum(name, contraction, types, into),
      else: TiledProduct.run(name, contraction, types, into)
  end

  # The operands are broadcast to the axes of the result. The inner axes have the length 1.
  defp without_sum(name, contraction, types, into) do
    %{left: left, right: right, batch: batch, rows: rows, columns: columns} = contraction
    shape = Contraction.shape(contraction)
    none = fn lengths -> List.duplicate(0, length(lengths)) end
    left_strides = Enum.take(left.strides, length(batch ++ rows)) ++ none.(columns)
    {right_batch, rest} = Enum.split(right.strides, length(batch))
    right_strides = right_batch ++ none.(rows) ++ Enum.drop(rest, length(contraction.inner))
    left = %{left | shape: shape, strides: left_strides}
    right = %{right | shape: shape, strides: right_strides}
    op = Strided.named(@multiply_once, name)
    target = Target.option(into, shape, types.stored, left.device)
    Lowering.map(op, [left, right], [as: types.acc, dtype: types.stored] ++ target)
  end
end
