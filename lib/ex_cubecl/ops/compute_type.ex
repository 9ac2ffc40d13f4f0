defmodule ExCubecl.Ops.ComputeType do
  @moduledoc false
  # The types with which a device calculates in place of those that it has for storage only.

  alias ExCubecl.{Buffer, Device, DType, Error}
  alias ExCubecl.View.Strides

  # Types that have all values of the type, the narrowest first.
  @wider %{
    f16: [:f32],
    bf16: [:f32],
    u8: [:u16, :u32, :s32],
    s8: [:s16, :s32],
    u16: [:u32],
    s16: [:s32]
  }

  @doc "The type itself if the device calculates with it, else a wider one; the type itself if there is none, which a launch reports."
  @spec of(DType.t(), Device.id()) :: {:ok, DType.t()} | {:error, Error.t()}
  def of(dtype, _device) when dtype in [:f32, :s32, :u32], do: {:ok, dtype}

  def of(dtype, device) do
    with {:ok, known} <- Device.dtypes(device) do
      candidates = [dtype | Map.get(@wider, dtype, [])]
      {:ok, Enum.find(candidates, dtype, &(&1 in known))}
    end
  end

  @doc "The view, or one with the same strides of a copy of its buffer in the type `of/2`."
  @spec widened(Strides.t()) :: {:ok, Strides.t()} | {:error, Error.t()}
  def widened(%{dtype: dtype} = view) do
    with {:ok, type} <- of(dtype, view.device),
         {:ok, buffer} <- converted(view.buffer, type),
         do: {:ok, %{view | buffer: buffer, dtype: type}}
  end

  @doc "The buffer in a type; no copy is made if it has this type."
  @spec converted(Buffer.t(), DType.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def converted(%Buffer{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
  def converted(buffer, dtype), do: Buffer.convert(buffer, dtype)
end
