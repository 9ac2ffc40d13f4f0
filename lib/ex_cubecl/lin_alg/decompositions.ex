defmodule ExCubecl.LinAlg.Decompositions do
  @moduledoc false
  # Decompositions of matrices.

  alias ExCubecl.{Error, Shape}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.LinAlg.{Device, Host, Operands}
  alias ExCubecl.LinAlg.Device.Jacobi
  alias ExCubecl.LinAlg.Host.{Cholesky, Eigh, LU, QR, Rows}
  alias ExCubecl.Ops.Shapes

  def lu(a) do
    with {:ok, a} <- Operands.square(:lu, a) do
      case Device.Operands.buffer(a, :lu, Shape.size(a.batch) * a.n * a.n) do
        {:ok, buffer} -> lu_on_device(a, buffer)
        :host -> lu_on_host(a)
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

  defp lu_on_host(%{n: n} = a) do
    Host.run([a], [[n, n], [n, n], [n, n]], a.dtype, fn rows ->
      {order, lower, upper} = LU.factor(rows)
      [order |> Enum.map(&Rows.unit(n, &1)) |> Rows.transpose(n), lower, upper]
    end)
  end

  def cholesky(a) do
    with {:ok, %{n: n} = a} <- Operands.square(:cholesky, a) do
      case Device.Operands.buffer(a, :cholesky, Shape.size(a.batch) * n * n) do
        {:ok, buffer} ->
          with {:ok, l} <- Device.cholesky(a, buffer),
               do: Device.Operands.result(l, a.buffer.shape, a.dtype)

        :host ->
          with {:ok, [l]} <- Host.run([a], [[n, n]], a.dtype, &[Cholesky.factor(&1)]),
               do: {:ok, l}

        error ->
          error
      end
    end
  end

  def qr(a, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:mode]),
         {:ok, %{m: m, n: n} = a} <- Operands.matrices(:qr, a),
         {:ok, k} <- columns(Keyword.get(opts, :mode, :reduced), m, n) do
      case Device.QR.operand(a) do
        {:ok, buffer} -> qr_on_device(a, buffer, k)
        :host -> qr_on_host(a, k)
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

  defp qr_on_host(%{m: m, n: n} = a, k) do
    Host.run([a], [[m, k], [k, n]], a.dtype, fn rows ->
      rows |> QR.factor({m, n}, k) |> Tuple.to_list()
    end)
  end

  defp columns(:reduced, m, n), do: {:ok, min(m, n)}
  defp columns(:complete, m, _n), do: {:ok, m}
  defp columns(other, _m, _n), do: Shapes.invalid(:qr, :mode, other, ":reduced or :complete")

  def eigh(a) do
    with {:ok, %{n: n} = a} <- Operands.square(:eigh, a) do
      case Device.Operands.buffer(a, :eigh, Shape.size(a.batch) * n * n) do
        {:ok, buffer} -> eigh_on_device(a, buffer)
        :host -> eigh_on_host(a)
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

  defp eigh_on_host(%{n: n} = a) do
    Host.run([a], [[n], [n, n]], a.dtype, fn rows ->
      {values, vectors} = Eigh.decompose(rows)
      [[values], vectors]
    end)
  end

  defp tuple({:ok, results}), do: {:ok, List.to_tuple(results)}
  defp tuple(error), do: error
end
