defmodule ExCubecl.Ops.Conversion do
  @moduledoc false
  # Conversions by the rules of Nx, which differ from those of `ExCubecl.Buffer.convert/3` for floats that an integer type does not have.

  alias ExCubecl.{DType, Kernel}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{Lowering, Operands, Strided}

  require Kernel
  require Types

  @same Kernel.kernel(fn x -> x end)

  # A magnitude modulo 2^32 or 2^64, which is exact; `low` and `high` are the bits of the limits of the integer type.
  @modulo (for wide <- [:f32, :f64], {word, power} <- [u32: 32, u64: 64], into: %{} do
             size = :math.pow(2, power)

             kernel =
               quote do
                 Kernel.kernel(fn x, low, high ->
                   y = trunc(cast(x, unquote(wide)))
                   size = abs(y)
                   rest = size - floor(size * unquote(1 / size)) * unquote(size)
                   bits = cast(rest, unquote(word))
                   minus? = y < 0

                   limit =
                     if minus?, do: cast(low, unquote(word)), else: cast(high, unquote(word))

                   cond do
                     infinite?(y) -> limit
                     nan?(y) -> 0
                     true -> if(minus?, do: 0 - bits, else: bits)
                   end
                 end)
               end

             {{wide, word}, kernel |> Code.eval_quoted([], __ENV__) |> elem(0)}
           end)

  @doc "The elements of a tensor in another type."
  def as_type(x, dtype, opts) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, view} <- Operands.view(x) do
      {kernel, limits} = kernel(view.dtype, dtype)
      # Other terms than options are left to the checks of the lowering.
      opts = if Keyword.keyword?(opts), do: [dtype: dtype] ++ opts, else: opts
      Lowering.map(Strided.named(kernel, :as_type), [view | limits], opts)
    end
  end

  @doc "The kernel that converts elements of a type, and the numbers that follow its operand."
  @spec kernel(DType.t(), DType.t()) :: {Kernel.t(), [integer]}
  def kernel(from, to) when Types.floating?(from) and not Types.floating?(to) do
    wide = if from == :f64, do: :f64, else: :f32
    word = if DType.size!(to) == 8, do: :u64, else: :u32
    limits = for limit <- [:neg_infinity, :infinity], do: Types.number_as(limit, to)
    {@modulo[{wide, word}], Enum.map(limits, &Types.number_as(&1, word))}
  end

  def kernel(_from, _to), do: {@same, []}
end
