defmodule ExCubecl.Ops.Interface.ElementWise do
  @moduledoc false
  # The functions of `ExCubecl.Ops` for element-wise operations: documentation, specs and the modules that implement them.

  alias ExCubecl.Buffer
  alias ExCubecl.Ops.{Conversion, ElementWise}
  alias ExCubecl.Ops.Interface.Examples

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
      for {name, what} <- ElementWise.binary() do
        @doc """
        Returns `{:ok, buffer}` with #{what}, of two operands, at least one of which is a buffer.

        `as:` is a type to which the operands are converted before the operation, as by `cast` in a kernel, and `dtype:` one to which the result is.
        `into:` is a buffer for the result, which may be an operand; the call then returns `:ok`. `tag:` and `allocation:` are as for
        `ExCubecl.Buffer.new/4`.

        #{Examples.binary(name)}
        """
        @spec unquote(name)(operand, operand, keyword) :: result | :ok
        def unquote(name)(a, b, opts \\ []), do: ElementWise.apply(unquote(name), [a, b], opts)
      end

      for {name, what} <- ElementWise.unary() do
        @doc """
        Returns `{:ok, buffer}` with #{what}. Options are those of `add/3`.

        #{Examples.unary(name)}
        """
        @spec unquote(name)(Buffer.t(), keyword) :: result | :ok
        def unquote(name)(x, opts \\ []), do: ElementWise.apply(unquote(name), [x], opts)
      end

      @doc """
      Returns `{:ok, buffer}` with the element of `a` where `pred` is not 0, and the element of `b` elsewhere. Options are those of `add/3`.

          iex> pred = ExCubecl.buffer!([1, 0], [2], :u8)
          iex> ExCubecl.to_list!(ExCubecl.Ops.select!(pred, 5, 7))
          [5, 7]
      """
      @spec select(Buffer.t(), operand, operand, keyword) :: result | :ok
      def select(pred, a, b, opts \\ []), do: ElementWise.apply(:select, [pred, a, b], opts)

      @doc """
      Returns `{:ok, buffer}` with the elements of `x`, at least `low` and at most `high`. Options are those of `add/3`.

          iex> ExCubecl.to_list!(ExCubecl.Ops.clip!(ExCubecl.buffer!([-5, 3, 9], [3], :s32), 0, 5))
          [0, 3, 5]
      """
      @spec clip(tensor, operand, operand, keyword) :: result | :ok
      def clip(x, low, high, opts \\ []), do: ElementWise.apply(:clip, [x, low, high], opts)

      @doc """
      Returns `{:ok, buffer}` with the elements converted to another type, as `Nx.as_type/2` does: a float is truncated and, if an integer type does not have it, keeps the low bits
      of its integer; infinities become the limits of the type, NaN becomes 0. `ExCubecl.Buffer.convert/3` and `cast` in kernels clamp floats to the limits instead.
      Options are those of `add/3`. Errors: `:unsupported_dtype`.

          iex> x = ExCubecl.buffer!([-1.5, 300.7, :infinity, :nan], [4], :f32)
          iex> ExCubecl.to_list!(ExCubecl.Ops.as_type!(x, :u8))
          [255, 44, 255, 0]
      """
      @spec as_type(tensor, ExCubecl.DType.t(), keyword) :: result | :ok
      def as_type(x, dtype, opts \\ []), do: Conversion.as_type(x, dtype, opts)
    end
  end
end
