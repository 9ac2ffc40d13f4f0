defmodule ExCubecl.DType do
  @moduledoc """
  The element types of buffers.

  | type | bytes | values |
  |---|---|---|
  | `:f16` `:bf16` `:f32` `:f64` | 2 2 4 8 | numbers, `:nan`, `:infinity`, `:neg_infinity` |
  | `:s8` `:s16` `:s32` `:s64` | 1 2 4 8 | signed integers |
  | `:u8` `:u16` `:u32` `:u64` | 1 2 4 8 | unsigned integers |

  A float that lies between two values of its type is rounded to the nearest, ties to even; a float past
  the largest value becomes infinity. An integer out of its type's range is an error.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.DType.Table
  alias ExCubecl.Error

  @type t :: :f16 | :bf16 | :f32 | :f64 | :s8 | :s16 | :s32 | :s64 | :u8 | :u16 | :u32 | :u64

  @doc """
  Returns all element types.

      iex> ExCubecl.DType.all()
      [:f32, :f64, :s32, :s64, :u32, :u8, :f16, :bf16, :s8, :s16, :u16, :u64]
  """
  @spec all() :: [t]
  defdelegate all(), to: Table

  @doc """
  Returns `{:ok, bytes}` of one element.

  Errors: `:unsupported_dtype`.

      iex> ExCubecl.DType.size(:bf16)
      {:ok, 2}
      iex> ExCubecl.DType.size!(:bf16)
      2
  """
  @spec size(t) :: {:ok, 1 | 2 | 4 | 8} | {:error, Error.t()}
  def size(dtype) do
    if Table.valid?(dtype),
      do: {:ok, Table.bytes(dtype)},
      else: Error.new(:unsupported_dtype, dtype: dtype)
  end

  @doc """
  Returns whether a term is an element type.

      iex> ExCubecl.DType.valid?(:f32)
      true
      iex> ExCubecl.DType.valid?("f32")
      false
  """
  @spec valid?(term) :: boolean
  defdelegate valid?(term), to: Table
end
