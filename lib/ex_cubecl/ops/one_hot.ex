defmodule ExCubecl.Ops.OneHot do
  @moduledoc false
  # Vectors with a 1 at an index: the indices are compared with the numbers along a new axis.

  alias ExCubecl.{Buffer, Kernel, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{ComputeType, Indices, Lowering, Shapes, Strided, Target}
  alias ExCubecl.View.Strides

  require Kernel

  @equal Kernel.kernel(fn index, number -> index == number end)

  def run(indices, length, opts, into) do
    name = :one_hot

    with {:ok, opts} <- Arguments.options(opts, [:axis, :dtype, :check]),
         {:ok, indices} <- Indices.integers(name, indices),
         {:ok, dtype} <- Arguments.dtype(Keyword.get(opts, :dtype, :u8)),
         {:ok, axis} <- Shapes.axis(name, [1 | indices.shape], Keyword.get(opts, :axis, -1)),
         {:ok, [length], _} <- length(name, length),
         :ok <- Indices.check(name, indices, [axis], [length], opts[:check]),
         {:ok, computed} <- ComputeType.of(dtype, indices.device),
         {:ok, numbers} <- Buffer.iota([length], numbers(indices.dtype), device: indices.device) do
      behind = Enum.drop(indices.shape, axis)
      along = View.new(numbers)
      ones = Enum.map(behind, fn _ -> 1 end)
      zeros = Enum.map(behind, fn _ -> 0 end)
      along = %{along | shape: [length | ones], strides: [1 | zeros]}
      operands = [Strides.new_axis(View.new(indices), axis), along]
      shape = List.insert_at(indices.shape, axis, length)
      target = Target.option(into, shape, computed, indices.device)

      with {:ok, result} <-
             Lowering.map(Strided.named(@equal, name), operands, [dtype: computed] ++ target),
           do: ComputeType.converted(result, dtype)
    end
  end

  defp length(name, length) do
    with {:error, _} <- Arguments.shape([length], :u8),
         do: Shapes.invalid(name, :length, length, "a non-negative integer")
  end

  # Types that merge without a wider one.
  defp numbers(dtype) when dtype in [:u8, :u16, :u32, :u64], do: :u32
  defp numbers(_signed), do: :s32
end
