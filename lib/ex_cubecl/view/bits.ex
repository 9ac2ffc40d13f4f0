defmodule ExCubecl.View.Bits do
  @moduledoc false
  # Views of the same bytes in a type that the kernels of the device have. Operations that only move elements move the bits of every type.

  alias ExCubecl.{Buffer, Device, DType, Error, Shape}
  alias ExCubecl.View.Strides

  # Integers of the same width, which no kernel changes.
  @integers %{1 => [:u8, :s8], 2 => [:u16, :s16], 4 => [:u32], 8 => [:u64, :s64]}

  @doc """
  The view itself if the kernels of the device have its type, else a view of the same bytes as integers, or for 64 bits as pairs of words
  along one more axis; `:none` if the device has no integers of this width.
  """
  @spec of(Strides.t()) :: {:ok, Strides.t()} | :none | {:error, Error.t()}
  def of(%{dtype: dtype} = view) do
    width = DType.size!(dtype)

    with {:ok, %{dtypes: known}} <- Device.info(view.device) do
      cond do
        dtype in known -> {:ok, view}
        integer = Enum.find(@integers[width], &(&1 in known)) -> in_type(view, integer)
        width == 8 -> pairs(view)
        true -> :none
      end
    end
  end

  defp in_type(view, dtype) do
    with {:ok, buffer} <- Buffer.bitcast(view.buffer, dtype),
         do: {:ok, %{view | buffer: buffer, dtype: dtype}}
  end

  defp pairs(%{buffer: buffer} = view) do
    with {:ok, line} <- Buffer.reshape(buffer, [Shape.size(buffer.shape)]),
         {:ok, words} <- Buffer.bitcast(line, :u32) do
      strides = Enum.map(view.strides, &(2 * &1)) ++ [1]
      offset = 2 * view.offset
      shape = view.shape ++ [2]
      {:ok, %{view | buffer: words, dtype: :u32, offset: offset, shape: shape, strides: strides}}
    end
  end

  @doc "The contiguous elements of a view of `of/1` in the type and the shape of the view that it was made of."
  @spec back(Buffer.t(), Strides.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def back(%Buffer{dtype: dtype} = buffer, %{dtype: dtype}), do: {:ok, buffer}

  def back(buffer, %{dtype: dtype, shape: shape}),
    do: with({:ok, buffer} <- Buffer.bitcast(buffer, dtype), do: Buffer.reshape(buffer, shape))
end
