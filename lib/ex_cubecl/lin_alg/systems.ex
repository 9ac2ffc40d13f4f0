defmodule ExCubecl.LinAlg.Systems do
  @moduledoc false
  # Systems of linear equations, inverses and determinants.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Device, Host, Operands}
  alias ExCubecl.LinAlg.Device.Triangles
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
      how = %{lower?: lower?, left?: left?, transpose?: transpose? == left?}

      on_device(a, b, :triangular_solve, &Device.Systems.triangular(&1, &2, how, {a, b})) ||
        triangular_on_host(a, b, how)
    end
  end

  # `nil` if the host is faster. The numbers of a and b are calculated with in the type of the results.
  defp on_device(a, b, algorithm, solve) do
    work = if algorithm == :lu, do: a.n * a.n, else: b.m * b.n
    a = %{a | dtype: b.dtype}

    with {:ok, matrices} <- Device.Operands.buffer(a, algorithm, Shape.size(a.batch) * work),
         {:ok, sides} <- Device.Operands.converted(b),
         {:ok, x} <- solve.(matrices, sides) do
      Device.Operands.result(x, b.buffer.shape, b.dtype)
    else
      :host -> nil
      error -> error
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
         {:ok, b} <- Operands.right_sides(a, b),
         do: general(a, b)
  end

  defp general(a, b) do
    on_device(a, b, :lu, fn matrices, sides ->
      with {:ok, lu} <- Device.lu(matrices, a),
           do: Device.Systems.solve(lu, sides, a, b)
    end) ||
      one(a, b, fn rows, sides ->
        factors = LU.factor(rows)
        columns(sides, b.n, &LU.solve(factors, &1))
      end)
  end

  # The solutions for the identity.
  def inverse(a) do
    with {:ok, %{buffer: %{shape: shape, device: device}} = a} <- Operands.square(:inverse, a),
         dtype = if(a.dtype == :f64, do: :f64, else: :f32),
         identities = :binary.copy(Triangles.identity(a.n, dtype), Shape.size(a.batch)),
         {:ok, identities} <- Buffer.new(identities, shape, dtype, device: device),
         do: general(a, %{a | buffer: identities})
  end

  def determinant(a) do
    with {:ok, a} <- Operands.square(:determinant, a) do
      case Device.Operands.buffer(a, :lu, Shape.size(a.batch) * a.n * a.n) do
        {:ok, buffer} -> determinant_on_device(a, buffer)
        :host -> determinant_on_host(a)
        error -> error
      end
    end
  end

  defp determinant_on_host(a) do
    with {:ok, [determinant]} <-
           Host.run([a], [[]], a.dtype, &[[[LU.determinant(LU.factor(&1))]]]),
         do: {:ok, determinant}
  end

  # The products of the pivots are 64-bit floats of the host: those of :f32 are soon too large or too small.
  defp determinant_on_device(a, buffer) do
    with {:ok, lu} <- Device.lu(buffer, a),
         {:ok, diagonals} <- Buffer.to_list(lu.diagonal),
         {:ok, products} <- products(Enum.zip(diagonals, Device.signs(lu)), a),
         {:ok, wide} <- Buffer.new(products, a.batch, :f64, device: buffer.device),
         do: if(a.dtype == :f64, do: {:ok, wide}, else: Buffer.convert(wide, a.dtype))
  end

  defp products(matrices, a) do
    matrices
    |> Enum.with_index()
    |> Error.map(fn {{pivots, sign}, index} ->
      try do
        {:ok, Enum.reduce(pivots, sign, &(&1 * &2))}
      rescue
        # A product that is too large, or a pivot that is not finite.
        ArithmeticError -> Operands.found(:overflow, a, index)
      end
    end)
  end
end
