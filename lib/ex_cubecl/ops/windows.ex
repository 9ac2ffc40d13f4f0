defmodule ExCubecl.Ops.Windows do
  @moduledoc false
  # Operations on windows: sums, products, minima, maxima and means, and a function of the caller over windows or whole axes.

  alias ExCubecl.{Buffer, DType, Error, Kernel, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.{Inliner, Lookup, Types}

  alias ExCubecl.Ops.{
    ComputeType,
    ElementWise,
    Epilogue,
    Fold,
    Initial,
    Operands,
    Reductions,
    Shapes,
    Target,
    WindowAxes
  }

  require Kernel
  require Types

  @same Kernel.kernel(fn x -> x end)
  @add Kernel.kernel(fn x, acc -> x + acc end)

  # Of equal zeros, the one that Nx takes.
  @steps %{
    window_sum: @add,
    window_mean: @add,
    window_product: Kernel.kernel(fn x, acc -> x * acc end),
    window_min: Kernel.kernel(fn x, acc -> min(x, acc) end),
    window_max: Kernel.kernel(fn x, acc -> max(x, acc) end)
  }

  @options [:strides, :padding, :window_dilations]
  @names [window: :window, dilations: :window_dilations]

  @doc "A window operation by name. `into` is a buffer for the result, or an epilogue, but not of `:window_mean`."
  def run(name, tensor, window, opts, into \\ nil)

  def run(:window_mean, tensor, window, opts, into) do
    with {:ok, view, axes} <- checked(:window_mean, tensor, window, opts),
         {:ok, wide} <- Reductions.wide(:mean, view),
         {:ok, sums} <- aggregate(:window_mean, view, axes, wide, wide, nil) do
      count = axes |> Enum.map(& &1.window) |> Shape.size()
      dtype = if Types.floating?(view.dtype), do: view.dtype, else: :f32

      with {:ok, type} <- ComputeType.of(dtype, view.device),
           target = Target.option(into, sums.shape, type, view.device),
           {:ok, means} <- ElementWise.apply(:divide, [sums, count], [dtype: type] ++ target),
           do: ComputeType.converted(means, dtype)
    end
  end

  def run(name, tensor, window, opts, into) do
    with {:ok, view, axes} <- checked(name, tensor, window, opts),
         do:
           name
           |> aggregate(view, axes, accumulator(name, view.dtype), view.dtype, into)
           |> Epilogue.applied(into)
  end

  # Sums and products of 16-bit floats are rounded once.
  defp accumulator(name, dtype) when name in [:window_sum, :window_product],
    do: if(dtype in [:f16, :bf16], do: :f32, else: dtype)

  defp accumulator(_name, dtype), do: dtype

  defp aggregate(name, view, axes, as, dtype, into) do
    initial = neutral(name, view.dtype)
    spec = %{name: name, step: @steps[name], initial: initial, padding: :initial}
    folded(spec, view, space(axes), WindowAxes.counts(axes), {as, dtype}, into)
  end

  defp neutral(name, _dtype) when name in [:window_sum, :window_mean], do: 0
  defp neutral(:window_product, _dtype), do: 1
  defp neutral(:window_min, dtype), do: limit(:infinity, dtype)
  defp neutral(:window_max, dtype), do: limit(:neg_infinity, dtype)

  defp limit(infinity, dtype) when Types.floating?(dtype), do: infinity
  defp limit(infinity, dtype), do: Types.number_as(infinity, dtype)

  ## Functions of the caller

  @doc "Folds the axes of the options with an element-wise kernel of an element and the accumulator."
  def reduce(tensor, initial, kernel, opts, into \\ nil) do
    with {:ok, view} <- Operands.view(tensor),
         {:ok, opts} <- Arguments.options(opts, [:axis, :axes, :keep_axes]),
         {:ok, axes} <- Shapes.axes_of(:reduce, view.shape, opts),
         {:ok, keep?} <- Shapes.keep_axes(:reduce, opts),
         {:ok, kernel} <- function(:reduce, kernel),
         {:ok, initial} <- Initial.checked(:reduce, initial),
         dtype = Initial.merged(view.dtype, initial),
         :ok <- Initial.fits(:reduce, initial, dtype),
         do: reduce_axes(view, initial, kernel, {axes, keep?}, dtype, into)
  end

  @doc "As `reduce/5`, for checked arguments, with the type of the accumulator and the result."
  def reduce_axes(view, initial, kernel, {axes, keep?}, dtype, into \\ nil) do
    kept = Enum.to_list(0..(length(view.shape) - 1)//1) -- axes
    pick = fn list, axes -> Enum.map(axes, &Enum.at(list, &1)) end

    space = fn view ->
      operand = operand(view, 0, pick.(view.strides, kept), pick.(view.strides, axes))

      %{
        kept: pick.(view.shape, kept),
        folded: pick.(view.shape, axes),
        operands: [x: operand],
        bounds: []
      }
    end

    shape = if keep?, do: Shapes.kept(view.shape, axes), else: pick.(view.shape, kept)
    spec = %{name: :reduce, step: kernel, initial: initial, padding: :initial}
    folded(spec, view, space, shape, {dtype, dtype}, into)
  end

  @doc "Folds windows with an element-wise kernel of an element and the accumulator."
  def window_reduce(tensor, initial, window, kernel, opts, into \\ nil) do
    with {:ok, view, axes} <- checked(:window_reduce, tensor, window, opts),
         {:ok, kernel} <- function(:window_reduce, kernel),
         {:ok, initial} <- Initial.checked(:window_reduce, initial),
         :ok <- Initial.fits(:window_reduce, initial, view.dtype) do
      spec = %{name: :window_reduce, step: kernel, initial: initial, padding: :initial}
      types = {view.dtype, view.dtype}
      folded(spec, view, space(axes), WindowAxes.counts(axes), types, into)
    end
  end

  defp function(name, {_module, _kernel} = named) do
    with {:ok, kernel} <- Lookup.kernel(named, 2), do: function(name, kernel)
  end

  defp function(name, %Kernel{parsed: %{args: [_, _] = args, outputs: []} = parsed} = kernel) do
    if Enum.any?(args, &Inliner.uses?([parsed.statements, parsed.result], &1)),
      do: no_function(name, kernel),
      else: {:ok, kernel}
  end

  defp function(name, other), do: no_function(name, other)

  defp no_function(name, value),
    do:
      Shapes.invalid(
        name,
        :kernel,
        value,
        "an element-wise kernel of an element and the accumulator, such as kernel(fn x, acc -> x + acc end)"
      )

  ## Spaces

  defp checked(name, tensor, window, opts) do
    with {:ok, view} <- Operands.view(tensor),
         {:ok, opts} <- Arguments.options(opts, @options),
         {:ok, axes} <- WindowAxes.checked(name, view.shape, window, opts, @names),
         do: {:ok, view, axes}
  end

  defp space(axes) do
    fn view ->
      {offset, kept, folded, bounds} = WindowAxes.space(axes, view.strides)

      %{
        kept: WindowAxes.counts(axes),
        folded: Enum.map(axes, & &1.window),
        operands: [x: operand(view, offset, kept, folded)],
        bounds: bounds
      }
    end
  end

  defp operand(view, offset, kept, folded),
    do: %{
      buffer: view.buffer,
      offset: view.offset + offset,
      kept: kept,
      folded: folded,
      padded?: true
    }

  # `space` makes the space of a view: that of the operand, or of a copy if the device does not calculate with its type.
  @spec folded(
          map,
          View.t(),
          (View.t() -> map),
          Buffer.shape(),
          {DType.t(), DType.t()},
          Target.into() | Epilogue.t()
        ) ::
          {:ok, Buffer.t()} | {:ok, [Buffer.t()]} | {:error, Error.t()}
  defp folded(spec, %{device: device} = view, space, shape, {as, dtype}, into) do
    with {:ok, wide} <- ComputeType.widened(view),
         {:ok, initial} <- Initial.argument(spec.initial),
         {:ok, as} <- ComputeType.of(as, device),
         {:ok, result} <- ComputeType.of(dtype, device),
         {:ok, _, _} <- Arguments.shape(shape, dtype),
         spec = Map.merge(spec, %{op: @same, initial: initial, as: as, dtype: result}),
         {:ok, out} <- Fold.run(spec, space.(wide), shape, into),
         do: if(is_list(out), do: {:ok, out}, else: ComputeType.converted(out, dtype))
  end
end
