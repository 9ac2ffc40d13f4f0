defmodule ExCubecl.Ops.SegmentSum do
  @moduledoc false
  # Sums of rows with the same cell, in an order that depends on the rows alone. The rows are sorted by cell. Each invocation adds up a chunk of rows: the sums of
  # cells that lie within the chunk are final; those of its first and its last cell, which neighbouring chunks may share, are the rows of the next step.

  alias ExCubecl.{Buffer, Error, Kernel}
  alias ExCubecl.Kernel.Definition
  alias ExCubecl.Ops.Strided

  require Kernel

  @chunk 64

  # Cells are read as signed numbers, as indices are: of both kinds, the arithmetic would have 64 bits, which some devices lack.
  # `value` reads the element of a row, `finish` writes the sums of the first and the last cell of the chunk.
  body = fn type, value, finish ->
    quote do
      k = rem(index(), width)
      c = div(index(), width)
      start = c * unquote(@chunk)
      first = cast(cells[start], :s32)
      cell = first
      sum = cast(0, unquote(type))
      first_sum = sum
      inner = cast(0, :s32)

      # With bounds that depend on the chunk, the loop would take longer to compile.
      for step <- 0..(unquote(@chunk) - 1) do
        j = start + step

        if j < n do
          next = cast(cells[j], :s32)

          if next != cell do
            if inner == 1, do: sums[cell * width + k] = sum, else: first_sum = sum
            inner = cast(1, :s32)
            cell = next
            sum = cast(0, unquote(type))
          end

          sum = sum + cast(unquote(value), unquote(type))
        end
      end

      # Of a single cell, the second sum is 0.
      if inner == 0 do
        first_sum = sum
        sum = cast(0, unquote(type))
      end

      unquote(finish)
    end
  end

  of_rows = quote do: rows[places[j] * width + k]
  of_partial = quote do: rows[j * width + k]

  partial =
    quote do
      next_cells[2 * c] = first
      next_cells[2 * c + 1] = cell
      next_rows[2 * c * width + k] = first_sum
      next_rows[(2 * c + 1) * width + k] = sum
    end

  final =
    quote do
      if inner == 1, do: sums[cell * width + k] = sum
      sums[first * width + k] = first_sum
    end

  kernel = fn args, body ->
    code = quote do: Kernel.kernel(fn unquote_splicing(args) -> unquote(body) end)
    code |> Code.eval_quoted([], __ENV__) |> elem(0) |> Definition.named(:indexed_add)
  end

  vars = fn names -> Enum.map(names, &Macro.var(&1, nil)) end
  inputs = [:cells, :rows, :n, :width]
  next = [:sums, :next_cells, :next_rows]

  kernels =
    for type <- [:f32, :f64, :s32, :u32, :s64, :u64],
        {places, value} <- [{[:places], of_rows}, {[], of_partial}],
        {outputs, finish} <- [{next, partial}, {[:sums], final}] do
      args = vars.(places ++ inputs ++ outputs)
      {{type, places, outputs}, kernel.(args, body.(type, value, finish))}
    end

  @kernels Map.new(kernels)

  @doc "As many rows are added up one after the other."
  def chunk, do: @chunk

  @doc """
  Adds up the rows, each of `width` elements, by cell: `cells` is sorted, and `places` has the row of each. Writes the sum of cell c from element c * width of `sums`
  on; a cell behind its end is skipped.
  """
  @spec run(Buffer.t(), Buffer.t(), Buffer.t(), pos_integer, Buffer.t()) ::
          :ok | {:error, Error.t()}
  def run(%{shape: [n]} = cells, places, rows, width, sums),
    do: step([:places], [places], cells, n, rows, width, sums)

  defp step(names, places, cells, n, rows, width, sums) do
    chunks = div(n + @chunk - 1, @chunk)
    inputs = places ++ [cells, rows, n, width]

    if chunks == 1 do
      kernel = @kernels[{sums.dtype, names, [:sums]}]
      Strided.run(kernel, inputs ++ [sums], size: width)
    else
      kernel = @kernels[{sums.dtype, names, [:sums, :next_cells, :next_rows]}]

      with {:ok, next_cells} <- Buffer.empty([2 * chunks], :u32, device: sums.device),
           {:ok, next_rows} <-
             Buffer.empty([2 * chunks * width], sums.dtype, device: sums.device),
           outputs = [sums, next_cells, next_rows],
           :ok <- Strided.run(kernel, inputs ++ outputs, size: chunks * width),
           do: step([], [], next_cells, 2 * chunks, next_rows, width, sums)
    end
  end
end
