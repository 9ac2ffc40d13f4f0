if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Work.Matrices do
    @moduledoc false
    # The work memory of linear algebra on the device (`ExCubecl.LinAlg.Device`), for which nothing is freed before its end. The host, which has the small matrices, needs less.

    alias ExCubecl.LinAlg.Device.Unblocked
    alias ExCubecl.Nx.LinAlg
    alias ExCubecl.Nx.Types
    alias Nx.Tensor, as: T

    def names, do: LinAlg.names()

    @doc "The work memory for operands, of which the first are matrices, and results."
    @spec bytes(atom, [T.t()], [T.t()]) :: non_neg_integer
    def bytes(name, [matrices | _] = operands, results) do
      size =
        if Enum.any?(operands ++ results, &(Types.dtype(&1.type) in [:f64, :s64, :u64])),
          do: 8,
          else: 4

      n = elem(matrices.shape, tuple_size(matrices.shape) - 1)
      elements = count(matrices)

      # Operands are copied in row-major order, in the type of the calculation, and again where the numbers are checked.
      copies = for operand <- operands, do: 2 * size * count(operand)

      converted =
        for %T{type: {_, bits}} = result <- results, bits < 8 * size, do: size * count(result)

      rows = div(elements, max(n, 1))

      Enum.sum(copies) + Enum.sum(converted) +
        size * (own(name, n, elements) + vectors(name, matrices, results) + sides(name, operands)) +
        64 * rows
    end

    # Factors, and for each block of columns two panels of the rows that are left.
    defp own(name, n, elements) when name in [:lu, :solve, :determinant],
      do: if(n <= Unblocked.most(), do: elements, else: 2 * elements + 64 * div(elements, n))

    defp own(:cholesky, _n, elements), do: elements

    # The magnitudes, matrices and vectors of an even number of rows, and the order of the vectors.
    defp own(:eigh, n, elements),
      do: elements + 2 * div(elements, n * n) * (n + 1) * (n + 1) + elements

    # The host reads them, as one more copy in row-major order, and writes results that are copied.
    defp own(:qr, _n, elements), do: 4 * elements
    defp own(_name, _n, _elements), do: 0

    # The magnitudes; columns and their rotations, also in descending order; what completes vectors, and their copies in the order of the results.
    defp vectors(:svd, %T{shape: shape} = matrices, results) do
      rank = tuple_size(shape)
      [m, n] = [elem(shape, rank - 2), elem(shape, rank - 1)]
      elements = count(matrices)
      [columns, length] = [min(m, n) + 1, m + n]
      batch = div(elements, max(m * n, 1))
      elements + 2 * batch * columns * length + 3 * Enum.sum(Enum.map(results, &count/1))
    end

    defp vectors(_name, _matrices, _results), do: 0

    # Systems of one vector or matrix are calculated in place, and the solutions are another copy.
    defp sides(:solve, [_matrices, sides]), do: 2 * count(sides)
    defp sides(_name, _operands), do: 0

    defp count(%T{shape: shape}), do: Tuple.product(shape)
  end
end
