defmodule ExCubecl.Buffer.Interface.Sharing do
  @moduledoc false
  # Functions of `ExCubecl.Buffer` that return other handles of the same elements: documentation, specs and the modules that implement them.

  alias ExCubecl.DType
  alias ExCubecl.Buffer.View

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, view}`: the elements from `offset` on, in row-major order, as `shape`.

      A view shares the storage; the offset of a view of a view is relative to the inner view; a view of a lazy buffer
      is lazy too. Offsets count elements; no alignment is required.

      Errors: `:out_of_bounds`, `:invalid_shape`, `:invalid_argument` for an offset that is not a
      non-negative integer.

          iex> buffer = ExCubecl.Buffer.iota!([10], :u8)
          iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.view!(buffer, 3, [2, 2]))
          [[3, 4], [5, 6]]
      """
      @spec view(t, non_neg_integer, shape) :: result(t)
      def view(buffer, offset, shape), do: made(route(buffer, &View.view/3, [offset, shape]))

      @doc """
      Returns `{:ok, view}`: `len` raw bytes from byte `offset` on, as a `:u8` buffer that shares the
      storage.

      Errors: `:out_of_bounds`.

          iex> buffer = ExCubecl.buffer!([1.0], [1], :f32)
          iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.slice_bytes!(buffer, 2, 2))
          [128, 63]
      """
      @spec slice_bytes(t, non_neg_integer, non_neg_integer) :: result(t)
      def slice_bytes(buffer, offset, len),
        do: made(route(buffer, &View.slice_bytes/3, [offset, len]))

      @doc """
      Returns `{:ok, buffer}`: the same elements of the same storage in another shape. One dimension may be -1: it follows from the number of elements.

      Errors: `:shape_mismatch` if the number of elements differs, or if no dimension in place of the -1 makes it equal; `:invalid_shape`.

          iex> buffer = ExCubecl.Buffer.iota!([6], :s64)
          iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.reshape!(buffer, {2, 3}))
          [[0, 1, 2], [3, 4, 5]]
          iex> ExCubecl.Buffer.shape!(ExCubecl.Buffer.reshape!(buffer, [-1, 2]))
          [3, 2]
      """
      @spec reshape(t, [integer] | tuple) :: result(t)
      def reshape(buffer, shape), do: made(route(buffer, &View.reshape/2, [shape]))

      @doc """
      Returns `{:ok, view}`: the same bytes as elements of another type. If the types differ in size, the last axis gets as many elements
      as its bytes make. `convert/3` converts values instead.

      Errors: `:shape_mismatch` if the bytes of the last axis are no whole number of elements, `:invalid_argument` for a view that does not start at a multiple of
      the size of an element of its storage, `:unsupported_dtype`.

          iex> buffer = ExCubecl.buffer!([[1.0, -2.0]], [1, 2], :f32)
          iex> bits = ExCubecl.Buffer.bitcast!(buffer, :u32)
          iex> ExCubecl.Buffer.to_list!(bits)
          [[0x3F800000, 0xC0000000]]
          iex> ExCubecl.Buffer.shape!(ExCubecl.Buffer.bitcast!(buffer, :u16))
          [1, 4]
      """
      @spec bitcast(t, DType.t()) :: result(t)
      def bitcast(buffer, dtype), do: made(route(buffer, &View.bitcast/2, [dtype]))

      @doc """
      Returns `{:ok, buffer}`, another handle of the same elements, with a new id.

          iex> buffer = ExCubecl.Buffer.zeros!([2], :u8)
          iex> clone = ExCubecl.Buffer.clone!(buffer)
          iex> ExCubecl.Buffer.fill!(clone, 7)
          iex> ExCubecl.Buffer.to_list!(buffer)
          [7, 7]
      """
      @spec clone(t) :: result(t)
      def clone(buffer), do: made(route(buffer, &View.clone/1))
    end
  end
end
