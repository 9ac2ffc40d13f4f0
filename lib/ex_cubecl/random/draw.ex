defmodule ExCubecl.Random.Draw do
  @moduledoc false
  # Draws of a key that is used for nothing else, into new buffers.

  import Bitwise

  alias ExCubecl.{Buffer, Device, DType}
  alias ExCubecl.Error.{Arguments, Text}
  alias ExCubecl.Kernel.Types
  alias ExCubecl.Ops.{ComputeType, Functions, Index, Shapes, Strided}
  alias ExCubecl.Random.Kernels

  @floats [:f16, :bf16, :f32, :f64]
  @mask 0xFFFF_FFFF

  # The bits of the words that become digits, the number of digits that are dropped, and the value of the last digit.
  @digits %{f32: {@mask, 9, 2 ** -23}, f16: {0xFFFF, 6, 2 ** -10}, bf16: {0xFFFF, 9, 2 ** -7}}

  ## Floats

  def uniform(key, shape, opts) do
    with {:ok, dtype} <- float(:uniform, opts),
         {:ok, low} <- number(:low, Keyword.get(opts, :low, 0.0), dtype),
         {:ok, high} <- number(:high, Keyword.get(opts, :high, 1.0), dtype),
         {:ok, scale} <- difference(high, low, dtype),
         do: floats({:uniform, & &1}, key, shape, dtype, [scale: scale, low: low], opts)
  end

  # As in Nx: the inverse error function of numbers in (-1, 1).
  def normal(key, shape, opts) do
    with {:ok, dtype} <- float(:normal, opts),
         {:ok, mean} <- number(:mean, Keyword.get(opts, :mean, 0.0), dtype),
         {:ok, deviation} <- number(:deviation, Keyword.get(opts, :deviation, 1.0), dtype),
         {:ok, low} <- number(:low, after_minus_one(dtype), dtype),
         {:ok, scale} <- number(:high, 1 - low, dtype),
         {:ok, root} <- number(:root, :math.sqrt(2), dtype) do
      numbers = [scale: scale, low: low, root: root, deviation: deviation, mean: mean]
      floats({:uniform_one, &normal_kernel/1}, key, shape, dtype, numbers, opts)
    end
  end

  defp normal_kernel(kernel) do
    erf_inv = Functions.all()[:erf_inv]

    Kernels.map(kernel, :normal, erf_inv.key, [:root, :deviation, :mean], fn u ->
      normal = Index.call(:mul, Index.var(:root), {:inline, erf_inv.parsed, [u]})
      Index.call(:add, Index.call(:mul, Index.var(:deviation), normal), Index.var(:mean))
    end)
  end

  defp after_minus_one(:f16), do: -1 + 2 ** -11
  defp after_minus_one(:bf16), do: -1 + 2 ** -8
  defp after_minus_one(:f32), do: -1 + 2 ** -24
  defp after_minus_one(:f64), do: -1 + 2 ** -53

  # The kernel of narrow floats, and what makes one of it that applies a function.
  defp floats({_kernel, change}, {k0, k1}, shape, :f64, numbers, opts) do
    drawn(shape, :f64, opts, fn n, out ->
      args = [k0, k1, n] ++ Keyword.values(numbers) ++ [out]
      Strided.run(change.(Kernels.kernel(:uniform_f64)), args, size: n, replaces: true)
    end)
  end

  defp floats({kernel, change}, {k0, k1}, shape, dtype, numbers, opts) do
    {mask, shift, unit} = @digits[dtype]

    drawn(shape, dtype, opts, fn n, out ->
      half = div(n + 1, 2)
      args = [k0, k1, n, half, mask, shift, unit] ++ Keyword.values(numbers) ++ [out]
      size = if kernel == :uniform, do: half, else: n
      Strided.run(change.(Kernels.kernel(kernel)), args, size: size, replaces: true)
    end)
  end

  defp float(name, opts) do
    case Keyword.get(opts, :dtype, :f32) do
      dtype when dtype in @floats -> {:ok, dtype}
      other -> Shapes.invalid(name, :dtype, other, "one of #{Text.show(@floats)}")
    end
  end

  # A number rounded to the type in which the kernel calculates.
  defp number(name, number, dtype) when is_number(number) do
    size = bits(dtype)
    <<rounded::float-size(size)>> = <<number::float-size(size)>>
    {:ok, rounded}
  rescue
    _ in [ArgumentError, MatchError] ->
      Arguments.invalid(name, number, "a number within :f#{bits(dtype)}")
  end

  defp number(name, other, _dtype), do: Arguments.invalid(name, other, "a number")

  defp bits(:f64), do: 64
  defp bits(_narrower), do: 32

  # The difference of two floats may be none.
  defp difference(high, low, dtype) do
    number(:high, high - low, dtype)
  rescue
    ArithmeticError ->
      Arguments.invalid(
        :high,
        high,
        "a number less than the greatest of #{inspect(dtype)} above low"
      )
  end

  ## Integers

  def integers(key, shape, first..last//step = range, opts) do
    with {:ok, dtype} <- Arguments.dtype(Keyword.get(opts, :dtype, :s32)),
         {:ok, {least, most}} <- limits(dtype),
         span = last - first + 1,
         true <- step == 1 and span > 0 and first >= least and last <= most,
         true <- span <= most - least do
      bits = 8 * DType.size!(dtype)
      drawn(shape, dtype, opts, &launch(bits, span, key, first, &1, &2))
    else
      false -> no_range(range, opts)
      error -> error
    end
  end

  def integers(_key, _shape, other, opts), do: no_range(other, opts)

  defp no_range(other, opts) do
    with {:ok, dtype} <- Arguments.dtype(Keyword.get(opts, :dtype, :s32)) do
      expected = "first..last of step 1, within #{dtype} and not all its numbers"
      Shapes.invalid(:integers, :range, other, expected)
    end
  end

  defp limits(dtype) when dtype in @floats,
    do: Shapes.invalid(:integers, :dtype, dtype, "an integer type")

  defp limits(dtype),
    do: {:ok, {Types.number_as(:neg_infinity, dtype), Types.number_as(:infinity, dtype)}}

  # `multiplier` is the value of the upper half of the number of which the integer is the remainder.
  defp launch(64, span, {k0, k1}, low, n, out) do
    half = rem(1 <<< 32, span)
    multiplier = rem(half * half, 1 <<< 64) |> rem(span)
    args = [k0, k1, n, span, multiplier, band(low, (1 <<< 64) - 1), out]
    Strided.run(Kernels.kernel(:integers_64), args, size: n, replaces: true)
  end

  defp launch(bits, span, {k0, k1}, low, n, out) when span <= 0x10000 do
    args = [k0, k1, n, (1 <<< bits) - 1, span, rem(1 <<< bits, span), band(low, @mask), out]
    Strided.run(Kernels.kernel(:integers), args, size: n, replaces: true)
  end

  defp launch(32, span, {k0, k1}, low, n, out),
    do:
      Strided.run(Kernels.kernel(:integers_32), [k0, k1, n, span, band(low, @mask), out],
        size: n,
        replaces: true
      )

  ## Words

  @doc "Uniformly distributed words, of the type `:u32`."
  def words({k0, k1}, shape, device) do
    drawn(shape, :u32, [device: device], fn n, out ->
      half = div(n + 1, 2)
      Strided.run(Kernels.kernel(:words), [k0, k1, n, half, out], size: half, replaces: true)
    end)
  end

  ## Buffers

  # Types that the device does not compute are drawn in a wider one, and converted.
  defp drawn(shape, dtype, opts, launch) do
    with {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, shape, n} <- Arguments.shape(shape, dtype),
         {:ok, type} <- ComputeType.of(dtype, id),
         {:ok, out} <- Buffer.empty(shape, type, device: id),
         :ok <- if(n == 0, do: :ok, else: launch.(n, out)),
         :ok <- Buffer.ensure_allocated(out),
         do: ComputeType.converted(out, dtype)
  end
end
