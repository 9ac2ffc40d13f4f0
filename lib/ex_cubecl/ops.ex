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
  writes memory once, and a broadcast makes no copy. For several operations in a row, one kernel that does all of them is faster.

  Reductions are over all elements, or over `axis:` or `axes:` (from 0, or from -1 at the end), which are removed from the shape, or have the length 1
  with `keep_axes: true`. They add up 64 elements at a time, and
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
  alias ExCubecl.Ops.{ElementWise, Kernels, Layout, Lowering, Reductions, Shapes, View}

  @type operand :: Buffer.t() | number
  @type result :: {:ok, Buffer.t()} | {:error, Error.t()}

  # The number of elements that one invocation of a reduction reads.
  @chunk 64

  ## Element by element

  for {name, what} <- ElementWise.binary() do
    @doc """
    Returns `{:ok, buffer}` with #{what}, of two operands, at least one of which is a buffer.

    `into:` is a buffer for the result, which may be an operand; the call then returns `:ok`. `tag:` and `allocation:` are as for
    `ExCubecl.Buffer.new/4`.
    """
    @spec unquote(name)(operand, operand, keyword) :: result | :ok
    def unquote(name)(a, b, opts \\ []), do: ElementWise.apply(unquote(name), [a, b], opts)
  end

  for {name, what} <- ElementWise.unary() do
    @doc "Returns `{:ok, buffer}` with #{what}. Options are those of `add/3`."
    @spec unquote(name)(Buffer.t(), keyword) :: result | :ok
    def unquote(name)(x, opts \\ []), do: ElementWise.apply(unquote(name), [x], opts)
  end

  @doc """
  Returns `{:ok, buffer}` with the element of `a` where `pred` is not 0, and the element of `b` elsewhere. Options are those of `add/3`.

      iex> pred = ExCubecl.buffer!([1, 0], [2], :u8)
      iex> ExCubecl.to_list!(ExCubecl.Ops.select!(pred, 5, 7))
      [5, 7]
  """
  @spec select(Buffer.t(), operand, operand, keyword) :: result | :ok
  def select(pred, a, b, opts \\ []), do: ElementWise.apply(:select, [pred, a, b], opts)

  @doc """
  Returns `{:ok, buffer}` with the elements of `x`, at least `low` and at most `high`. Options are those of `add/3`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.clip!(ExCubecl.buffer!([-5, 3, 9], [3], :s32), 0, 5))
      [0, 3, 5]
  """
  @spec clip(Buffer.t(), operand, operand, keyword) :: result | :ok
  def clip(x, low, high, opts \\ []), do: ElementWise.apply(:clip, [x, low, high], opts)

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
         {:ok, shape, _} <- Arguments.shape(shape, buffer.dtype),
         :ok <- Shapes.broadcast_to(:broadcast_to, buffer.shape, shape),
         do: buffer |> View.of() |> View.broadcast(shape) |> Lowering.copy(:broadcast_to)
  end

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

      if is_list(axes) and not List.improper?(axes) and Enum.sort(axes) == all,
        do: buffer |> View.of() |> View.transpose(axes) |> Lowering.copy(:transpose),
        else: Shapes.invalid(:transpose, :axes, axes, "each of #{Text.show(all)} once")
    end
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
         {:ok, axis} <- axis(:concatenate, first, Keyword.get(opts, :axis, 0)),
         :ok <- alike(buffers, axis) do
      lengths = Enum.map(buffers, &Enum.at(&1.shape, axis))
      total = Enum.sum(lengths)
      {_, _, inner} = Layout.around(first.shape, axis)
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
        more = beside(first.shape, other.shape, axis)
        Shapes.mismatch(:concatenate, :concatenate, first.shape, other.shape, more)
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
         {:ok, axis} <- axis(:gather, buffer, Keyword.get(opts, :axis, 0)) do
      {_, n, inner} = Layout.around(buffer.shape, axis)
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

  @typedoc """
  The axes of a reduction, all by default: `axis: 1` or `axes: [0, -1]`. With `keep_axes: true`, a reduced axis stays, with the length 1.
  """
  @type axes :: [axis: integer, axes: [integer], keep_axes: boolean]

  @doc """
  Returns `{:ok, buffer}` with the sum of all elements, or the sums over `axis:` or `axes:`; see `t:axes/0`.

      iex> ExCubecl.item!(ExCubecl.Ops.sum!(ExCubecl.Buffer.iota!([100_000], :s32)))
      4999950000
      iex> ExCubecl.to_list!(ExCubecl.Ops.sum!(ExCubecl.Buffer.iota!([2, 3, 2], :s32), axes: [0, 2], keep_axes: true))
      [[[14], [22], [30]]]
  """
  @spec sum(Buffer.t(), axes) :: result
  def sum(buffer, opts \\ []), do: Reductions.run(:sum, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the product of all elements, or the products over axes, as for `sum/2`.

      iex> ExCubecl.item!(ExCubecl.Ops.product!(ExCubecl.buffer!([2, 3, 4], [3], :u8)))
      24
  """
  @spec product(Buffer.t(), axes) :: result
  def product(buffer, opts \\ []), do: Reductions.run(:product, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the minimum of all elements, or the minima over axes, as for `sum/2`; `:invalid_argument` if there are no elements.

      iex> ExCubecl.item!(ExCubecl.Ops.reduce_min!(ExCubecl.buffer!([2, -3, 4], [3], :s8)))
      -3
  """
  @spec reduce_min(Buffer.t(), axes) :: result
  def reduce_min(buffer, opts \\ []), do: Reductions.run(:reduce_min, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the maximum of all elements, or the maxima over axes, as for `sum/2`; `:invalid_argument` if there are no elements.

      iex> ExCubecl.to_list!(ExCubecl.Ops.reduce_max!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 1))
      [9, 4]
  """
  @spec reduce_max(Buffer.t(), axes) :: result
  def reduce_max(buffer, opts \\ []), do: Reductions.run(:reduce_max, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with 1 if no element is 0, else 0 (`:u8`), of all elements or over axes, as for `sum/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.all!(ExCubecl.buffer!([[2, 9], [4, 0]], [2, 2], :s32), axis: 1))
      [1, 0]
  """
  @spec all(Buffer.t(), axes) :: result
  def all(buffer, opts \\ []), do: Reductions.run(:all, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with 1 if some element is not 0, else 0 (`:u8`), of all elements or over axes, as for `sum/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.any!(ExCubecl.buffer!([[2, 0], [4, 0]], [2, 2], :s32), axis: 0))
      [1, 0]
  """
  @spec any(Buffer.t(), axes) :: result
  def any(buffer, opts \\ []), do: Reductions.run(:any, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the mean of all elements, or the means over axes, as for `sum/2`, as floats.

      iex> ExCubecl.item!(ExCubecl.Ops.mean!(ExCubecl.buffer!([1, 2], [2], :u8)))
      1.5
  """
  @spec mean(Buffer.t(), axes) :: result
  def mean(buffer, opts \\ []), do: Reductions.mean(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the variance of all elements, or the variances over axes, as for `sum/2`, as floats. The sum of the squares is divided by the
  number of elements minus `ddof:`, 0 by default.

      iex> ExCubecl.item!(ExCubecl.Ops.variance!(ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)))
      1.25
  """
  @spec variance(Buffer.t(), keyword) :: result
  def variance(buffer, opts \\ []), do: Reductions.variance(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the index (`:s32`) of the minimum of all elements, or the indices along `axis:`. Of several, it is the first one, or with
  `tie_break: :high` the last one. `keep_axes:` is as for `sum/2`.

      iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8)))
      1
      iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8), tie_break: :high))
      2
  """
  @spec argmin(Buffer.t(), keyword) :: result
  def argmin(buffer, opts \\ []), do: Reductions.index_of(:argmin, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the index (`:s32`) of the maximum of all elements, or the indices along `axis:`; options as for `argmin/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.argmax!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 0))
      [1, 0]
  """
  @spec argmax(Buffer.t(), keyword) :: result
  def argmax(buffer, opts \\ []), do: Reductions.index_of(:argmax, buffer, opts)

  # Converts to the type of the result, which rounds once.
  defp narrowed(%{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
  defp narrowed(buffer, dtype), do: Buffer.convert(buffer, dtype)

  # 16-bit floats are calculated as 32-bit floats.
  defp widened(%{dtype: dtype} = buffer) when dtype in [:f16, :bf16],
    do: Buffer.convert(buffer, :f32)

  defp widened(buffer), do: {:ok, buffer}

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
         {:ok, axis} <- axis(:cumulative_sum, buffer, Keyword.get(opts, :axis, -1)) do
      {outer, n, inner} = Layout.around(buffer.shape, axis)

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
          Shapes.mismatch(:matmul, :matmul, shape, other)
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

  defp axis(name, %{shape: shape}, axis), do: Shapes.axis(name, shape, axis)

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
