defmodule ExCubecl.Ops.Interface.Reductions do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for reductions and the cumulative operations: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer
  alias ExCubecl.Ops.{Into, Norms, Reductions, Scan}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @typedoc """
      The axes of a reduction, all by default: `axis: 1` or `axes: [0, -1]`. With `keep_axes: true`, a reduced axis stays, with the length 1.
      """
      @type axes :: [axis: integer, axes: [integer], keep_axes: boolean, into: Buffer.t()]

      @doc """
      Returns `{:ok, buffer}` with the sum of all elements, or the sums over `axis:` or `axes:`; see `t:axes/0`.

          iex> ExCubecl.item!(ExCubecl.Ops.sum!(ExCubecl.Buffer.iota!([100_000], :s32)))
          4999950000
          iex> ExCubecl.to_list!(ExCubecl.Ops.sum!(ExCubecl.Buffer.iota!([2, 3, 2], :s32), axes: [0, 2], keep_axes: true))
          [[[14], [22], [30]]]
      """
      @spec sum(tensor, axes) :: result | :ok
      def sum(buffer, opts \\ []),
        do: Into.run(:sum, [buffer: buffer], opts, &Reductions.run(:sum, buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the product of all elements, or the products over axes, as for `sum/2`.

          iex> ExCubecl.item!(ExCubecl.Ops.product!(ExCubecl.buffer!([2, 3, 4], [3], :u8)))
          24
      """
      @spec product(tensor, axes) :: result | :ok
      def product(buffer, opts \\ []),
        do: Into.run(:product, [buffer: buffer], opts, &Reductions.run(:product, buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the minimum of all elements, or the minima over axes, as for `sum/2`; `:invalid_argument` if there are no elements.

          iex> ExCubecl.item!(ExCubecl.Ops.reduce_min!(ExCubecl.buffer!([2, -3, 4], [3], :s8)))
          -3
      """
      @spec reduce_min(tensor, axes) :: result | :ok
      def reduce_min(buffer, opts \\ []),
        do:
          Into.run(
            :reduce_min,
            [buffer: buffer],
            opts,
            &Reductions.run(:reduce_min, buffer, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the maximum of all elements, or the maxima over axes, as for `sum/2`; `:invalid_argument` if there are no elements.

          iex> ExCubecl.to_list!(ExCubecl.Ops.reduce_max!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 1))
          [9, 4]
      """
      @spec reduce_max(tensor, axes) :: result | :ok
      def reduce_max(buffer, opts \\ []),
        do:
          Into.run(
            :reduce_max,
            [buffer: buffer],
            opts,
            &Reductions.run(:reduce_max, buffer, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with 1 if no element is 0, else 0 (`:u8`), of all elements or over axes, as for `sum/2`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.all!(ExCubecl.buffer!([[2, 9], [4, 0]], [2, 2], :s32), axis: 1))
          [1, 0]
      """
      @spec all(tensor, axes) :: result | :ok
      def all(buffer, opts \\ []),
        do: Into.run(:all, [buffer: buffer], opts, &Reductions.run(:all, buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with 1 if some element is not 0, else 0 (`:u8`), of all elements or over axes, as for `sum/2`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.any!(ExCubecl.buffer!([[2, 0], [4, 0]], [2, 2], :s32), axis: 0))
          [1, 0]
      """
      @spec any(tensor, axes) :: result | :ok
      def any(buffer, opts \\ []),
        do: Into.run(:any, [buffer: buffer], opts, &Reductions.run(:any, buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the mean of all elements, or the means over axes, as for `sum/2`, as floats.

          iex> ExCubecl.item!(ExCubecl.Ops.mean!(ExCubecl.buffer!([1, 2], [2], :u8)))
          1.5
      """
      @spec mean(tensor, axes) :: result | :ok
      def mean(buffer, opts \\ []),
        do: Into.run(:mean, [buffer: buffer], opts, &Reductions.mean(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the variance of all elements, or the variances over axes, as for `sum/2`, as floats. The sum of the squares is divided by the
      number of elements minus `ddof:`, 0 by default.

          iex> ExCubecl.item!(ExCubecl.Ops.variance!(ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)))
          1.25
      """
      @spec variance(tensor, keyword) :: result | :ok
      def variance(buffer, opts \\ []),
        do: Into.run(:variance, [buffer: buffer], opts, &Reductions.variance(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the standard deviation, the square root of `variance/2`, whose options are those of this function.

          iex> ExCubecl.item!(ExCubecl.Ops.standard_deviation!(ExCubecl.buffer!([1, 3], [2], :s32)))
          1.0
      """
      @spec standard_deviation(tensor, keyword) :: result | :ok
      def standard_deviation(buffer, opts \\ []),
        do:
          Into.run(
            :standard_deviation,
            [buffer: buffer],
            opts,
            &Reductions.standard_deviation(buffer, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the norm of all elements, or the norms over axes, as for `sum/2`, as floats. The elements are those of one vector, also over several axes.

      `order:` is 2 by default: a number p gives `sum(abs(x) ** p) ** (1 / p)`, 0 the number of elements that are not 0, `:infinity` the greatest magnitude and
      `:neg_infinity` the least one.

          iex> x = ExCubecl.buffer!([[3, 4], [0, -2]], [2, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.norm!(x, axis: 1))
          [5.0, 2.0]
          iex> ExCubecl.item!(ExCubecl.Ops.norm!(x, order: 1))
          9.0
      """
      @spec norm(tensor, keyword) :: result | :ok
      def norm(buffer, opts \\ []),
        do: Into.run(:norm, [buffer: buffer], opts, &Norms.norm(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the logarithm of the sum of the exponentials of all elements, or of those over axes, as for `sum/2`, as floats. It does not overflow;
      of negative infinities only, it is negative infinity. `:invalid_argument` if there are no elements.

          iex> x = ExCubecl.buffer!([1000, 1000], [2], :f32)
          iex> Float.round(ExCubecl.item!(ExCubecl.Ops.logsumexp!(x)), 3)
          1000.693
      """
      @spec logsumexp(tensor, axes) :: result | :ok
      def logsumexp(buffer, opts \\ []),
        do: Into.run(:logsumexp, [buffer: buffer], opts, &Norms.logsumexp(buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the index of the minimum of all elements, or the indices along `axis:`. Of several, it is the first one, or with
      `tie_break: :high` the last one; NaN counts as the minimum. `dtype:` is the type of the indices, `:s32` (the default) or `:s64`. `keep_axes:` is as for `sum/2`.

          iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8)))
          1
          iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8), tie_break: :high))
          2
      """
      @spec argmin(tensor, keyword) :: result | :ok
      def argmin(buffer, opts \\ []),
        do:
          Into.run(
            :argmin,
            [buffer: buffer],
            opts,
            &Reductions.index_of(:argmin, buffer, &1, :tie, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the index of the maximum of all elements, or the indices along `axis:`, as for `argmin/2`; NaN counts as the maximum.

          iex> ExCubecl.to_list!(ExCubecl.Ops.argmax!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 0))
          [1, 0]
      """
      @spec argmax(tensor, keyword) :: result | :ok
      def argmax(buffer, opts \\ []),
        do:
          Into.run(
            :argmax,
            [buffer: buffer],
            opts,
            &Reductions.index_of(:argmax, buffer, &1, :tie, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the cumulative sums (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.
      They are calculated in chunks, as in `sum/2`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_sum!(ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)))
          [1.0, 3.0, 6.0]
      """
      @spec cumulative_sum(tensor, axis: integer, reverse: boolean, into: Buffer.t()) ::
              result | :ok
      def cumulative_sum(buffer, opts \\ []),
        do: Into.run(:cumulative_sum, [buffer: buffer], opts, &Scan.run(:sum, buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the cumulative products (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.

          iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_product!(ExCubecl.buffer!([1, 2, 3], [3], :s32)))
          [1, 2, 6]
      """
      @spec cumulative_product(tensor, axis: integer, reverse: boolean, into: Buffer.t()) ::
              result | :ok
      def cumulative_product(buffer, opts \\ []),
        do:
          Into.run(
            :cumulative_product,
            [buffer: buffer],
            opts,
            &Scan.run(:product, buffer, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the cumulative minima (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.

          iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_min!(ExCubecl.buffer!([3, 1, 2], [3], :s32)))
          [3, 1, 1]
      """
      @spec cumulative_min(tensor, axis: integer, reverse: boolean, into: Buffer.t()) ::
              result | :ok
      def cumulative_min(buffer, opts \\ []),
        do: Into.run(:cumulative_min, [buffer: buffer], opts, &Scan.run(:min, buffer, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the cumulative maxima (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.

          iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_max!(ExCubecl.buffer!([3, 1, 4], [3], :s32)))
          [3, 3, 4]
      """
      @spec cumulative_max(tensor, axis: integer, reverse: boolean, into: Buffer.t()) ::
              result | :ok
      def cumulative_max(buffer, opts \\ []),
        do: Into.run(:cumulative_max, [buffer: buffer], opts, &Scan.run(:max, buffer, &1, &2))
    end
  end
end
