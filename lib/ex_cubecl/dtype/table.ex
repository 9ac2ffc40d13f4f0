defmodule ExCubecl.DType.Table do
  @moduledoc false
  # The element types and their sizes. Below `ExCubecl.Error`, whose messages list the types; `ExCubecl.DType` has the public functions.

  @bytes [
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

  def all, do: unquote(Keyword.keys(@bytes))

  def valid?(term), do: term in unquote(Keyword.keys(@bytes))

  @doc "The bytes of one element of a valid type."
  for {dtype, bytes} <- @bytes do
    def bytes(unquote(dtype)), do: unquote(bytes)
  end

  @doc "The valid elements of a type, as text for messages."
  def range(dtype) do
    bits = 8 * bytes(dtype)

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
