defmodule ExCubecl.LinAlg.Operands do
  @moduledoc false
  # Checks of matrices, and their errors, which name the operation.

  alias ExCubecl.{Buffer, Error, Kernel, Ops}
  alias ExCubecl.Error.Text

  @floats [:f16, :bf16, :f32, :f64]

  @type matrices :: %{
          name: atom,
          buffer: Buffer.t(),
          batch: [non_neg_integer],
          m: non_neg_integer,
          n: non_neg_integer,
          dtype: atom
        }

  @doc "The matrices of a buffer: m rows of n elements, over the leading axes `batch`. `dtype` is the type of the results."
  @spec matrices(atom, Ops.tensor()) :: {:ok, matrices} | {:error, Error.t()}
  def matrices(name, buffer) do
    with {:ok, %{shape: shape, dtype: dtype} = buffer} <- Ops.Operands.contiguous(buffer, name) do
      case Enum.split(shape, -2) do
        {batch, [m, n]} ->
          dtype = if dtype in @floats, do: dtype, else: :f32
          {:ok, %{name: name, buffer: buffer, batch: batch, m: m, n: n, dtype: dtype}}

        _ ->
          refuse(name, shape, "matrices: at least two axes")
      end
    end
  end

  @doc "As `matrices/2`, for matrices with as many rows as columns."
  def square(name, buffer) do
    with {:ok, %{m: m, n: n} = a} <- matrices(name, buffer),
         do: if(m == n, do: {:ok, a}, else: refuse(name, a.buffer.shape, "square matrices"))
  end

  @doc """
  The right-hand sides of systems with the matrices `a`: matrices of m rows of n elements, or with `vector?` vectors, as matrices of one column (one row
  with `left?` false).
  """
  def right_sides(a, buffer, left? \\ true) do
    with {:ok, %{shape: shape} = buffer} <- Ops.Operands.contiguous(buffer, a.name),
         :ok <- same_device(buffer, a) do
      {vectors, last} = Enum.split(shape, -1)
      {batch, axes} = Enum.split(shape, -2)

      case {axes, last} do
        {_, [n]} when vectors == a.batch and n == a.n ->
          {:ok, sides(a, buffer, if(left?, do: [n, 1], else: [1, n]))}

        {[m, n], _}
        when batch == a.batch and ((left? and m == a.n) or (not left? and n == a.n)) ->
          {:ok, sides(a, buffer, [m, n])}

        _ ->
          Ops.Shapes.mismatch(a.name, :system, a.buffer.shape, shape)
      end
    end
  end

  defp same_device(%{device: device}, %{buffer: %{device: device}}), do: :ok

  defp same_device(%{device: device}, %{buffer: %{device: on}}),
    do: Error.new(:invalid_argument, argument: :buffer, reason: %{device: device, on: on})

  defp sides(a, buffer, [m, n]), do: %{a | buffer: buffer, m: m, n: n, dtype: type(a, buffer)}

  defp type(a, %{dtype: dtype}) when dtype in @floats,
    do: Kernel.Types.mix(a.dtype, dtype)

  defp type(a, _integers), do: a.dtype

  @doc "The error for matrices that an operation cannot take."
  def refuse(name, shape, expected, more \\ []) do
    details = [operation: name, argument: :matrix, value: shape, expected: expected]
    Error.new(:invalid_argument, details ++ more)
  end

  @doc "The error for what an algorithm found in a matrix, the `index`-th one of a batch."
  def found(problem, %{name: name, buffer: %{shape: shape}, batch: batch}, index) do
    where = if batch == [], do: "", else: " of matrix #{index}"
    more = [matrix: index]

    case problem do
      {:zero, k} ->
        refuse(name, shape, "an invertible matrix: pivot #{k}#{where} is 0", [pivot: k] ++ more)

      {:not_positive, k, pivot} ->
        expected = "a positive definite matrix: pivot #{k}#{where} is #{Text.show(pivot)}"
        refuse(name, shape, expected, [pivot: k] ++ more)

      :not_finite ->
        refuse(name, shape, "finite numbers: an element#{where} is NaN or infinite", more)

      :overflow ->
        expected = "smaller numbers: a result#{where} exceeds the range of 64-bit floats"
        refuse(name, shape, expected, more)

      :no_convergence ->
        refuse(
          name,
          shape,
          "a matrix whose eigenvalues or singular values#{where} converge",
          more
        )
    end
  end
end
