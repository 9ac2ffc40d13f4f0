defmodule ExCubecl.Ops.Reductions do
  @moduledoc false
  # The reductions by name: their accumulators, the types in which they accumulate, and the checks of their options.

  alias ExCubecl.{Device, Kernel, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{ComputeType, Lowering, Operands, Reduction, Shapes, Strided, Target}

  require Kernel

  @floats [:f16, :bf16, :f32, :f64]

  @steps %{
    sum: {0, Kernel.kernel(fn acc, x -> acc + x end)},
    product: {1, Kernel.kernel(fn acc, x -> acc * x end)},
    reduce_min: {nil, Kernel.kernel(fn acc, x -> min(acc, x) end)},
    reduce_max: {nil, Kernel.kernel(fn acc, x -> max(acc, x) end)},
    all: {1, Kernel.kernel(fn acc, x -> min(acc, x) end)},
    any: {0, Kernel.kernel(fn acc, x -> max(acc, x) end)}
  }

  # Whether x is preferred to the element found so far, whose index is the third argument. How floats treat NaN, see `index_of/4`; integers have none.
  @better %{
    {:argmin, :low, :none} => Kernel.kernel(fn x, found -> x < found end),
    {:argmin, :high, :none} => Kernel.kernel(fn x, found -> x <= found end),
    {:argmax, :low, :none} => Kernel.kernel(fn x, found -> x > found end),
    {:argmax, :high, :none} => Kernel.kernel(fn x, found -> x >= found end),
    {:argmin, :low, :tie} => Kernel.kernel(fn x, found -> not (x >= found or nan?(found)) end),
    {:argmin, :high, :tie} => Kernel.kernel(fn x, found -> x <= found or nan?(x) end),
    {:argmax, :low, :tie} => Kernel.kernel(fn x, found -> not (x <= found or nan?(found)) end),
    {:argmax, :high, :tie} => Kernel.kernel(fn x, found -> x >= found or nan?(x) end),
    {:argmin, :low, :last} => Kernel.kernel(fn x, found -> x < found or nan?(x) end),
    {:argmax, :low, :last} => Kernel.kernel(fn x, found -> x > found or nan?(x) end),
    {:argmin, :low, :start} =>
      Kernel.kernel(fn x, found, place ->
        x < found or (nan?(found) and place != 0 and not nan?(x))
      end),
    {:argmax, :low, :start} =>
      Kernel.kernel(fn x, found, place ->
        x > found or (nan?(found) and place != 0 and not nan?(x))
      end)
  }

  @same Kernel.kernel(fn x -> x end)
  @not_zero Kernel.kernel(fn x -> if x != 0, do: cast(1, :s32), else: 0 end)
  @sqrt Kernel.kernel(fn variance -> sqrt(variance) end)
  @square Kernel.kernel(fn x, mean -> (x - mean) * (x - mean) end)

  @doc "Sum, product, minimum, maximum, all or any over the axes of the options."
  def run(name, x, opts, into \\ nil)

  def run(name, x, opts, into) when name in [:all, :any] do
    with {:ok, view, axes, keep?} <- checked(name, x, opts, []) do
      # Elements are compared in their own type.
      spec = %{spec(name, :u8, :u8) | operands: nil}
      Reduction.run(spec, @not_zero, [view], axes, keep?, into)
    end
  end

  def run(name, x, opts, into) do
    with {:ok, view, axes, keep?} <- checked(name, x, opts, []),
         {:ok, wide} <- wide(name, view) do
      dtype = if wide == :f32 and view.dtype in @floats, do: view.dtype, else: wide
      Reduction.run(spec(name, wide, dtype), @same, [view], axes, keep?, into)
    end
  end

  @doc "The expression of an element, of the type `dtype`, from which a reduction accumulates it, with its type."
  def element(name, expression, _dtype) when name in [:all, :any],
    do: {{:inline, @not_zero.parsed, [expression]}, :u8}

  def element(_name, expression, dtype), do: {expression, dtype}

  @doc "The kernel that combines two accumulators of a type of floats, or one with an element, and the expression of one that no element changes."
  @spec accumulator(:sum | :reduce_max | :reduce_min, ExCubecl.DType.t()) :: {Kernel.t(), term}
  def accumulator(name, dtype) do
    {_, step} = @steps[name]
    first = %{sum: 0, reduce_max: 0xFF80_0000, reduce_min: 0x7F80_0000}[name]
    {step, {:cast, dtype, {:bitcast, 0, :f32, {:cast, :u32, {:number, first}}}}}
  end

  @doc """
  A reduction by name of the results of an element-wise kernel, as `element/3` has them. The types are those of the elements and of the result. `into` may be an
  `ExCubecl.Ops.Epilogue`.
  """
  def run_kernel(name, op, operands, axes, {from, dtype}, into \\ nil) do
    %{device: device} = Enum.find(operands, &is_struct(&1, View))

    with {:ok, wide} <- wide(name, %{dtype: from, device: device}) do
      spec = %{spec(name, wide, dtype) | operands: nil}
      Reduction.run(spec, op, operands, axes, false, into)
    end
  end

  @doc """
  The index of the minimum or maximum along an axis, or of all elements. `nan` is what floats do with NaN:

    * `:tie` - it is preferred to all numbers, the first or the last one as `tie_break:` says
    * `:last` - the last one is preferred to all numbers
    * `:start` - it is preferred to all numbers if it is the first element, and ignored elsewhere; `tie_break:` is `:low`
  """
  def index_of(name, x, opts, nan \\ :tie, into \\ nil) do
    with {:ok, view, axes, keep?} <- checked(name, x, opts, [:tie_break, :dtype]),
         :ok <- one_axis(name, view, axes, opts),
         {:ok, tie} <- tie(name, Keyword.get(opts, :tie_break, :low)),
         {:ok, dtype} <- Shapes.index_type(name, opts),
         better = better(name, tie, if(view.dtype in @floats, do: nan, else: :none)),
         {:ok, view} <- ComputeType.widened(view),
         elements = {@same, [view], view.dtype},
         {:ok, index} <- Reduction.index_of(name, better, elements, axes, keep?, into),
         do: ComputeType.converted(index, dtype)
  end

  @doc "As `index_of/5`, for the results of an element-wise kernel, of a type that the device computes, along axes; as `:s32`."
  def index_of_kernel(name, op, operands, axes, {dtype, tie, nan}) do
    better = better(name, tie, if(dtype in @floats, do: nan, else: :none))
    Reduction.index_of(name, better, {op, operands, dtype}, axes, false)
  end

  # The last NaN is the last of those that are equal.
  defp better(name, :high, :last), do: better(name, :high, :tie)
  defp better(name, tie, nan), do: Map.fetch!(@better, {name, tie, nan})

  defp one_axis(name, %{shape: shape}, axes, opts) do
    if opts[:axes] == nil or length(axes) in [1, length(shape)],
      do: :ok,
      else: Shapes.invalid(name, :axes, opts[:axes], "one axis, or all of them")
  end

  defp tie(_name, tie) when tie in [:low, :high], do: {:ok, tie}
  defp tie(name, other), do: Shapes.invalid(name, :tie_break, other, ":low or :high")

  @doc "The mean over the axes of the options, as floats."
  def mean(x, opts, into \\ nil) do
    with {:ok, view, axes, keep?} <- checked(:mean, x, opts, []),
         do: mean(:mean, view, axes, keep?, float(view.dtype), into)
  end

  defp mean(name, view, axes, keep?, dtype, into) do
    with {:ok, wide} <- wide(:mean, view) do
      spec = Map.put(spec(name, wide, dtype), :divisor, count(view, axes))
      Reduction.run(spec, @same, [view], axes, keep?, into)
    end
  end

  @doc "The variance over the axes of the options, as floats."
  def variance(x, opts, into \\ nil), do: variance(:variance, x, opts, &float(&1.dtype), into)

  @doc "The square root of the variance."
  def standard_deviation(x, opts, into \\ nil) do
    with {:ok, variance} <- variance(:standard_deviation, x, opts, fn _view -> nil end, nil) do
      %{shape: shape, device: device} = variance
      dtype = float(x.dtype)
      op = Strided.named(@sqrt, :standard_deviation)
      Lowering.map(op, [variance], [dtype: dtype] ++ Target.option(into, shape, dtype, device))
    end
  end

  # The mean of the squares of the distances from the mean, of the type in which it is calculated if `dtype` of the view is `nil`.
  defp variance(name, x, opts, dtype, into) do
    with {:ok, view, axes, keep?} <- checked(name, x, opts, [:ddof]),
         {:ok, ddof} <- Arguments.index(:ddof, Keyword.get(opts, :ddof, 0)),
         {:ok, float} <- wide(:variance, view),
         {:ok, mean} <- mean(name, view, axes, true, float, nil) do
      divisor = max(count(view, axes) - ddof, 0)
      spec = Map.put(spec(name, float, dtype.(view) || float), :divisor, divisor)
      Reduction.run(spec, @square, [view, mean], axes, keep?, into)
    end
  end

  defp float(dtype), do: if(dtype in @floats, do: dtype, else: :f32)
  defp count(%{shape: shape}, axes), do: axes |> Enum.map(&Enum.at(shape, &1)) |> Shape.size()

  defp spec(name, wide, dtype) when name in [:mean, :variance, :standard_deviation],
    do: %{spec(:sum, wide, dtype) | name: name}

  defp spec(name, wide, dtype) do
    {first, step} = @steps[name]
    %{name: name, first: first, step: step, operands: wide, as: wide, dtype: dtype}
  end

  ## Options

  @doc "The view, the axes and `keep_axes:`; `more` are further options that a reduction takes."
  def checked(name, x, opts, more) do
    with {:ok, view} <- Operands.view(x),
         {:ok, opts} <- Arguments.options(opts, [:axis, :axes, :keep_axes | more]),
         {:ok, axes} <- Shapes.axes_of(name, view.shape, opts),
         {:ok, keep?} <- Shapes.keep_axes(name, opts),
         do: {:ok, view, axes, keep?}
  end

  ## Types

  @doc "The type in which a reduction accumulates the elements of a buffer."
  def wide(name, %{dtype: dtype, device: device})
      when name in [:sum, :product, :mean, :variance] do
    with {:ok, dtypes} <- Device.dtypes(device), do: {:ok, wider(name, dtype, dtypes)}
  end

  def wide(_name, %{dtype: dtype}), do: {:ok, dtype}

  # The sum of many 64-bit integers may exceed 64 bits.
  defp wider(:mean, dtype, dtypes) when dtype in [:u64, :s64],
    do: if(:f64 in dtypes, do: :f64, else: :f32)

  defp wider(_name, dtype, _dtypes) when dtype in [:f16, :bf16], do: :f32
  defp wider(_name, dtype, _dtypes) when dtype in [:f32, :f64], do: dtype
  defp wider(:variance, _dtype, _dtypes), do: :f32

  # Sums and products of integers are calculated in the widest integer type of the device.
  defp wider(_name, dtype, dtypes) when dtype in [:u8, :u16, :u32, :u64],
    do: if(:u64 in dtypes, do: :u64, else: :u32)

  defp wider(_name, _dtype, dtypes), do: if(:s64 in dtypes, do: :s64, else: :s32)
end
