defmodule ExCubecl.Ops.Normalization do
  @moduledoc false
  # Softmax, and normalizations of rows, which are calculated as floats.

  alias ExCubecl.{Error, Kernel, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Operands, Rows, Shapes}

  import Shapes, only: [is_finite: 1]

  require Kernel

  @add Kernel.kernel(fn acc, x -> acc + x end)
  @element Kernel.kernel(fn x -> x end)
  @max Kernel.kernel(fn acc, x -> max(acc, x) end)
  @square Kernel.kernel(fn x -> x * x end)
  @exp Kernel.kernel(fn x, max -> exp(x - max) end)
  @deviation Kernel.kernel(fn x, mean -> (x - mean) * (x - mean) end)
  @mean Kernel.kernel(fn acc, n -> acc / n end)
  @root Kernel.kernel(fn acc, n, epsilon -> sqrt(acc / n + epsilon) end)

  # The maximum is subtracted, so that no exponential is too large.
  @exponentials [
    max: %{element: @element, step: @max, first: :lowest, finish: nil},
    sum: %{element: @exp, step: @add, first: 0, finish: nil}
  ]

  @reductions %{
    softmax: @exponentials,
    log_softmax: @exponentials,
    layer_norm: [
      mean: %{element: @element, step: @add, first: 0, finish: @mean},
      root: %{element: @deviation, step: @add, first: 0, finish: @root}
    ],
    rms_norm: [root: %{element: @square, step: @add, first: 0, finish: @root}]
  }

  @results %{
    softmax: Kernel.kernel(fn x, max, sum -> exp(x - max) / sum end),
    log_softmax: Kernel.kernel(fn x, max, sum -> x - max - log(sum) end),
    layer_norm:
      Kernel.kernel(fn x, mean, root, scale, bias -> (x - mean) / root * scale + bias end),
    rms_norm: Kernel.kernel(fn x, root, scale -> x / root * scale end)
  }

  @doc "Softmax or its logarithm, along the axis of the options."
  def exponential(name, x, opts, into \\ nil) do
    with {:ok, x, _opts, axis} <- checked(name, x, opts, []),
         do: rows(name, [x: x, lowest: :neg_infinity], axis, into)
  end

  @doc "Layer or RMS normalization, along the axis of the options."
  def normalized(name, x, opts, into \\ nil) do
    more = if name == :layer_norm, do: [:scale, :bias, :epsilon], else: [:scale, :epsilon]

    with {:ok, x, opts, axis} <- checked(name, x, opts, more),
         {:ok, epsilon} <- epsilon(name, Keyword.get(opts, :epsilon, 1.0e-5)),
         {:ok, scale} <- vector(name, Keyword.get(opts, :scale, 1.0), x, axis),
         {:ok, bias} <- vector(name, Keyword.get(opts, :bias, 0.0), x, axis) do
      numbers = [n: Enum.at(x.shape, axis) / 1, epsilon: epsilon]
      rows(name, [x: x, scale: scale, bias: bias] ++ numbers, axis, into)
    end
  end

  @doc "The tensors that layer and RMS normalization read, by name."
  def operands(x, opts) do
    if Keyword.keyword?(opts),
      do: [x: x] ++ Keyword.take(opts, [:scale, :bias]),
      else: [x: x]
  end

  defp checked(name, x, opts, more) do
    with {:ok, x} <- Operands.view(x),
         {:ok, opts} <- Arguments.options(opts, [:axis | more]),
         {:ok, axis} <- Shapes.axis(name, x.shape, Keyword.get(opts, :axis, -1)),
         do: {:ok, x, opts, axis}
  end

  defp epsilon(_name, number) when is_finite(number) and number >= 0, do: {:ok, number / 1}
  defp epsilon(name, other), do: Shapes.invalid(name, :epsilon, other, "a number of 0 or more")

  # A vector along the axis, as a view of the shape of `x`.
  defp vector(_name, number, _x, _axis) when is_finite(number), do: {:ok, number / 1}

  defp vector(name, vector, %{shape: shape}, axis) do
    n = Enum.at(shape, axis)

    with {:ok, view} <- Operands.view(vector) do
      case view do
        %{shape: [^n], strides: [stride]} ->
          strides = for at <- 0..(length(shape) - 1), do: if(at == axis, do: stride, else: 0)
          {:ok, %{view | shape: shape, strides: strides}}

        _ ->
          Shapes.mismatch(name, :vector, view.shape, shape, %{axis: axis, length: n})
      end
    end
  end

  defp rows(name, [{:x, x} | _] = operands, axis, into) do
    with {:ok, types} <- Operands.float_types(x),
         {:ok, operands} <- Error.map(operands, &loaded(&1, types)),
         spec = %{name: name, reductions: @reductions[name], result: @results[name]},
         spec = Map.merge(spec, %{acc: types.acc, dtype: types.stored}),
         {:ok, buffer} <- Rows.run(spec, operands, axis, into),
         do: Operands.converted(buffer, types.dtype)
  end

  defp loaded({name, %View{} = view}, types),
    do: with({:ok, view} <- Operands.loaded(view, types), do: {:ok, {name, view}})

  defp loaded(number, _types), do: {:ok, number}
end
