defmodule ExCubecl.Buffer.Interface.Reading do
  @moduledoc false
  # Functions of `ExCubecl.Buffer` that read elements: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer.{Read, Remote, Transfer}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, binary}`, the elements in row-major order, native-endian.

      A part of the binary keeps all of it in memory, as with any binary: to keep only a small part, copy that part with
      `:binary.copy/1`.

      Option: `:progress`, as for `new/4`.

      Errors: `:not_allocated`.

          iex> ExCubecl.Buffer.read(ExCubecl.Buffer.iota!([3], :u8))
          {:ok, <<0, 1, 2>>}
      """
      @spec read(t, keyword) :: result(binary)
      def read(buffer, opts \\ []), do: route(buffer, &Read.read/2, &Remote.read/2, [opts])

      @doc """
      Returns `{:ok, binary}` of `count` elements from element `offset` on.

      Errors: `:out_of_bounds`, `:not_allocated`.

          iex> ExCubecl.Buffer.read_part(ExCubecl.Buffer.iota!([10], :u8), 4, 2)
          {:ok, <<4, 5>>}
      """
      @spec read_part(t, non_neg_integer, non_neg_integer) :: result(binary)
      def read_part(buffer, offset, count), do: route(buffer, &Read.read_part/3, [offset, count])

      @doc """
      Returns `{:ok, binaries}` of several buffers, as `read/1` of each, but waits for the device only once.

      Errors: those of `read/1`, of any of the buffers.

          iex> buffers = for value <- 1..3, do: ExCubecl.Buffer.full!([2], :u8, value)
          iex> ExCubecl.Buffer.read_all(buffers)
          {:ok, [<<1, 1>>, <<2, 2>>, <<3, 3>>]}
      """
      @spec read_all([t]) :: result([binary])
      def read_all(buffers) do
        with {:ok, buffers} <- check_all(buffers) do
          if Enum.all?(buffers, &local?/1),
            do: Read.read_all(buffers),
            else: Remote.read_all(buffers)
        end
      end

      @doc """
      Returns `{:ok, list}`, nested as the shape; for the shape `[]` the element itself.

      Errors: `:not_allocated`, and `:too_large` for millions of rows of few or no elements.

          iex> ExCubecl.Buffer.to_list(ExCubecl.buffer!([1, 2, 3, 4], [2, 2], :u8))
          {:ok, [[1, 2], [3, 4]]}
      """
      @spec to_list(t) :: result(list | element)
      def to_list(buffer), do: route(buffer, &Read.to_list/1, &Remote.to_list/1, [])

      @doc """
      Returns `{:ok, list}` of all elements in row-major order.

      Errors: `:not_allocated`.

          iex> ExCubecl.Buffer.to_flat_list(ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :u8))
          {:ok, [1, 2, 3, 4]}
      """
      @spec to_flat_list(t) :: result([element])
      def to_flat_list(buffer),
        do: route(buffer, &Read.to_flat_list/1, &Remote.to_flat_list/1, [])

      @doc """
      Returns `{:ok, element}` of a buffer with exactly one element.

      Errors: `:shape_mismatch` for any other number of elements, `:not_allocated`.

          iex> ExCubecl.Buffer.item(ExCubecl.buffer!([2.5], [1, 1], :f32))
          {:ok, 2.5}
      """
      @spec item(t) :: result(element)
      def item(buffer), do: route(buffer, &Read.item/1, &Remote.item/1, [])

      @doc """
      Returns `{:ok, transfer}`, a reference, and starts a read whose bytes are sent to the calling process
      without blocking it.

      The reply is a message `{transfer, result}` with a result as of `read/1`; receive it with `await/2`,
      or in `handle_info/2` of a GenServer. The bytes are those at the time of the call: later writes do
      not change them. The process may exit, stop waiting or drop the buffer without a leak.

      Errors: `:not_allocated`.

          iex> buffer = ExCubecl.Buffer.iota!([4], :u8)
          iex> {:ok, transfer} = ExCubecl.Buffer.read_async(buffer)
          iex> ExCubecl.Buffer.await(transfer)
          {:ok, <<0, 1, 2, 3>>}
      """
      @spec read_async(t) :: result(reference)
      def read_async(buffer), do: route(buffer, &Read.read_async/1, &Remote.read_async/1, [])

      @doc """
      Waits for a transfer and returns its result.

      Errors: `:timeout` after `timeout` milliseconds, and a later reply is discarded;
      `:invalid_argument` for a transfer of another process and for a transfer that was awaited before.

          iex> {:ok, transfer} = ExCubecl.Buffer.read_async(ExCubecl.Buffer.zeros!([2], :u8))
          iex> ExCubecl.Buffer.await(transfer, 10_000)
          {:ok, <<0, 0>>}
          iex> {:error, error} = ExCubecl.Buffer.await(transfer)
          iex> Exception.message(error)
          "await: this transfer was awaited before: a transfer has one result"
      """
      @spec await(reference, timeout) :: result(binary)
      def await(transfer, timeout \\ 5_000), do: Transfer.await(transfer, timeout)
    end
  end
end
