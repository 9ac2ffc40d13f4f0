defmodule ExCubecl.Matrices do
  @moduledoc false
  # Random matrices for the tests of linear algebra, and the plain arithmetic that checks results: matrices are lists of rows.

  alias ExCubecl.Buffer

  @doc "A buffer of random matrices."
  def random(shape, dtype), do: ExCubecl.buffer!(elements(Enum.product(shape)), shape, dtype)

  defp elements(count), do: for(_ <- 1..count//1, do: Enum.random(-64..64) / 16)

  @doc "Random matrices that are symmetric, and positive definite with `diagonal` large enough."
  def symmetric(batch, n, dtype, diagonal \\ 0) do
    matrices =
      for _ <- 1..Enum.product(batch)//1 do
        rows = n |> List.duplicate(n) |> Enum.map(&elements/1)

        for {row, column, i} <- Enum.zip([rows, transpose(rows), 0..(n - 1)//1]) do
          for {a, b, j} <- Enum.zip([row, column, 0..(n - 1)//1]),
              do: a + b + if(i == j, do: diagonal, else: 0)
        end
      end

    ExCubecl.buffer!(List.flatten(matrices), batch ++ [n, n], dtype)
  end

  @doc "The matrices of a buffer over its leading axes, as 64-bit floats."
  def matrices(buffer) do
    {batch, [m, n]} = Enum.split(buffer.shape, -2)
    count = Enum.product(batch)

    buffer
    |> Buffer.to_flat_list!()
    |> Enum.map(&(&1 * 1.0))
    |> parts(n, count * m)
    |> parts(m, count)
  end

  # A list as so many lists of a length.
  defp parts(_list, 0, count), do: List.duplicate([], count)
  defp parts(list, length, _count), do: Enum.chunk_every(list, length)

  def transpose(rows), do: Enum.zip_with(rows, & &1)

  def product(a, b) do
    columns = transpose(b)
    for row <- a, do: for(column <- columns, do: dot(row, column, 0.0))
  end

  # The compiler makes instructions for floats of this, because of the guard.
  defp dot([x | a], [y | b], sum) when is_float(x) and is_float(y) and is_float(sum),
    do: dot(a, b, sum + x * y)

  defp dot([], [], sum), do: sum

  def identity(n),
    do: for(i <- 0..(n - 1)//1, do: for(j <- 0..(n - 1)//1, do: if(i == j, do: 1.0, else: 0.0)))

  @doc "The largest difference of two matrices, relative to the largest element."
  def distance(a, b) do
    [a, b] = [List.flatten(a), List.flatten(b)]
    true = length(a) == length(b)
    largest = Enum.reduce(a ++ b, 1.0e-300, &max(abs(&1), &2))
    Enum.reduce(Enum.zip(a, b), 0.0, fn {x, y}, most -> max(abs(x - y), most) end) / largest
  end

  @doc "Whether all elements below the diagonal are 0, or above it."
  def triangle?(rows, :upper), do: triangle?(transpose(rows), :lower)

  def triangle?(rows, :lower),
    do:
      Enum.all?(Enum.with_index(rows), fn {row, i} ->
        Enum.all?(Enum.drop(row, i + 1), &(&1 == 0))
      end)
end
