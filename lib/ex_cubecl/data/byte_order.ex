defmodule ExCubecl.Data.ByteOrder do
  @moduledoc false
  # Elements in files have an order of bytes, and those of buffers have that of the machine.

  @native if System.endianness() == :little, do: :little, else: :big

  @doc "The bytes of elements of `size` bytes, converted between an order and the native one."
  @spec native(binary, :little | :big, pos_integer) :: binary
  def native(bytes, order, size) when order == @native or size == 1, do: bytes

  def native(bytes, _order, 2), do: for(<<x::16-big <- bytes>>, into: <<>>, do: <<x::16-little>>)
  def native(bytes, _order, 4), do: for(<<x::32-big <- bytes>>, into: <<>>, do: <<x::32-little>>)
  def native(bytes, _order, 8), do: for(<<x::64-big <- bytes>>, into: <<>>, do: <<x::64-little>>)
end
