defmodule ExCubecl.Ops.Interface.Normalization do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for operations on rows along an axis, each calculated by one kernel: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer
  alias ExCubecl.Ops.{Into, Normalization}

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      @doc """
      Returns `{:ok, buffer}` with the exponentials of the elements, divided by their sum along `axis:`, the last axis by default: `exp(x) / sum(exp(x))`, calculated such that
      it does not overflow.

      The result has the type of `x`, or is of `:f32` for integers; `:f16` and `:bf16` are calculated with `:f32`. Rows with NaN or an infinity, and rows of
      negative infinities only, contain NaN, as in NumPy and PyTorch. Rows of up to 65,536 elements take one launch, few longer ones several.

          iex> x = ExCubecl.buffer!([[0, 0], [1000, 0]], [2, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.softmax!(x))
          [[0.5, 0.5], [1.0, 0.0]]
      """
      @spec softmax(tensor, axis: integer, into: Buffer.t()) :: result | :ok
      def softmax(x, opts \\ []),
        do: Into.run(:softmax, [x: x], opts, &Normalization.exponential(:softmax, x, &1, &2))

      @doc """
      Returns `{:ok, buffer}` with the logarithms of `softmax/2`, calculated such that small values do not become 0. Types and options are those of `softmax/2`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.log_softmax!(ExCubecl.buffer!([[0, 1000]], [1, 2], :f32)))
          [[-1000.0, 0.0]]
      """
      @spec log_softmax(tensor, axis: integer, into: Buffer.t()) :: result | :ok
      def log_softmax(x, opts \\ []),
        do:
          Into.run(
            :log_softmax,
            [x: x],
            opts,
            &Normalization.exponential(:log_softmax, x, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the elements normalized along `axis:`, the last axis by default: `(x - mean) / sqrt(variance + epsilon) * scale + bias`. Types are those of
      `softmax/2`.

      `scale:` (1) and `bias:` (0) are vectors as long as the axis, or numbers; `epsilon:` is 1.0e-5 by default. Errors: `:shape_mismatch` for another vector.

          iex> x = ExCubecl.buffer!([[1, 3], [10, 30]], [2, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.layer_norm!(x, epsilon: 0, bias: ExCubecl.buffer!([0, 5], [2], :f32)))
          [[-1.0, 6.0], [-1.0, 6.0]]
      """
      @spec layer_norm(tensor, keyword) :: result | :ok
      def layer_norm(x, opts \\ []),
        do:
          Into.run(
            :layer_norm,
            Normalization.operands(x, opts),
            opts,
            &Normalization.normalized(:layer_norm, x, &1, &2)
          )

      @doc """
      Returns `{:ok, buffer}` with the elements divided by their root mean square along `axis:`, the last axis by default: `x / sqrt(mean(x * x) + epsilon) * scale`. Options
      and errors are those of `layer_norm/2`, without `bias:`.

          iex> x = ExCubecl.buffer!([[3, 3], [-2, 2]], [2, 2], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.rms_norm!(x, epsilon: 0))
          [[1.0, 1.0], [-1.0, 1.0]]
      """
      @spec rms_norm(tensor, keyword) :: result | :ok
      def rms_norm(x, opts \\ []),
        do:
          Into.run(
            :rms_norm,
            Normalization.operands(x, opts),
            opts,
            &Normalization.normalized(:rms_norm, x, &1, &2)
          )
    end
  end
end
