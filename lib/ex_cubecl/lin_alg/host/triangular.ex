defmodule ExCubecl.LinAlg.Host.Triangular do
  @moduledoc false
  # Systems of a triangular matrix, by substitution.

  alias ExCubecl.LinAlg.Host.Rows

  @doc """
  The columns x with A x = b for the columns `b`. `rows` are those of A, of which the lower triangle is read, or the upper one. Throws
  `{:zero, k}` for a zero on the diagonal.
  """
  def solve(rows, b, :lower) do
    columns = rows |> Rows.transpose(length(rows)) |> Rows.suffixes()
    Enum.map(b, &forward(columns, &1, 0))
  end

  # In the reverse order, it is a lower triangle.
  def solve(rows, b, :upper) do
    n = length(rows)

    columns = rows |> Rows.transpose(n) |> Rows.reverse() |> Rows.suffixes()

    Enum.map(b, fn b ->
      try do
        columns |> forward(Enum.reverse(b), 0) |> Enum.reverse()
      catch
        {:zero, k} -> throw({:zero, n - 1 - k})
      end
    end)
  end

  defp forward([[diagonal | column] | columns], [b | rest], k) do
    if diagonal == 0, do: throw({:zero, k})
    x = b / diagonal
    [x | forward(columns, Rows.subtract(rest, x, column), k + 1)]
  end

  defp forward([], [], _k), do: []
end
