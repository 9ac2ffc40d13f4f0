if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.LinAlg do
    @moduledoc false
    # Linear algebra on real numbers. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Error, LinAlg}
    alias ExCubecl.Nx.{Operand, Storage}

    # Decompositions that are not unique. Below this number of rows they are left to Nx, so that signs and orders are those of its documentation.
    @least 9

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: [:triangular_solve, :cholesky, :lu, :qr, :eigh]

    def run(:triangular_solve, [out, a, b, opts], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [a, b]} <- buffers([a, b], dtype, config) do
        opts = Keyword.take(opts, [:lower, :left_side, :transform_a])
        refused(LinAlg.triangular_solve(a, b, opts))
      end
    end

    def run(:cholesky, [out, tensor], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [a]} <- buffers([tensor], dtype, config),
           do: refused(LinAlg.cholesky(a))
    end

    def run(name, [outs, tensor | opts], config) do
      with {:ok, dtype} <- Operand.dtype(elem(outs, 0)),
           {:ok, [a]} <- buffers([tensor], dtype, config) do
        if List.last(a.shape) < @least, do: :host, else: refused(decompose(name, a, opts))
      end
    end

    defp decompose(:lu, a, _opts), do: LinAlg.lu(a)
    defp decompose(:eigh, a, _opts), do: LinAlg.eigh(a)
    defp decompose(:qr, a, [opts]), do: LinAlg.qr(a, mode: opts[:mode] || :reduced)

    # Nx cuts off the digits that :bf16 does not have.
    defp buffers(_tensors, :bf16, _config), do: :host

    defp buffers(tensors, dtype, config) do
      types = for tensor <- tensors, do: Operand.dtype(tensor)

      if :host in types,
        do: :host,
        else: Error.map(tensors, &Buffer.convert(Storage.buffer(&1, config), dtype))
    end

    # What the algorithms refuse, such as a singular matrix, has the result or the error of Nx.
    defp refused({:error, %{reason: :invalid_argument}}), do: :host
    defp refused(result), do: result
  end
end
