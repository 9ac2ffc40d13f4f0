defmodule ExCubecl.Ops.LibraryProduct do
  @moduledoc false
  # Products by the matrix multiplication of the device's library, where it is faster. It reads operands whose rows or columns are contiguous, as a
  # transposed matrix has them; others are copied first, which costs little compared with a large product.

  alias ExCubecl.{Buffer, DType, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{AllocOptions, Pressure, Temporaries}
  alias ExCubecl.Native.{Rehearsal, Waiting}
  alias ExCubecl.Ops.{Contraction, Layout, Temporary}
  alias ExCubecl.View
  alias ExCubecl.View.{Copy, Strides}

  # With fewer multiplications, compiling the kernel of the library costs more than it saves: that for matrices takes seconds on a CPU.
  @least 16_777_216
  @least_of_vector 1_048_576

  # The library binds operands at such offsets only, in bytes.
  @alignment 256

  @doc "The product, in `types.acc` or in the type of both operands, or `:none`; for the types see `ExCubecl.Ops.Operands.types/2`."
  def run(name, contraction, types) do
    case form(contraction, types) do
      :none -> :none
      :matrices -> product(name, contraction, types)
      :row -> row(name, contraction, types)
    end
  end

  @doc "Whether the library is faster, which depends on the lengths and strides: `:matrices`, `:row` for one row, which is a column of the transposed product, or `:none`."
  def form(contraction, types) do
    lengths = for key <- [:batch, :rows, :inner, :columns], do: Shape.size(contraction[key])
    [_batch, rows, inner, columns] = lengths
    multiplications = Enum.product(lengths)

    cond do
      inner == 1 or rows * columns == 1 -> :none
      rows == 1 -> if vector?(turned(contraction), types, multiplications), do: :row, else: :none
      columns == 1 -> if vector?(contraction, types, multiplications), do: :matrices, else: :none
      multiplications >= @least -> :matrices
      true -> :none
    end
  end

  # The elements of the transposed product are in the same order if there is one row.
  defp row(name, contraction, types) do
    with {:ok, result} <- product(name, turned(contraction), types),
         do: {:ok, %{result | shape: Contraction.shape(contraction)}}
  end

  defp turned(%{left: left, right: right, batch: batch, inner: inner} = contraction) do
    outer = Enum.to_list(0..(length(batch) - 1)//1)

    [left, right] =
      for {view, first} <- [{left, contraction.rows}, {right, inner}],
          do: turned(view, outer, length(first))

    %{
      contraction
      | left: right,
        right: left,
        rows: contraction.columns,
        columns: contraction.rows
    }
  end

  defp turned(view, outer, count) do
    {first, last} = Enum.split(Enum.to_list(length(outer)..(length(view.shape) - 1)//1), count)
    Strides.transpose(view, outer ++ last ++ first)
  end

  # A matrix times a vector is faster by the library if the rows of the matrix are contiguous.
  defp vector?(contraction, types, multiplications) do
    %{left: left, batch: batch, rows: rows, inner: inner} = contraction

    multiplications >= @least_of_vector and left.dtype == dtype(contraction, types) and
      match?({:ok, {_batch, _row, 1}}, strides(left, {batch, rows, inner}))
  end

  # 16-bit floats are multiplied as they are, if the device computes them; other types are converted to that of the sums.
  defp dtype(%{left: %{dtype: dtype}, right: %{dtype: dtype}}, %{dtype: dtype, computed: computed})
       when dtype in [:f16, :bf16],
       do: if(dtype in computed, do: dtype, else: :f32)

  defp dtype(_contraction, types), do: types.acc

  defp product(name, %{left: left, right: right} = contraction, types) do
    %{batch: batch, rows: rows, inner: inner, columns: columns} = contraction
    dtype = dtype(contraction, types)

    with true <- dtype in types.computed,
         {:ok, first} <- matrices(name, left, dtype, {batch, rows, inner}),
         {:ok, second} <- matrices(name, right, dtype, {batch, inner, columns}),
         {:ok, result} <- multiplied(contraction, first, second, dtype),
         copies = [first.view.buffer, second.view.buffer],
         :ok <- Temporary.free(copies, [left.buffer, right.buffer]) do
      {:ok, result}
    else
      false -> :none
      error -> error
    end
  end

  # The operand of the type `dtype`, with one stride from row to row and one from column to column.
  defp matrices(name, view, dtype, axes) do
    case strides(view, axes) do
      {:ok, strides} when view.dtype == dtype ->
        {:ok, %{view: view, strides: strides}}

      _ ->
        with {:ok, buffer} <- Copy.copy(view, name, dtype) do
          view = View.new(buffer)
          {:ok, strides} = strides(view, axes)
          {:ok, %{view: view, strides: strides}}
        end
    end
  end

  # The strides of the axes of the stack, and those of its matrices, if the library can read these.
  defp strides(view, {batch, rows, columns}) do
    {batch_strides, matrix} = Enum.split(view.strides, length(batch))
    {row_strides, column_strides} = Enum.split(matrix, length(rows))

    with {:ok, row} <- joined(rows, row_strides, Shape.size(columns)),
         {:ok, column} <- joined(columns, column_strides, Shape.size(rows)),
         true <- layout?(row, Shape.size(rows), column, Shape.size(columns)),
         true <- Enum.all?(batch_strides, &(&1 == 0 or &1 >= max(row, column))),
         true <- rem(view.offset * DType.size!(view.dtype), @alignment) == 0 do
      {:ok, {batch_strides, row, column}}
    else
      _ -> :copy
    end
  end

  # The one stride of axes. That of an axis of one element is of no consequence: `default` keeps the other axis contiguous.
  defp joined(lengths, strides, default) do
    case Layout.joined(lengths, [strides]) do
      {[], [[]]} -> {:ok, default}
      {[_], [[stride]]} -> {:ok, stride}
      _ -> :copy
    end
  end

  defp layout?(row, rows, column, columns),
    do: (column == 1 and row >= columns) or (row == 1 and column >= rows)

  defp multiplied(contraction, left, right, dtype) do
    %{batch: batch, rows: rows, inner: inner, columns: columns} = contraction
    {left_batch, left_row, left_column} = left.strides
    {right_batch, right_row, right_column} = right.strides
    {lengths, [left_batch, right_batch]} = Layout.joined(batch, [left_batch, right_batch])
    shape = Contraction.shape(contraction)
    device = left.view.device
    left = {left.view.buffer.ref, {left.view.offset, left_batch ++ [left_row, left_column]}}
    right = {right.view.buffer.ref, {right.view.offset, right_batch ++ [right_row, right_column]}}
    lengths = {lengths, {Shape.size(rows), Shape.size(inner), Shape.size(columns)}}

    bytes = Shape.size(shape) * DType.size!(dtype)

    Telemetry.launch(bytes, device, :matmul, Telemetry.launches(device, :matmul), fn ->
      with {:ok, note} <- AllocOptions.from([]),
           {:ok, ref} when ref != nil <-
             launched({left, right, lengths, shape, dtype}, device, bytes, note) do
        Temporaries.made(ref, bytes)
        {:ok, %Buffer{ref: ref, dtype: dtype, shape: shape, device: device}}
      else
        {:ok, nil} -> :none
        error -> error
      end
    end)
  end

  defp launched({left, right, lengths, shape, dtype}, device, bytes, note) do
    if Rehearsal.on?() do
      Rehearsal.launch([])
      Rehearsal.new(device, dtype, shape, note)
    else
      Pressure.create(device, bytes, fn ->
        Waiting.show("preparing a matrix product on", device, fn ->
          Native.kernel_matmul(left, right, lengths, shape, note)
        end)
      end)
    end
  end
end
