defmodule ExCubecl.LinAlg.Systems do
  @moduledoc false
  # Systems of linear equations, inverses and determinants.

  alias ExCubecl.Buffer
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Host, Operands}
  alias ExCubecl.LinAlg.Host.{LU, Rows, Triangular}
  alias ExCubecl.Ops.Shapes

  @name :triangular_solve

  def triangular(a, b, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:lower, :left_side, :transform_a]),
         {:ok, lower?} <- boolean(:lower, Keyword.get(opts, :lower, true)),
         {:ok, left?} <- boolean(:left_side, Keyword.get(opts, :left_side, true)),
         {:ok, transpose?} <- transform(Keyword.get(opts, :transform_a, :none)),
         {:ok, a} <- Operands.square(@name, a),
         {:ok, b} <- Operands.right_sides(a, b, left?) do
      # x a = b is a' x' = b'.
      triangular_on_host(a, b, %{lower?: lower?, left?: left?, transpose?: transpose? == left?})
    end
  end

  defp triangular_on_host(a, b, how) do
    triangle = if how.lower? == how.transpose?, do: :upper, else: :lower

    solve = fn rows, sides ->
      rows = if how.transpose?, do: Rows.transpose(rows, a.n), else: rows

      if how.left?,
        do: columns(sides, b.n, &Triangular.solve(rows, &1, triangle)),
        else: [Triangular.solve(rows, sides, triangle)]
    end

    one(a, b, solve)
  end

  # Applies a function to the columns of rows.
  defp columns(rows, n, fun),
    do: [rows |> Rows.transpose(n) |> fun.() |> Rows.transpose(length(rows))]

  defp one(a, b, solve) do
    with {:ok, [x]} <- Host.run([a, b], [[b.m, b.n]], b.dtype, solve),
         do: Buffer.reshape(x, b.buffer.shape)
  end

  defp boolean(_name, value) when is_boolean(value), do: {:ok, value}
  defp boolean(name, other), do: Shapes.invalid(@name, name, other, "true or false")

  defp transform(:none), do: {:ok, false}
  defp transform(:transpose), do: {:ok, true}
  defp transform(other), do: Shapes.invalid(@name, :transform_a, other, ":none or :transpose")

  def solve(a, b) do
    with {:ok, a} <- Operands.square(:solve, a),
         {:ok, b} <- Operands.right_sides(a, b) do
      one(a, b, fn rows, sides ->
        factors = LU.factor(rows)
        columns(sides, b.n, &LU.solve(factors, &1))
      end)
    end
  end

  def inverse(a) do
    with {:ok, %{n: n} = a} <- Operands.square(:inverse, a),
         {:ok, [inverse]} <-
           Host.run([a], [[n, n]], a.dtype, fn rows ->
             factors = LU.factor(rows)
             columns(Rows.identity(n), n, &LU.solve(factors, &1))
           end),
         do: {:ok, inverse}
  end

  def determinant(a) do
    with {:ok, a} <- Operands.square(:determinant, a),
         {:ok, [determinant]} <-
           Host.run([a], [[]], a.dtype, &[[[LU.determinant(LU.factor(&1))]]]),
         do: {:ok, determinant}
  end
end
