defmodule ExCubecl.Ops.Patches do
  @moduledoc false
  # Convolutions as products of matrices (im2col): the windows of the input are the rows of a matrix, whose products with the kernel are the output
  # channels. With many output channels this is faster than reading each window for each of them: a product reads elements into tiles.

  alias ExCubecl.{Buffer, Kernel, Shape, View}
  alias ExCubecl.Ops.{ComputeType, Dot, Fold, Layout, Lowering, Target, Temporary}
  alias ExCubecl.Ops.WindowAxes
  alias ExCubecl.View.{Copy, Strides}

  require Kernel

  @same Kernel.kernel(fn x -> x end)

  # Bytes of one matrix of windows; a larger batch is divided.
  @bytes 16_777_216
  # Measured on lavapipe: with fewer, the windows cost more than the products save.
  @filters 8
  @products 1_048_576

  @doc "Whether a convolution without groups is faster as a product."
  def suits?(x, k, axes) do
    [batch | _] = x.shape
    [filters | rest] = k.shape
    inner = Shape.size(rest)
    positions = Shape.size(WindowAxes.counts(axes))

    filters >= @filters and batch * positions * inner * filters >= @products and
      4 * positions * inner <= @bytes
  end

  @doc "Whether such a convolution is one product, by a kernel that knows epilogues."
  def own_kernel?(x, k, axes, order) do
    [batch | _] = x.shape
    [filters | rest] = k.shape
    {rows, inner} = {batch * Shape.size(WindowAxes.counts(axes)), Shape.size(rest)}

    [windows, kernel] =
      for shape <- [[rows, inner], [inner, filters]],
          do: Layout.view(shape, :f32, x.device)

    one_product?(x, k, axes, order) and Dot.own_kernel?(windows, kernel, [], :f32)
  end

  # If the output channels are the last axis, the product is the result.
  defp one_product?(%{shape: [batch | _]}, k, axes, order),
    do: at_once(k, axes) >= batch and Enum.at(order, 1) == length(order) - 1

  # How much of the batch one matrix has.
  defp at_once(%{shape: [_ | rest]}, axes),
    do: max(div(@bytes, 4 * Shape.size(WindowAxes.counts(axes)) * Shape.size(rest)), 1)

  @doc "The convolution of operands in canonical order, in `:f32`; `order` has the output axis of each canonical axis. `into` may be an epilogue."
  def run(x, k, axes, order, shape, into) do
    with {:ok, kernel, row} <- matrix(k) do
      if not is_struct(into, Buffer) and one_product?(x, k, axes, order),
        do: whole(x, kernel, row, axes, order, shape, into),
        else: in_parts(x, kernel, row, axes, order, shape, into, at_once(k, axes))
    end
  end

  # The windows are in the order of the other axes of the result.
  defp whole(x, %{shape: [_, filters]} = kernel, row, axes, order, shape, into) do
    strides = Layout.strides(shape)

    [along_batch, _ | along] =
      for axis <- order, do: div(Enum.at(strides, axis), filters) * row.length

    rows = div(Shape.size(shape), filters)

    with {:ok, windows} <- windows(x, axes, row, [along_batch | along], [rows, row.length]),
         {:ok, product} <- Dot.matmul(windows, kernel, into),
         :ok <- Temporary.free([windows], []),
         do: if(is_list(product), do: {:ok, product}, else: Buffer.reshape(product, shape))
  end

  defp in_parts(%{shape: [batch | _]} = x, kernel, row, axes, order, shape, into, count) do
    with {:ok, out} <- Target.new(into, shape, :f32, x.device),
         target = Strides.transpose(View.new(out), order),
         starts = Enum.take_every(0..(batch - 1), count),
         :ok <- parts(x, {kernel, row}, axes, target, starts, count),
         do: {:ok, out}
  end

  # The kernel as a matrix of one column for each output channel, and where the elements of a window are in a row of the windows: in the order that they have in
  # the kernel, which is copied only if this is not the order of some axes.
  defp matrix(%{dtype: :f32, shape: [filters | lengths], strides: [along | strides]} = k) do
    reversed = for {stride, axis} <- Enum.with_index(strides), stride < 0, do: axis
    %{offset: offset} = Strides.reverse(k, Enum.map(reversed, &(&1 + 1)))

    ordered =
      [lengths, Enum.map(strides, &abs/1), Enum.to_list(0..(length(lengths) - 1))]
      |> Enum.zip()
      |> Enum.sort_by(&elem(&1, 1), :desc)

    {ordered_lengths, ordered_strides} =
      {Enum.map(ordered, &elem(&1, 0)), Enum.map(ordered, &elem(&1, 1))}

    case Layout.joined(ordered_lengths, [ordered_strides]) do
      {[size], [[stride]]} when stride > 0 ->
        places =
          Map.new(Enum.zip(Enum.map(ordered, &elem(&1, 2)), Layout.strides(ordered_lengths)))

        first = for(axis <- reversed, do: (Enum.at(lengths, axis) - 1) * places[axis])

        along_row =
          for axis <- 0..(length(lengths) - 1),
              do: if(axis in reversed, do: -places[axis], else: places[axis])

        view = %{k | shape: [size, filters], strides: [stride, along], offset: offset}
        {:ok, view, %{length: size, offset: Enum.sum(first), strides: along_row}}

      _ ->
        copied(k)
    end
  end

  defp matrix(k), do: copied(k)

  defp copied(%{shape: shape} = k) do
    with {:ok, k} <- Copy.contiguous(k, :conv),
         {:ok, k} <- ComputeType.converted(k, :f32),
         {:ok, k} <- Strides.reshape(View.new(k), shape),
         do: matrix(k)
  end

  defp parts(x, {kernel, row}, axes, target, starts, count) do
    Enum.reduce_while(starts, :ok, fn start, :ok ->
      %{shape: [batch | _]} = x = part(x, start, count)
      counts = WindowAxes.counts(axes)
      positions = Shape.size(counts)
      along = for stride <- [positions | Layout.strides(counts)], do: stride * row.length

      with {:ok, windows} <- windows(x, axes, row, along, [batch, positions, row.length]),
           {:ok, product} <- Dot.matmul(windows, kernel),
           :ok <- place(product, axes, part(target, start, count)),
           :ok <- Temporary.free([windows, product], []) do
        {:cont, :ok}
      else
        error -> {:halt, error}
      end
    end)
  end

  # A part of the batch.
  defp part(%{shape: [batch | rest]} = view, start, count) do
    [zeros, ones] = for number <- [0, 1], do: Enum.map(rest, fn _ -> number end)
    Strides.slice(view, [start | zeros], [min(count, batch - start) | rest], [1 | ones])
  end

  # The elements of the windows: `along` are the strides of the batch and of the positions, those within a window are of a row.
  defp windows(x, axes, %{strides: [along_depth | within_row]} = row, [rows | positions], shape) do
    [batch, depth | _] = x.shape
    [along_batch, along_channels | in_space] = x.strides
    {offset, along, within, bounds} = WindowAxes.space(axes, in_space, {2, 0})

    space = %{
      kept: [batch, depth | WindowAxes.counts(axes)],
      folded: Enum.map(axes, & &1.window),
      bounds: bounds,
      operands: [
        x: %{
          buffer: x.buffer,
          offset: x.offset + offset,
          kept: [along_batch, along_channels | along],
          folded: within,
          padded?: true
        }
      ],
      out: %{offset: row.offset, kept: [rows, along_depth | positions], folded: within_row}
    }

    spec = %{name: :conv, op: @same, initial: 0, padding: :zero, as: :f32, dtype: :f32}
    Fold.run(spec, space, shape)
  end

  # Writes the product, of the shape [batch, positions, output channels], through the strides of the output.
  defp place(product, axes, %{shape: [batch, filters | _]} = target) do
    rank = length(axes)
    shape = [batch | WindowAxes.counts(axes)] ++ [filters]
    order = [0, rank + 1 | Enum.to_list(1..rank)]

    with {:ok, view} <- Strides.reshape(View.new(product), shape),
         do: Lowering.place(Strides.transpose(view, order), target, :conv)
  end
end
