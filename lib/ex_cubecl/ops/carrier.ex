defmodule ExCubecl.Ops.Carrier do
  @moduledoc false
  # Operations that only move elements, on devices whose kernels do not have the element type: the elements are moved in a wider type that has the
  # same values, and converted back.

  alias ExCubecl.{Buffer, Device, DType, Error, View}
  alias ExCubecl.Kernel.Types

  @wider %{f16: :f32, bf16: :f32, u8: :s32, s8: :s32, u16: :s32, s16: :s32}

  @doc """
  Calls `fun` with the operands, views and numbers, in types that the device computes, and converts the buffer that it returns to the type to which
  those of the views merge.
  """
  @spec through(
          [View.t() | number],
          ([View.t() | number] -> {:ok, Buffer.t()} | {:error, Error.t()})
        ) ::
          {:ok, Buffer.t()} | {:error, Error.t()}
  def through(operands, fun) do
    dtype = for(%View{} = view <- operands, do: view.dtype) |> Enum.reduce(&Types.mix/2)

    with {:ok, carried} <- Error.map(operands, &carried/1),
         {:ok, result} <- fun.(carried),
         do: in_type(result, dtype)
  end

  defp carried(%View{buffer: buffer} = view) do
    with {:ok, buffer} <- carry(buffer), do: {:ok, %{view | buffer: buffer, dtype: buffer.dtype}}
  end

  defp carried(number), do: {:ok, number}

  @doc "The buffer in a type that its device computes, if there is one with the same values."
  @spec carry(Buffer.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def carry(%Buffer{dtype: dtype, device: device} = buffer),
    do: with({:ok, type} <- type(dtype, device), do: in_type(buffer, type))

  @doc "The type itself if the kernels of a device have it, else a wider one with the same values, if there is one."
  @spec type(DType.t(), Device.id()) :: {:ok, DType.t()} | {:error, Error.t()}
  def type(dtype, _device) when dtype in [:f32, :s32, :u32], do: {:ok, dtype}

  def type(dtype, device) do
    with {:ok, %{dtypes: dtypes}} <- Device.info(device),
         do: {:ok, if(dtype in dtypes, do: dtype, else: Map.get(@wider, dtype, dtype))}
  end

  @doc "The buffer in a type."
  @spec in_type(Buffer.t(), DType.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def in_type(%{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
  def in_type(buffer, dtype), do: Buffer.convert(buffer, dtype)
end
