defmodule ExCubecl.LinAlg.Systems do
  @moduledoc false
  # Systems of linear equations, inverses and determinants.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Device, Host, Operands}
  alias ExCubecl.LinAlg.Device.Triangles
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

      on_device(a, b, max(a.n * a.n, b.m * b.n), &Device.Systems.triangular(&1, &2, how, {a, b})) ||
        triangular_on_host(a, b, how)
    end
  end

  # `nil` if the host is faster for so many elements of each matrix. The numbers of a and b are calculated with in the type of the results.
  defp on_device(a, b, elements, solve) do
    a = %{a | dtype: b.dtype}

    with {:ok, matrices} <- Device.Operands.buffer(a, Shape.size(a.batch) * elements),
         {:ok, sides} <- Device.Operands.converted(b),
         {:ok, x} <- solve.(matrices, sides) do
      Device.Operands.result(x, b.buffer.shape, b.dtype)
    else
      :host -> nil
      error -> error
    end
  end

  defp triangular_on_host(a, b, how) do
    one({:triangular, how.lower?, how.transpose? == how.left?, how.left?}, [a, b], b)
  end

  # The result has the shape and the type of the buffer that `like` describes.
  defp one(operation, operands, like) do
    with {:ok, [x]} <- Host.run(operation, operands, [[like.m, like.n]], like.dtype),
         do: Buffer.reshape(x, like.buffer.shape)
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

  defp general(a, b), do: general_on_device(a, b) || one(:solve, [a, b], b)

  defp general_on_device(a, b) do
    on_device(a, b, a.n * a.n, fn matrices, sides ->
      with {:ok, lu} <- Device.lu(matrices, a),
           do: Device.Systems.solve(lu, sides, a, b)
    end)
  end

  def inverse(a) do
    with {:ok, a} <- Operands.square(:inverse, a) do
      if Device.Operands.faster?(a, Shape.size(a.batch) * a.n * a.n),
        do: inverse_on_device(a),
        else: one(:inverse, [a], a)
    end
  end

  # The inverse is the solution X of A X = I.
  defp inverse_on_device(%{buffer: %{shape: shape, device: device}} = a) do
    dtype = Device.Operands.type(a)
    identities = :binary.copy(Triangles.identity(a.n, dtype), Shape.size(a.batch))

    with {:ok, identities} <- Buffer.new(identities, shape, dtype, device: device),
         do: general_on_device(a, %{a | buffer: identities})
  end

  def determinant(a) do
    with {:ok, a} <- Operands.square(:determinant, a) do
      case Device.Operands.buffer(a, Shape.size(a.batch) * a.n * a.n) do
        {:ok, buffer} -> determinant_on_device(a, buffer)
        :host -> determinant_on_host(a)
        error -> error
      end
    end
  end

  defp determinant_on_host(a) do
    with {:ok, [determinant]} <- Host.run(:determinant, [a], [[]], a.dtype),
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
