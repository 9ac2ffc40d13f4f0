defmodule ExCubecl.Ops.Interface.Indexing do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for operations that read and write at indices: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer
  alias ExCubecl.Ops.{Gathering, Into, OneHot, Scattering}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, buffer}` with the slices along `axis:` (0 by default) at the indices in a vector of integers; an index out of
      bounds gives zeros, and with `check: true` the error `:out_of_bounds`, for which the call waits for the device.

          iex> x = ExCubecl.buffer!([[1, 2], [3, 4], [5, 6]], [3, 2], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.gather!(x, ExCubecl.buffer!([2, 0, 9], [3], :s32)))
          [[5, 6], [1, 2], [0, 0]]
      """
      @spec gather(tensor, tensor, axis: integer, check: boolean, into: Buffer.t()) ::
              result | :ok
      def gather(buffer, indices, opts \\ []) do
        operands = [buffer: buffer, indices: indices]
        Into.run(:gather, operands, opts, &Gathering.gather(buffer, indices, &1, &2))
      end

      @doc """
      As `gather/3`, with indices of any shape, whose axes replace the axis.

          iex> x = ExCubecl.buffer!([10, 20, 30], [3], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.take!(x, ExCubecl.buffer!([[2, 0], [1, 1]], [2, 2], :s32)))
          [[30, 10], [20, 20]]
      """
      @spec take(tensor, tensor, axis: integer, check: boolean, into: Buffer.t()) :: result | :ok
      def take(buffer, indices, opts \\ []) do
        operands = [buffer: buffer, indices: indices]
        Into.run(:take, operands, opts, &Gathering.take(buffer, indices, &1, &2))
      end

      @doc """
      Returns `{:ok, buffer}` of the shape of `indices` with the elements at these indices along `axis:`, 0 by default; the other axes are as long as those of `buffer`.
      An index out of bounds is as for `gather/3`.

          iex> x = ExCubecl.buffer!([[3, 1, 2], [9, 7, 8]], [2, 3], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.take_along_axis!(x, ExCubecl.buffer!([[1], [2]], [2, 1], :s32), axis: 1))
          [[1], [8]]
      """
      @spec take_along_axis(tensor, tensor, axis: integer, check: boolean, into: Buffer.t()) ::
              result | :ok
      def take_along_axis(buffer, indices, opts \\ []) do
        operands = [buffer: buffer, indices: indices]

        Into.run(
          :take_along_axis,
          operands,
          opts,
          &Gathering.take_along_axis(buffer, indices, &1, &2)
        )
      end

      @doc """
      Returns `{:ok, buffer}` with the slices at index vectors, which are along the last axis of `indices`: a vector of n integers is an index along each of the first n
      axes, or of `axes:`. The shape of the result is that of `indices` without its last axis, followed by the axes that are not addressed. An index out of bounds is as for `gather/3`.

          iex> x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.gather_nd!(x, ExCubecl.buffer!([[1, 1], [0, 1]], [2, 2], :s64)))
          [4, 2]
          iex> ExCubecl.to_list!(ExCubecl.Ops.gather_nd!(x, ExCubecl.buffer!([[1]], [1, 1], :u8), axes: [1]))
          [[2, 4]]
      """
      @spec gather_nd(tensor, tensor, axes: [integer], check: boolean, into: Buffer.t()) ::
              result | :ok
      def gather_nd(buffer, indices, opts \\ []) do
        operands = [buffer: buffer, indices: indices]
        Into.run(:gather_nd, operands, opts, &Gathering.gather_nd(buffer, indices, &1, &2))
      end

      @doc """
      Returns `{:ok, buffer}` with the elements of `target`, and in place of the slices at the index vectors, which are as for `gather_nd/3`, those of `updates`. The shape of
      `updates` is that of `indices` without its last axis, followed by the axes that are not addressed. Of several updates of one slice, the last one counts; one
      out of bounds is ignored, and with `check: true` the error `:out_of_bounds`. The types are merged.

          iex> x = ExCubecl.Buffer.zeros!([2, 2], :s32)
          iex> indices = ExCubecl.buffer!([[0, 1], [1, 0], [0, 1]], [3, 2], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.indexed_put!(x, indices, ExCubecl.buffer!([7, 8, 9], [3], :s32)))
          [[0, 9], [8, 0]]
      """
      @spec indexed_put(tensor, tensor, tensor, axes: [integer], check: boolean, into: Buffer.t()) ::
              result | :ok
      def indexed_put(target, indices, updates, opts \\ []) do
        operands = [target: target, indices: indices, updates: updates]
        Into.run(:indexed_put, operands, opts, &Scattering.put(target, indices, updates, &1, &2))
      end

      @doc """
      Returns `{:ok, buffer}` with the elements of `target`, to which those of `updates` are added at the index vectors; all else is as for `indexed_put/4`. Several updates
      of one element are added up first, in an order that depends on the indices alone, so that the result is always the same. The error of a sum of n floats is at
      most 64 * ceil(log32(n)) * 2^-24 of the sum of their magnitudes (for `:f64`, 2^-53); sums of `:f16` and `:bf16` are those of `:f32`, rounded once.

          iex> x = ExCubecl.Buffer.zeros!([3], :s32)
          iex> indices = ExCubecl.buffer!([[0], [2], [0]], [3, 1], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.indexed_add!(x, indices, ExCubecl.buffer!([7, 8, 9], [3], :s32)))
          [16, 0, 8]
      """
      @spec indexed_add(tensor, tensor, tensor, axes: [integer], check: boolean, into: Buffer.t()) ::
              result | :ok
      def indexed_add(target, indices, updates, opts \\ []) do
        operands = [target: target, indices: indices, updates: updates]
        Into.run(:indexed_add, operands, opts, &Scattering.add(target, indices, updates, &1, &2))
      end

      @doc """
      Returns `{:ok, buffer}` with a new axis of some length, `axis:`, by default the last one: along it, 1 at the index in `indices` and 0 elsewhere, and nothing but 0 for an
      index out of bounds, unless `check: true`. `dtype:` defaults to `:u8`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.one_hot!(ExCubecl.buffer!([2, 0, 5], [3], :s32), 3))
          [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
      """
      @spec one_hot(tensor, non_neg_integer, keyword) :: result | :ok
      def one_hot(indices, length, opts \\ []),
        do:
          Into.run(:one_hot, [indices: indices], opts, fn opts, into ->
            OneHot.run(indices, length, opts, into)
          end)
    end
  end
end
