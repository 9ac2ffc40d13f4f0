defmodule ExCubecl.LinAlg.Host do
  @moduledoc false
  # Runs algorithms on matrices in host memory, with 64-bit floats: for each matrix of a batch, one after the other.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.LinAlg.Operands

  @doc """
  The results of `fun` for each matrix of several operands with the same batch, as rows of floats. `fun` returns a list of results, one for each of
  `shapes`; a result is a list of rows. What it throws is the error of the first operand.
  """
  def run([first | _] = operands, shapes, dtype, fun) do
    with {:ok, all} <- Error.map(operands, &read/1),
         {:ok, results} <- each(Enum.zip(all), first, fun) do
      shapes
      |> Enum.with_index()
      |> Error.map(fn {shape, at} ->
        write(Enum.map(results, &Enum.at(&1, at)), first.batch ++ shape, dtype, first)
      end)
    end
  end

  defp each(matrices, first, fun) do
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

  defp read(%{buffer: buffer, m: m, n: n, batch: batch} = operand) do
    with {:ok, wide} <- Buffer.convert(buffer, :f64),
         {:ok, binary} <- Buffer.read(wide) do
      count = Enum.product(batch)
      size = 8 * m * n

      if byte_size(binary) == count * size,
        do: matrices(binary, size, count, operand),
        # A struct that was built by hand.
        else:
          Error.new(:shape_mismatch,
            shape: buffer.shape,
            expected: count * m * n,
            actual: div(byte_size(binary), 8)
          )
    end
  end

  defp matrices(binary, size, count, %{m: m, n: n} = operand) do
    Error.map(Enum.to_list(0..(count - 1)//1), fn index ->
      case rows(binary_part(binary, index * size, size), m, n) do
        :error -> Operands.found(:not_finite, operand, index)
        rows -> {:ok, rows}
      end
    end)
  end

  defp rows(binary, m, n) do
    floats = for <<x::float-64-native <- binary>>, do: x

    cond do
      length(floats) < m * n -> :error
      n == 0 -> List.duplicate([], m)
      true -> Enum.chunk_every(floats, n)
    end
  end

  defp write(results, shape, dtype, %{buffer: %{device: device}}) do
    binary = for rows <- results, row <- rows, x <- row, into: <<>>, do: <<x::float-64-native>>

    with {:ok, wide} <- Buffer.new(binary, shape, :f64, device: device),
         do: if(dtype == :f64, do: {:ok, wide}, else: Buffer.convert(wide, dtype))
  end
end
