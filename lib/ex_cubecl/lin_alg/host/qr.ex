defmodule ExCubecl.LinAlg.Host.QR do
  @moduledoc false
  # The QR decomposition, by Householder reflections.

  alias ExCubecl.LinAlg.Host.Rows

  @doc "`{q, r}`, both as rows, of a matrix of m rows of n elements. `k` is the number of columns of Q: m, or the smaller of m and n."
  def factor(rows, {m, n}, k) do
    {reflectors, r} = rows |> Rows.transpose(n) |> eliminate(m)

    columns = columns(reflectors, m, k)
    padding = List.duplicate(Rows.zeros(n), k - length(r))

    r = for {row, i} <- Enum.with_index(r), do: Rows.zeros(i) ++ row
    {Rows.transpose(columns, m), r ++ padding}
  end

  # The reflectors, and the rows of R from the diagonal on.
  defp eliminate(columns, m) when columns == [] or m == 0, do: {[], []}

  defp eliminate([column | columns], m) do
    {_, _, beta} = reflector = Rows.reflector(column)
    columns = Enum.map(columns, &Rows.reflect(&1, reflector))
    {reflectors, r} = columns |> Enum.map(&tl/1) |> eliminate(m - 1)
    {[reflector | reflectors], [[beta | Enum.map(columns, &hd/1)] | r]}
  end

  # The first k columns of the product of the reflectors, each of which leaves the rows before it as they are.
  defp columns([], m, k), do: Rows.identity(m) |> Enum.take(k)

  defp columns([reflector | reflectors], m, k) do
    inner = reflectors |> columns(m - 1, k - 1) |> Enum.map(&[0.0 | &1])
    Enum.map([Rows.unit(m, 0) | inner], &Rows.reflect(&1, reflector))
  end
end
