defmodule ExCubecl.LinAlg do
  @moduledoc """
  Linear algebra: decompositions of matrices, and systems of linear equations.

      iex> alias ExCubecl.LinAlg
      iex> a = ExCubecl.buffer!([[2.0, 1.0], [1.0, 3.0]], [2, 2], :f32)
      iex> b = ExCubecl.buffer!([5.0, 10.0], [2], :f32)
      iex> ExCubecl.to_list!(LinAlg.solve!(a, b))
      [1.0, 3.0]

  Matrices are the last two axes of a buffer or of a view; over the axes before them, a function does the same for each matrix. Results are of the type of the
  buffer if that is a float, else of `:f32`; `:f16` and `:bf16` are calculated with more bits and rounded once.

  The algorithms are those of LAPACK, with its accuracy: partial pivoting, Householder reflections, for symmetric matrices the QL algorithm on the host and
  the Jacobi method on the device, and for singular values the one-sided Jacobi method.

  The host, the native library on one core with 64-bit floats, calculates with few elements: fewer than 66,000 over all matrices, as of one matrix of 256 rows or a thousand of 8. The device
  calculates with more, in the type of the result. A device that is a CPU does so from 1,000,000 elements on, as of one matrix of 1,000 rows. What counts for `triangular_solve` is the larger
  one of the matrices and the right-hand sides. Other processes get their turn after each matrix, or a few milliseconds of small ones. A type that the device cannot calculate with is left to the host.

  Measured with lavapipe on two CPU cores, in CPU time: at 256 rows `lu` took a fifth of the time of the device, `qr`, `eigh` and `svd` between a sixtieth and a sixth, and at 768 rows `lu`, `solve` and
  `triangular_solve` between a fifth and a third, `cholesky` as long. The device compiles its kernels at the first call, too.

  Errors: `:invalid_argument` for a buffer with less than two axes, for matrices that are not square, for NaN and infinities, and
  with `pivot` in the details for a matrix that is singular or not positive definite; `:shape_mismatch` for right-hand sides that do not
  match the matrices; `:not_allocated`, and those of `ExCubecl.Buffer.new/4`.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, Error, Ops}
  alias ExCubecl.LinAlg.{Decompositions, Norms, SVD, Systems}

  @type result :: {:ok, Buffer.t()} | {:error, Error.t()}

  @doc """
  Returns `{:ok, x}`, the solutions of `a x = b` with triangular matrices `a`. `b` has matrices or vectors over the same leading axes.

  ## Options

    * `:lower` - whether the lower triangle of `a` is used, by default `true`, or the upper one; the other one is not read
    * `:left_side` - `false` solves `x a = b`. Defaults to `true`
    * `:transform_a` - `:transpose` uses the transposed matrix; `:lower` is about the matrix before. Defaults to `:none`

  A zero on the diagonal is an `:invalid_argument` with its index as `pivot`.

      iex> a = ExCubecl.buffer!([[2.0, 0.0], [1.0, 4.0]], [2, 2], :f32)
      iex> b = ExCubecl.buffer!([4.0, 6.0], [2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.LinAlg.triangular_solve!(a, b))
      [2.0, 1.0]
  """
  @spec triangular_solve(Ops.tensor(), Ops.tensor(),
          lower: boolean,
          left_side: boolean,
          transform_a: :none | :transpose
        ) :: result
  def triangular_solve(a, b, opts \\ []), do: Systems.triangular(a, b, opts)

  @doc """
  Returns `{:ok, x}`, the solutions of `a x = b`. `b` has matrices or vectors over the same leading axes.

      iex> a = ExCubecl.buffer!([[0.0, 2.0], [1.0, 0.0]], [2, 2], :f64)
      iex> b = ExCubecl.buffer!([[4.0, 6.0], [1.0, 2.0]], [2, 2], :f64)
      iex> ExCubecl.to_list!(ExCubecl.LinAlg.solve!(a, b))
      [[1.0, 2.0], [2.0, 3.0]]
      iex> singular = ExCubecl.buffer!([[1.0, 2.0], [2.0, 4.0]], [2, 2], :f64)
      iex> {:error, error} = ExCubecl.LinAlg.solve(singular, b)
      iex> Exception.message(error)
      "solve: invalid matrix [2, 2]: expected an invertible matrix: pivot 1 is 0"
  """
  @spec solve(Ops.tensor(), Ops.tensor()) :: result
  def solve(a, b), do: Systems.solve(a, b)

  @doc """
  Returns `{:ok, inverse}` of square matrices.

      iex> a = ExCubecl.buffer!([[2, 0], [0, 4]], [2, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.LinAlg.inverse!(a))
      [[0.5, 0.0], [0.0, 0.25]]
  """
  @spec inverse(Ops.tensor()) :: result
  def inverse(a), do: Systems.inverse(a)

  @doc """
  Returns `{:ok, determinants}` of square matrices: a buffer of the shape of the leading axes.

      iex> a = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :f64)
      iex> ExCubecl.item!(ExCubecl.LinAlg.determinant!(a))
      -2.0
  """
  @spec determinant(Ops.tensor()) :: result
  def determinant(a), do: Systems.determinant(a)

  @doc """
  Returns `{:ok, norms}` of matrices, as `Nx.LinAlg.norm/2`; `ExCubecl.Ops.norm/2` has those of vectors.

  ## Options

    * `:order` - `:frobenius` (the default), the root of the sum of squares; 1 and -1, the greatest and the least sum of magnitudes of a column; `:infinity` and
      `:neg_infinity`, those of a row; 2 and -2, the greatest and the least singular value; `:nuclear`, the sum of the singular values
    * `:axes` - the axes of the rows and of the columns, `[-2, -1]` by default
    * `:keep_axes` - `true` keeps these axes with the length 1

      iex> a = ExCubecl.buffer!([[3, 0], [4, 0]], [2, 2], :f32)
      iex> for order <- [:frobenius, 1, :infinity, 2], do: a |> ExCubecl.LinAlg.matrix_norm!(order: order) |> ExCubecl.item!() |> Float.round(4)
      [5.0, 7.0, 4.0, 5.0]
  """
  @spec matrix_norm(Ops.tensor(), keyword) :: result
  def matrix_norm(a, opts \\ []), do: Norms.matrix_norm(a, opts)

  @doc """
  Returns `{:ok, {p, l, u}}` with `a = p l u` for square matrices: a permutation matrix, a lower triangle with ones on its diagonal, and an upper
  triangle. A singular matrix has a zero on the diagonal of `u`.

      iex> a = ExCubecl.buffer!([[1, 2], [4, 4]], [2, 2], :f32)
      iex> {p, l, u} = ExCubecl.LinAlg.lu!(a)
      iex> Enum.map([p, l, u], &ExCubecl.to_list!/1)
      [[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.25, 1.0]], [[4.0, 4.0], [0.0, 1.0]]]
  """
  @spec lu(Ops.tensor()) :: {:ok, {Buffer.t(), Buffer.t(), Buffer.t()}} | {:error, Error.t()}
  def lu(a), do: Decompositions.lu(a)

  @doc """
  Returns `{:ok, l}`, lower triangles with `a = l l'`, for symmetric positive definite matrices, of which the lower triangle is read.

      iex> a = ExCubecl.buffer!([[4, 2], [2, 10]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.LinAlg.cholesky!(a))
      [[2.0, 0.0], [1.0, 3.0]]
      iex> {:error, error} = ExCubecl.LinAlg.cholesky(ExCubecl.buffer!([[1, 2], [2, 1]], [2, 2], :f32))
      iex> Exception.message(error)
      "cholesky: invalid matrix [2, 2]: expected a positive definite matrix: pivot 1 is -3.0"
  """
  @spec cholesky(Ops.tensor()) :: result
  def cholesky(a), do: Decompositions.cholesky(a)

  @doc """
  Returns `{:ok, {q, r}}` with `a = q r`: the columns of `q` are orthonormal, and `r` is an upper triangle. Of m rows of n elements, with `mode: :reduced`, the default,
  `q` has as many columns as the smaller of m and n; with `mode: :complete` it has m.

      iex> a = ExCubecl.buffer!([[3, 5], [4, 0]], [2, 2], :f64)
      iex> {_q, r} = ExCubecl.LinAlg.qr!(a)
      iex> ExCubecl.to_list!(r) |> List.flatten() |> Enum.map(&Float.round(abs(&1), 6))
      [5.0, 3.0, 0.0, 4.0]
  """
  @spec qr(Ops.tensor(), mode: :reduced | :complete) ::
          {:ok, {Buffer.t(), Buffer.t()}} | {:error, Error.t()}
  def qr(a, opts \\ []), do: Decompositions.qr(a, opts)

  @doc """
  Returns `{:ok, {values, vectors}}`: the eigenvalues of symmetric matrices in ascending order, and their eigenvectors, the columns of `vectors`, which are
  orthonormal. The lower triangle is read. The sign of a vector, and the vectors of an eigenvalue that is there several times, are not defined: those of the
  device and of the host may differ.

      iex> a = ExCubecl.buffer!([[2, 1], [1, 2]], [2, 2], :f32)
      iex> {values, _vectors} = ExCubecl.LinAlg.eigh!(a)
      iex> ExCubecl.to_list!(values)
      [1.0, 3.0]
  """
  @spec eigh(Ops.tensor()) :: {:ok, {Buffer.t(), Buffer.t()}} | {:error, Error.t()}
  def eigh(a), do: Decompositions.eigh(a)

  @doc """
  Returns `{:ok, {u, values, vt}}`, the singular value decomposition `a = u s vt` of m rows of n elements: the singular values, of which no one is negative, in descending order; the columns
  of `u` and the rows of `vt` are orthonormal, also those of singular values that are 0. With `mode: :reduced`, the default, there are as many columns of `u`
  and rows of `vt` as singular values, the smaller of m and n; with `mode: :complete`, `u` has m columns and `vt` has n rows.

  The sign of a pair of vectors, and the vectors of a singular value that is there several times, are not defined: those of the device and of the host may differ.

      iex> a = ExCubecl.buffer!([[0, 2], [0, 0], [3, 0]], [3, 2], :f32)
      iex> {u, values, vt} = ExCubecl.LinAlg.svd!(a)
      iex> {u.shape, ExCubecl.to_list!(values), vt.shape}
      {[3, 2], [3.0, 2.0], [2, 2]}
      iex> {u, _, _} = ExCubecl.LinAlg.svd!(a, mode: :complete)
      iex> u.shape
      [3, 3]
  """
  @spec svd(Ops.tensor(), mode: :reduced | :complete) ::
          {:ok, {Buffer.t(), Buffer.t(), Buffer.t()}} | {:error, Error.t()}
  def svd(a, opts \\ []), do: SVD.svd(a, opts)
end
