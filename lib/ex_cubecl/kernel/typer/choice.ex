defmodule ExCubecl.Kernel.Typer.Choice do
  @moduledoc false
  # The tree of a choice between two values by a condition.
  #
  # Mesa's drivers rewrite a choice between the constants -1.0 and -0.0 to the negation of a converted condition, and one between 1.0 and 0.0
  # to the converted condition. They compare constants as numbers, so that 0.0 is taken for -0.0 and the reverse, and the result has the
  # other zero. They do not tell floats from integers: integers with these bits are exchanged too. If one of two constants is -1.0
  # or -0.0, the other is therefore written as an operation, whose operand the lowering hides from compilers.

  import Bitwise

  alias ExCubecl.DType

  @floats [:f16, :bf16, :f32, :f64]
  # The bits of -1.0 and of -0.0, by the bytes of a type.
  @words %{
    2 => [0xBC00, 0x8000],
    4 => [0xBF80_0000, 0x8000_0000],
    8 => [0xBFF0_0000_0000_0000, 0x8000_0000_0000_0000]
  }

  @doc "The value `then` if the condition is true, else `other`."
  def tree({:bool, true}, then, _other), do: then
  def tree({:bool, false}, _then, other), do: other

  def tree(condition, {:const, type, a} = then, {:const, type, b} = other) do
    cond do
      exchanged?(type, a) -> {:select, condition, then, hidden(type, b)}
      exchanged?(type, b) -> {:select, condition, hidden(type, a), other}
      true -> {:select, condition, then, other}
    end
  end

  def tree(condition, then, other), do: {:select, condition, then, other}

  defp exchanged?(type, n) when type in @floats,
    do: (n == 0 or n == -1) and match?(<<1::1, _::63>>, <<n::float>>)

  defp exchanged?(type, n) do
    size = DType.size!(type)
    (n &&& (1 <<< (8 * size)) - 1) in Map.get(@words, size, [])
  end

  defp hidden(type, n) when type in @floats, do: {:unary, :neg, {:const, type, -n}}

  defp hidden(type, n) when type in [:u8, :u16, :u32, :u64],
    do: {:unary, :bnot, {:const, type, (1 <<< (8 * DType.size!(type))) - 1 - n}}

  defp hidden(type, n), do: {:unary, :bnot, {:const, type, -n - 1}}
end
