if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.LinAlg do
    @moduledoc false
    # Linear algebra on real numbers. Results as those of `ExCubecl.Nx.ElementWise`, and `:on_host` for small matrices, whose decompositions the host calculates
    # in any case.

    alias ExCubecl.{Buffer, Error, LinAlg, Ops, View}
    alias ExCubecl.Nx.{Operand, Storage}
    alias ExCubecl.Ops.ComputeType
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    # Decompositions that are not unique. Below this number of rows they are left to Nx, so that signs and orders are those of its documentation.
    @least 9

    # The device has decompositions of complex numbers only as those of Nx, in dozens of kernels and hundreds of launches: they are left to the host below this number.
    @least_complex 17
    @decompositions [:cholesky, :lu, :qr, :eigh, :svd]

    # Matrices of fewer rows are small if there are no more elements than this in all.
    @most 4_096

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: [:triangular_solve, :cholesky, :lu, :qr, :eigh, :svd, :solve, :determinant]

    def run(name, [_ | tensors] = args, config) do
      with :host <- native(name, args, config),
           do: if(Enum.all?(tensors, &small?(name, &1)), do: :on_host, else: :host)
    end

    @doc "Whether the host calculates a callback of this name with a matrix."
    def small?(:svd, %T{shape: shape} = tensor) do
      rank = tuple_size(shape)
      lengths = [elem(shape, rank - 2), elem(shape, rank - 1)]
      Enum.max(lengths) < @least and Nx.size(tensor) <= @most
    end

    def small?(name, %T{shape: shape, type: type} = tensor) do
      rows = if tuple_size(shape) > 1, do: elem(shape, tuple_size(shape) - 2), else: 1
      complex? = match?({:c, _}, type) and name in @decompositions
      rows < if(complex?, do: @least_complex, else: @least) and Nx.size(tensor) <= @most
    end

    def small?(_name, _options), do: true

    defp native(:triangular_solve, [out, a, b, opts], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [a, b]} <- buffers([a, b], dtype, config) do
        opts = Keyword.take(opts, [:lower, :left_side, :transform_a])
        a |> LinAlg.triangular_solve(b, opts) |> refused() |> converted(dtype)
      end
    end

    defp native(:cholesky, [out, tensor], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [a]} <- buffers([tensor], dtype, config),
           do: a |> LinAlg.cholesky() |> refused() |> converted(dtype)
    end

    defp native(:solve, [out, a, b], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [a, b]} <- buffers([a, b], dtype, config),
           do: a |> LinAlg.solve(b) |> refused() |> converted(dtype)
    end

    defp native(:determinant, [out, tensor], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [a]} <- buffers([tensor], dtype, config),
           do: a |> LinAlg.determinant() |> refused() |> converted(dtype)
    end

    # Nx has no definition of this one that is fast enough for many small matrices.
    defp native(:svd, [outs, tensor, opts], config) do
      if small?(:svd, tensor), do: :host, else: decomposed(:svd, outs, tensor, [opts], config)
    end

    defp native(name, [outs, tensor | opts], config) do
      if elem(tensor.shape, tuple_size(tensor.shape) - 2) < @least,
        do: :host,
        else: decomposed(name, outs, tensor, opts, config)
    end

    # The permutation of `lu` is of the type of the matrix, the other results are floats.
    defp decomposed(name, outs, tensor, opts, config) do
      with {:ok, dtypes} <- Error.map(Tuple.to_list(outs), &Operand.dtype/1),
           {:ok, [a]} <- buffers([tensor], List.last(dtypes), config),
           do: name |> decompose(a, opts) |> refused() |> all_converted(dtypes)
    end

    defp decompose(:lu, a, _opts), do: LinAlg.lu(a)
    defp decompose(:qr, a, [opts]), do: LinAlg.qr(a, mode: opts[:mode] || :reduced)

    defp decompose(:svd, a, [opts]) do
      complete? = Keyword.get(opts, :full_matrices?, true)
      LinAlg.svd(a, mode: if(complete?, do: :complete, else: :reduced))
    end

    # As Nx has them: the eigenvalue of the greatest magnitude first.
    defp decompose(:eigh, a, _opts) do
      with {:ok, {values, vectors}} <- LinAlg.eigh(a),
           {:ok, magnitudes} <- Ops.abs(values),
           {:ok, order} <- Ops.argsort(magnitudes, direction: :desc),
           {:ok, values} <- Ops.take_along_axis(values, order, axis: -1),
           columns = order |> View.new() |> rows_alike(vectors.shape),
           {:ok, vectors} <- Ops.take_along_axis(vectors, columns, axis: -1),
           do: {:ok, {values, vectors}}
    end

    defp rows_alike(%View{shape: shape} = order, to) do
      {:ok, rows} = Strides.reshape(order, List.insert_at(shape, -2, 1))
      Strides.broadcast(rows, to)
    end

    defp buffers(tensors, dtype, config) do
      dtype = calculated(dtype)
      types = for tensor <- tensors, do: Operand.dtype(tensor)

      if :host in types,
        do: :host,
        else: Error.map(tensors, &Buffer.convert(Storage.buffer(&1, config), dtype))
    end

    defp calculated(:bf16), do: :f32
    defp calculated(dtype), do: dtype

    defp converted({:ok, buffer}, dtype), do: ComputeType.converted(buffer, dtype)
    defp converted(result, _dtype), do: result

    defp all_converted({:ok, buffers}, dtypes) do
      pairs = Enum.zip(Tuple.to_list(buffers), dtypes)

      with {:ok, list} <-
             Error.map(pairs, fn {buffer, dtype} -> ComputeType.converted(buffer, dtype) end),
           do: {:ok, List.to_tuple(list)}
    end

    defp all_converted(result, _dtypes), do: result

    # What the algorithms refuse, such as a singular matrix, has the result or the error of Nx.
    defp refused({:error, %{reason: :invalid_argument}}), do: :host
    defp refused(result), do: result
  end
end
