defmodule ExCubecl.Ops.WindowScatter do
  @moduledoc false
  # Adds the elements of a source to the elements that are selected in windows. A first kernel finds the number of the selected element in each window; in a
  # second one each element looks at the windows that contain it, in their order, so that there are no atomic operations.

  alias ExCubecl.{Buffer, Kernel, Shape}
  alias ExCubecl.Error.{Arguments, Text}
  alias ExCubecl.Ops.{ComputeType, Fold, Initial, Layout, Operands, ScatterCode, Shapes}
  alias ExCubecl.Ops.{Strided, Target, WindowAxes}

  require Kernel

  @same Kernel.kernel(fn x -> x end)

  # The last one of equal elements is selected, and the first element if it is NaN, as in Nx.
  @select %{
    window_scatter_max: Kernel.kernel(fn x, selected -> x >= selected end),
    window_scatter_min: Kernel.kernel(fn x, selected -> x <= selected end)
  }

  def run(name, tensor, source, initial, window, opts, into \\ nil) do
    with {:ok, view} <- Operands.view(tensor),
         {:ok, from} <- Operands.view(source),
         {:ok, opts} <- Arguments.options(opts, [:strides, :padding]),
         {:ok, axes} <- WindowAxes.checked(name, view.shape, window, opts, window: :window),
         :ok <- windows(name, from.shape, WindowAxes.counts(axes)),
         {:ok, initial} <- Initial.checked(name, initial),
         :ok <- Initial.fits(name, initial, Initial.merged(view.dtype, initial)),
         dtype = Initial.merged(from.dtype, initial),
         :ok <- Initial.fits(name, initial, dtype) do
      scatter(name, view, from, initial, axes, dtype, into)
    end
  end

  defp windows(_name, counts, counts), do: :ok

  defp windows(name, shape, counts) do
    expected = "one element for each window, of the shape #{Text.show(counts)}"
    Shapes.invalid(name, :source, shape, expected)
  end

  # Sums of 16-bit floats are rounded once.
  defp scatter(name, view, from, initial, axes, dtype, into) do
    sums = if dtype in [:f16, :bf16], do: :f32, else: dtype

    with {:ok, initial} <- Initial.argument(initial),
         {:ok, view} <- ComputeType.widened(view),
         {:ok, places} <- places(name, view, initial, axes),
         {:ok, from} <- ComputeType.widened(from),
         {:ok, source} <- Operands.contiguous(from, name),
         {:ok, as} <- ComputeType.of(sums, view.device),
         {:ok, type} <- ComputeType.of(dtype, view.device),
         {:ok, out} <- Target.new(into, view.shape, type, view.device),
         args = [source: source, places: places, initial: initial],
         :ok <- add(name, args, joined(axes), as, out),
         :ok <- Buffer.ensure_allocated(out),
         do: ComputeType.converted(out, dtype)
  end

  # The number of the selected element in each window. Padding is the initial number.
  defp places(name, view, initial, axes) do
    {offset, kept, folded, bounds} = WindowAxes.space(axes, view.strides)

    operand = %{
      buffer: view.buffer,
      offset: view.offset + offset,
      kept: kept,
      folded: folded,
      padded?: true
    }

    counts = WindowAxes.counts(axes)

    space = %{
      kept: counts,
      folded: Enum.map(axes, & &1.window),
      operands: [x: operand],
      bounds: bounds
    }

    with {:ok, as} <- ComputeType.of(Initial.merged(view.dtype, initial), view.device) do
      spec = %{
        name: name,
        op: @same,
        select: @select[name],
        initial: initial,
        padding: :initial,
        as: as,
        dtype: :s32
      }

      Fold.run(spec, space, counts)
    end
  end

  # Neighbouring axes whose windows are single elements are one axis.
  defp joined(axes) do
    axes
    |> Enum.chunk_by(&single?/1)
    |> Enum.flat_map(fn [first | _] = part ->
      if single?(first), do: [join(part)], else: part
    end)
  end

  defp join([first | _] = axes) do
    n = axes |> Enum.map(& &1.n) |> Shape.size()
    %{first | n: n, count: n}
  end

  defp single?(axis), do: {axis.window, axis.stride, axis.padding} == {1, 1, {0, 0}}

  defp add(name, args, axes, as, out) do
    strides = Layout.strides(Enum.map(axes, & &1.count))
    windows = Layout.strides(Enum.map(axes, & &1.window))

    scalars =
      for {{axis, stride, window}, at} <- Enum.with_index(Enum.zip([axes, strides, windows])),
          {what, number} <- ScatterCode.scalars(axis, stride, window),
          do: {ScatterCode.name(what, at), number}

    single = Enum.map(axes, &single?/1)
    statements = ScatterCode.statements(single, args[:initial], as)
    key = {:window_scatter, single, as, is_struct(args[:initial])}
    args = args ++ scalars ++ [out: out]
    op = Strided.named(@same, name)
    {kernel, args} = Strided.kernel(op, key, args, [:out], {statements, nil})
    Strided.run(kernel, args, size: Shape.size(out.shape))
  end
end
