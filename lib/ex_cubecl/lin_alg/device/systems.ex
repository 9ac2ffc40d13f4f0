defmodule ExCubecl.LinAlg.Device.Systems do
  @moduledoc false
  # Systems of equations on the device; buffers are of [batch, rows, columns].

  alias ExCubecl.{Buffer, View}
  alias ExCubecl.LinAlg.Device
  alias ExCubecl.LinAlg.Device.Operands
  alias ExCubecl.View.{Copy, Strides}

  @doc """
  The solutions x of a x = b. Of `how`, `lower?` tells which triangle of `a` is used, after which it is transposed with `transpose?`; without `left?`, b is, and
  the solutions are.
  """
  def triangular(buffer, b, how, a) do
    # In the reverse order, an upper triangle is a lower one.
    reverse? = how.lower? == how.transpose?

    with :ok <- Operands.invertible(buffer, a),
         {:ok, triangle} <- copy(buffer, how.transpose?, if(reverse?, do: [1, 2], else: []), a),
         {:ok, x} <- copy(b, not how.left?, if(reverse?, do: [1], else: []), a),
         :ok <- Device.solve_lower(triangle, x),
         do: back(x, not how.left?, if(reverse?, do: [1], else: []), a)
  end

  @doc "The solutions of systems whose matrices have the factors of `ExCubecl.LinAlg.Device.lu/1`."
  def solve({factors, pivots}, b, a) do
    with :ok <- Operands.invertible(factors, a),
         {:ok, x} <- Buffer.duplicate(b),
         :ok <- Device.exchange_rows(pivots, x),
         {:ok, lower} <- Device.triangle(factors, 1, 1),
         :ok <- Device.solve_lower(lower, x),
         {:ok, upper} <- copy(factors, false, [1, 2], a),
         {:ok, x} <- copy(x, false, [1], a),
         :ok <- Device.solve_lower(upper, x),
         do: back(x, false, [1], a)
  end

  # A new buffer of transposed, then reversed matrices; `back/4` is its inverse.
  defp copy(buffer, transpose?, axes, a) do
    view = View.new(buffer)
    view = if transpose?, do: Strides.transpose(view, [0, 2, 1]), else: view
    view |> Strides.reverse(axes) |> Copy.copy(a.name)
  end

  defp back(x, false, [], _a), do: {:ok, x}

  defp back(x, transpose?, axes, a) do
    view = Strides.reverse(View.new(x), axes)
    view = if transpose?, do: Strides.transpose(view, [0, 2, 1]), else: view
    Copy.copy(view, a.name)
  end
end
