defmodule ExCubecl.Ops.Interface.Fourier do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for Fourier transforms. Complex numbers are pairs of real ones: a last axis of length 2: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer
  alias ExCubecl.Ops.{Fourier, Into}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, buffer}` with the discrete Fourier transforms along `axis:`, by default the last one.

      Complex numbers are pairs of `:f32` or `:f64` numbers, the real and the imaginary part, along a last axis of length 2, which `axis:` does not count: n complex numbers have
      the shape `[n, 2]`. With `real: true`, the buffer has real numbers, of any type, and no such axis. The result is of complex numbers:
      of `:f64` if the buffer is of `:f64`, else of `:f32`.

      ## Options

        * `:axis` - the axis, -1 by default
        * `:length` - the number of elements to transform; an axis is shortened, or filled with zeros, to this length. Any length is
          accepted; lengths whose prime factors are 2, 3, 5 and 7 take one pass for each factor of up to 8, others about three times as many
        * `:real` - whether the buffer has real numbers; `false` by default

      Errors: `:invalid_argument` for a shape without pairs, for an axis that does not exist and for a length that is not positive.

          iex> x = ExCubecl.buffer!([1, 2, 3, 4], [4], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.fft!(x, real: true))
          [[10.0, 0.0], [-2.0, 2.0], [-2.0, 0.0], [-2.0, -2.0]]
      """
      @spec fft(tensor, axis: integer, length: pos_integer, real: boolean, into: Buffer.t()) ::
              result | :ok
      def fft(buffer, opts \\ []),
        do:
          Into.run(:fft, [buffer: buffer], opts, fn opts, into ->
            Fourier.run(:fft, buffer, opts, into)
          end)

      @doc """
      Returns `{:ok, buffer}` with the inverse transforms; arguments and result are as for `fft/2`.

          iex> x = ExCubecl.buffer!([[10, 0], [-2, 2], [-2, 0], [-2, -2]], [4, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.abs!(ExCubecl.Ops.ifft!(x)))
          [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]
      """
      @spec ifft(tensor, axis: integer, length: pos_integer, real: boolean, into: Buffer.t()) ::
              result | :ok
      def ifft(buffer, opts \\ []),
        do:
          Into.run(:ifft, [buffer: buffer], opts, fn opts, into ->
            Fourier.run(:ifft, buffer, opts, into)
          end)

      @doc """
      Returns `{:ok, buffer}` with the transforms of real numbers along `axis:`. Of n values, those from `div(n, 2) + 1` on are the conjugates of others
      and are left out. Options and the pairs of the result are as for `fft/2`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.rfft!(ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)))
          [[10.0, 0.0], [-2.0, 2.0], [-2.0, 0.0]]
      """
      @spec rfft(tensor, axis: integer, length: pos_integer, into: Buffer.t()) :: result | :ok
      def rfft(buffer, opts \\ []),
        do:
          Into.run(:rfft, [buffer: buffer], opts, fn opts, into ->
            Fourier.rfft(buffer, opts, into)
          end)

      @doc """
      Returns `{:ok, buffer}` with real numbers, of which `rfft/2` gives these complex numbers. `length:` is their number along `axis:`, by default
      `2 * (m - 1)` for m complex numbers.

          iex> x = ExCubecl.buffer!([[10, 0], [-2, 2], [-2, 0]], [3, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.irfft!(x))
          [1.0, 2.0, 3.0, 4.0]
      """
      @spec irfft(tensor, axis: integer, length: pos_integer, into: Buffer.t()) :: result | :ok
      def irfft(buffer, opts \\ []),
        do:
          Into.run(:irfft, [buffer: buffer], opts, fn opts, into ->
            Fourier.irfft(buffer, opts, into)
          end)

      @doc """
      Returns `{:ok, buffer}` with the transforms along two axes, `axes:`, by default the last two. `lengths:` are their lengths, as `length:` of `fft/2`.

          iex> x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.fft2!(x, real: true))
          [[[10.0, 0.0], [-2.0, 0.0]], [[-4.0, 0.0], [0.0, 0.0]]]
      """
      @spec fft2(tensor, axes: [integer], lengths: [pos_integer], real: boolean, into: Buffer.t()) ::
              result | :ok
      def fft2(buffer, opts \\ []),
        do:
          Into.run(:fft2, [buffer: buffer], opts, fn opts, into ->
            Fourier.run_2d(:fft2, buffer, opts, into)
          end)

      @doc """
      Returns `{:ok, buffer}` with the inverse transforms along two axes; arguments and result are as for `fft2/2`.

          iex> x = ExCubecl.buffer!([1, 2, 3, 4], [2, 2], :f32)
          iex> pairs = ExCubecl.Ops.ifft2!(ExCubecl.Ops.fft2!(x, real: true))
          iex> ExCubecl.to_list!(ExCubecl.Ops.abs!(pairs))
          [[[1.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]]
      """
      @spec ifft2(tensor, axes: [integer], lengths: [pos_integer], real: boolean, into: Buffer.t()) ::
              result | :ok
      def ifft2(buffer, opts \\ []),
        do:
          Into.run(:ifft2, [buffer: buffer], opts, fn opts, into ->
            Fourier.run_2d(:ifft2, buffer, opts, into)
          end)
    end
  end
end
