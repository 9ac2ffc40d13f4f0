defmodule ExCubecl.LinAlg.Host.Rows do
  @moduledoc false
  # Matrices as lists of rows, or of columns, of 64-bit floats.

  @doc "The matrix with rows and columns exchanged; `n` is the length of a row."
  def transpose([], n), do: List.duplicate([], n)
  def transpose(rows, _n), do: Enum.zip_with(rows, & &1)

  @doc "The symmetric matrix with the same lower triangle."
  def symmetric(rows) do
    columns = transpose(rows, length(rows))

    for {row, column, i} <- Enum.zip([rows, columns, 0..(length(rows) - 1)//1]),
        do: Enum.take(row, i) ++ Enum.drop(column, i)
  end

  def reverse(rows), do: rows |> Enum.map(&Enum.reverse/1) |> Enum.reverse()

  def zeros(n), do: List.duplicate(0.0, n)

  def identity(n), do: for(i <- 0..(n - 1)//1, do: unit(n, i))

  def unit(n, i), do: zeros(i) ++ [1.0 | zeros(n - i - 1)]

  @doc "a - factor * b, as long as b."
  def subtract(a, factor, _b) when factor == 0, do: a
  def subtract(a, factor, b), do: subtracted(a, factor, b)

  defp subtracted([a | rest], factor, [b | more]),
    do: [a - factor * b | subtracted(rest, factor, more)]

  defp subtracted(_, _factor, _), do: []

  def dot(a, b), do: dot(a, b, 0.0)
  defp dot([a | rest], [b | more], sum), do: dot(rest, more, sum + a * b)
  defp dot(_, _, sum), do: sum

  @doc "The lists without their first 0, 1, 2, ... elements: what is below the diagonal of the columns of a matrix, or right of it in its rows."
  def suffixes(lists),
    do: lists |> Enum.with_index() |> Enum.map(fn {l, i} -> Enum.drop(l, i) end)

  @doc """
  The reflector I - tau v v' that takes x to `{beta, 0, 0, ...}`: `{v, tau, beta}`. If all but the first element are 0, it is the identity.
  """
  def reflector([x | rest]) do
    largest = Enum.reduce(rest, 0.0, &max(abs(&1), &2))

    if largest == 0 do
      {[1.0 | rest], 0.0, x}
    else
      scale = max(largest, abs(x))
      sum = Enum.reduce([x | rest], 0.0, fn x, sum -> sum + x / scale * (x / scale) end)
      norm = scale * :math.sqrt(sum)
      beta = if x > 0, do: -norm, else: norm
      by = x - beta
      {[1.0 | Enum.map(rest, &(&1 / by))], (beta - x) / beta, beta}
    end
  end

  @doc "The product of a reflector and a vector."
  def reflect(x, {_v, tau, _beta}) when tau == 0, do: x
  def reflect(x, {v, tau, _beta}), do: subtract(x, tau * dot(v, x), v)
end
