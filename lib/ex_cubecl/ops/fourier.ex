defmodule ExCubecl.Ops.Fourier do
  @moduledoc false
  # Discrete Fourier transforms of any length along any axis. Complex numbers are pairs: a last axis of length 2.
  #
  # Lengths whose only prime factors are 2, 3, 5 and 7 are transformed by Stockham's algorithm in passes of radix 8, 7, 5, 4, 3 and 2, each a launch
  # that reads and writes all elements once; any other length by Bluestein's algorithm, as a convolution of a power of two. Lengths are arguments of the kernels.

  alias ExCubecl.{Buffer, Kernel, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Layout, Operands, Shapes}
  alias ExCubecl.Ops.Fourier.{Kernels, Tables}
  alias ExCubecl.View.{Copy, Strides}

  @radices [8, 7, 5, 4, 3, 2]

  @doc "The transform of complex numbers, or of real ones with `real: true`. `name` is `:fft` or `:ifft`."
  def run(name, buffer, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :length, :real]),
         {:ok, real?} <- real(name, Keyword.get(opts, :real, false)),
         {:ok, signal} <- signal(name, buffer, if(real?, do: 1, else: 2), opts),
         do: transform(signal, direction(name))
  end

  @doc "The transform along two axes."
  def run_2d(name, buffer, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axes, :lengths, :real]),
         {:ok, [first, second]} <- two(name, :axes, Keyword.get(opts, :axes, [-2, -1])),
         {:ok, [n, m]} <- two(name, :lengths, Keyword.get(opts, :lengths, [nil, nil])),
         {:ok, real?} <- real(name, Keyword.get(opts, :real, false)),
         width = if(real?, do: 1, else: 2),
         {:ok, one} <- signal(name, buffer, width, axis: second, length: m),
         {:ok, two} <- signal(name, buffer, width, axis: first, length: n),
         :ok <- differ(name, one.axis, two.axis, [first, second]),
         {:ok, result} <- transform(one, direction(name)),
         {:ok, signal} <- signal(name, result, 2, axis: two.axis, length: two.n),
         do: transform(signal, direction(name))
  end

  @doc "The transform of real numbers, without the second half, which is the conjugate of the first."
  def rfft(buffer, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :length]),
         {:ok, signal} <- signal(:rfft, buffer, 1, opts),
         {:ok, result} <- transform(signal, :forward) do
      result |> first(signal.axis, div(signal.n, 2) + 1) |> Copy.copy(:rfft)
    end
  end

  @doc "The inverse of `rfft/2`."
  def irfft(buffer, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :length]),
         {:ok, %{m: m} = signal} <- signal(:irfft, buffer, 2, opts),
         n = opts[:length] || 2 * (m - 1),
         :ok <- positive(:irfft, n, signal.shape),
         {:ok, full} <- hermitian(signal, n),
         {:ok, result} <- transform(%{signal | buffer: full, m: n, n: n}, :inverse) do
      with {:ok, real} <- result |> first(-1, 1) |> Copy.copy(:irfft),
           do: Buffer.reshape(real, Enum.drop(result.shape, -1))
    end
  end

  # The first elements along an axis.
  defp first(result, axis, length) do
    lengths = List.replace_at(result.shape, axis, length)
    [zeros, ones] = for n <- [0, 1], do: Enum.map(lengths, fn _ -> n end)
    Strides.slice(View.new(result), zeros, lengths, ones)
  end

  defp hermitian(%{buffer: buffer, m: m} = signal, n) do
    filled(signal, [signal.outer, n, signal.inner, 2], fn out ->
      Kernels.hermitian(buffer, m, n, max(signal.inner, 1), out)
    end)
  end

  defp direction(name) when name in [:fft, :fft2], do: :forward
  defp direction(name) when name in [:ifft, :ifft2], do: :inverse

  ## Arguments

  # The numbers along an axis: `m` of them are given, of which `n` are transformed.
  defp signal(name, buffer, width, opts) do
    with {:ok, buffer} <- Operands.contiguous(buffer, name),
         {:ok, shape} <- complex(name, buffer.shape, width),
         {:ok, axis} <- Shapes.axis(name, shape, opts[:axis] || -1),
         {outer, m, inner} = Layout.around(shape, axis),
         n = opts[:length] || m,
         :ok <- positive(name, n, shape),
         {:ok, buffer} <- float(buffer) do
      signal = %{name: name, buffer: buffer, width: width, shape: shape, axis: axis}
      {:ok, Map.merge(signal, %{outer: outer, m: m, n: n, inner: inner})}
    end
  end

  defp complex(_name, shape, 1), do: {:ok, shape}

  defp complex(name, shape, 2) do
    if List.last(shape) == 2,
      do: {:ok, Enum.drop(shape, -1)},
      else:
        Shapes.invalid(name, :shape, shape, "complex numbers, which have a last axis of length 2")
  end

  defp float(%{dtype: dtype} = buffer) when dtype in [:f32, :f64], do: {:ok, buffer}
  defp float(buffer), do: Buffer.convert(buffer, :f32)

  defp real(_name, real?) when is_boolean(real?), do: {:ok, real?}
  defp real(name, other), do: Shapes.invalid(name, :real, other, "true or false")

  # Exponents are calculated with 32 bits.
  @most 0x07FF_FFFF

  defp positive(_name, n, _shape) when is_integer(n) and n in 1..@most, do: :ok

  defp positive(name, n, shape) do
    expected = "a number from 1 to #{@most}; the shape is #{inspect(shape, charlists: :as_lists)}"
    Shapes.invalid(name, :length, n, expected)
  end

  defp two(_name, _argument, [_, _] = list), do: {:ok, list}
  defp two(name, argument, other), do: Shapes.invalid(name, argument, other, "a list of two")

  defp differ(name, axis, axis, axes), do: Shapes.invalid(name, :axes, axes, "two different axes")
  defp differ(_name, _axis, _other, _axes), do: :ok

  ## Transforms

  defp transform(signal, direction) do
    # An inverse transform is the conjugate of the transform of the conjugates, divided by the length.
    {sign, scale} = if direction == :forward, do: {1.0, 1.0}, else: {-1.0, 1.0 / signal.n}
    shape = List.replace_at(signal.shape, signal.axis, signal.n) ++ [2]

    with {:ok, _, _} <- Arguments.shape(shape, signal.buffer.dtype),
         {:ok, result} <- transformed(signal, {sign, scale, sign * scale}),
         do: Buffer.reshape(result, shape)
  end

  defp transformed(%{outer: outer, inner: inner} = signal, _factors) when 0 in [outer, inner],
    do:
      Buffer.zeros([outer, signal.n, inner, 2], signal.buffer.dtype, device: signal.buffer.device)

  defp transformed(%{n: n} = signal, factors) do
    with {:ok, loaded} <- loaded(signal) do
      case radices(n) do
        {:ok, radices} -> passes(%{signal | buffer: loaded}, radices, factors)
        :error -> bluestein(%{signal | buffer: loaded}, factors)
      end
    end
  end

  defp loaded(%{width: 2, m: n, n: n, buffer: buffer}), do: {:ok, buffer}

  defp loaded(%{buffer: buffer, n: n, m: m, inner: inner} = signal) do
    filled(
      signal,
      [signal.outer, n, inner, 2],
      &Kernels.load(buffer, signal.width, m, n, inner, &1)
    )
  end

  # The radices whose product is a length.
  defp radices(1), do: {:ok, []}

  defp radices(n) do
    with radix when radix != nil <-
           Enum.find(@radices, &(rem(n, &1) == 0)),
         {:ok, rest} <- radices(div(n, radix)) do
      {:ok, [radix | rest]}
    else
      _ -> :error
    end
  end

  # Of a length of 1, the transform is the number itself.
  defp passes(%{n: 1, buffer: buffer}, [], _factors), do: {:ok, buffer}

  defp passes(%{n: n, inner: inner} = signal, radices, {sign, scale, conjugated}) do
    with {:ok, tables, shift} <- Tables.roots(n, signal.buffer) do
      last = length(radices) - 1
      before = Enum.scan([1 | radices], &*/2)

      [radices, before]
      |> Enum.zip()
      |> Enum.with_index()
      |> Enum.reduce_while({:ok, signal.buffer}, fn {{radix, p}, at}, {:ok, x} ->
        step = div(n, p * radix)
        sign = if at == 0, do: sign, else: 1.0
        factors = if at == last, do: [scale, conjugated], else: [1.0, 1.0]

        filled(signal, [signal.outer, n, inner, 2], fn out ->
          args = [x | tables] ++ [shift, n, inner, p, step, sign] ++ factors ++ [out]
          launch(:"pass_#{radix}", args, signal.outer * div(n, radix) * inner)
        end)
        |> continue()
      end)
    end
  end

  defp continue({:ok, _} = result), do: {:cont, result}
  defp continue(error), do: {:halt, error}

  # The transform of `b` is the same for all rows.
  defp bluestein(%{n: n, inner: inner, outer: outer} = signal, {sign, scale, conjugated}) do
    m = power_of_two(2 * n - 1)
    {:ok, radices} = radices(m)
    wide = %{signal | m: m, n: m}

    with {:ok, tables, shift} <- Tables.roots(2 * n, signal.buffer),
         {:ok, a} <-
           filled(signal, [outer, m, inner, 2], fn out ->
             args = [signal.buffer | tables] ++ [shift, n, m, inner, sign, out]
             launch(:modulate, args, outer * m * inner)
           end),
         {:ok, a} <- passes(%{wide | buffer: a}, radices, {1.0, 1.0, 1.0}),
         {:ok, b} <-
           filled(signal, [m, 2], fn out -> launch(:filter, tables ++ [shift, n, m, out], m) end),
         {:ok, b} <- passes(%{wide | buffer: b, outer: 1, inner: 1}, radices, {1.0, 1.0, 1.0}),
         {:ok, c} <-
           filled(signal, [outer, m, inner, 2], fn out ->
             launch(:convolve, [a, b, m, inner, out], outer * m * inner)
           end),
         {:ok, c} <- passes(%{wide | buffer: c}, radices, {-1.0, 1.0 / m, -1.0 / m}) do
      filled(signal, [outer, n, inner, 2], fn out ->
        args = [c | tables] ++ [shift, n, m, inner, scale, conjugated, out]
        launch(:demodulate, args, outer * n * inner)
      end)
    end
  end

  defp launch(name, args, size), do: Kernel.run({Kernels, name}, args, size: size)

  defp power_of_two(least), do: power_of_two(least, 1)
  defp power_of_two(least, n) when n >= least, do: n
  defp power_of_two(least, n), do: power_of_two(least, 2 * n)

  defp filled(%{buffer: %{dtype: dtype, device: device}}, shape, run) do
    with {:ok, out} <- Buffer.empty(shape, dtype, device: device),
         :ok <- run.(out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end
end
