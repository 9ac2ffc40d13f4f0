defmodule ExCubecl.LinAlg.Host do
  @moduledoc false
  # Runs algorithms on matrices in host memory, with 64-bit floats: for each matrix of a batch, one after the other.

  alias ExCubecl.{Buffer, DType, Error}
  alias ExCubecl.LinAlg.Operands
  alias ExCubecl.Native.Rehearsal

  @doc """
  The results of `fun` for each matrix of several operands with the same batch, as rows of floats. `fun` returns a list of results, one for each of
  `shapes`; a result is a list of rows. What it throws is the error of the first operand.
  """
  def run(operands, shapes, dtype, fun) do
    if Rehearsal.on?(),
      do: rehearsed(operands, shapes, dtype),
      else: calculated(operands, shapes, dtype, fun)
  end

  # The buffers without the numbers.
  defp rehearsed([%{buffer: %{device: device}} = first | _] = operands, shapes, dtype) do
    with {:ok, _} <- Error.map(operands, &decodable(&1.buffer)),
         do: Error.map(shapes, &Buffer.zeros(first.batch ++ &1, dtype, device: device))
  end

  defp calculated([first | _] = operands, shapes, dtype, fun) do
    with {:ok, all} <- Error.map(operands, &matrices/1),
         {:ok, results} <- each(Enum.zip(all), first, fun) do
      shapes
      |> Enum.with_index()
      |> Error.map(fn {shape, at} ->
        write(Enum.map(results, &Enum.at(&1, at)), first.batch ++ shape, dtype, first)
      end)
    end
  end

  @doc "The results of `fun` for the arguments of each matrix, which are tuples. `first` describes the matrices for errors."
  def each(matrices, first, fun) do
    matrices
    |> Enum.with_index()
    |> Error.map(fn {matrices, index} ->
      try do
        {:ok, apply(fun, Tuple.to_list(matrices))}
      rescue
        # The only error of arithmetic that can occur: a result that is too large.
        ArithmeticError -> Operands.found(:overflow, first, index)
      catch
        problem -> Operands.found(problem, first, index)
      end
    end)
  end

  ## Elements

  @doc "The matrices of an operand as rows of floats; an error for NaN and infinities."
  def matrices(%{m: m, n: n, batch: batch} = operand) do
    with {:ok, %{shape: shape, dtype: dtype} = buffer} <- decodable(operand.buffer),
         {:ok, binary} <- Buffer.read(buffer) do
      bits = 8 * DType.size!(dtype)
      count = Enum.product(batch)
      size = div(bits, 8) * m * n

      if byte_size(binary) == count * size,
        do: matrices(binary, bits, count, operand),
        # A struct that was built by hand.
        else:
          Error.new(:shape_mismatch,
            shape: shape,
            expected: count * m * n,
            actual: div(8 * byte_size(binary), bits)
          )
    end
  end

  defp decodable(%{dtype: dtype} = buffer) when dtype in [:f32, :f64], do: {:ok, buffer}
  defp decodable(buffer), do: Buffer.convert(buffer, :f64)

  defp matrices(binary, bits, count, %{m: m, n: n} = operand) do
    size = div(bits, 8) * m * n

    Error.map(Enum.to_list(0..(count - 1)//1), fn index ->
      case rows(binary_part(binary, index * size, size), bits, m, n) do
        :error -> Operands.found(:not_finite, operand, index)
        rows -> {:ok, rows}
      end
    end)
  end

  defp rows(binary, bits, m, n) do
    floats = for <<x::float-size(bits)-native <- binary>>, do: x

    cond do
      length(floats) < m * n -> :error
      n == 0 -> List.duplicate([], m)
      true -> Enum.chunk_every(floats, n)
    end
  end

  defp write(results, shape, dtype, %{buffer: %{device: device}}),
    do:
      Buffer.new(for(rows <- results, row <- rows, x <- row, do: x), shape, dtype, device: device)
end
