defmodule ExCubecl.Ops.LibraryProduct do
  @moduledoc false
  # Products by the matrix multiplication of the device's library, if it has one for the operands.

  alias ExCubecl.{Buffer, DType, Native, Shape}
  alias ExCubecl.Buffer.{AllocOptions, Pressure}
  alias ExCubecl.Ops.Contraction
  alias ExCubecl.View.Copy

  @doc "The product, or `:none`."
  def run(%{batch: [], left: left, right: right} = contraction, %{dtype: :f32}) do
    types = [left.dtype, right.dtype]
    lengths = for key <- [:rows, :inner, :columns], do: Shape.size(contraction[key])

    # With fewer multiplications, compiling the kernel of the library costs more than it saves.
    if types == [:f32, :f32] and Enum.product(lengths) >= 16_777_216,
      do: product(contraction, List.to_tuple(lengths)),
      else: :none
  end

  def run(_contraction, _types), do: :none

  defp product(%{left: left, right: right} = contraction, lengths) do
    shape = Contraction.shape(contraction)
    %{device: device} = left

    with {:ok, left} <- Copy.contiguous(left, :dot),
         {:ok, right} <- Copy.contiguous(right, :dot),
         {:ok, note} <- AllocOptions.from([]),
         {:ok, ref} when ref != nil <-
           Pressure.create(device, Shape.size(shape) * DType.size!(:f32), fn ->
             Native.kernel_matmul(left.ref, right.ref, lengths, shape, note)
           end) do
      {:ok, %Buffer{ref: ref, dtype: :f32, shape: shape, device: device}}
    else
      {:ok, nil} -> :none
      error -> error
    end
  end
end
