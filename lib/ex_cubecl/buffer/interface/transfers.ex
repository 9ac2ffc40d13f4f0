defmodule ExCubecl.Buffer.Interface.Transfers do
  @moduledoc false
  # Functions of `ExCubecl.Buffer` that copy and write elements: documentation, specs and the modules that implement them.

  alias ExCubecl.{DType, Error}
  alias ExCubecl.Buffer.{Copy, Remote, Write}
  alias ExCubecl.Cluster.Location
  alias ExCubecl.Error.Arguments

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, copy}`: the same elements in a new storage on the same device.

      Options: `:tag` and `:allocation`, as for `new/4`.

      Errors: `:not_allocated`, and those of `new/4`.

          iex> buffer = ExCubecl.Buffer.iota!([3], :u8)
          iex> copy = ExCubecl.Buffer.duplicate!(buffer)
          iex> ExCubecl.Buffer.fill!(buffer, 7)
          iex> ExCubecl.Buffer.to_list!(copy)
          [0, 1, 2]
      """
      @spec duplicate(t, keyword) :: result(t)
      def duplicate(buffer, opts \\ []), do: made(route(buffer, &Copy.duplicate/2, [opts]))

      @doc """
      Returns `{:ok, copy}`: the same elements in a new storage on another device.

      Options: `:tag`, `:allocation` and `:progress`, as for `new/4`.

      Errors: `:unknown_device`, `:not_allocated`, and those of `new/4`.

          iex> {:ok, device} = ExCubecl.default_device()
          iex> copy = ExCubecl.Buffer.transfer!(ExCubecl.Buffer.iota!([3], :u8), device)
          iex> ExCubecl.Buffer.to_list!(copy)
          [0, 1, 2]
      """
      @spec transfer(t, term, keyword) :: result(t)
      def transfer(buffer, device, opts \\ []) do
        with {:ok, buffer} <- check(buffer) do
          case {Location.node_of(buffer), Location.locate(device)} do
            {nil, {nil, device}} -> made(Copy.transfer(buffer, device, opts))
            {_, device} -> made(Remote.transfer(buffer, device, opts))
          end
        end
      end

      @doc """
      Returns `{:ok, converted}`: the elements converted to another type, in a new storage.

      Every device gives the same bits. The rules are those of `cast` and of stores in kernels:

        * float to integer: truncated toward zero and clamped to the range of the type (300.7 as
          `:u8` is 255, -1.0 is 0); NaN is 0
        * integer to integer: the low bits are kept, so that it wraps around (300 as `:u8` is 44)
        * any type to float: the nearest value, ties to even; infinity past the largest value;
          subnormal numbers and the sign of zero are kept; NaN becomes the quiet NaN without payload
        * to the same type: a bitwise copy

      Options: `:tag` and `:allocation`, as for `new/4`.

      Errors: `:unsupported_dtype`, `:not_allocated`, and those of `new/4`.

          iex> buffer = ExCubecl.buffer!([1.5, -1.0, 300.7, :nan, :infinity], [5], :f32)
          iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.convert!(buffer, :u8))
          [1, 0, 255, 0, 255]
      """
      @spec convert(t, DType.t(), keyword) :: result(t)
      def convert(buffer, dtype, opts \\ []),
        do: made(route(buffer, &Copy.convert/3, [dtype, opts]))

      @doc """
      Returns `:ok` and copies all elements of `source` into `target`; if both are on the same device, the copy
      runs on it. Type and number of elements must be equal; the shapes need not.

      Errors: `:type_mismatch`, `:shape_mismatch`, `:not_allocated` for a lazy source, `:overlap` for
      buffers that share bytes, also a buffer and itself; for a lazy target those of `new/4`. On error the target is unchanged.

          iex> target = ExCubecl.Buffer.zeros!([2, 2], :f32)
          iex> ExCubecl.Buffer.copy(ExCubecl.Buffer.iota!([4], :f32), target)
          :ok
          iex> ExCubecl.Buffer.to_list!(target)
          [[0.0, 1.0], [2.0, 3.0]]
      """
      @spec copy(t, t) :: :ok | {:error, Error.t()}
      def copy(source, target) do
        with {:ok, source} <- check(source), {:ok, target} <- check(target) do
          if local?(source) and local?(target),
            do: Copy.copy(source, target),
            else: Remote.copy(source, target)
        end
      end

      @doc """
      Returns `:ok` and replaces elements in place; the write is visible through every view of them.

      Without an offset, `data` is as for `new/4` with the buffer's shape. With an offset it is a flat
      list or a binary with the elements that replace those from the offset on.

      ## Options

        * `:offset` - the first element to replace
        * `:progress` - as for `new/4`

      Errors: `:shape_mismatch`, `:invalid_value`, `:out_of_bounds`; for a lazy buffer those of `new/4`. On error the buffer is unchanged.

          iex> buffer = ExCubecl.Buffer.zeros!([4], :s32)
          iex> ExCubecl.Buffer.write(buffer, [7, 8], offset: 2)
          :ok
          iex> ExCubecl.Buffer.to_list!(buffer)
          [0, 0, 7, 8]
      """
      @spec write(t, data, keyword) :: :ok | {:error, Error.t()}
      def write(buffer, data, opts \\ []),
        do: route(buffer, &Write.write/3, &Remote.write/3, [data, opts])

      @doc """
      Returns `:ok` and sets every element to `value`, on the device.

      Errors: `:invalid_value`; for a lazy buffer those of `new/4`.

          iex> buffer = ExCubecl.Buffer.empty!([3], :f32)
          iex> ExCubecl.Buffer.fill(buffer, 0.5)
          :ok
          iex> ExCubecl.Buffer.to_list!(buffer)
          [0.5, 0.5, 0.5]
      """
      @spec fill(t, element) :: :ok | {:error, Error.t()}
      def fill(buffer, value), do: route(buffer, &Write.fill/2, [value])

      @doc """
      Returns `:ok` and replaces all elements by those at `address` in the memory of CUDA, which may be of another library, such as CuPy.

      The memory is of any CUDA device, or of the host if it is registered with CUDA; the address is checked. The other library must have finished its work there,
      and keep the memory until the call returns.

      Errors: `:unsupported` on devices that have no such addresses, `:invalid_argument` if CUDA does not know so many bytes at the address as one allocation; for
      a lazy buffer those of `new/4`.

          iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
          iex> case ExCubecl.Buffer.pointer(buffer) do
          ...>   {:ok, address} -> ExCubecl.Buffer.copy_from_pointer(ExCubecl.Buffer.empty!([1], :f32), address)
          ...>   {:error, %{reason: :unsupported}} -> :ok
          ...> end
          :ok
      """
      @spec copy_from_pointer(t, non_neg_integer) :: :ok | {:error, Error.t()}
      def copy_from_pointer(buffer, address) do
        with {:ok, address} <- Arguments.index(:address, address),
             do: route(buffer, &Write.copy_from_pointer/2, [address])
      end
    end
  end
end
