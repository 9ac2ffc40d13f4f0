defmodule ExCubecl.Ops do
  @moduledoc """
  Ready-made operations on the device, made of kernels that `ExCubecl.Kernel` compiles.

      iex> alias ExCubecl.Ops
      iex> x = ExCubecl.buffer!([[1.0, 2.0], [3.0, 4.0]], [2, 2], :f32)
      iex> ExCubecl.to_list!(Ops.add!(x, ExCubecl.buffer!([10.0, 20.0], [2], :f32)))
      [[11.0, 22.0], [13.0, 24.0]]
      iex> ExCubecl.to_list!(Ops.sum!(x, axis: 0))
      [4.0, 6.0]

  Element-wise operations take buffers and numbers; shapes broadcast and types are promoted as in Nx. Each operation reads and
  writes memory once, and a broadcast first writes a buffer of the full shape. For several operations in a row, one kernel that does all of them is faster.

  Reductions are over all elements or along `axis:` (from 0, or from -1 at the end), which is removed from the shape. They add up 64 elements at a time, and
  then 64 of those results at a time: the error of a sum of n floats is at most 64 * ceil(log64(n)) * 2^-24 (for `:f64`, 2^-53) of the sum of their magnitudes. Sums and products of `:f16` and
  `:bf16` are calculated with `:f32` and rounded once, so that the mean of finite `:f16` numbers does not overflow to infinity; those of integers are 64 bits wide (32 if the
  device has no 64-bit integers) and wrap around. Cumulative sums and matrix products have the type of their elements.

  NaN propagates: `min/2`, `max/2`, `relu/1`, `reduce_min/2` and `reduce_max/2` are NaN if any input is NaN, and `argmin/2` and `argmax/2` return the index of the first NaN, as in NumPy
  and Nx. The guide on kernels has the other rules of types and numbers.

  Errors are those of `ExCubecl.Kernel.run/3`, `:invalid_argument` for an axis that does not exist, and `:shape_mismatch` for shapes that do not
  match.
  """

  use ExCubecl.Error.Bang

  import Elixir.Kernel, except: [abs: 1, ceil: 1, floor: 1, max: 2, min: 2, round: 1]

  alias ExCubecl.{Buffer, Device, DType, Error, Native, Shape}
  alias ExCubecl.Buffer.{AllocOptions, Handle, Pressure}
  alias ExCubecl.Error.{Arguments, Text}

  alias ExCubecl.Kernel
  alias ExCubecl.Kernel.Definition
  alias ExCubecl.Ops.Kernels

  require Kernel

  @floats [:f16, :bf16, :f32, :f64]

  @type operand :: Buffer.t() | number
  @type result :: {:ok, Buffer.t()} | {:error, Error.t()}

  # The number of elements that one invocation of a reduction reads.
  @chunk 64
  @most_axes 4

  ## Element by element

  @binary [
    add: {Kernel.kernel(fn a, b -> a + b end), "the sums"},
    subtract: {Kernel.kernel(fn a, b -> a - b end), "the differences"},
    multiply: {Kernel.kernel(fn a, b -> a * b end), "the products"},
    divide: {Kernel.kernel(fn a, b -> a / b end), "the quotients, floats"},
    remainder:
      {Kernel.kernel(fn a, b -> rem(a, b) end), "the remainders, with the sign of the first"},
    pow: {Kernel.kernel(fn a, b -> a ** b end), "the powers, floats"},
    atan2: {Kernel.kernel(fn a, b -> atan2(a, b) end), "the angles"},
    min: {Kernel.kernel(fn a, b -> min(a, b) end), "the smaller elements"},
    max: {Kernel.kernel(fn a, b -> max(a, b) end), "the larger elements"},
    equal: {Kernel.kernel(fn a, b -> a == b end), "1 where they are equal, else 0 (`:u8`)"},
    not_equal: {Kernel.kernel(fn a, b -> a != b end), "1 where they differ, else 0 (`:u8`)"},
    less: {Kernel.kernel(fn a, b -> a < b end), "1 where the first is less, else 0 (`:u8`)"},
    less_equal:
      {Kernel.kernel(fn a, b -> a <= b end), "1 where the first is not greater, else 0 (`:u8`)"},
    greater:
      {Kernel.kernel(fn a, b -> a > b end), "1 where the first is greater, else 0 (`:u8`)"},
    greater_equal:
      {Kernel.kernel(fn a, b -> a >= b end), "1 where the first is not less, else 0 (`:u8`)"}
  ]

  for {name, {kernel, what}} <- @binary do
    kernel = Definition.named(kernel, name)

    @doc "Returns `{:ok, buffer}` with #{what} of two operands, at least one of which is a buffer."
    @spec unquote(name)(operand, operand) :: result
    def unquote(name)(a, b), do: each(unquote(Macro.escape(kernel)), [a, b])
  end

  @unary [
    negate: Kernel.kernel(fn x -> -x end),
    abs: Kernel.kernel(fn x -> abs(x) end),
    exp: Kernel.kernel(fn x -> exp(x) end),
    log: Kernel.kernel(fn x -> log(x) end),
    sqrt: Kernel.kernel(fn x -> sqrt(x) end),
    rsqrt: Kernel.kernel(fn x -> rsqrt(x) end),
    sin: Kernel.kernel(fn x -> sin(x) end),
    cos: Kernel.kernel(fn x -> cos(x) end),
    tanh: Kernel.kernel(fn x -> tanh(x) end),
    floor: Kernel.kernel(fn x -> floor(x) end),
    ceil: Kernel.kernel(fn x -> ceil(x) end),
    round: Kernel.kernel(fn x -> round(x) end),
    sigmoid: Kernel.kernel(fn x -> 1 / (1 + exp(-x)) end),
    relu: Kernel.kernel(fn x -> max(x, 0) end),
    gelu: Kernel.kernel(fn x -> 0.5 * x * (1 + erf(x * 0.7071067811865476)) end)
  ]

  for {name, kernel} <- @unary do
    kernel = Definition.named(kernel, name)

    @doc "Returns `{:ok, buffer}` with `#{name}` of each element."
    @spec unquote(name)(Buffer.t()) :: result
    def unquote(name)(x), do: each(unquote(Macro.escape(kernel)), [x])
  end

  @select Definition.named(
            Kernel.kernel(fn pred, a, b -> if pred != 0, do: a, else: b end),
            :select
          )

  @doc """
  Returns `{:ok, buffer}` with the element of `a` where `pred` is not 0, and the element of `b` elsewhere.

      iex> pred = ExCubecl.buffer!([1, 0], [2], :u8)
      iex> ExCubecl.to_list!(ExCubecl.Ops.select!(pred, 5, 7))
      [5, 7]
  """
  @spec select(Buffer.t(), operand, operand) :: result
  def select(pred, a, b), do: each(@select, [pred, a, b])

  defp each(kernel, args) do
    buffers = for %Buffer{} = buffer <- args, do: buffer

    with {:ok, _} <- Handle.local_all(buffers),
         {:ok, shape} <- together(Enum.map(buffers, & &1.shape)),
         {:ok, args} <- spread(args, shape, []) do
      with {:ok, %{shape: made} = result} <- Kernel.run(kernel, args) do
        # All arguments have one element, but their numbers of axes differ.
        if made == shape, do: {:ok, result}, else: Buffer.reshape(result, shape)
      end
    end
  end

  defp spread([], _shape, done), do: {:ok, Enum.reverse(done)}

  defp spread([%Buffer{} = buffer | rest], shape, done) do
    if buffer.shape == shape or Shape.size(buffer.shape) == 1 do
      spread(rest, shape, [buffer | done])
    else
      with {:ok, wide} <- broadcast_to(buffer, shape), do: spread(rest, shape, [wide | done])
    end
  end

  defp spread([other | rest], shape, done), do: spread(rest, shape, [other | done])

  # The broadcast shape of several shapes, aligned at the last axis.
  defp together([]), do: {:ok, []}

  defp together([first | rest]) do
    Enum.reduce_while(rest, {:ok, first}, fn shape, {:ok, known} ->
      case broadcast(known, shape) do
        nil -> {:halt, mismatch(:broadcast, known, shape, misfit(known, shape))}
        both -> {:cont, {:ok, both}}
      end
    end)
  end

  defp broadcast(a, b) do
    rank = Enum.max([length(a), length(b)])
    pairs = Enum.zip(padded(a, rank), padded(b, rank))

    if Enum.all?(pairs, fn {a, b} -> a == b or a == 1 or b == 1 end),
      do: Enum.map(pairs, fn {a, b} -> if a == 1, do: b, else: a end)
  end

  defp padded(shape, rank), do: List.duplicate(1, rank - length(shape)) ++ shape

  # The last axis at which two shapes do not match, counted from the end, and the lengths of that axis.
  defp misfit(a, b, fits? \\ fn a, b -> a == b or a == 1 or b == 1 end) do
    rank = Enum.max([length(a), length(b)])
    pairs = Enum.zip(Enum.reverse(padded(a, rank)), Enum.reverse(padded(b, rank)))
    index = Enum.find_index(pairs, fn {a, b} -> not fits?.(a, b) end)
    %{axis: -1 - index, lengths: Enum.at(pairs, index)}
  end

  defp mismatch(operation, shape, other, more \\ %{}) do
    sizes = %{expected: Shape.size(shape), actual: Shape.size(other)}
    details = %{operation: operation, shape: shape, other_shape: other}
    Error.new(:shape_mismatch, details |> Map.merge(sizes) |> Map.merge(more))
  end

  ## Layout

  @doc """
  Returns `{:ok, buffer}` with the elements repeated along axes of length 1, and along new leading axes.

      iex> x = ExCubecl.buffer!([1, 2], [2, 1], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.broadcast_to!(x, [2, 3]))
      [[1, 1, 1], [2, 2, 2]]
  """
  @spec broadcast_to(Buffer.t(), Buffer.shape()) :: result
  def broadcast_to(buffer, shape) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, shape, _} <- Arguments.shape(shape, buffer.dtype) do
      if broadcast(buffer.shape, shape) == shape do
        from = padded(buffer.shape, length(shape))

        strides =
          for {stride, length} <- Enum.zip(strides(from), from),
              do: if(length == 1, do: 0, else: stride)

        strided(buffer, shape, strides)
      else
        mismatch(:broadcast_to, buffer.shape, shape, no_broadcast(buffer.shape, shape))
      end
    end
  end

  defp no_broadcast(from, to) when length(from) > length(to), do: %{axis: nil}
  defp no_broadcast(from, to), do: misfit(from, to, fn from, to -> from == to or from == 1 end)

  @doc """
  Returns `{:ok, buffer}` with the axes in another order, by default reversed.

      iex> x = ExCubecl.buffer!([[1, 2, 3], [4, 5, 6]], [2, 3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.transpose!(x))
      [[1, 4], [2, 5], [3, 6]]
  """
  @spec transpose(Buffer.t(), axes: [non_neg_integer]) :: result
  def transpose(buffer, opts \\ []) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axes]) do
      all = Enum.to_list(0..(length(buffer.shape) - 1)//1)
      axes = opts[:axes] || Enum.reverse(all)

      if is_list(axes) and not List.improper?(axes) and Enum.sort(axes) == all do
        strides = strides(buffer.shape)

        strided(
          buffer,
          Enum.map(axes, &Enum.at(buffer.shape, &1)),
          Enum.map(axes, &Enum.at(strides, &1))
        )
      else
        Arguments.invalid(:axes, axes, "each of #{Text.show(all)} once")
      end
    end
  end

  defp strides(shape) do
    {strides, _} = shape |> Enum.reverse() |> Enum.map_reduce(1, &{&2, &1 * &2})
    Enum.reverse(strides)
  end

  defp strided(buffer, shape, strides) do
    {lengths, places} = shape |> Enum.zip(strides) |> joined() |> Enum.unzip()

    if length(lengths) > @most_axes do
      Arguments.invalid(
        :shape,
        shape,
        "at most #{@most_axes} axes that are not one behind the other in memory"
      )
    else
      lengths = padded(lengths, @most_axes)
      places = List.duplicate(0, @most_axes - length(places)) ++ places

      filled(buffer, shape, buffer.dtype, fn out ->
        Kernels.strided(
          buffer,
          out,
          at(lengths, 1),
          at(lengths, 2),
          at(lengths, 3),
          at(places, 0),
          at(places, 1),
          at(places, 2),
          at(places, 3)
        )
      end)
    end
  end

  defp at(list, index), do: Enum.at(list, index)

  # Merges axes that are contiguous in memory, and removes axes of length 1.
  defp joined(axes) do
    axes
    |> Enum.reject(fn {length, _} -> length == 1 end)
    |> Enum.reduce([], fn
      {length, stride}, [{before, wide} | rest] when wide == length * stride ->
        [{before * length, stride} | rest]

      axis, done ->
        [axis | done]
    end)
    |> Enum.reverse()
  end

  @doc """
  Returns `{:ok, buffer}` with buffers of one type concatenated along `axis:`, 0 by default. The lengths of their other
  axes must be equal.

      iex> x = ExCubecl.buffer!([[1, 2]], [1, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.concatenate!([x, x], axis: 1))
      [[1, 2, 1, 2]]
  """
  @spec concatenate([Buffer.t()], axis: integer) :: result
  def concatenate(buffers, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, [first | _] = buffers} <- some(buffers),
         {:ok, axis} <- axis(first, Keyword.get(opts, :axis, 0)),
         :ok <- alike(buffers, axis) do
      lengths = Enum.map(buffers, &Enum.at(&1.shape, axis))
      total = Enum.sum(lengths)
      {_, _, inner} = around(first.shape, axis)
      starts = Enum.scan([0 | lengths], &+/2)

      filled(first, List.replace_at(first.shape, axis, total), first.dtype, fn out ->
        Enum.reduce_while(Enum.zip(buffers, starts), :ok, fn {buffer, start}, :ok ->
          n = Enum.at(buffer.shape, axis)

          case Kernel.run(Kernels.__kernel__(:place, 6), [buffer, n, inner, total, start, out],
                 size: Shape.size(buffer.shape)
               ) do
            :ok -> {:cont, :ok}
            error -> {:halt, error}
          end
        end)
      end)
    end
  end

  defp some(buffers) do
    case Handle.local_all(buffers) do
      {:ok, []} -> Arguments.invalid(:buffers, [], "at least one buffer")
      result -> result
    end
  end

  defp alike([first | rest], axis) do
    rest_of = &List.delete_at(&1.shape, axis)

    case Enum.find(
           rest,
           &(rest_of.(&1) != rest_of.(first) or length(&1.shape) != length(first.shape))
         ) do
      nil ->
        case Enum.find(rest, &(&1.dtype != first.dtype)) do
          nil -> :ok
          other -> Error.new(:type_mismatch, expected: first.dtype, actual: other.dtype)
        end

      other ->
        mismatch(:concatenate, first.shape, other.shape, beside(first.shape, other.shape, axis))
    end
  end

  # The axis at which two shapes differ, other than the axis along which they are concatenated.
  defp beside(shape, other, _along) when length(shape) != length(other), do: %{axis: nil}

  defp beside(shape, other, along) do
    pairs = Enum.zip(shape, other)
    wrong? = fn {{a, b}, axis} -> axis != along and a != b end
    {lengths, axis} = pairs |> Enum.with_index() |> Enum.find(wrong?)
    %{along: along, axis: axis, lengths: lengths}
  end

  @doc """
  Returns `{:ok, buffer}` with the slices along `axis:` (0 by default) at the indices in a vector of integers; an index out of
  bounds gives zeros.

      iex> x = ExCubecl.buffer!([[1, 2], [3, 4], [5, 6]], [3, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.gather!(x, ExCubecl.buffer!([2, 0, 9], [3], :s32)))
      [[5, 6], [1, 2], [0, 0]]
  """
  @spec gather(Buffer.t(), Buffer.t(), axis: integer) :: result
  def gather(buffer, indices, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, [buffer, indices]} <- Handle.local_all([buffer, indices]),
         {:ok, indices} <- integers(indices),
         {:ok, axis} <- axis(buffer, Keyword.get(opts, :axis, 0)) do
      {_, n, inner} = around(buffer.shape, axis)
      count = Shape.size(indices.shape)

      filled(buffer, List.replace_at(buffer.shape, axis, count), buffer.dtype, fn out ->
        Kernels.gather(buffer, indices, n, some_or_one(inner), some_or_one(count), out)
      end)
    end
  end

  defp integers(%{dtype: dtype}) when dtype in [:f16, :bf16, :f32, :f64],
    do: Error.new(:type_mismatch, argument: :indices, expected: :s32, actual: dtype)

  defp integers(indices), do: {:ok, indices}

  ## Reductions

  @doc """
  Returns `{:ok, buffer}` with the sum of all elements, or the sums along `axis:`.

      iex> ExCubecl.item!(ExCubecl.Ops.sum!(ExCubecl.Buffer.iota!([100_000], :s32)))
      4999950000
  """
  @spec sum(Buffer.t(), axis: integer) :: result
  def sum(buffer, opts \\ []), do: reduce(:sum, buffer, opts, 0)

  @doc """
  Returns `{:ok, buffer}` with the product of all elements, or the products along `axis:`.

      iex> ExCubecl.item!(ExCubecl.Ops.product!(ExCubecl.buffer!([2, 3, 4], [3], :u8)))
      24
  """
  @spec product(Buffer.t(), axis: integer) :: result
  def product(buffer, opts \\ []), do: reduce(:product, buffer, opts, 1)

  @doc """
  Returns `{:ok, buffer}` with the minimum of all elements, or the minima along `axis:`; `:invalid_argument` if there are no elements.

      iex> ExCubecl.item!(ExCubecl.Ops.reduce_min!(ExCubecl.buffer!([2, -3, 4], [3], :s8)))
      -3
  """
  @spec reduce_min(Buffer.t(), axis: integer) :: result
  def reduce_min(buffer, opts \\ []), do: reduce(:least, buffer, opts, nil)

  @doc """
  Returns `{:ok, buffer}` with the maximum of all elements, or the maxima along `axis:`; `:invalid_argument` if there are no elements.

      iex> ExCubecl.to_list!(ExCubecl.Ops.reduce_max!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 1))
      [9, 4]
  """
  @spec reduce_max(Buffer.t(), axis: integer) :: result
  def reduce_max(buffer, opts \\ []), do: reduce(:greatest, buffer, opts, nil)

  @doc """
  Returns `{:ok, buffer}` with the mean of all elements, or the means along `axis:`, as floats.

      iex> ExCubecl.item!(ExCubecl.Ops.mean!(ExCubecl.buffer!([1, 2], [2], :u8)))
      1.5
  """
  @spec mean(Buffer.t(), axis: integer) :: result
  def mean(buffer, opts \\ []) do
    with {:ok, %{shape: shape} = sum} <- reduce(:mean, buffer, opts, 0, & &1) do
      count = div(Shape.size(buffer.shape), some_or_one(Shape.size(shape)))
      type = if buffer.dtype in @floats, do: buffer.dtype, else: :f32
      with {:ok, mean} <- divide(sum, count), do: narrowed(mean, type)
    end
  end

  # Converts to the type of the result, which rounds once.
  defp narrowed(%{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
  defp narrowed(buffer, dtype), do: Buffer.convert(buffer, dtype)

  # 16-bit floats are calculated as 32-bit floats.
  defp widened(%{dtype: dtype} = buffer) when dtype in [:f16, :bf16],
    do: Buffer.convert(buffer, :f32)

  defp widened(buffer), do: {:ok, buffer}

  @doc """
  Returns `{:ok, buffer}` with the index (`:s32`) of the first minimum of all elements, or the indices along `axis:`.

      iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8)))
      1
  """
  @spec argmin(Buffer.t(), axis: integer) :: result
  def argmin(buffer, opts \\ []), do: first_place(:least, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the index (`:s32`) of the first maximum of all elements, or the indices along `axis:`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.argmax!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 0))
      [1, 0]
  """
  @spec argmax(Buffer.t(), axis: integer) :: result
  def argmax(buffer, opts \\ []), do: first_place(:greatest, buffer, opts)

  defp first_place(which, buffer, opts) do
    with {:ok, values} <- reduce(which, buffer, opts, nil),
         {:ok, axis} <- axis_of(buffer, opts) do
      {_, n, inner} = around(buffer.shape, axis)

      with {:ok, places} <-
             filled(buffer, buffer.shape, :s32, fn out ->
               args = [buffer, values, n, some_or_one(inner), out]

               if buffer.dtype in @floats,
                 do: Kernel.run({Kernels, :places_of_float}, args),
                 else: Kernel.run({Kernels, :places}, args)
             end),
           do: reduce(:least, places, opts, nil)
    end
  end

  # `result` maps the type of the calculation to the type of the result; by default that of sums.
  defp reduce(which, buffer, opts, neutral, result \\ nil) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, axis} <- axis_of(buffer, opts),
         {outer, n, inner} = around(buffer.shape, axis),
         {:ok, wide} <- wide(which, buffer) do
      shape = if axis, do: List.delete_at(buffer.shape, axis), else: []
      dtype = if result, do: result.(wide), else: summed(wide, buffer.dtype)

      cond do
        n == 0 and neutral == nil ->
          Arguments.invalid(:buffer, buffer, "one with elements along the axis")

        n == 0 ->
          Buffer.full(shape, dtype, neutral, device: buffer.device)

        true ->
          in_chunks(kernel(which, wide), buffer, {wide, dtype}, {outer, n, inner}, shape)
      end
    end
  end

  defp summed(:f32, narrow) when narrow in [:f16, :bf16], do: narrow
  defp summed(wide, _dtype), do: wide

  defp kernel(:mean, wide), do: kernel(:sum, wide)

  defp kernel(which, wide) when which in [:sum, :product],
    do: Kernels.__kernel__(:"#{which}_#{wide}", 6)

  defp kernel(which, _wide), do: Kernels.__kernel__(which, 6)

  # Only the last step, which leaves one element along the axis, rounds to the type of the result.
  defp in_chunks(kernel, buffer, {wide, dtype}, {outer, n, inner}, shape) do
    chunks = div(n + @chunk - 1, @chunk)
    type = if chunks == 1, do: dtype, else: wide

    step =
      filled(buffer, [outer, chunks, inner], type, fn out ->
        Kernel.run(kernel, [buffer, n, some_or_one(inner), @chunk, chunks, out])
      end)

    with {:ok, partial} <- step do
      if chunks == 1,
        do: Buffer.reshape(partial, shape),
        else: in_chunks(kernel, partial, {wide, dtype}, {outer, chunks, inner}, shape)
    end
  end

  # The sum of many 64-bit integers may exceed 64 bits.
  defp wide(:mean, %{dtype: dtype, device: device}) when dtype in [:u64, :s64] do
    with {:ok, info} <- Device.info(device),
         do: {:ok, if(:f64 in info.dtypes, do: :f64, else: :f32)}
  end

  defp wide(:mean, buffer), do: wide(:sum, buffer)

  # Sums and products of integers are calculated in the widest integer type of the device.
  defp wide(which, %{dtype: dtype, device: device}) when which in [:sum, :product] do
    with {:ok, info} <- Device.info(device) do
      {:ok,
       case dtype do
         dtype when dtype in [:u8, :u16, :u32, :u64] ->
           if :u64 in info.dtypes, do: :u64, else: :u32

         dtype when dtype in [:s8, :s16, :s32, :s64] ->
           if :s64 in info.dtypes, do: :s64, else: :s32

         dtype when dtype in [:f16, :bf16] ->
           :f32

         float ->
           float
       end}
    end
  end

  defp wide(_which, %{dtype: dtype}), do: {:ok, dtype}

  @doc """
  Returns `{:ok, buffer}` with the cumulative sums (inclusive) along `axis:`, the last axis by default. They
  are added up in chunks, as in `sum/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_sum!(ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)))
      [1.0, 3.0, 6.0]
  """
  @spec cumulative_sum(Buffer.t(), axis: integer) :: result
  def cumulative_sum(buffer, opts \\ []) do
    with {:ok, buffer} <- Handle.local(buffer),
         {:ok, opts} <- Arguments.options(opts, [:axis]),
         {:ok, axis} <- axis(buffer, Keyword.get(opts, :axis, -1)) do
      {outer, n, inner} = around(buffer.shape, axis)

      with {:ok, wide} <- widened(buffer),
           {:ok, result} <- running_sums(wide, {outer, n, some_or_one(inner)}),
           {:ok, result} <- narrowed(result, buffer.dtype),
           do: Buffer.reshape(result, buffer.shape)
    end
  end

  # Cumulative sums within chunks; cumulative sums of the chunk totals (recursively); which are then added to the chunks behind.
  defp running_sums(buffer, {outer, n, inner}) do
    chunks = div(n + @chunk - 1, @chunk)
    args = [n, inner, @chunk, some_or_one(chunks)]

    sums =
      filled(buffer, [outer, n, inner], buffer.dtype, fn out ->
        Kernel.run({Kernels, :running_sum}, [buffer | args] ++ [out], size: outer * chunks * inner)
      end)

    with {:ok, sums} when chunks > 1 <- sums,
         {:ok, last} <-
           filled(buffer, [outer, chunks, inner], buffer.dtype, fn out ->
             Kernel.run({Kernels, :last_sums}, [sums | args] ++ [out])
           end),
         {:ok, before} <- running_sums(last, {outer, chunks, inner}),
         :ok <- Kernel.run({Kernels, :add_before}, [before | args] ++ [sums]),
         do: {:ok, sums}
  end

  @doc """
  Returns `{:ok, buffer}`, the product of two matrices of one type: `[m, k]` times `[k, n]` is `[m, n]`.

      iex> a = ExCubecl.buffer!([[1.0, 2.0], [3.0, 4.0]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.matmul!(a, a))
      [[7.0, 10.0], [15.0, 22.0]]
  """
  @spec matmul(Buffer.t(), Buffer.t()) :: result
  def matmul(a, b) do
    with {:ok, [a, b]} <- Handle.local_all([a, b]) do
      case {a.shape, b.shape} do
        {_, _} when a.dtype != b.dtype ->
          Error.new(:type_mismatch, expected: a.dtype, actual: b.dtype)

        {[m, k], [k, n]} ->
          with {:ok, wide} <- widened(a),
               {:ok, other} <- widened(b),
               {:ok, result} <- product(wide, other, {m, k, n}),
               do: narrowed(result, a.dtype)

        {shape, other} ->
          mismatch(:matmul, shape, other)
      end
    end
  end

  # Uses the matrix multiplication of the device if it has one for these operands.
  defp product(a, b, {m, k, n} = lengths) do
    bytes = m * n * DType.size!(a.dtype)

    made =
      with {:ok, note} <- AllocOptions.from([]) do
        Pressure.create(a.device, bytes, fn ->
          Native.kernel_matmul(a.ref, b.ref, lengths, [m, n], note)
        end)
      end

    case made do
      {:ok, nil} ->
        size = [div(m + 3, 4), div(n + 3, 4)]

        with {:ok, out} <- Buffer.zeros([m, n], a.dtype, device: a.device),
             :ok <- add_products(a, b, {n, k}, 0, out, size),
             do: {:ok, out}

      {:ok, ref} ->
        {:ok, %Buffer{ref: ref, dtype: a.dtype, shape: [m, n], device: a.device}}

      error ->
        error
    end
  end

  # The number of products of one launch: a driver may stop a kernel whose loop runs too long.
  @products 8192

  defp add_products(_a, _b, {_n, k}, from, _out, _size) when from >= k, do: :ok

  defp add_products(a, b, {n, k} = lengths, from, out, size) do
    to = Elixir.Kernel.min(from + @products, k) - 1

    with :ok <- Kernel.run({Kernels, :matmul}, [a, b, n, k, from, to, out], size: size),
         do: add_products(a, b, lengths, to + 1, out, size)
  end

  ## Random numbers

  @doc """
  Returns `{:ok, buffer}` of `:f32` numbers, uniformly distributed from `low` to below `high` (`0.0` and `1.0` by default).

  The same `seed` gives the same numbers on every device: each number is a hash of the seed and its index.
  `low:`, `high:` and `device:` are options.

      iex> x = ExCubecl.Ops.random_uniform!([1000], 42)
      iex> mean = ExCubecl.item!(ExCubecl.Ops.mean!(x))
      iex> mean > 0.45 and mean < 0.55
      true
  """
  @spec random_uniform(Buffer.shape(), integer, keyword) :: result
  def random_uniform(shape, seed, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:low, :high, :device]),
         {:ok, seed} <- seed(seed),
         {:ok, low} <- float(:low, Keyword.get(opts, :low, 0.0)),
         {:ok, high} <- float(:high, Keyword.get(opts, :high, 1.0)),
         do: drawn(shape, seed, 1, low, high, opts)
  end

  @doc """
  Returns `{:ok, buffer}` of `:f32` numbers, normally distributed with `mean:` (0.0) and standard `deviation:` (1.0); seed and
  `device:` as for `random_uniform/3`.

      iex> x = ExCubecl.Ops.random_normal!([1000], 7)
      iex> abs(ExCubecl.item!(ExCubecl.Ops.mean!(x))) < 0.15
      true
  """
  @spec random_normal(Buffer.shape(), integer, keyword) :: result
  def random_normal(shape, seed, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:mean, :deviation, :device]),
         {:ok, seed} <- seed(seed),
         {:ok, mean} <- float(:mean, Keyword.get(opts, :mean, 0.0)),
         {:ok, deviation} <- float(:deviation, Keyword.get(opts, :deviation, 1.0)),
         {:ok, u} <- drawn(shape, seed, 2, 0.0, 1.0, opts),
         {:ok, v} <- drawn(shape, seed, 3, 0.0, 1.0, opts),
         do: Kernels.normal(u, v, mean, deviation)
  end

  defp drawn(shape, seed, salt, low, high, opts) do
    with {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, out} <- Buffer.empty(shape, :f32, device: id),
         :ok <- Kernels.uniform(seed, salt, low, high, out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  defp seed(seed) when is_integer(seed) and seed in 0..0x7FFF_FFFF, do: {:ok, seed}
  defp seed(other), do: Arguments.invalid(:seed, other, "an integer from 0 to 2,147,483,647")

  defp float(_name, number) when is_number(number), do: {:ok, number / 1}
  defp float(name, other), do: Arguments.invalid(name, other, "a number")

  ## Axes

  # The shape as `{outer, n, inner}` with `n` the length of the axis; without an axis, `n` counts all elements.
  defp around(shape, nil), do: {1, Shape.size(shape), 1}

  defp around(shape, axis) do
    {before, [n | behind]} = Enum.split(shape, axis)
    {Shape.size(before), n, Shape.size(behind)}
  end

  defp axis_of(buffer, opts) do
    with {:ok, buffer} <- Handle.local(buffer),
         do: if(opts[:axis] == nil, do: {:ok, nil}, else: axis(buffer, opts[:axis]))
  end

  defp axis(%{shape: shape}, axis)
       when is_integer(axis) and axis < length(shape) and axis >= -length(shape),
       do: {:ok, if(axis < 0, do: axis + length(shape), else: axis)}

  defp axis(%{shape: shape}, axis),
    do:
      Arguments.invalid(
        :axis,
        axis,
        "#{axes(length(shape))} of shape #{Text.show(shape)}"
      )

  defp axes(0), do: "none: there is no axis"
  defp axes(rank), do: "an axis from 0 to #{rank - 1}, or from -#{rank} to -1 at the end,"

  # Kernels divide by this number, so it must not be 0.
  defp some_or_one(0), do: 1
  defp some_or_one(n), do: n

  # A new buffer on the device of `beside`, which `run` fills.
  defp filled(beside, shape, dtype, run) do
    with {:ok, out} <- Buffer.empty(shape, dtype, device: beside.device),
         :ok <- run.(out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end
end
