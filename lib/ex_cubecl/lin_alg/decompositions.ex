defmodule ExCubecl.LinAlg.Decompositions do
  @moduledoc false
  # Decompositions of matrices.

  alias ExCubecl.{Error, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Device, Host, Operands}
  alias ExCubecl.LinAlg.Device.Jacobi
  alias ExCubecl.Ops.Shapes

  def lu(a) do
    with {:ok, %{n: n} = a} <- Operands.square(:lu, a) do
      case Device.Operands.buffer(a, Shape.size(a.batch) * n * n) do
        {:ok, buffer} -> lu_on_device(a, buffer)
        :host -> Host.run(:lu, [a], List.duplicate([n, n], 3), a.dtype)
        error -> error
      end
      |> tuple()
    end
  end

  defp lu_on_device(%{buffer: %{shape: shape}} = a, buffer) do
    with {:ok, lu} <- Device.lu(buffer, a),
         {:ok, parts} <- Device.parts(lu),
         do: Error.map(parts, &Device.Operands.result(&1, shape, a.dtype))
  end

  def cholesky(a) do
    with {:ok, %{n: n} = a} <- Operands.square(:cholesky, a) do
      case Device.Operands.buffer(a, Shape.size(a.batch) * n * n) do
        {:ok, buffer} ->
          with {:ok, l} <- Device.cholesky(a, buffer),
               do: Device.Operands.result(l, a.buffer.shape, a.dtype)

        :host ->
          with {:ok, [l]} <- Host.run(:cholesky, [a], [[n, n]], a.dtype), do: {:ok, l}

        error ->
          error
      end
    end
  end

  def qr(a, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:mode]),
         {:ok, %{m: m, n: n} = a} <- Operands.matrices(:qr, a),
         {:ok, complete?} <- complete(Keyword.get(opts, :mode, :reduced)) do
      k = if complete?, do: m, else: min(m, n)

      case Device.QR.operand(a) do
        {:ok, buffer} -> qr_on_device(a, buffer, k)
        :host -> Host.run({:qr, complete?}, [a], [[m, k], [k, n]], a.dtype)
        error -> error
      end
      |> tuple()
    end
  end

  defp qr_on_device(%{m: m, n: n, batch: batch, dtype: dtype} = a, buffer, k) do
    with {:ok, [q, r]} <- Device.QR.factor(buffer, k, a),
         {:ok, q} <- Device.Operands.result(q, batch ++ [m, k], dtype),
         {:ok, r} <- Device.Operands.result(r, batch ++ [k, n], dtype),
         do: {:ok, [q, r]}
  end

  defp complete(:reduced), do: {:ok, false}
  defp complete(:complete), do: {:ok, true}
  defp complete(other), do: Shapes.invalid(:qr, :mode, other, ":reduced or :complete")

  def eigh(a) do
    with {:ok, %{n: n} = a} <- Operands.square(:eigh, a) do
      case Device.Operands.buffer(a, Shape.size(a.batch) * n * n) do
        {:ok, buffer} -> eigh_on_device(a, buffer)
        :host -> Host.run(:eigh, [a], [[n], [n, n]], a.dtype)
        error -> error
      end
      |> tuple()
    end
  end

  defp eigh_on_device(%{n: n, batch: batch, dtype: dtype} = a, buffer) do
    with {:ok, values, vectors} <- Jacobi.decompose(a, buffer),
         {:ok, values} <- Device.Operands.result(values, batch ++ [n], dtype),
         {:ok, vectors} <- Device.Operands.result(vectors, batch ++ [n, n], dtype),
         do: {:ok, [values, vectors]}
  end

  defp tuple({:ok, results}), do: {:ok, List.to_tuple(results)}
  defp tuple(error), do: error
end
