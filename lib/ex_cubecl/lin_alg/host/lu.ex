defmodule ExCubecl.LinAlg.Host.LU do
  @moduledoc false
  # Gaussian elimination with partial pivoting.

  alias ExCubecl.LinAlg.Host.{Rows, Triangular}

  @doc """
  `{order, lower, upper}`: row i of L U is row `Enum.at(order, i)` of the matrix. `lower` and `upper` are rows. A zero pivot, which only a singular
  matrix has, leaves zeros.
  """
  def factor(rows) do
    n = length(rows)
    active = for {row, i} <- Enum.with_index(rows), do: {i, [], row}

    for {{origin, factors, row}, i} <- Enum.with_index(eliminate(active)) do
      {origin, Enum.reverse(factors) ++ [1.0 | Rows.zeros(n - i - 1)], Rows.zeros(i) ++ row}
    end
    |> unzip()
  end

  defp unzip(rows),
    do:
      {for({o, _, _} <- rows, do: o), for({_, l, _} <- rows, do: l),
       for({_, _, u} <- rows, do: u)}

  # Rows of `{index in the matrix, factors so far in reverse, the elements from the current column on}`.
  defp eliminate([]), do: []

  defp eliminate(rows) do
    {{_, _, [pivot | row]} = first, rest} = pivot(rows)

    rest =
      for {origin, factors, [x | active]} <- rest do
        factor = if pivot == 0, do: 0.0, else: x / pivot
        {origin, [factor | factors], Rows.subtract(active, factor, row)}
      end

    [first | eliminate(rest)]
  end

  # The row with the largest first element changes places with the first row.
  defp pivot([first | rest] = rows) do
    {origin, _, _} = best = Enum.max_by(rows, fn {_, _, [x | _]} -> abs(x) end)

    if origin == elem(first, 0),
      do: {first, rest},
      else: {best, Enum.map(rest, &if(elem(&1, 0) == origin, do: first, else: &1))}
  end

  @doc "The columns x with A x = b for the columns `b`. Throws `{:zero, k}` for a singular matrix."
  def solve({order, lower, upper}, b) do
    permuted =
      for column <- b do
        column = List.to_tuple(column)
        Enum.map(order, &elem(column, &1))
      end

    Triangular.solve(upper, Triangular.solve(lower, permuted, :lower), :upper)
  end

  @doc "The determinant: the product of the diagonal, negative if the order is an odd permutation."
  def determinant({order, _lower, upper}) do
    diagonal = for {row, i} <- Enum.with_index(upper), do: Enum.at(row, i)
    Enum.product([sign(order) | diagonal])
  end

  # Each cycle of an even length changes the sign.
  defp sign(order) do
    next = order |> Enum.with_index() |> Map.new(fn {to, from} -> {from, to} end)
    sign(next, 1.0)
  end

  defp sign(next, sign) when next == %{}, do: sign

  defp sign(next, sign) do
    {start, _} = Enum.min(next)
    {next, length} = cycle(next, start, 0)
    sign(next, if(rem(length, 2) == 0, do: -sign, else: sign))
  end

  defp cycle(next, at, length) do
    case Map.pop(next, at) do
      {nil, next} -> {next, length}
      {to, next} -> cycle(next, to, length + 1)
    end
  end
end
