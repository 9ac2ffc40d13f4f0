defmodule ExCubecl.LinAlg.Device.Systems do
  @moduledoc false
  # Systems of equations on the device; buffers are of [batch, rows, columns].

  alias ExCubecl.Buffer
  alias ExCubecl.LinAlg.Device
  alias ExCubecl.LinAlg.Device.{Operands, Unblocked}

  @doc """
  The solutions x of a x = b. Of `how`, `lower?` tells which triangle of `a` is used, after which it is transposed with `transpose?`; without `left?`, b is, and
  the solutions are. `a` and `sides` describe both for errors.
  """
  def triangular(%{shape: [count, n, _]} = buffer, b, how, described) do
    lower? = how.lower? != how.transpose?
    triangle = if how.transpose?, do: {0, 1, n, n * n}, else: {0, n, 1, n * n}
    {m, sides} = sides(b, how.left?)
    {triangle, sides} = if(lower?, do: {triangle, sides}, else: reversed(triangle, sides, n))
    in_triangle({buffer, triangle}, {b, sides}, {count, n, m}, described)
  end

  defp in_triangle(triangle, sides, {_, n, _} = size, {a, b}) do
    if n <= Unblocked.most(:triangular_solve) do
      with {:ok, x, diagonals, found, sides_found} <-
             Unblocked.solve_triangle(triangle, sides, size),
           :ok <- Operands.none(found, a),
           :ok <- Operands.none(sides_found, b),
           :ok <- Operands.invertible(diagonals, a),
           do: {:ok, x}
    else
      triangle_in_blocks(triangle, sides, size, {a, b})
    end
  end

  defp triangle_in_blocks({matrices, _} = triangle, {columns, sides}, size, {a, b}) do
    with :ok <- Operands.finite(matrices, a),
         :ok <- Operands.finite(columns, b),
         {:ok, diagonals} <- Operands.diagonal(matrices, a),
         :ok <- Operands.invertible(diagonals, a),
         {:ok, x} <- Buffer.duplicate(columns),
         :ok <- Device.solve_lower(triangle, {x, sides}, size, 0),
         do: {:ok, x}
  end

  @doc "The solutions of systems whose matrices have the factors of `ExCubecl.LinAlg.Device.lu/2`; `sides` describes the right-hand sides `b` for errors."
  def solve(%{factors: %{shape: [_, n, _]}} = lu, b, a, sides) do
    with :ok <- Operands.invertible(lu.diagonal, a), do: solved(lu, b, n, sides)
  end

  defp solved(lu, b, n, sides) do
    if n <= Unblocked.most(:lu) do
      with {:ok, x, found} <- Unblocked.solve(lu, b, Device.orders(lu)),
           :ok <- Operands.none(found, sides),
           do: {:ok, x}
    else
      with :ok <- Operands.finite(b, sides),
           {:ok, x} <- Buffer.duplicate(b),
           :ok <- in_blocks(lu, x, n),
           do: {:ok, x}
    end
  end

  defp in_blocks(%{factors: factors, pivots: pivots}, %{shape: [count, n, m]} = x, n) do
    {_, sides} = sides(x, true)
    size = {count, n, m}
    triangle = {0, n, 1, n * n}
    {upper, last} = reversed(triangle, sides, n)

    with :ok <- Device.exchange_rows(pivots, x),
         :ok <- Device.solve_lower({factors, triangle}, {x, sides}, size, 1),
         do: Device.solve_lower({factors, upper}, {x, last}, size, 0)
  end

  # The number of columns, and where they are: those of x, or its rows.
  defp sides(%{shape: [_, n, m]}, true), do: {m, {0, m, 1, n * m}}
  defp sides(%{shape: [_, m, n]}, false), do: {m, {0, 1, n, n * m}}

  # In the reverse order, an upper triangle is a lower one.
  defp reversed({0, row, column, batch}, {0, x_row, x_column, x_batch}, n) do
    last = n - 1
    {{last * (row + column), -row, -column, batch}, {last * x_row, -x_row, x_column, x_batch}}
  end
end
