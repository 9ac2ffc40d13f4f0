defmodule ExCubecl.LinAlg.SVD do
  @moduledoc false
  # Singular value decompositions. That of a matrix with more columns than rows is that of the transposed matrix: A = U S V' is A' = V S U'.

  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Device, Host, Operands}
  alias ExCubecl.Ops.Shapes
  alias ExCubecl.Shape

  def svd(a, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:mode]),
         {:ok, a} <- Operands.matrices(:svd, a),
         {:ok, complete?} <- complete(Keyword.get(opts, :mode, :reduced)),
         {:ok, results} <- decomposed(a, complete?),
         do: {:ok, List.to_tuple(results)}
  end

  defp complete(:reduced), do: {:ok, false}
  defp complete(:complete), do: {:ok, true}
  defp complete(other), do: Shapes.invalid(:svd, :mode, other, ":reduced or :complete")

  @doc "The singular values in descending order; `name` is the operation that errors name."
  def values(a, name) do
    with {:ok, a} <- Operands.matrices(name, a) do
      case matrices(a) do
        {:ok, buffer} ->
          with {:ok, values} <- Device.OneSided.values(a, buffer),
               do: Device.Operands.result(values, a.batch ++ [min(a.m, a.n)], a.dtype)

        :host ->
          shape = [min(a.m, a.n)]

          with {:ok, [values]} <- Host.run(:singular_values, [a], [shape], a.dtype),
               do: {:ok, values}

        error ->
          error
      end
    end
  end

  defp decomposed(a, complete?) do
    case matrices(a) do
      {:ok, buffer} -> on_device(a, buffer, complete?)
      :host -> Host.run({:svd, complete?}, [a], shapes(a, complete?), a.dtype)
      error -> error
    end
  end

  defp matrices(%{m: m, n: n, batch: batch} = a),
    do: Device.Operands.buffer(a, Shape.size(batch) * m * n)

  defp on_device(a, buffer, complete?) do
    with {:ok, results} <- Device.OneSided.decompose(a, buffer, complete?) do
      results
      |> Enum.zip(shapes(a, complete?))
      |> ExCubecl.Error.map(fn {buffer, shape} ->
        Device.Operands.result(buffer, a.batch ++ shape, a.dtype)
      end)
    end
  end

  defp shapes(%{m: m, n: n}, complete?) do
    least = min(m, n)
    {columns, rows} = if complete?, do: {m, n}, else: {least, least}
    [[m, columns], [least], [rows, n]]
  end
end
