defmodule ExCubecl.LinAlg.Host.Cholesky do
  @moduledoc false
  # The Cholesky decomposition, of the lower triangle.

  alias ExCubecl.LinAlg.Host.Rows

  @doc "The rows of L with A = L L'. Throws `{:not_positive, k, pivot}`."
  def factor(rows) do
    n = length(rows)

    rows
    |> Rows.transpose(n)
    |> Rows.suffixes()
    |> eliminate(0)
    |> Enum.with_index()
    |> Enum.map(fn {column, k} -> Rows.zeros(k) ++ column end)
    |> Rows.transpose(n)
  end

  # The columns from the diagonal on.
  defp eliminate([], _k), do: []

  defp eliminate([[pivot | column] | columns], k) do
    if not (pivot > 0), do: throw({:not_positive, k, pivot})
    root = :math.sqrt(pivot)
    factors = Enum.map(column, &(&1 / root))
    [[root | factors] | eliminate(update(columns, factors), k + 1)]
  end

  defp update([column | columns], [factor | rest] = factors),
    do: [Rows.subtract(column, factor, factors) | update(columns, rest)]

  defp update([], []), do: []
end
