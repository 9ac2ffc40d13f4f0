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

  @type t :: :f16 | :bf16 | :f32 | :f64 | :s8 | :s16 | :s32 | :s64 | :u8 | :u16 | :u32 | :u64

  @sizes [
    f32: 4,
    f64: 8,
    s32: 4,
    s64: 8,
    u32: 4,
    u8: 1,
    f16: 2,
    bf16: 2,
    s8: 1,
    s16: 2,
    u16: 2,
    u64: 8
  ]

  @doc """
  Returns all element types.

      iex> ExCubecl.DType.all()
      [:f32, :f64, :s32, :s64, :u32, :u8, :f16, :bf16, :s8, :s16, :u16, :u64]
  """
  @spec all() :: [t]
  def all, do: Keyword.keys(@sizes)

  @doc """
  Returns the bytes of one element.

      iex> ExCubecl.DType.size(:bf16)
      2
  """
  @spec size(t) :: 1 | 2 | 4 | 8
  for {dtype, size} <- @sizes do
    def size(unquote(dtype)), do: unquote(size)
  end

  @doc """
  Returns whether a term is an element type.

      iex> ExCubecl.DType.valid?(:f32)
      true
      iex> ExCubecl.DType.valid?("f32")
      false
  """
  @spec valid?(term) :: boolean
  def valid?(term), do: term in unquote(Keyword.keys(@sizes))

  @doc false
  # The valid elements of a type, as text for messages.
  def range(dtype) do
    bits = 8 * size(dtype)

    case Atom.to_string(dtype) do
      "s" <> _ ->
        "an integer from #{-Integer.pow(2, bits - 1)} to #{Integer.pow(2, bits - 1) - 1}"

      "u" <> _ ->
        "an integer from 0 to #{Integer.pow(2, bits) - 1}"

      _ ->
        "a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity"
    end
  end
end
