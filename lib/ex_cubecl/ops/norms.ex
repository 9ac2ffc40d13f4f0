defmodule ExCubecl.Ops.Norms do
  @moduledoc false
  # Reductions of floats that are made of several steps: norms, and the logarithm of the sum of exponentials.

  alias ExCubecl.Kernel
  alias ExCubecl.Ops.{Lowering, Operands, Reduction, Reductions, Shapes, Strided, Target}

  import Shapes, only: [is_finite: 1]

  require Kernel

  @add Kernel.kernel(fn acc, x -> acc + x end)
  @max Kernel.kernel(fn acc, x -> max(acc, x) end)
  @min Kernel.kernel(fn acc, x -> min(acc, x) end)

  @element Kernel.kernel(fn x -> x end)
  @abs Kernel.kernel(fn x -> abs(x) end)
  @square Kernel.kernel(fn x -> x * x end)
  @not_zero Kernel.kernel(fn x -> if x == 0, do: 0, else: 1 end)
  @power Kernel.kernel(fn x, order -> abs(x) ** order end)
  @sqrt Kernel.kernel(fn sum -> sqrt(sum) end)
  @root Kernel.kernel(fn sum, order -> sum ** (1 / order) end)

  # An infinite maximum is not subtracted from itself. The logarithms of the sums of parts are reduced in the same way as the elements.
  @exponentials %{
    found: Kernel.kernel(fn max -> if(infinite?(max), do: 0, else: max) end),
    element: Kernel.kernel(fn x, max -> exp(x - max) end),
    finish: Kernel.kernel(fn sum, max -> log(sum) + max end)
  }

  @doc "The norm of the order `order:`, 2 by default, over the axes of the options."
  def norm(x, opts, into \\ nil) do
    with {:ok, view, axes, keep?} <- Reductions.checked(:norm, x, opts, [:order]),
         {:ok, steps} <- steps(Keyword.get(opts, :order, 2)),
         {:ok, view, types} <- prepared(view) do
      {first, step, element, numbers, finish} = steps
      spec = spec(:norm, first, step, types)

      with {:ok, sum} <- Reduction.run(spec, element, [view | numbers], axes, keep?),
           do: finished(:norm, finish, [sum | numbers], types, into)
    end
  end

  # The first accumulator, the step, the element-wise kernel and its numbers, and the kernel of the result.
  defp steps(:infinity), do: {:ok, {nil, @max, @abs, [], @element}}
  defp steps(:neg_infinity), do: {:ok, {nil, @min, @abs, [], @element}}
  defp steps(zero) when zero == 0, do: {:ok, {0, @add, @not_zero, [], @element}}
  defp steps(one) when one == 1, do: {:ok, {0, @add, @abs, [], @element}}
  defp steps(two) when two == 2, do: {:ok, {0, @add, @square, [], @sqrt}}
  defp steps(order) when is_finite(order), do: {:ok, {0, @add, @power, [order / 1], @root}}

  defp steps(other),
    do: Shapes.invalid(:norm, :order, other, "a number, :infinity or :neg_infinity")

  @doc "The logarithm of the sum of the exponentials over the axes of the options."
  def logsumexp(x, opts, into \\ nil) do
    with {:ok, view, axes, keep?} <- Reductions.checked(:logsumexp, x, opts, []),
         {:ok, view, types} <- prepared(view),
         spec = %{spec(:logsumexp, nil, @max, types) | dtype: types.stored},
         spec = Map.put(spec, :again, @exponentials),
         {:ok, result} <- Reduction.run(spec, @element, [view], axes, keep?, into),
         do: Operands.converted(result, types.dtype)
  end

  # The elements, which kernels can read, and the types of the calculation.
  defp prepared(view) do
    with {:ok, types} <- Operands.float_types(view),
         {:ok, view} <- Operands.loaded(view, types),
         do: {:ok, view, types}
  end

  defp spec(name, first, step, %{acc: acc}),
    do: %{name: name, first: first, step: step, operands: acc, as: acc, dtype: acc}

  defp finished(name, kernel, [sum | _] = operands, types, into) do
    kernel = Strided.named(kernel, name)
    target = Target.option(into, sum.shape, types.stored, sum.device)

    with {:ok, result} <-
           Lowering.map(kernel, operands, [as: types.acc, dtype: types.stored] ++ target),
         do: Operands.converted(result, types.dtype)
  end
end
