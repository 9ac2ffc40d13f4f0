defmodule ExCubecl.Ops.Interface.Products do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for products: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer
  alias ExCubecl.Ops.{Dot, Into}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, buffer}`, the product of two matrices, `[m, k]` times `[k, n]`, which is `[m, n]`, or of stacks of matrices, whose leading axes
      broadcast. A vector is a row on the left and a column on the right, as in NumPy. The types are merged, see `dot/3`.

          iex> a = ExCubecl.buffer!([[1.0, 2.0], [3.0, 4.0]], [2, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.matmul!(a, a))
          [[7.0, 10.0], [15.0, 22.0]]
          iex> stack = ExCubecl.buffer!([[[1, 2]], [[3, 4]]], [2, 1, 2], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.matmul!(stack, ExCubecl.buffer!([10, 1], [2], :s32)))
          [[12], [34]]
      """
      @spec matmul(tensor, tensor, into: Buffer.t()) :: result | :ok
      def matmul(a, b, opts \\ []),
        do: Into.run_only(:matmul, [a: a, b: b], opts, &Dot.matmul(a, b, &1))

      @doc """
      Returns `{:ok, buffer}`, the sums of products over pairs of axes, as `Nx.dot/6`. Its axes are the batch axes, the others of `a`, and the others of `b`.

      ## Options

        * `:contract_axes` - `{axes_of_a, axes_of_b}`, the axes of the sums, as many of both, by pairs of equal length. By default the last axis of `a`, and the
          last but one of `b`, or its only one; none if there is no axis
        * `:batch_axes` - `{axes_of_a, axes_of_b}`, `{[0, 1, ...], [0, 1, ...]}`: the leading axes for each index of which there is a product. None by default

      The types are merged as in Nx. Integers wrap around; sums of `:f16` and `:bf16` are calculated with `:f32` and rounded once. Operands are read through
      strides: a transposed one is as fast. Large products use the library of the device, which adds up in an order of its own.

      Errors: `:shape_mismatch` for axes of unlike lengths, `:invalid_argument` for axes that do not exist or are there twice.

          iex> a = ExCubecl.Buffer.iota!([2, 3], :s32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.dot!(a, a, contract_axes: {[1], [1]}))
          [[5, 14], [14, 50]]
          iex> ExCubecl.to_list!(ExCubecl.Ops.dot!(a, a, contract_axes: {[1], [1]}, batch_axes: {[0], [0]}))
          [5, 50]
      """
      @spec dot(tensor, tensor, keyword) :: result | :ok
      def dot(a, b, opts \\ []),
        do: Into.run(:dot, [a: a, b: b], opts, &Dot.run(a, b, &1, nil, &2))
    end
  end
end
