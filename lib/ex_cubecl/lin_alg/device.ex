defmodule ExCubecl.LinAlg.Device do
  @moduledoc false
  # Blocked decompositions on the device, for large matrices: blocks of 32 columns, and products of matrices for what is right of and below them. Buffers are of
  # [batch, n, n], of :f32 or :f64.

  alias ExCubecl.{Buffer, Error, Kernel, Ops}
  alias ExCubecl.LinAlg.Device.Kernels
  alias ExCubecl.LinAlg.Operands

  @block 32

  ## Cholesky

  @doc "The lower triangles L with A = L L'. `a` describes the matrices for errors."
  def cholesky(%{n: n} = a, %{shape: [count, _, _], device: device} = buffer) do
    with {:ok, l} <- Buffer.duplicate(buffer),
         {:ok, failed} <- Buffer.zeros([count], :s32, device: device),
         {:ok, pivots} <- Buffer.zeros([count], l.dtype, device: device),
         :ok <- blocks(n, &cholesky_block(l, &1, &2, [failed, pivots])),
         :ok <- positive(a, failed, pivots),
         do: triangle(l, 1, 0)
  end

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
  `{:ok, factors, pivots}`: L below the diagonal, U from it on, and for each column the row of its pivot, counted from the first row
  of the block of the column.
  """
  def lu(%{shape: [count, n, _], device: device} = buffer) do
    with {:ok, factors} <- Buffer.duplicate(buffer),
         {:ok, pivots} <- Buffer.zeros([count, n], :s32, device: device),
         :ok <- blocks(n, &lu_block(factors, pivots, &1, &2)),
         do: {:ok, factors, pivots}
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

  @doc "The rows of the matrices in the order of the pivots, as lists."
  def order(%{shape: [_, n]} = pivots) do
    with {:ok, pivots} <- Buffer.to_list(pivots) do
      {:ok,
       for pivots <- pivots do
         start = Map.new(0..(n - 1), &{&1, &1})

         order =
           for {pivot, at} <- Enum.with_index(pivots), reduce: start do
             order ->
               other = at - rem(at, @block) + pivot
               %{order | at => order[other], other => order[at]}
           end

         for i <- 0..(n - 1), do: order[i]
       end}
    end
  end

  @doc "1.0 for each matrix whose rows were exchanged an even number of times, else -1.0."
  def signs(pivots) do
    with {:ok, pivots} <- Buffer.to_list(pivots) do
      {:ok,
       for pivots <- pivots do
         exchanges = Enum.count(Enum.with_index(pivots), fn {p, at} -> p != rem(at, @block) end)
         if rem(exchanges, 2) == 0, do: 1.0, else: -1.0
       end}
    end
  end

  @doc "The matrices P, L and U."
  def parts(%{shape: [count, n, _], dtype: dtype, device: device} = factors, pivots) do
    with {:ok, order} <- order(pivots),
         {:ok, order} <- Buffer.new(List.flatten(order), [count, 1, n], :s32, device: device),
         {:ok, rows} <- Ops.iota([n, 1], :s32, device: device),
         {:ok, equal} <- Ops.equal(rows, order),
         {:ok, p} <- Buffer.convert(equal, dtype),
         {:ok, l} <- triangle(factors, 1, 1),
         {:ok, u} <- triangle(factors, -1, 0),
         do: {:ok, [p, l, u]}
  end

  ## Systems

  @doc "Replaces the right-hand sides x, of [batch, n, m], by the solutions of systems of lower triangles."
  def solve_lower(a, %{shape: [count, n, m]} = x) do
    blocks(n, fn k, size ->
      below = n - k - size
      corner = k * n + k

      with :ok <- run(:solve_block, [a, n, m, k, size, x], count * m) do
        with_rest(below, fn ->
          args = [
            below,
            m,
            size,
            corner + size * n,
            n,
            n * n,
            k * m,
            m,
            1,
            (k + size) * m,
            m,
            n * m
          ]

          tiles(:update_sides, [a | args] ++ [x], count, below, m)
        end)
      end
    end)
  end

  @doc "Exchanges the rows of right-hand sides as `lu/1` did."
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

    args = [
      rest,
      rest,
      size,
      a0,
      a_row,
      square,
      b0,
      b_row,
      b_column,
      start * n + start,
      n,
      square
    ]

    tiles(:update, args ++ [a], count, rest, rest)
  end

  defp tiles(kernel, args, count, rows, columns),
    do: run(kernel, args, [count, div(rows + 3, 4), div(columns + 3, 4)])

  defp run(name, args, size), do: Kernel.run({Kernels, name}, args, size: size)
end
