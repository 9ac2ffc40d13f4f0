defmodule ExCubecl.Ops.Patches do
  @moduledoc false
  # Convolutions as products of matrices (im2col): the windows of the input are the rows of a matrix, whose products with the kernel are the output
  # channels. With many output channels this is faster than reading each window for each of them: a product reads elements into tiles.

  alias ExCubecl.{Kernel, Shape, View}
  alias ExCubecl.Ops.{ComputeType, Dot, Fold, Layout, Lowering, Target, WindowAxes}
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

  @doc "The convolution of operands in canonical order, in `:f32`; `order` has the output axis of each canonical axis."
  def run(x, k, axes, order, shape, into) do
    [batch | _] = x.shape
    [filters | rest] = k.shape
    positions = Shape.size(WindowAxes.counts(axes))
    count = max(div(@bytes, 4 * positions * Shape.size(rest)), 1)

    with {:ok, k} <- Copy.contiguous(k, :conv),
         {:ok, k} <- ComputeType.converted(k, :f32),
         {:ok, k} <- Strides.reshape(View.new(k), [filters, Shape.size(rest)]),
         kernel = Strides.transpose(k, [1, 0]),
         {:ok, out} <- Target.new(into, shape, :f32, x.device),
         target = Strides.transpose(View.new(out), order),
         :ok <- parts(x, kernel, axes, target, Enum.take_every(0..(batch - 1), count), count),
         do: {:ok, out}
  end

  defp parts(x, kernel, axes, target, starts, count) do
    Enum.reduce_while(starts, :ok, fn start, :ok ->
      x = part(x, start, count)

      with {:ok, windows} <- windows(x, axes),
           {:ok, product} <- Dot.matmul(windows, kernel),
           :ok <- place(product, axes, part(target, start, count)) do
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

  # The windows as [batch, positions, channels and elements of a window].
  defp windows(x, axes) do
    [batch, depth | _] = x.shape
    [along_batch, along_channels | in_space] = x.strides
    {offset, along, within, bounds} = WindowAxes.space(axes, in_space, {2, 0})
    counts = WindowAxes.counts(axes)
    elements = Enum.map(axes, & &1.window)
    [positions, inner] = for lengths <- [counts, elements], do: Shape.size(lengths)
    row = depth * inner

    space = %{
      kept: [batch, depth | counts],
      folded: elements,
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
      out: %{
        offset: 0,
        kept: [positions * row, inner | Enum.map(Layout.strides(counts), &(&1 * row))],
        folded: Layout.strides(elements)
      }
    }

    spec = %{name: :conv, op: @same, initial: 0, padding: :zero, as: :f32, dtype: :f32}
    Fold.run(spec, space, [batch, positions, row])
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
