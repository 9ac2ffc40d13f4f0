defmodule ExCubecl.Ops.Cost do
  @moduledoc false
  # Estimates the time of an element-wise kernel.

  # A kernel with more expressions, or with one of these functions, takes longer than its accesses to memory.
  @most 24
  @costly [:exp, :log, :log1p, :sin, :cos, :tan, :tanh, :sinh, :cosh, :asin, :acos, :atan, :erf] ++
            [:pow, :atan2, :rem]

  @doc "Whether a kernel takes no longer than its accesses to memory, so that a loop over it is worth unrolling."
  @spec cheap?(ExCubecl.Kernel.t()) :: boolean
  def cheap?(%{parsed: parsed}), do: is_integer(cost([parsed.statements, parsed.result], 0))

  # The number of expressions, or `:costly`.
  defp cost(_code, :costly), do: :costly
  defp cost(_code, sum) when sum > @most, do: :costly
  defp cost({:call, _, function, _}, _sum) when function in @costly, do: :costly
  defp cost({:for, _, _, _, _, _}, _sum), do: :costly
  defp cost(%{statements: statements, result: result}, sum), do: cost([statements, result], sum)
  defp cost(list, sum) when is_list(list), do: Enum.reduce(list, sum, &cost/2)
  defp cost(code, sum) when is_tuple(code), do: code |> Tuple.to_list() |> cost(sum + 1)
  defp cost(_code, sum), do: sum
end
