defmodule ExCubecl.LinAlg.Host do
  @moduledoc false
  # Operations of the native library on matrices in host memory, with 64-bit floats: for each matrix of a batch, one after the other.

  alias ExCubecl.{Buffer, DType, Error, Native, Shape}
  alias ExCubecl.LinAlg.Operands
  alias ExCubecl.Native.Rehearsal

  @type operation ::
          :lu
          | :cholesky
          | {:qr, boolean}
          | :eigh
          | {:svd, boolean}
          | :singular_values
          | {:triangular, boolean, boolean, boolean}
          | :solve
          | :inverse
          | :determinant

  @doc """
  The results of an operation, of which `native/ex_cubecl_core/src/linear` has the list, for the matrices of one or two operands with the same batch: a buffer
  for each of `shapes`, those of the results for one matrix.
  """
  @spec run(operation, [Operands.matrices()], [[non_neg_integer]], DType.t()) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
  def run(operation, [%{buffer: %{device: device}} = first | _] = operands, shapes, dtype) do
    with {:ok, results} <- results(operation, operands, shapes, dtype) do
      shapes
      |> Enum.zip(results)
      |> Error.map(fn {shape, elements} ->
        create(elements, first.batch ++ shape, dtype, device)
      end)
    end
  end

  defp create(nil, shape, dtype, device), do: Buffer.zeros(shape, dtype, device: device)

  defp create(elements, shape, dtype, device),
    do: Buffer.new(IO.iodata_to_binary(elements), shape, dtype, device: device)

  # The bytes of the results of all matrices; in a rehearsal, there are no numbers.
  defp results(operation, [%{batch: batch} | _] = operands, shapes, dtype) do
    if Rehearsal.on?() do
      {:ok, Enum.map(shapes, fn _ -> nil end)}
    else
      with {:ok, inputs} <- Error.map(operands, &input/1) do
        run = &Native.linear_run(operation, inputs, Shape.size(batch), &1, dtype)
        each(run, operands, 0, Shape.size(batch), Enum.map(shapes, fn _ -> [] end))
      end
    end
  end

  defp input(%{m: m, n: n, batch: batch, buffer: %{dtype: dtype, shape: shape} = buffer}) do
    with {:ok, binary} <- Buffer.read(buffer) do
      count = Shape.size(batch) * m * n
      actual = div(byte_size(binary), DType.size!(dtype))

      if actual == count,
        do: {:ok, {binary, dtype, m, n}},
        # A struct that was built by hand.
        else: Error.new(:shape_mismatch, shape: shape, expected: count, actual: actual)
    end
  end

  # A call returns the results of the first ones of the matrices that are left.
  defp each(_run, _operands, count, count, results), do: {:ok, results}

  defp each(run, operands, done, count, results) do
    case Error.from_native(fn -> run.(done) end) do
      {:ok, {:found, {:not_finite, operand}, index}} ->
        Operands.found(:not_finite, Enum.at(operands, operand), index)

      {:ok, {:found, problem, index}} ->
        Operands.found(problem, hd(operands), index)

      {:ok, {more, parts}} ->
        results = Enum.zip_with(results, parts, &[&1 | &2])
        each(run, operands, done + more, count, results)

      error ->
        error
    end
  end
end
