defmodule ExCubecl.Ops.Interface.Movement do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for operations that move elements, each into a new buffer, and of those that make new buffers: documentation, specs and the modules that implement them.

  alias ExCubecl.{Buffer, Device, Error}
  alias ExCubecl.Ops.{Into, Movement}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, buffer}` with the elements repeated along axes of length 1, and along new leading axes.

          iex> x = ExCubecl.buffer!([1, 2], [2, 1], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.broadcast_to!(x, [2, 3]))
          [[1, 1, 1], [2, 2, 2]]
      """
      @spec broadcast_to(tensor, Buffer.shape(), into: Buffer.t()) :: result | :ok
      def broadcast_to(buffer, shape, opts \\ []),
        do:
          Into.run_only(
            :broadcast_to,
            [buffer: buffer],
            opts,
            &Movement.broadcast_to(buffer, shape, &1)
          )

      @doc """
      Returns `{:ok, buffer}` with the axes in another order, by default reversed.

          iex> x = ExCubecl.buffer!([[1, 2, 3], [4, 5, 6]], [2, 3], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.transpose!(x))
          [[1, 4], [2, 5], [3, 6]]
      """
      @spec transpose(tensor, axes: [non_neg_integer], into: Buffer.t()) :: result | :ok
      def transpose(buffer, opts \\ []),
        do: Into.run(:transpose, [buffer: buffer], opts, &Movement.transpose(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the order reversed along `axis:` or `axes:`, by default along all axes.

          iex> ExCubecl.to_list!(ExCubecl.Ops.reverse!(ExCubecl.Buffer.iota!([2, 3], :s32), axis: 1))
          [[2, 1, 0], [5, 4, 3]]
      """
      @spec reverse(tensor, axis: integer, axes: [integer], into: Buffer.t()) :: result | :ok
      def reverse(buffer, opts \\ []),
        do: Into.run(:reverse, [buffer: buffer], opts, &Movement.reverse(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with a part of each axis: `lengths` elements from `starts` on, of which `strides:` keeps each n-th. A start may be a buffer of one
      integer, which is read and clamped such that the part is inside.

      Errors: `:out_of_bounds` for a part that is not inside.

          iex> x = ExCubecl.Buffer.iota!([3, 4], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.slice!(x, [1, 0], [2, 4], strides: [1, 2]))
          [[4, 6], [8, 10]]
      """
      @spec slice(tensor, [integer | tensor], [non_neg_integer],
              strides: [pos_integer],
              into: Buffer.t()
            ) :: result | :ok
      def slice(buffer, starts, lengths, opts \\ []),
        do:
          Into.run(
            :slice,
            [buffer: buffer],
            opts,
            &Movement.slice(buffer, starts, lengths, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the elements of `buffer`, and those of `source` from `starts` on, which are as for `slice/4`. The types are merged.

      Errors: `:out_of_bounds` for elements that are not inside.

          iex> x = ExCubecl.Buffer.zeros!([2, 3], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.put_slice!(x, [1, 1], ExCubecl.buffer!([[7, 8]], [1, 2], :s32)))
          [[0, 0, 0], [0, 7, 8]]
      """
      @spec put_slice(tensor, [integer | tensor], tensor, into: Buffer.t()) :: result | :ok
      def put_slice(buffer, starts, source, opts \\ []) do
        operands = [buffer: buffer, source: source]
        Into.run_only(:put_slice, operands, opts, &Movement.put_slice(buffer, starts, source, &1))
      end

      @doc """
      Returns `{:ok, buffer}` with `value` around and between the elements: `{low, high, interior}` for each axis is how often at its start, at its end, and
      between two elements. A negative `low` or `high` removes elements.

          iex> x = ExCubecl.buffer!([1, 2, 3], [3], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.pad!(x, 0, [{2, -1, 1}]))
          [0, 0, 1, 0, 2, 0]
      """
      @spec pad(tensor, number, [{integer, integer, non_neg_integer}], into: Buffer.t()) ::
              result | :ok
      def pad(buffer, value, config, opts \\ []),
        do: Into.run_only(:pad, [buffer: buffer], opts, &Movement.pad(buffer, value, config, &1))

      @doc """
      Returns `{:ok, buffer}` with the buffer repeated along each axis, and along new leading axes if there are more numbers than axes.

          iex> ExCubecl.to_list!(ExCubecl.Ops.tile!(ExCubecl.buffer!([1, 2], [2], :s32), [2, 2]))
          [[1, 2, 1, 2], [1, 2, 1, 2]]
      """
      @spec tile(tensor, [non_neg_integer], into: Buffer.t()) :: result | :ok
      def tile(buffer, repetitions, opts \\ []),
        do:
          Into.run_only(:tile, [buffer: buffer], opts, fn into ->
            Movement.tile(buffer, repetitions, into)
          end)

      @doc """
      Returns `{:ok, buffer}` with buffers of one type concatenated along `axis:`, 0 by default. The lengths of their other
      axes must be equal.

          iex> x = ExCubecl.buffer!([[1, 2]], [1, 2], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.concatenate!([x, x], axis: 1))
          [[1, 2, 1, 2]]
      """
      @spec concatenate([tensor], axis: integer, into: Buffer.t()) :: result | :ok
      def concatenate(buffers, opts \\ []),
        do:
          Into.run(
            :concatenate,
            Into.listed(buffers),
            opts,
            &Movement.concatenate(buffers, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with buffers of one type and shape along a new axis, `axis:`, 0 by default.

          iex> x = ExCubecl.buffer!([1, 2], [2], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.stack!([x, x], axis: 1))
          [[1, 1], [2, 2]]
      """
      @spec stack([tensor], axis: integer, into: Buffer.t()) :: result | :ok
      def stack(buffers, opts \\ []),
        do: Into.run(:stack, Into.listed(buffers), opts, &Movement.stack(buffers, &1, &2))

      @doc """
      Returns `{:ok, buffers}` with the parts of `axis:`, 0 by default: a list of lengths, or a number of equal parts.

          iex> [a, b] = ExCubecl.Ops.split!(ExCubecl.Buffer.iota!([5], :s32), [2, 3])
          iex> {ExCubecl.to_list!(a), ExCubecl.to_list!(b)}
          {[0, 1], [2, 3, 4]}
      """
      @spec split(tensor, pos_integer | [non_neg_integer], axis: integer) ::
              {:ok, [Buffer.t()]} | {:error, Error.t()}
      def split(buffer, parts, opts \\ []), do: Movement.split(buffer, parts, opts)

      @doc """
      Returns `{:ok, buffer}`, a matrix of `n` rows, or of the shape `[m, n]`, with 1 on its diagonal and 0 elsewhere. `device:` is an option.

          iex> ExCubecl.to_list!(ExCubecl.Ops.eye!([2, 3], :s32))
          [[1, 0, 0], [0, 1, 0]]
      """
      @spec eye(non_neg_integer | Buffer.shape(), ExCubecl.DType.t(), device: Device.id()) ::
              result
      def eye(shape, dtype, opts \\ []), do: Movement.eye(shape, dtype, opts)

      @doc """
      Returns `{:ok, buffer}` with the indices along `axis:`, or of all elements. `device:` is an option.

          iex> ExCubecl.to_list!(ExCubecl.Ops.iota!([2, 3], :s32, axis: 1))
          [[0, 1, 2], [0, 1, 2]]
      """
      @spec iota(Buffer.shape(), ExCubecl.DType.t(), axis: integer, device: Device.id()) :: result
      def iota(shape, dtype, opts \\ []), do: Movement.iota(shape, dtype, opts)
    end
  end
end
