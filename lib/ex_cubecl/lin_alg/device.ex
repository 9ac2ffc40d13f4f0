defmodule ExCubecl.LinAlg.Device do
  @moduledoc false
  # Blocked decompositions on the device, for large matrices: blocks of 32 columns, and products of matrices for what is right of and below them. Buffers are of
  # [batch, n, n], of :f32 or :f64.

  alias ExCubecl.{Buffer, Error, Kernel}
  alias ExCubecl.LinAlg.Device.{Kernels, Triangles, Unblocked}
  alias ExCubecl.LinAlg.{Device, Operands}
  alias ExCubecl.Ops.Index

  @block 32

  # Up to as many rows, the launches of `Unblocked` take no longer than those of blocks, and need fewer kernels.
  @unblocked Unblocked.most(:cholesky)
  @unblocked_lu Unblocked.most(:lu)

  ## Cholesky

  @doc "The lower triangles L with A = L L'. `a` describes the matrices for errors."
  def cholesky(%{n: n} = a, buffer) when n <= @unblocked do
    with {:ok, l, pivots, found} <- Unblocked.cholesky(buffer),
         :ok <- Device.Operands.none(found, a),
         {:ok, lists} <- Buffer.to_list(pivots) do
      problems = for pivots <- lists, do: Enum.find_index(pivots, &(not positive?(&1)))

      case Enum.find_index(problems, & &1) do
        nil ->
          {:ok, l}

        index ->
          pivot = Enum.at(problems, index)
          value = lists |> Enum.at(index) |> Enum.at(pivot)
          Operands.found({:not_positive, pivot, value}, a, index)
      end
    end
  end

  def cholesky(%{n: n} = a, %{shape: [count, _, _], device: device} = buffer) do
    with :ok <- Device.Operands.finite(buffer, a),
         {:ok, l} <- Buffer.duplicate(buffer),
         {:ok, failed} <- Buffer.zeros([count], :s32, device: device),
         {:ok, pivots} <- Buffer.zeros([count], l.dtype, device: device),
         :ok <- blocks(n, &cholesky_block(l, &1, &2, [failed, pivots])),
         :ok <- positive(a, failed, pivots),
         do: triangle(l, 1, 0)
  end

  defp positive?(:infinity), do: true
  defp positive?(pivot), do: is_number(pivot) and pivot > 0

  defp cholesky_block(%{shape: [count, n, _]} = l, k, size, reports) do
    with :ok <- run(:cholesky_block, [n, k, size | reports] ++ [l], count * 32) do
      below = n - k - size
      panel = {(k + size) * n + k, n, 1}

      with_rest(below, fn ->
        with :ok <- run(:cholesky_rows, [n, k, size, l], count * below),
             do: update(l, {below, size}, panel, {(k + size) * n + k, 1, n}, k + size)
      end)
    end
  end

  defp positive(a, failed, pivots) do
    with {:ok, failed} <- Buffer.to_list(failed),
         index when index != nil <- Enum.find_index(failed, &(&1 != 0)),
         {:ok, pivots} <- Buffer.to_list(pivots) do
      problem = {:not_positive, Enum.at(failed, index) - 1, Enum.at(pivots, index)}
      Operands.found(problem, a, index)
    else
      nil -> :ok
      error -> error
    end
  end

  ## LU

  @doc """
  `{:ok, lu}`, with the buffers `factors`, L below the diagonal and U from it on; `pivots`, for each column the row of its pivot, counted from the first row
  of the block of the column; `diagonal`, that of U; and the pivots as lists, `exchanges`. `a` describes the matrices for errors.
  """
  def lu(buffer, a) do
    with {:ok, lu} <- factored(buffer, a),
         {:ok, exchanges} <- Buffer.to_list(lu.pivots),
         do: {:ok, Map.put(lu, :exchanges, exchanges)}
  end

  # Factors that are not finite may be those of a finite matrix, of which a number became too large.
  defp factored(%{shape: [_, n, _]} = buffer, a) when n <= @unblocked_lu do
    with {:ok, lu, found} <- Unblocked.lu(buffer),
         :ok <-
           with(
             {:error, _} <- Device.Operands.none(found, a),
             do: Device.Operands.finite(buffer, a)
           ),
         do: {:ok, lu}
  end

  defp factored(%{shape: [count, n, _], device: device} = buffer, a) do
    with :ok <- Device.Operands.finite(buffer, a),
         {:ok, factors} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.zeros([count, n], :s32, device: device),
         :ok <- blocks(n, &lu_block(factors, pivots, &1, &2)),
         {:ok, diagonal} <- Device.Operands.diagonal(factors, a),
         do: {:ok, %{factors: factors, pivots: pivots, diagonal: diagonal}}
  end

  defp lu_block(%{shape: [count, n, _]} = a, pivots, k, size) do
    height = n - k
    elements = count * height * @block
    right = n - k - size
    corner = k * n + k

    with {:ok, panels} <- panels(a, height),
         :ok <- run(:load_panel, [a, n, k, size, height, hd(panels)], elements),
         {:ok, panel} <- eliminated(panels, pivots, {n, k, size, height}),
         :ok <- run(:store_panel, [panel, n, k, size, height, a], elements),
         :ok <-
           with_rest(n - size, fn ->
             run(:exchange, [pivots, n, k, size, a], count * (n - size))
           end) do
      with_rest(right, fn ->
        update(a, {right, size}, {corner + size * n, n, 1}, {corner + size, n, 1}, k + size)
      end)
    end
  end

  # Each column is eliminated from one buffer into the other.
  defp panels(%{shape: [count, _, _]} = a, height) do
    ExCubecl.Error.map([1, 2], fn _ ->
      with {:ok, panel} <- Buffer.empty([count, height, @block], a.dtype, device: a.device),
           :ok <- Buffer.ensure_allocated(panel),
           do: {:ok, panel}
    end)
  end

  defp eliminated([%{shape: [count | _]} | _] = panels, pivots, {n, k, size, height}) do
    Enum.reduce_while(0..(size - 1), {:ok, panels}, fn j, {:ok, [from, to]} ->
      with :ok <- run(:pivot, [from, n, k, j, height, pivots], count * 256),
           :ok <-
             run(:eliminate, [from, pivots, n, k, j, height, to], count * height * @block) do
        {:cont, {:ok, [to, from]}}
      else
        error -> {:halt, error}
      end
    end)
    |> first()
  end

  defp first({:ok, [panel | _]}), do: {:ok, panel}
  defp first(error), do: error

  @doc "The numbers of the rows of each matrix in the order of the pivots."
  def orders(%{exchanges: exchanges}), do: Enum.map(exchanges, &order/1)

  defp order(pivots) do
    n = length(pivots)
    start = Map.new(0..(n - 1), &{&1, &1})

    order =
      for {pivot, at} <- Enum.with_index(pivots), reduce: start do
        order ->
          other = at - in_block(at, n) + pivot
          %{order | at => order[other], other => order[at]}
      end

    for i <- 0..(n - 1), do: order[i]
  end

  defp in_block(at, n) when n <= @unblocked_lu, do: at
  defp in_block(at, _n), do: rem(at, @block)

  @doc "1.0 for each matrix whose rows were exchanged an even number of times, else -1.0."
  def signs(%{exchanges: exchanges}) do
    for pivots <- exchanges do
      n = length(pivots)
      count = Enum.count(Enum.with_index(pivots), fn {p, at} -> p != in_block(at, n) end)
      if rem(count, 2) == 0, do: 1.0, else: -1.0
    end
  end

  @doc "The matrices P, L and U."
  def parts(%{factors: %{shape: shape, dtype: dtype, device: device} = factors} = lu) do
    bytes = for order <- orders(lu), do: permutation(order, dtype)

    with {:ok, p} <- Buffer.new(IO.iodata_to_binary(bytes), shape, dtype, device: device),
         {:ok, l} <- triangle(factors, 1, 1),
         {:ok, u} <- triangle(factors, -1, 0),
         do: {:ok, [p, l, u]}
  end

  # Row order[i] of the matrix has its 1 in column i.
  defp permutation(order, dtype) do
    columns = order |> Enum.with_index() |> Map.new()
    n = length(order)
    for row <- 0..(n - 1), do: Triangles.unit(n, columns[row], dtype)
  end

  ## Systems

  @doc """
  Replaces right-hand sides of `m` columns by the solutions of systems of lower triangles of `n` rows, with ones on the diagonal if `unit` is 1. `a` and `x` are
  `{buffer, {first element, stride of rows, of columns, of matrices}}`: an upper triangle is a lower one with negative strides.
  """
  def solve_lower({a, {a_first, a_row, a_column, a_batch}}, {x, sides}, {count, n, m}, unit) do
    {x_first, x_row, x_column, x_batch} = sides

    blocks(n, fn k, size ->
      next = k + size
      at = x_first + k * x_row
      corner = a_first + k * (a_row + a_column)
      triangle = wrapped([corner, a_row, a_column, a_batch])
      place = wrapped([at, x_row, x_column, x_batch])

      with :ok <- run(:solve_block, [a | triangle] ++ [m, size, unit | place] ++ [x], count * m) do
        with_rest(n - next, fn ->
          below = wrapped([corner + size * a_row, a_row, a_column, a_batch, at, x_row, x_column])
          rest = wrapped([x_first + next * x_row, x_row, x_column, x_batch])
          args = [a, n - next, m, size | below] ++ rest ++ [x]
          tiles(:update_sides, args, count, n - next, m)
        end)
      end
    end)
  end

  defp wrapped(numbers), do: Enum.map(numbers, &Index.wrapped/1)

  @doc "Exchanges the rows of right-hand sides as `lu/2` did."
  def exchange_rows(pivots, %{shape: [count, n, m]} = x),
    do: run(:exchange_rows, [pivots, n, m, @block, x], count * m)

  @doc "The lower (1) or the upper triangles (-1) of matrices, with `unit` 1 those with ones on the diagonal."
  def triangle(%{shape: [_, n, _] = shape} = a, sign, unit) do
    with {:ok, out} <- Buffer.empty(shape, a.dtype, device: a.device),
         :ok <- Kernels.triangle(a, n, sign, unit, out),
         do: {:ok, out}
  end

  ## Blocks

  # Calls `fun` with the start and the length of each block.
  defp blocks(n, fun) do
    Error.each(0..(n - 1)//@block, &fun.(&1, min(@block, n - &1)))
  end

  defp with_rest(0, _fun), do: :ok
  defp with_rest(_rest, fun), do: fun.()

  # Subtracts a product from the square of `rest` rows and columns from `start` on. Factors are `{first element, stride of rows, of columns}`.
  defp update(
         %{shape: [count, n, _]} = a,
         {rest, size},
         {a0, a_row, 1},
         {b0, b_row, b_column},
         start
       ) do
    square = n * n
    factors = [a0, a_row, 1, square, b0, b_row, b_column]
    args = [rest, rest, size] ++ factors ++ [start * n + start, n, 1, square]
    tiles(:update, args ++ [a], count, rest, rest)
  end

  defp tiles(kernel, args, count, rows, columns),
    do: run(kernel, args, [count, div(rows + 3, 4), div(columns + 3, 4)])

  defp run(name, args, size), do: Kernel.run({Kernels, name}, args, size: size)
end
