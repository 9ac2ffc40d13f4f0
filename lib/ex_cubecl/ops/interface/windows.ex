defmodule ExCubecl.Ops.Interface.Windows do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for operations on windows: documentation, specs and the modules that implement them.

  alias ExCubecl.{Buffer, Kernel}
  alias ExCubecl.Ops.{Convolution, Into, Windows, WindowScatter}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @typedoc """
      Options of windows, each a number for all axes or a list with one for each axis:

        * `:strides` - the distance of neighbouring windows, 1 by default
        * `:window_dilations` - the distance of neighbouring elements of a window, 1 by default
        * `:padding` - `:valid`, without padding, by default; `:same`, by which the result has the shape of the operand with strides of 1; or a list with
          `{low, high}` for each axis, the number of elements before and after it, of which a negative one removes elements
      """
      @type window_options :: [
              strides: pos_integer | [pos_integer],
              window_dilations: pos_integer | [pos_integer],
              padding: :valid | :same | [{integer, integer}],
              into: Buffer.t()
            ]

      for {name, what, padding, example} <- [
            {:window_sum, "sum", "0", "[3, 5, 7]"},
            {:window_product, "product", "1", "[2, 6, 12]"},
            {:window_min, "minimum", "the greatest number of the type", "[1, 2, 3]"},
            {:window_max, "maximum", "the least number of the type", "[2, 3, 4]"}
          ] do
        @doc """
        Returns `{:ok, buffer}` with the #{what} of each window of the lengths `window`, one for each axis. The type is that of the buffer, and padding
        is #{padding}. `:invalid_argument` for a window that is longer than the padded axis, and for other wrong options; see `t:window_options/0`.

            iex> x = ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)
            iex> ExCubecl.to_list!(ExCubecl.Ops.#{name}!(x, [2]))
            #{example}
        """
        @spec unquote(name)(tensor, Buffer.shape(), window_options) :: result | :ok
        def unquote(name)(buffer, window, opts \\ []),
          do:
            Into.run(
              unquote(name),
              [buffer: buffer],
              opts,
              &Windows.run(unquote(name), buffer, window, &1, &2)
            )
      end

      @doc """
      Returns `{:ok, buffer}` with the mean of each window, as floats: its sum, of which padding is 0, divided by the number of its elements. As for
      `window_sum/3`, but sums of integers do not wrap around.

          iex> x = ExCubecl.buffer!([100, 200, 255, 4], [4], :u8)
          iex> ExCubecl.to_list!(ExCubecl.Ops.window_mean!(x, [2], strides: 2))
          [150.0, 129.5]
      """
      @spec window_mean(tensor, Buffer.shape(), window_options) :: result | :ok
      def window_mean(buffer, window, opts \\ []),
        do:
          Into.run(
            :window_mean,
            [buffer: buffer],
            opts,
            &Windows.run(:window_mean, buffer, window, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with all elements, or those along axes (see `t:axes/0`), folded by an element-wise kernel of an element and the accumulator, which
      starts with `initial`, a number or a buffer of one element. The order is row-major, one element after the other, as in `Nx.reduce/4`; the result of the kernel is cast to
      the merged type of the buffer and `initial`. Each result is that of at most 2^32 elements. For sums and other known operations, `sum/2` and its neighbours are
      faster.

          iex> import ExCubecl.Kernel, only: [kernel: 1]
          iex> x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32)
          iex> digits = kernel(fn x, acc -> 10 * acc + x end)
          iex> ExCubecl.to_list!(ExCubecl.Ops.reduce!(x, 0, digits, axis: 1))
          [12, 34]
      """
      @spec reduce(tensor, operand, Kernel.t() | {module, atom}, axes) :: result | :ok
      def reduce(buffer, initial, kernel, opts \\ []),
        do:
          Into.run(
            :reduce,
            [buffer: buffer, initial: initial],
            opts,
            &Windows.reduce(buffer, initial, kernel, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with each window folded by an element-wise kernel, as in `reduce/4`. The type is that of the buffer, and padding is `initial`. Options are
      those of `window_sum/3`.

          iex> import ExCubecl.Kernel, only: [kernel: 1]
          iex> x = ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)
          iex> digits = kernel(fn x, acc -> 10 * acc + x end)
          iex> ExCubecl.to_list!(ExCubecl.Ops.window_reduce!(x, 0, [2], digits))
          [12, 23, 34]
      """
      @spec window_reduce(
              tensor,
              operand,
              Buffer.shape(),
              Kernel.t() | {module, atom},
              window_options
            ) :: result | :ok
      def window_reduce(buffer, initial, window, kernel, opts \\ []),
        do:
          Into.run(
            :window_reduce,
            [buffer: buffer, initial: initial],
            opts,
            &Windows.window_reduce(buffer, initial, window, kernel, &1, &2)
          )

      for {name, which, example} <- [
            {:window_scatter_max, "greatest", "[0, 10, 10, 0]"},
            {:window_scatter_min, "least", "[10, 0, 0, 10]"}
          ] do
        @doc """
        Returns `{:ok, buffer}` of the shape of `tensor` with `initial`, a number or a buffer of one element, in each element, to which the elements of `source` are
        added: each one where the #{which} element of its window is, the last one of several. A window whose first element is NaN selects that one, and other windows no NaN.
        Padding takes part as `initial`; what is added to it is lost. The type is the merged one of `source` and `initial`.

        Options are `:strides` and `:padding`; see `t:window_options/0`. `:invalid_argument` for a source that has not one element for each window.

            iex> x = ExCubecl.buffer!([1, 2, 2, 1], [4], :s32)
            iex> source = ExCubecl.buffer!([10, 10], [2], :s32)
            iex> ExCubecl.to_list!(ExCubecl.Ops.#{name}!(x, source, 0, [2], strides: 2))
            #{example}
        """
        @spec unquote(name)(tensor, tensor, operand, Buffer.shape(), keyword) :: result | :ok
        def unquote(name)(tensor, source, initial, window, opts \\ []) do
          operands = [tensor: tensor, source: source, initial: initial]

          Into.run(
            unquote(name),
            operands,
            opts,
            &WindowScatter.run(unquote(name), tensor, source, initial, window, &1, &2)
          )
        end
      end

      @doc """
      Returns `{:ok, buffer}` with the convolution of an input and a kernel of as many axes, in the order batch, channels and those in space, and output
      channels, channels and those in space: each output element is the sum of the products of the kernel of its channel and a window of the input.

      ## Options

        * `:strides`, `:padding` - as for windows, for the axes in space; see `t:window_options/0`. Padding is 0
        * `:input_dilation`, `:kernel_dilation` - the distance of neighbouring elements of the input, with zeros between them, and of the kernel: a number or a
          list, 1 by default
        * `:feature_group_size` - the number of groups into which the channels and the output channels are divided: each output channel sees the channels of its group
        * `:batch_group_size` - the number of groups into which the batch and the output channels are divided: the result has the batch divided by it
        * `:input_permutation`, `:kernel_permutation` - which axis of the operand is the batch or the output channels, which one the channels, and so on
        * `:output_permutation` - which axis of the result is the batch, which one the channels, and so on

      The type is the merged one, or `:f32` for two of integers, whose sums are exact in 64 bits; those of `:f16` and `:bf16` are calculated with `:f32` and rounded
      once. Errors: `:shape_mismatch` for ranks and channels that do not match, `:invalid_argument` for a kernel that is longer than the padded
      input, groups that do not divide, and other wrong options.

          iex> x = ExCubecl.buffer!([1, 2, 3, 4], [1, 1, 4], :f32)
          iex> k = ExCubecl.buffer!([1, 10], [1, 1, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.conv!(x, k))
          [[[21.0, 32.0, 43.0]]]
          iex> ExCubecl.to_list!(ExCubecl.Ops.conv!(x, k, strides: 2, padding: [{1, 0}]))
          [[[10.0, 32.0]]]
      """
      @spec conv(tensor, tensor, keyword) :: result | :ok
      def conv(input, kernel, opts \\ []),
        do:
          Into.run(
            :conv,
            [input: input, kernel: kernel],
            opts,
            &Convolution.run(input, kernel, &1, &2)
          )
    end
  end
end
