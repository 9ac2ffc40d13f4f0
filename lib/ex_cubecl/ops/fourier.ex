defmodule ExCubecl.Ops.Fourier do
  @moduledoc false
  # Discrete Fourier transforms of any length along any axis. Complex numbers are pairs: a last axis of length 2.
  #
  # Lengths whose only prime factors are 2, 3, 5 and 7 are transformed by Stockham's algorithm in passes of radix 16, 8, 7, 5, 4, 3 and 2, each a launch
  # that reads and writes all elements once, and those with prime factors up to 31, if the table of their roots is not large, in passes of a kernel for any
  # radix; any other length by Bluestein's algorithm, as a convolution of a power of two. Lengths are arguments of the kernels.
  #
  # Passes write two buffers in turn, the last one that of the result. The memory of both is allocated before the first pass, so that no launch waits for another.

  alias ExCubecl.{Buffer, Error, Kernel, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{Layout, Operands, Shapes, Target, Temporary}
  alias ExCubecl.Ops.Fourier.{Kernels, Tables}
  alias ExCubecl.View.{Copy, Strides}

  @radices [8, 7, 5, 4, 3, 2]

  # For fewer numbers, the kernel of radix 16 takes longer to compile than it saves.
  @many 0x4_0000

  # As many numbers are transformed by passes of a kernel for any radix, and so are lengths with larger primes, up to that of the longest table of roots: that
  # takes less time than Bluestein's algorithm. By four, it has the fewest roundings.
  @few 4096
  @table 0x4000
  @any_radices [4, 31, 29, 23, 19, 17, 13, 11, 7, 5, 3, 2]

  @doc "The transform of complex numbers, or of real ones with `real: true`. `name` is `:fft` or `:ifft`."
  def run(name, buffer, opts, into) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :length, :real]),
         {:ok, real?} <- real(name, Keyword.get(opts, :real, false)),
         {:ok, signal} <- signal(name, buffer, if(real?, do: 1, else: 2), opts),
         do: transform(signal, direction(name), into)
  end

  @doc "The transform along two axes."
  def run_2d(name, buffer, opts, into) do
    with {:ok, opts} <- Arguments.options(opts, [:axes, :lengths, :real]),
         {:ok, [first, second]} <- two(name, :axes, Keyword.get(opts, :axes, [-2, -1])),
         {:ok, [n, m]} <- two(name, :lengths, Keyword.get(opts, :lengths, [nil, nil])),
         {:ok, real?} <- real(name, Keyword.get(opts, :real, false)),
         width = if(real?, do: 1, else: 2),
         {:ok, one} <- signal(name, buffer, width, axis: second, length: m),
         {:ok, two} <- signal(name, buffer, width, axis: first, length: n),
         :ok <- differ(name, one.axis, two.axis, [first, second]),
         {:ok, result} <- transform(one, direction(name), nil),
         {:ok, signal} <- signal(name, result, 2, axis: two.axis, length: two.n),
         do: transform(signal, direction(name), into)
  end

  @doc "The transform of real numbers, without the second half, which is the conjugate of the first."
  def rfft(buffer, opts, into) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :length]),
         {:ok, signal} <- signal(:rfft, buffer, 1, opts),
         halves? = signal.m == signal.n and halves?(signal),
         do: if(halves?, do: halves(signal, into), else: whole(signal, into))
  end

  defp whole(signal, into) do
    with {:ok, result} <- transform(signal, :forward, nil),
         do: result |> first(signal.axis, div(signal.n, 2) + 1) |> Copy.moved(:rfft, into)
  end

  # Pairs of the numbers are transformed as complex ones.
  defp halves(%{outer: outer, n: n, buffer: %{dtype: dtype, device: device}} = signal, into) do
    h = div(n, 2)
    shape = along(signal, h + 1) ++ [2]
    half = %{signal | half?: true, width: 2, m: h, n: h, shape: along(signal, h)}

    with {:ok, out} <- Target.new(into, shape, dtype, device, [outer, h + 1, 1, 2]),
         :ok <- Buffer.ensure_allocated(out),
         {:ok, transformed} <- transform(half, :forward, nil),
         :ok <- real_halves(transformed, outer, h, [h, h + 1, -1.0, 0], out),
         :ok <- Temporary.free([transformed], []),
         do: Buffer.reshape(out, shape)
  end

  # Whether the transform of real numbers is made of one of half as many complex numbers, which are pairs of them along the last axis only. A short one
  # compiles fewer kernels otherwise.
  defp halves?(%{outer: outer, n: n, inner: inner}),
    do: inner == 1 and rem(n, 2) == 0 and outer * n > @few

  defp real_halves(x, outer, h, more, out) do
    pairs = div(h, 2) + 1

    with {:ok, tables, shift} <- Tables.roots(2 * h, x),
         :ok <-
           launch(:real_halves, [x | tables] ++ [shift, h, pairs | more] ++ [out], outer * pairs),
         do: Temporary.free(tables, [])
  end

  defp along(signal, length), do: List.replace_at(signal.shape, signal.axis, length)

  @doc "The inverse of `rfft/2`."
  def irfft(buffer, opts, into) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :length]),
         {:ok, %{m: m} = signal} <- signal(:irfft, buffer, 2, opts),
         n = opts[:length] || 2 * (m - 1),
         :ok <- positive(:irfft, n, signal.shape),
         halves? = halves?(%{signal | n: n}),
         do: if(halves?, do: from_halves(signal, n, into), else: from_whole(signal, n, into))
  end

  defp from_whole(signal, n, into) do
    with {:ok, full} <- hermitian(signal, n),
         {:ok, result} <- transform(%{signal | buffer: full, m: n, n: n}, :inverse, nil),
         do: result |> first(-1, 1) |> Copy.moved(:irfft, into, Enum.drop(result.shape, -1))
  end

  defp from_halves(%{m: m, outer: outer} = signal, n, into) do
    h = div(n, 2)

    with {:ok, z} <- empty(signal, h),
         :ok <- real_halves(signal.buffer, outer, h, [m, h, 1.0, h], z),
         half = %{signal | half?: true, buffer: z, m: h, n: h, shape: along(signal, h)},
         {:ok, result} <- transform(half, :inverse, into, along(signal, n)),
         :ok <- Temporary.free([z], [result]),
         do: {:ok, result}
  end

  # The first elements along an axis.
  defp first(result, axis, length) do
    lengths = List.replace_at(result.shape, axis, length)
    [zeros, ones] = for n <- [0, 1], do: Enum.map(lengths, fn _ -> n end)
    Strides.slice(View.new(result), zeros, lengths, ones)
  end

  defp hermitian(%{buffer: buffer, m: m} = signal, n) do
    with {:ok, out} <- empty(signal, n),
         :ok <- Kernels.hermitian(buffer, m, n, max(signal.inner, 1), out),
         do: {:ok, out}
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
      signal = %{name: name, buffer: buffer, width: width, shape: shape, axis: axis, half?: false}
      {:ok, Map.merge(signal, %{outer: outer, m: m, n: n, inner: inner})}
    end
  end

  defp complex(_name, shape, 1), do: {:ok, shape}

  defp complex(name, shape, 2) do
    expected = "complex numbers, which have a last axis of length 2"
    real = if name == :fft, do: "; ExCubecl.Ops.rfft/2 takes real ones", else: ""

    if List.last(shape) == 2,
      do: {:ok, Enum.drop(shape, -1)},
      else: Shapes.invalid(name, :shape, shape, expected <> real)
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

  defp transform(signal, direction, into),
    do: transform(signal, direction, into, along(signal, signal.n) ++ [2])

  # The shape is that of the result.
  defp transform(signal, direction, into, shape) do
    # An inverse transform is the conjugate of the transform of the conjugates, divided by the length.
    {sign, scale} = if direction == :forward, do: {1.0, 1.0}, else: {-1.0, 1.0 / signal.n}
    %{outer: outer, n: n, inner: inner, buffer: %{dtype: dtype, device: device}} = signal

    with {:ok, _, _} <- Arguments.shape(shape, dtype),
         {:ok, out} <- Target.new(into, shape, dtype, device, [outer, n, inner, 2]),
         :ok <- Buffer.ensure_allocated(out),
         :ok <- transformed(signal, {sign, scale, sign * scale}, out),
         do: Buffer.reshape(out, shape)
  end

  defp transformed(%{outer: outer, inner: inner}, _factors, _out) when 0 in [outer, inner],
    do: :ok

  defp transformed(signal, factors, out) do
    case radices(signal) do
      # Of a length of 1, the transform is the number itself.
      {:ok, [], _any?} -> load(signal, out)
      {:ok, radices, any?} -> stockham(signal, {radices, any?}, factors, out)
      :error -> bluestein(signal, factors, out)
    end
  end

  # The numbers that are transformed, as complex ones: those that are given, or in the buffer.
  defp loaded(%{width: 2, m: n, n: n, buffer: buffer}, _into), do: {:ok, buffer}
  defp loaded(signal, into), do: with(:ok <- load(signal, into), do: {:ok, into})

  defp load(%{n: n, inner: inner} = signal, out),
    do: Kernels.load(signal.buffer, signal.width, signal.m, n, inner, out)

  # The radices whose product is a length, and whether they are for the kernel for any radix.
  defp radices(%{outer: outer, n: n, inner: inner} = signal) do
    size = outer * n * inner
    any = fn -> with {:ok, radices} <- radices(n, @any_radices), do: {:ok, radices, true} end

    if size <= @few do
      any.()
    else
      case radices(n, @radices) do
        {:ok, radices} -> {:ok, fewest(radices, signal), false}
        :error when size < @many and n <= @table -> any.()
        :error -> :error
      end
    end
  end

  # Radix 16 for many numbers, where it saves a pass. The transform of half as many numbers as are real is faster than that of all of them without it.
  defp fewest(radices, %{outer: outer, n: n, inner: inner, half?: half?}) do
    with true <- outer * n * inner >= @many and not half?,
         {:ok, other} when length(other) < length(radices) <- radices(n, [16 | @radices]) do
      other
    else
      _ -> radices
    end
  end

  defp radices(1, _known), do: {:ok, []}

  defp radices(n, known) do
    with radix when radix != nil <- Enum.find(known, &(rem(n, &1) == 0)),
         {:ok, rest} <- radices(div(n, radix), known) do
      {:ok, [radix | rest]}
    else
      _ -> :error
    end
  end

  # Numbers that have to be loaded first are loaded into the buffer that the first pass does not write.
  defp stockham(signal, {radices, any?}, factors, out) do
    with {:ok, other} <- other(signal, radices),
         {first, second} = if(rem(length(radices), 2) == 1, do: {out, other}, else: {other, out}),
         {:ok, loaded} <- loaded(signal, second),
         {:ok, plan} <- plan(signal, radices, any?),
         {:ok, _} <- passes(%{signal | buffer: loaded}, plan, factors, {first, second}),
         do: Temporary.free([other | plan.tables], [])
  end

  defp other(%{width: 2, m: n, n: n}, [_radix]), do: {:ok, nil}
  defp other(signal, _radices), do: empty(signal, signal.n)

  # Returns the buffer that the last pass wrote, and the other one.
  defp passes(signal, plan, {sign, scale, conjugated}, buffers) do
    %{outer: outer, n: n, inner: inner} = signal
    %{radices: radices, tables: tables, shift: shift} = plan
    last = length(radices) - 1
    before = Enum.scan([1 | radices], &*/2)

    [radices, before]
    |> Enum.zip()
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, signal.buffer, buffers}, fn {{radix, p}, at},
                                                           {:ok, x, {out, next}} ->
      step = div(n, p * radix)
      sign = if at == 0, do: sign, else: 1.0
      factors = if at == last, do: [scale, conjugated], else: [1.0, 1.0]
      args = [x | tables] ++ shift ++ [n, inner, p, step]

      case pass(plan, radix, args, [sign | factors] ++ [out], outer * n * inner) do
        :ok -> {:cont, {:ok, out, {next, out}}}
        error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, result, {other, result}} -> {:ok, {result, other}}
      error -> error
    end
  end

  defp pass(%{any?: true}, radix, args, more, size) do
    count = if rem(radix, 2) == 0, do: div(radix, 2), else: radix
    launch(:pass, args ++ [radix, count | more], div(size, radix) * count)
  end

  defp pass(_plan, radix, args, more, size),
    do: launch(:"pass_#{radix}", args ++ more, div(size, radix))

  defp plan(%{n: n, buffer: buffer}, radices, true) do
    with {:ok, table} <- Tables.all(n, buffer),
         do: {:ok, %{radices: radices, tables: [table], shift: [], any?: true}}
  end

  defp plan(%{n: n, buffer: buffer}, radices, false) do
    with {:ok, tables, shift} <- Tables.roots(n, buffer),
         do: {:ok, %{radices: radices, tables: tables, shift: [shift], any?: false}}
  end

  # The numbers are multiplied by a table, and convolved with its conjugates. The transform of these is the same for all rows.
  defp bluestein(%{n: n, inner: inner, outer: outer} = signal, {sign, scale, conjugated}, out) do
    m = power_of_two(2 * n - 1)
    wide = %{signal | m: m, n: m}
    filter = %{wide | outer: 1, inner: 1}
    {:ok, radices, any?} = radices(wide)
    none = {1.0, 1.0, 1.0}
    count = outer * m * inner

    with {:ok, loaded} <- loaded(signal, out),
         {:ok, plan} <- plan(wide, radices, any?),
         {:ok, f} <- filter(filter, n),
         {:ok, [g, h]} <- Error.map([filter, filter], &empty(&1, m)),
         {:ok, [a, b]} <- Error.map([wide, wide], &empty(&1, m)),
         :ok <- launch(:multiply, [loaded, f, n, m, inner, sign, -1.0, 1.0, 1.0, a], count),
         {:ok, {a, b}} <- passes(%{wide | buffer: a}, plan, none, {b, a}),
         {:ok, {g, h}} <- passes(%{filter | buffer: f}, plan, none, {g, h}),
         :ok <- launch(:multiply, [a, g, m, m, inner, 1.0, 1.0, 1.0, 1.0, b], count),
         factors = {-1.0, 1.0 / m, -1.0 / m},
         {:ok, {c, _}} <- passes(%{wide | buffer: b}, plan, factors, {a, b}),
         args = [c, f, m, n, inner, 1.0, -1.0, scale, conjugated, out],
         :ok <- launch(:multiply, args, outer * n * inner),
         do: Temporary.free([a, b, f, g, h] ++ plan.tables, [])
  end

  # A short table is made on the host in less time than a kernel takes to compile.
  defp filter(%{n: m, buffer: buffer}, n) when m <= @few, do: Tables.filter(n, m, buffer)

  defp filter(%{n: m} = signal, n) do
    with {:ok, f} <- empty(signal, m),
         {:ok, tables, shift} <- Tables.roots(2 * n, signal.buffer),
         :ok <- launch(:filter, tables ++ [shift, n, m, f], m),
         :ok <- Temporary.free(tables, []),
         do: {:ok, f}
  end

  defp launch(name, args, size), do: Kernel.run({Kernels, name}, args, size: size)

  defp power_of_two(least), do: power_of_two(least, 1)
  defp power_of_two(least, n) when n >= least, do: n
  defp power_of_two(least, n), do: power_of_two(least, 2 * n)

  # A launch into a buffer that has its memory does not wait.
  defp empty(%{outer: outer, inner: inner, buffer: %{dtype: dtype, device: device}}, n),
    do: Buffer.empty([outer, n, inner, 2], dtype, device: device, lazy: false)
end
