defmodule ExCubecl.Ops do
  @moduledoc """
  Ready-made operations on the device, made of kernels that `ExCubecl.Kernel` compiles.

      iex> alias ExCubecl.Ops
      iex> x = ExCubecl.buffer!([[1.0, 2.0], [3.0, 4.0]], [2, 2], :f32)
      iex> ExCubecl.to_list!(Ops.add!(x, ExCubecl.buffer!([10.0, 20.0], [2], :f32)))
      [[11.0, 22.0], [13.0, 24.0]]
      iex> ExCubecl.to_list!(Ops.sum!(x, axis: 0))
      [4.0, 6.0]

  | | |
  |---|---|
  | arithmetic | `add subtract multiply divide quotient remainder pow integer_pow min max clip negate abs sign floor ceil round as_type` |
  | functions of floats | `exp expm1 log log1p sqrt rsqrt cbrt sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh erf erfc erf_inv sigmoid gelu relu` |
  | comparisons | `equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor logical_not is_nan is_infinity select` |
  | order | `sort argsort top_k unique` |
  | bits | `bitwise_and bitwise_or bitwise_xor bitwise_not left_shift right_shift population_count count_leading_zeros` |
  | reductions | `sum product reduce_min reduce_max all any mean variance argmin argmax cumulative_sum cumulative_product cumulative_min cumulative_max` |
  | windows | `window_sum window_product window_min window_max window_mean window_scatter_min window_scatter_max`, `reduce window_reduce` with a kernel as function, `conv` |
  | movement | `slice put_slice pad reverse transpose broadcast_to tile concatenate stack split gather take take_along_axis gather_nd indexed_put indexed_add one_hot` |
  | norms, rows | `standard_deviation norm logsumexp`, `softmax log_softmax layer_norm rms_norm` |
  | new buffers, products | `eye iota random_uniform random_normal`, `dot matmul` |
  | Fourier transforms | `fft ifft rfft irfft fft2 ifft2` |

  Each operation takes a buffer or a strided view of one (`ExCubecl.View`). Element-wise operations take numbers too; shapes broadcast and types are promoted as in Nx. Each operation reads and
  writes memory once, and a broadcast makes no copy. For several operations in a row, one kernel that does all of them is faster.

  Reductions are over all elements, or over `axis:` or `axes:` (from 0, or from -1 at the end), which are removed from the shape, or have the length 1
  with `keep_axes: true`. They add up 64 elements at a time, and
  then 64 of those results at a time: the error of a sum of n floats is at most 64 * ceil(log64(n)) * 2^-24 (for `:f64`, 2^-53) of the sum of their magnitudes. Sums and products of `:f16` and
  `:bf16` are calculated with `:f32` and rounded once, so that the mean of finite `:f16` numbers does not overflow to infinity; those of integers are 64 bits wide (32 if the
  device has no 64-bit integers) and wrap around. Cumulative sums and matrix products have the type of their elements.

  NaN propagates: `min/2`, `max/2`, `relu/1`, `reduce_min/2` and `reduce_max/2` are NaN if any input is NaN, and `argmin/2` and `argmax/2` return the index of the first NaN, as in NumPy.
  The guide on kernels has the other rules of types and numbers.

  Errors are those of `ExCubecl.Kernel.run/3`, `:invalid_argument` for an axis that does not exist, and `:shape_mismatch` for shapes that do not
  match.
  """

  use ExCubecl.Error.Bang

  import Elixir.Kernel, except: [abs: 1, ceil: 1, floor: 1, max: 2, min: 2, round: 1]

  alias ExCubecl.{Buffer, Device, Error, Kernel, Random, View}
  alias ExCubecl.Ops.{Conversion, ElementWise, Gathering, Movement, OneHot, Reductions}
  alias ExCubecl.Ops.{Scan, Scattering}
  alias ExCubecl.Ops.{Convolution, Windows, WindowScatter}

  @typedoc "A buffer, or a strided view of one; see `ExCubecl.View`."
  @type tensor :: Buffer.t() | View.t()
  @type operand :: tensor | number
  @type result :: {:ok, Buffer.t()} | {:error, Error.t()}

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
  @spec clip(tensor, operand, operand, keyword) :: result | :ok
  def clip(x, low, high, opts \\ []), do: ElementWise.apply(:clip, [x, low, high], opts)

  @doc """
  Returns `{:ok, buffer}` with the elements converted to another type, as `Nx.as_type/2` does: a float is truncated and, if an integer type does not have it, keeps the low bits
  of its integer; infinities become the limits of the type, NaN becomes 0. `ExCubecl.Buffer.convert/3` and `cast` in kernels clamp floats to the limits instead.
  Options are those of `add/3`. Errors: `:unsupported_dtype`.

      iex> x = ExCubecl.buffer!([-1.5, 300.7, :infinity, :nan], [4], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.as_type!(x, :u8))
      [255, 44, 255, 0]
  """
  @spec as_type(tensor, ExCubecl.DType.t(), keyword) :: result | :ok
  def as_type(x, dtype, opts \\ []), do: Conversion.as_type(x, dtype, opts)

  ## Movement of elements, each into a new buffer

  @doc """
  Returns `{:ok, buffer}` with the elements repeated along axes of length 1, and along new leading axes.

      iex> x = ExCubecl.buffer!([1, 2], [2, 1], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.broadcast_to!(x, [2, 3]))
      [[1, 1, 1], [2, 2, 2]]
  """
  @spec broadcast_to(tensor, Buffer.shape()) :: result
  def broadcast_to(buffer, shape), do: Movement.broadcast_to(buffer, shape)

  @doc """
  Returns `{:ok, buffer}` with the axes in another order, by default reversed.

      iex> x = ExCubecl.buffer!([[1, 2, 3], [4, 5, 6]], [2, 3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.transpose!(x))
      [[1, 4], [2, 5], [3, 6]]
  """
  @spec transpose(tensor, axes: [non_neg_integer]) :: result
  def transpose(buffer, opts \\ []), do: Movement.transpose(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the order reversed along `axis:` or `axes:`, by default along all axes.

      iex> ExCubecl.to_list!(ExCubecl.Ops.reverse!(ExCubecl.Buffer.iota!([2, 3], :s32), axis: 1))
      [[2, 1, 0], [5, 4, 3]]
  """
  @spec reverse(tensor, axis: integer, axes: [integer]) :: result
  def reverse(buffer, opts \\ []), do: Movement.reverse(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with a part of each axis: `lengths` elements from `starts` on, of which `strides:` keeps each n-th. A start may be a buffer of one
  integer, which is read and clamped such that the part is inside; a number outside is `:out_of_bounds`.

      iex> x = ExCubecl.Buffer.iota!([3, 4], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.slice!(x, [1, 0], [2, 4], strides: [1, 2]))
      [[4, 6], [8, 10]]
  """
  @spec slice(tensor, [integer | tensor], [non_neg_integer], strides: [pos_integer]) ::
          result
  def slice(buffer, starts, lengths, opts \\ []),
    do: Movement.slice(buffer, starts, lengths, opts)

  @doc """
  Returns `{:ok, buffer}` with the elements of `buffer`, and those of `source` from `starts` on, which are as for `slice/4`. The types are merged.

      iex> x = ExCubecl.Buffer.zeros!([2, 3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.put_slice!(x, [1, 1], ExCubecl.buffer!([[7, 8]], [1, 2], :s32)))
      [[0, 0, 0], [0, 7, 8]]
  """
  @spec put_slice(tensor, [integer | tensor], tensor) :: result
  def put_slice(buffer, starts, source), do: Movement.put_slice(buffer, starts, source)

  @doc """
  Returns `{:ok, buffer}` with `value` around and between the elements: `{low, high, interior}` for each axis is how often at its start, at its end, and
  between two elements. A negative `low` or `high` removes elements.

      iex> x = ExCubecl.buffer!([1, 2, 3], [3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.pad!(x, 0, [{2, -1, 1}]))
      [0, 0, 1, 0, 2, 0]
  """
  @spec pad(tensor, number, [{integer, integer, non_neg_integer}]) :: result
  def pad(buffer, value, config), do: Movement.pad(buffer, value, config)

  @doc """
  Returns `{:ok, buffer}` with the buffer repeated along each axis, and along new leading axes if there are more numbers than axes.

      iex> ExCubecl.to_list!(ExCubecl.Ops.tile!(ExCubecl.buffer!([1, 2], [2], :s32), [2, 2]))
      [[1, 2, 1, 2], [1, 2, 1, 2]]
  """
  @spec tile(tensor, [non_neg_integer]) :: result
  def tile(buffer, repetitions), do: Movement.tile(buffer, repetitions)

  @doc """
  Returns `{:ok, buffer}` with buffers of one type concatenated along `axis:`, 0 by default. The lengths of their other
  axes must be equal.

      iex> x = ExCubecl.buffer!([[1, 2]], [1, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.concatenate!([x, x], axis: 1))
      [[1, 2, 1, 2]]
  """
  @spec concatenate([tensor], axis: integer) :: result
  def concatenate(buffers, opts \\ []), do: Movement.concatenate(buffers, opts)

  @doc """
  Returns `{:ok, buffer}` with buffers of one type and shape along a new axis, `axis:`, 0 by default.

      iex> x = ExCubecl.buffer!([1, 2], [2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.stack!([x, x], axis: 1))
      [[1, 1], [2, 2]]
  """
  @spec stack([tensor], axis: integer) :: result
  def stack(buffers, opts \\ []), do: Movement.stack(buffers, opts)

  @doc """
  Returns `{:ok, buffers}` with the parts of `axis:`, 0 by default: a list of lengths, or a number of equal parts.

      iex> [a, b] = ExCubecl.Ops.split!(ExCubecl.Buffer.iota!([5], :s32), [2, 3])
      iex> {ExCubecl.to_list!(a), ExCubecl.to_list!(b)}
      {[0, 1], [2, 3, 4]}
  """
  @spec split(tensor, pos_integer | [non_neg_integer], axis: integer) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
  def split(buffer, parts, opts \\ []), do: Movement.split(buffer, parts, opts)

  @doc """
  Returns `{:ok, buffer}`, a matrix of `n` rows, or of the shape `[m, n]`, with 1 on its diagonal and 0 elsewhere. `device:` is an option.

      iex> ExCubecl.to_list!(ExCubecl.Ops.eye!([2, 3], :s32))
      [[1, 0, 0], [0, 1, 0]]
  """
  @spec eye(non_neg_integer | Buffer.shape(), ExCubecl.DType.t(), device: Device.id()) :: result
  def eye(shape, dtype, opts \\ []), do: Movement.eye(shape, dtype, opts)

  @doc """
  Returns `{:ok, buffer}` with the indices along `axis:`, or of all elements. `device:` is an option.

      iex> ExCubecl.to_list!(ExCubecl.Ops.iota!([2, 3], :s32, axis: 1))
      [[0, 1, 2], [0, 1, 2]]
  """
  @spec iota(Buffer.shape(), ExCubecl.DType.t(), axis: integer, device: Device.id()) :: result
  def iota(shape, dtype, opts \\ []), do: Movement.iota(shape, dtype, opts)

  @doc """
  Returns `{:ok, buffer}` with the slices along `axis:` (0 by default) at the indices in a vector of integers; an index out of
  bounds gives zeros, and with `check: true` the error `:out_of_bounds`, for which the call waits for the device.

      iex> x = ExCubecl.buffer!([[1, 2], [3, 4], [5, 6]], [3, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.gather!(x, ExCubecl.buffer!([2, 0, 9], [3], :s32)))
      [[5, 6], [1, 2], [0, 0]]
  """
  @spec gather(tensor, tensor, axis: integer, check: boolean) :: result
  def gather(buffer, indices, opts \\ []), do: Gathering.gather(buffer, indices, opts)

  @doc """
  As `gather/3`, with indices of any shape, whose axes replace the axis.

      iex> x = ExCubecl.buffer!([10, 20, 30], [3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.take!(x, ExCubecl.buffer!([[2, 0], [1, 1]], [2, 2], :s32)))
      [[30, 10], [20, 20]]
  """
  @spec take(tensor, tensor, axis: integer, check: boolean) :: result
  def take(buffer, indices, opts \\ []), do: Gathering.take(buffer, indices, opts)

  @doc """
  Returns `{:ok, buffer}` of the shape of `indices` with the elements at these indices along `axis:`, 0 by default; the other axes are as long as those of `buffer`.
  An index out of bounds is as for `gather/3`.

      iex> x = ExCubecl.buffer!([[3, 1, 2], [9, 7, 8]], [2, 3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.take_along_axis!(x, ExCubecl.buffer!([[1], [2]], [2, 1], :s32), axis: 1))
      [[1], [8]]
  """
  @spec take_along_axis(tensor, tensor, axis: integer, check: boolean) :: result
  def take_along_axis(buffer, indices, opts \\ []),
    do: Gathering.take_along_axis(buffer, indices, opts)

  @doc """
  Returns `{:ok, buffer}` with the slices at index vectors, which are along the last axis of `indices`: a vector of n integers is an index along each of the first n
  axes, or of `axes:`. The shape of the result is that of `indices` without its last axis, followed by the axes that are not addressed. An index out of bounds is as for `gather/3`.

      iex> x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.gather_nd!(x, ExCubecl.buffer!([[1, 1], [0, 1]], [2, 2], :s64)))
      [4, 2]
      iex> ExCubecl.to_list!(ExCubecl.Ops.gather_nd!(x, ExCubecl.buffer!([[1]], [1, 1], :u8), axes: [1]))
      [[2, 4]]
  """
  @spec gather_nd(tensor, tensor, axes: [integer], check: boolean) :: result
  def gather_nd(buffer, indices, opts \\ []), do: Gathering.gather_nd(buffer, indices, opts)

  @doc """
  Returns `{:ok, buffer}` with the elements of `target`, and in place of the slices at the index vectors, which are as for `gather_nd/3`, those of `updates`. The shape of
  `updates` is that of `indices` without its last axis, followed by the axes that are not addressed. Of several updates of one slice, the last one counts; one
  out of bounds is ignored, and with `check: true` the error `:out_of_bounds`. The types are merged.

      iex> x = ExCubecl.Buffer.zeros!([2, 2], :s32)
      iex> indices = ExCubecl.buffer!([[0, 1], [1, 0], [0, 1]], [3, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.indexed_put!(x, indices, ExCubecl.buffer!([7, 8, 9], [3], :s32)))
      [[0, 9], [8, 0]]
  """
  @spec indexed_put(tensor, tensor, tensor, axes: [integer], check: boolean) :: result
  def indexed_put(target, indices, updates, opts \\ []),
    do: Scattering.put(target, indices, updates, opts)

  @doc """
  Returns `{:ok, buffer}` with the elements of `target`, to which those of `updates` are added at the index vectors; all else is as for `indexed_put/4`. Several updates
  of one element are added up first, in an order that depends on the indices alone, so that the result is always the same. The error of a sum of n floats is at
  most 64 * ceil(log32(n)) * 2^-24 of the sum of their magnitudes (for `:f64`, 2^-53); sums of `:f16` and `:bf16` are those of `:f32`, rounded once.

      iex> x = ExCubecl.Buffer.zeros!([3], :s32)
      iex> indices = ExCubecl.buffer!([[0], [2], [0]], [3, 1], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.indexed_add!(x, indices, ExCubecl.buffer!([7, 8, 9], [3], :s32)))
      [16, 0, 8]
  """
  @spec indexed_add(tensor, tensor, tensor, axes: [integer], check: boolean) :: result
  def indexed_add(target, indices, updates, opts \\ []),
    do: Scattering.add(target, indices, updates, opts)

  @doc """
  Returns `{:ok, buffer}` with a new axis of some length, `axis:`, by default the last one: along it, 1 at the index in `indices` and 0 elsewhere, and nothing but 0 for an
  index out of bounds, unless `check: true`. `dtype:` defaults to `:u8`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.one_hot!(ExCubecl.buffer!([2, 0, 5], [3], :s32), 3))
      [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
  """
  @spec one_hot(tensor, non_neg_integer, keyword) :: result
  def one_hot(indices, length, opts \\ []), do: OneHot.run(indices, length, opts)

  ## Reductions

  alias ExCubecl.Ops.Norms

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
  @spec sum(tensor, axes) :: result
  def sum(buffer, opts \\ []), do: Reductions.run(:sum, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the product of all elements, or the products over axes, as for `sum/2`.

      iex> ExCubecl.item!(ExCubecl.Ops.product!(ExCubecl.buffer!([2, 3, 4], [3], :u8)))
      24
  """
  @spec product(tensor, axes) :: result
  def product(buffer, opts \\ []), do: Reductions.run(:product, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the minimum of all elements, or the minima over axes, as for `sum/2`; `:invalid_argument` if there are no elements.

      iex> ExCubecl.item!(ExCubecl.Ops.reduce_min!(ExCubecl.buffer!([2, -3, 4], [3], :s8)))
      -3
  """
  @spec reduce_min(tensor, axes) :: result
  def reduce_min(buffer, opts \\ []), do: Reductions.run(:reduce_min, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the maximum of all elements, or the maxima over axes, as for `sum/2`; `:invalid_argument` if there are no elements.

      iex> ExCubecl.to_list!(ExCubecl.Ops.reduce_max!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 1))
      [9, 4]
  """
  @spec reduce_max(tensor, axes) :: result
  def reduce_max(buffer, opts \\ []), do: Reductions.run(:reduce_max, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with 1 if no element is 0, else 0 (`:u8`), of all elements or over axes, as for `sum/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.all!(ExCubecl.buffer!([[2, 9], [4, 0]], [2, 2], :s32), axis: 1))
      [1, 0]
  """
  @spec all(tensor, axes) :: result
  def all(buffer, opts \\ []), do: Reductions.run(:all, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with 1 if some element is not 0, else 0 (`:u8`), of all elements or over axes, as for `sum/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.any!(ExCubecl.buffer!([[2, 0], [4, 0]], [2, 2], :s32), axis: 0))
      [1, 0]
  """
  @spec any(tensor, axes) :: result
  def any(buffer, opts \\ []), do: Reductions.run(:any, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the mean of all elements, or the means over axes, as for `sum/2`, as floats.

      iex> ExCubecl.item!(ExCubecl.Ops.mean!(ExCubecl.buffer!([1, 2], [2], :u8)))
      1.5
  """
  @spec mean(tensor, axes) :: result
  def mean(buffer, opts \\ []), do: Reductions.mean(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the variance of all elements, or the variances over axes, as for `sum/2`, as floats. The sum of the squares is divided by the
  number of elements minus `ddof:`, 0 by default.

      iex> ExCubecl.item!(ExCubecl.Ops.variance!(ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)))
      1.25
  """
  @spec variance(tensor, keyword) :: result
  def variance(buffer, opts \\ []), do: Reductions.variance(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the standard deviation, the square root of `variance/2`, whose options are those of this function.

      iex> ExCubecl.item!(ExCubecl.Ops.standard_deviation!(ExCubecl.buffer!([1, 3], [2], :s32)))
      1.0
  """
  @spec standard_deviation(tensor, keyword) :: result
  def standard_deviation(buffer, opts \\ []), do: Reductions.standard_deviation(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the norm of all elements, or the norms over axes, as for `sum/2`, as floats. The elements are those of one vector, also over several axes.

  `order:` is 2 by default: a number p gives `sum(abs(x) ** p) ** (1 / p)`, 0 the number of elements that are not 0, `:infinity` the greatest magnitude and
  `:neg_infinity` the least one.

      iex> x = ExCubecl.buffer!([[3, 4], [0, -2]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.norm!(x, axis: 1))
      [5.0, 2.0]
      iex> ExCubecl.item!(ExCubecl.Ops.norm!(x, order: 1))
      9.0
  """
  @spec norm(tensor, keyword) :: result
  def norm(buffer, opts \\ []), do: Norms.norm(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the logarithm of the sum of the exponentials of all elements, or of those over axes, as for `sum/2`, as floats. It does not overflow;
  of negative infinities only, it is negative infinity. `:invalid_argument` if there are no elements.

      iex> x = ExCubecl.buffer!([1000, 1000], [2], :f32)
      iex> Float.round(ExCubecl.item!(ExCubecl.Ops.logsumexp!(x)), 3)
      1000.693
  """
  @spec logsumexp(tensor, axes) :: result
  def logsumexp(buffer, opts \\ []), do: Norms.logsumexp(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the index of the minimum of all elements, or the indices along `axis:`. Of several, it is the first one, or with
  `tie_break: :high` the last one; NaN counts as the minimum. `dtype:` is the type of the indices, `:s32` (the default) or `:s64`. `keep_axes:` is as for `sum/2`.

      iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8)))
      1
      iex> ExCubecl.item!(ExCubecl.Ops.argmin!(ExCubecl.buffer!([2, -3, -3], [3], :s8), tie_break: :high))
      2
  """
  @spec argmin(tensor, keyword) :: result
  def argmin(buffer, opts \\ []), do: Reductions.index_of(:argmin, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the index of the maximum of all elements, or the indices along `axis:`, as for `argmin/2`; NaN counts as the maximum.

      iex> ExCubecl.to_list!(ExCubecl.Ops.argmax!(ExCubecl.buffer!([[2, 9], [4, 1]], [2, 2], :u8), axis: 0))
      [1, 0]
  """
  @spec argmax(tensor, keyword) :: result
  def argmax(buffer, opts \\ []), do: Reductions.index_of(:argmax, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the cumulative sums (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.
  They are calculated in chunks, as in `sum/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_sum!(ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)))
      [1.0, 3.0, 6.0]
  """
  @spec cumulative_sum(tensor, axis: integer, reverse: boolean) :: result
  def cumulative_sum(buffer, opts \\ []), do: Scan.run(:sum, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the cumulative products (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.

      iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_product!(ExCubecl.buffer!([1, 2, 3], [3], :s32)))
      [1, 2, 6]
  """
  @spec cumulative_product(tensor, axis: integer, reverse: boolean) :: result
  def cumulative_product(buffer, opts \\ []), do: Scan.run(:product, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the cumulative minima (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.

      iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_min!(ExCubecl.buffer!([3, 1, 2], [3], :s32)))
      [3, 1, 1]
  """
  @spec cumulative_min(tensor, axis: integer, reverse: boolean) :: result
  def cumulative_min(buffer, opts \\ []), do: Scan.run(:min, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the cumulative maxima (inclusive) along `axis:`, the last axis by default. `reverse: true` starts at the end of the axis.

      iex> ExCubecl.to_list!(ExCubecl.Ops.cumulative_max!(ExCubecl.buffer!([3, 1, 4], [3], :s32)))
      [3, 3, 4]
  """
  @spec cumulative_max(tensor, axis: integer, reverse: boolean) :: result
  def cumulative_max(buffer, opts \\ []), do: Scan.run(:max, buffer, opts)

  ## Order

  alias ExCubecl.Ops.Sorting

  @doc """
  Returns `{:ok, buffer}` with the elements sorted along `axis:`, the last axis by default. `direction:` is `:asc` (the default) or `:desc`.

  NaN is greater than all numbers: it is last in ascending and first in descending order. Equal elements, such as 0.0 and -0.0, keep their order in both
  directions: every sort is stable, whatever `stable:` is.

      iex> ExCubecl.to_list!(ExCubecl.Ops.sort!(ExCubecl.buffer!([[3, 1, 2], [0, 9, 4]], [2, 3], :s32)))
      [[1, 2, 3], [0, 4, 9]]
      iex> ExCubecl.to_list!(ExCubecl.Ops.sort!(ExCubecl.buffer!([1.0, :nan, 2.0], [3], :f32), direction: :desc))
      [:nan, 2.0, 1.0]
  """
  @spec sort(tensor, axis: integer, direction: :asc | :desc, stable: boolean) :: result
  def sort(buffer, opts \\ []), do: Sorting.sort(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the indices that sort the elements along `axis:`, in the order of `sort/2`, whose options it takes. `dtype:` is the type of the
  indices, `:s32` (the default) or `:s64`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.argsort!(ExCubecl.buffer!([30, 10, 20, 10], [4], :s32)))
      [1, 3, 2, 0]
  """
  @spec argsort(tensor, keyword) :: result
  def argsort(buffer, opts \\ []), do: Sorting.argsort(buffer, opts)

  @doc """
  Returns `{:ok, {values, indices}}` with the `k` greatest elements along `axis:`, the last axis by default, in descending order, and their indices; NaN is the
  greatest element, and of equal elements the first one is first. `dtype:` is as for `argsort/2`.

      iex> {values, indices} = ExCubecl.Ops.top_k!(ExCubecl.buffer!([3, 9, 5, 9], [4], :u8), 3)
      iex> {ExCubecl.to_list!(values), ExCubecl.to_list!(indices)}
      {[9, 9, 5], [1, 3, 2]}
  """
  @spec top_k(tensor, non_neg_integer, axis: integer, dtype: :s32 | :s64) ::
          {:ok, {Buffer.t(), Buffer.t()}} | {:error, Error.t()}
  def top_k(buffer, k, opts \\ []), do: Sorting.top_k(buffer, k, opts)

  @doc """
  Returns `{:ok, buffer}`, a vector with the distinct elements in ascending order: the first one of equal elements, such as 0.0 and -0.0, and one NaN. The call
  waits for the device, because the length of the result is the number of distinct elements.

      iex> ExCubecl.to_list!(ExCubecl.Ops.unique!(ExCubecl.buffer!([[3, 1], [1, 3]], [2, 2], :s32)))
      [1, 3]
  """
  @spec unique(tensor) :: result
  def unique(buffer), do: Sorting.unique(buffer)

  ## Rows along an axis, each calculated by one kernel

  alias ExCubecl.Ops.Normalization

  @doc """
  Returns `{:ok, buffer}` with the exponentials of the elements, divided by their sum along `axis:`, the last axis by default: `exp(x) / sum(exp(x))`, calculated such that
  it does not overflow.

  The result has the type of `x`, or is of `:f32` for integers; `:f16` and `:bf16` are calculated with `:f32`. Rows with NaN or an infinity, and rows of
  negative infinities only, contain NaN, as in NumPy and PyTorch. Rows of up to 65,536 elements take one launch, few longer ones several.

      iex> x = ExCubecl.buffer!([[0, 0], [1000, 0]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.softmax!(x))
      [[0.5, 0.5], [1.0, 0.0]]
  """
  @spec softmax(tensor, axis: integer) :: result
  def softmax(x, opts \\ []), do: Normalization.exponential(:softmax, x, opts)

  @doc """
  Returns `{:ok, buffer}` with the logarithms of `softmax/2`, calculated such that small values do not become 0. Types and options are those of `softmax/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.log_softmax!(ExCubecl.buffer!([[0, 1000]], [1, 2], :f32)))
      [[-1000.0, 0.0]]
  """
  @spec log_softmax(tensor, axis: integer) :: result
  def log_softmax(x, opts \\ []), do: Normalization.exponential(:log_softmax, x, opts)

  @doc """
  Returns `{:ok, buffer}` with the elements normalized along `axis:`, the last axis by default: `(x - mean) / sqrt(variance + epsilon) * scale + bias`. Types are those of
  `softmax/2`.

  `scale:` (1) and `bias:` (0) are vectors as long as the axis, or numbers; `epsilon:` is 1.0e-5 by default. Errors: `:shape_mismatch` for another vector.

      iex> x = ExCubecl.buffer!([[1, 3], [10, 30]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.layer_norm!(x, epsilon: 0, bias: ExCubecl.buffer!([0, 5], [2], :f32)))
      [[-1.0, 6.0], [-1.0, 6.0]]
  """
  @spec layer_norm(tensor, keyword) :: result
  def layer_norm(x, opts \\ []), do: Normalization.normalized(:layer_norm, x, opts)

  @doc """
  Returns `{:ok, buffer}` with the elements divided by their root mean square along `axis:`, the last axis by default: `x / sqrt(mean(x * x) + epsilon) * scale`. Options
  and errors are those of `layer_norm/2`, without `bias:`.

      iex> x = ExCubecl.buffer!([[3, 3], [-2, 2]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.rms_norm!(x, epsilon: 0))
      [[1.0, 1.0], [-1.0, 1.0]]
  """
  @spec rms_norm(tensor, keyword) :: result
  def rms_norm(x, opts \\ []), do: Normalization.normalized(:rms_norm, x, opts)

  ## Products

  alias ExCubecl.Ops.Dot

  @doc """
  Returns `{:ok, buffer}`, the product of two matrices, `[m, k]` times `[k, n]`, which is `[m, n]`, or of stacks of matrices, whose leading axes
  broadcast. A vector is a row on the left and a column on the right, as in NumPy. The types are merged, see `dot/3`.

      iex> a = ExCubecl.buffer!([[1.0, 2.0], [3.0, 4.0]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.matmul!(a, a))
      [[7.0, 10.0], [15.0, 22.0]]
      iex> stack = ExCubecl.buffer!([[[1, 2]], [[3, 4]]], [2, 1, 2], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.matmul!(stack, ExCubecl.buffer!([10, 1], [2], :s32)))
      [[12], [34]]
  """
  @spec matmul(tensor, tensor) :: result
  def matmul(a, b), do: Dot.matmul(a, b)

  @doc """
  Returns `{:ok, buffer}`, the sums of products over pairs of axes, as `Nx.dot/6`. Its axes are the batch axes, the others of `a`, and the others of `b`.

  ## Options

    * `:contract_axes` - `{axes_of_a, axes_of_b}`, the axes of the sums, as many of both, by pairs of equal length. By default the last axis of `a`, and the
      last but one of `b`, or its only one; none if there is no axis
    * `:batch_axes` - `{axes_of_a, axes_of_b}`, `{[0, 1, ...], [0, 1, ...]}`: the leading axes for each index of which there is a product. None by default

  The types are merged as in Nx. Integers wrap around; sums of `:f16` and `:bf16` are calculated with `:f32` and rounded once. Operands are read through
  strides: a transposed one is as fast. Large products use the library of the device, which adds up in an order of its own.

  Errors: `:shape_mismatch` for axes of unlike lengths, `:invalid_argument` for axes that do not exist or are there twice.

      iex> a = ExCubecl.Buffer.iota!([2, 3], :s32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.dot!(a, a, contract_axes: {[1], [1]}))
      [[5, 14], [14, 50]]
      iex> ExCubecl.to_list!(ExCubecl.Ops.dot!(a, a, contract_axes: {[1], [1]}, batch_axes: {[0], [0]}))
      [5, 50]
  """
  @spec dot(tensor, tensor, keyword) :: result
  def dot(a, b, opts \\ []), do: Dot.run(a, b, opts)

  ## Fourier transforms. Complex numbers are pairs of real ones: a last axis of length 2.

  alias ExCubecl.Ops.Fourier

  @doc """
  Returns `{:ok, buffer}` with the discrete Fourier transforms along `axis:`, by default the last one.

  Complex numbers are pairs of `:f32` or `:f64` numbers, the real and the imaginary part, along a last axis of length 2, which `axis:` does not count: n complex numbers have
  the shape `[n, 2]`. With `real: true`, the buffer has real numbers, of any type, and no such axis. The result is of complex numbers:
  of `:f64` if the buffer is of `:f64`, else of `:f32`.

  ## Options

    * `:axis` - the axis, -1 by default
    * `:length` - the number of elements to transform; an axis is shortened, or filled with zeros, to this length. Any length is
      accepted; lengths whose prime factors are 2, 3, 5 and 7 take one pass for each factor of up to 8, others about three times as many
    * `:real` - whether the buffer has real numbers; `false` by default

  Errors: `:invalid_argument` for a shape without pairs, for an axis that does not exist and for a length that is not positive.

      iex> x = ExCubecl.buffer!([1, 2, 3, 4], [4], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.fft!(x, real: true))
      [[10.0, 0.0], [-2.0, 2.0], [-2.0, 0.0], [-2.0, -2.0]]
  """
  @spec fft(tensor, axis: integer, length: pos_integer, real: boolean) :: result
  def fft(buffer, opts \\ []), do: Fourier.run(:fft, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the inverse transforms; arguments and result are as for `fft/2`.

      iex> x = ExCubecl.buffer!([[10, 0], [-2, 2], [-2, 0], [-2, -2]], [4, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.abs!(ExCubecl.Ops.ifft!(x)))
      [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]
  """
  @spec ifft(tensor, axis: integer, length: pos_integer, real: boolean) :: result
  def ifft(buffer, opts \\ []), do: Fourier.run(:ifft, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the transforms of real numbers along `axis:`. Of n values, those from `div(n, 2) + 1` on are the conjugates of others
  and are left out. Options and the pairs of the result are as for `fft/2`.

      iex> ExCubecl.to_list!(ExCubecl.Ops.rfft!(ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)))
      [[10.0, 0.0], [-2.0, 2.0], [-2.0, 0.0]]
  """
  @spec rfft(tensor, axis: integer, length: pos_integer) :: result
  def rfft(buffer, opts \\ []), do: Fourier.rfft(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with real numbers, of which `rfft/2` gives these complex numbers. `length:` is their number along `axis:`, by default
  `2 * (m - 1)` for m complex numbers.

      iex> x = ExCubecl.buffer!([[10, 0], [-2, 2], [-2, 0]], [3, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.irfft!(x))
      [1.0, 2.0, 3.0, 4.0]
  """
  @spec irfft(tensor, axis: integer, length: pos_integer) :: result
  def irfft(buffer, opts \\ []), do: Fourier.irfft(buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the transforms along two axes, `axes:`, by default the last two. `lengths:` are their lengths, as `length:` of `fft/2`.

      iex> x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.fft2!(x, real: true))
      [[[10.0, 0.0], [-2.0, 0.0]], [[-4.0, 0.0], [0.0, 0.0]]]
  """
  @spec fft2(tensor, axes: [integer], lengths: [pos_integer], real: boolean) :: result
  def fft2(buffer, opts \\ []), do: Fourier.run_2d(:fft2, buffer, opts)

  @doc """
  Returns `{:ok, buffer}` with the inverse transforms along two axes; arguments and result are as for `fft2/2`.

      iex> x = ExCubecl.buffer!([1, 2, 3, 4], [2, 2], :f32)
      iex> pairs = ExCubecl.Ops.ifft2!(ExCubecl.Ops.fft2!(x, real: true))
      iex> ExCubecl.to_list!(ExCubecl.Ops.abs!(pairs))
      [[[1.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]]
  """
  @spec ifft2(tensor, axes: [integer], lengths: [pos_integer], real: boolean) :: result
  def ifft2(buffer, opts \\ []), do: Fourier.run_2d(:ifft2, buffer, opts)

  ## Random numbers

  @doc """
  Returns `{:ok, buffer}` of floats, uniformly distributed from `low:` to below `high:` (`0.0` and `1.0` by default): the numbers of
  `ExCubecl.Random.uniform/3` for the key of `seed`, an integer, which are the same on every device. `dtype:` (`:f32` by default) and `device:` are options.

      iex> x = ExCubecl.Ops.random_uniform!([1000], 42)
      iex> mean = ExCubecl.item!(ExCubecl.Ops.mean!(x))
      iex> mean > 0.45 and mean < 0.55
      true
  """
  @spec random_uniform(Buffer.shape(), integer, keyword) :: result
  def random_uniform(shape, seed, opts \\ []),
    do: seed |> Random.key() |> drawn(&Random.uniform(&1, shape, opts))

  @doc """
  Returns `{:ok, buffer}` of floats, normally distributed with `mean:` (0.0) and standard `deviation:` (1.0): the numbers of `ExCubecl.Random.normal/3`; seed,
  `dtype:` and `device:` as for `random_uniform/3`.

      iex> x = ExCubecl.Ops.random_normal!([1000], 7)
      iex> abs(ExCubecl.item!(ExCubecl.Ops.mean!(x))) < 0.15
      true
  """
  @spec random_normal(Buffer.shape(), integer, keyword) :: result
  def random_normal(shape, seed, opts \\ []),
    do: seed |> Random.key() |> drawn(&Random.normal(&1, shape, opts))

  defp drawn(key, draw) do
    with {:ok, key} <- key,
         {:ok, {buffer, _next}} <- draw.(key),
         do: {:ok, buffer}
  end

  ## Windows

  @typedoc """
  Options of windows, each a number for all axes or a list with one for each axis:

    * `:strides` - the distance of neighbouring windows, 1 by default
    * `:window_dilations` - the distance of neighbouring elements of a window, 1 by default
    * `:padding` - `:valid`, without padding, by default; `:same`, by which the result has the shape of the operand with strides of 1; or a list with
      `{low, high}` for each axis, the number of elements before and after it, of which a negative one removes elements
  """
  @type window_options :: [
          strides: pos_integer | [pos_integer],
          window_dilations: pos_integer | [pos_integer],
          padding: :valid | :same | [{integer, integer}]
        ]

  for {name, what, padding, example} <- [
        {:window_sum, "sum", "0", "[3, 5, 7]"},
        {:window_product, "product", "1", "[2, 6, 12]"},
        {:window_min, "minimum", "the greatest number of the type", "[1, 2, 3]"},
        {:window_max, "maximum", "the least number of the type", "[2, 3, 4]"}
      ] do
    @doc """
    Returns `{:ok, buffer}` with the #{what} of each window of the lengths `window`, one for each axis. The type is that of the buffer, and padding
    is #{padding}. `:invalid_argument` for a window that is longer than the padded axis, and for other wrong options; see `t:window_options/0`.

        iex> x = ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)
        iex> ExCubecl.to_list!(ExCubecl.Ops.#{name}!(x, [2]))
        #{example}
    """
    @spec unquote(name)(tensor, Buffer.shape(), window_options) :: result
    def unquote(name)(buffer, window, opts \\ []),
      do: Windows.run(unquote(name), buffer, window, opts)
  end

  @doc """
  Returns `{:ok, buffer}` with the mean of each window, as floats: its sum, of which padding is 0, divided by the number of its elements. As for
  `window_sum/3`, but sums of integers do not wrap around.

      iex> x = ExCubecl.buffer!([100, 200, 255, 4], [4], :u8)
      iex> ExCubecl.to_list!(ExCubecl.Ops.window_mean!(x, [2], strides: 2))
      [150.0, 129.5]
  """
  @spec window_mean(tensor, Buffer.shape(), window_options) :: result
  def window_mean(buffer, window, opts \\ []),
    do: Windows.run(:window_mean, buffer, window, opts)

  @doc """
  Returns `{:ok, buffer}` with all elements, or those along axes (see `t:axes/0`), folded by an element-wise kernel of an element and the accumulator, which
  starts with `initial`, a number or a buffer of one element. The order is row-major, one element after the other, as in `Nx.reduce/4`; the result of the kernel is cast to
  the merged type of the buffer and `initial`. For sums and other known operations, `sum/2` and its neighbours are faster.

      iex> import ExCubecl.Kernel, only: [kernel: 1]
      iex> x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32)
      iex> digits = kernel(fn x, acc -> 10 * acc + x end)
      iex> ExCubecl.to_list!(ExCubecl.Ops.reduce!(x, 0, digits, axis: 1))
      [12, 34]
  """
  @spec reduce(tensor, operand, Kernel.t() | {module, atom}, axes) :: result
  def reduce(buffer, initial, kernel, opts \\ []),
    do: Windows.reduce(buffer, initial, kernel, opts)

  @doc """
  Returns `{:ok, buffer}` with each window folded by an element-wise kernel, as in `reduce/4`. The type is that of the buffer, and padding is `initial`. Options are
  those of `window_sum/3`.

      iex> import ExCubecl.Kernel, only: [kernel: 1]
      iex> x = ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)
      iex> digits = kernel(fn x, acc -> 10 * acc + x end)
      iex> ExCubecl.to_list!(ExCubecl.Ops.window_reduce!(x, 0, [2], digits))
      [12, 23, 34]
  """
  @spec window_reduce(
          tensor,
          operand,
          Buffer.shape(),
          Kernel.t() | {module, atom},
          window_options
        ) :: result
  def window_reduce(buffer, initial, window, kernel, opts \\ []),
    do: Windows.window_reduce(buffer, initial, window, kernel, opts)

  for {name, which, example} <- [
        {:window_scatter_max, "greatest", "[0, 10, 10, 0]"},
        {:window_scatter_min, "least", "[10, 0, 0, 10]"}
      ] do
    @doc """
    Returns `{:ok, buffer}` of the shape of `tensor` with `initial`, a number or a buffer of one element, in each element, to which the elements of `source` are
    added: each one where the #{which} element of its window is, the last one of several. A window whose first element is NaN selects that one, and other windows no NaN.
    Padding takes part as `initial`; what is added to it is lost. The type is the merged one of `source` and `initial`.

    Options are `:strides` and `:padding`; see `t:window_options/0`. `:invalid_argument` for a source that has not one element for each window.

        iex> x = ExCubecl.buffer!([1, 2, 2, 1], [4], :s32)
        iex> source = ExCubecl.buffer!([10, 10], [2], :s32)
        iex> ExCubecl.to_list!(ExCubecl.Ops.#{name}!(x, source, 0, [2], strides: 2))
        #{example}
    """
    @spec unquote(name)(tensor, tensor, operand, Buffer.shape(), keyword) :: result
    def unquote(name)(tensor, source, initial, window, opts \\ []),
      do: WindowScatter.run(unquote(name), tensor, source, initial, window, opts)
  end

  @doc """
  Returns `{:ok, buffer}` with the convolution of an input and a kernel of as many axes, in the order batch, channels and those in space, and output
  channels, channels and those in space: each output element is the sum of the products of the kernel of its channel and a window of the input.

  ## Options

    * `:strides`, `:padding` - as for windows, for the axes in space; see `t:window_options/0`. Padding is 0
    * `:input_dilation`, `:kernel_dilation` - the distance of neighbouring elements of the input, with zeros between them, and of the kernel: a number or a
      list, 1 by default
    * `:feature_group_size` - the number of groups into which the channels and the output channels are divided: each output channel sees the channels of its group
    * `:batch_group_size` - the number of groups into which the batch and the output channels are divided: the result has the batch divided by it
    * `:input_permutation`, `:kernel_permutation` - which axis of the operand is the batch or the output channels, which one the channels, and so on
    * `:output_permutation` - which axis of the result is the batch, which one the channels, and so on

  The type is the merged one, or `:f32` for two of integers, whose sums are exact in 64 bits; those of `:f16` and `:bf16` are calculated with `:f32` and rounded
  once. Errors: `:shape_mismatch` for ranks and channels that do not match, `:invalid_argument` for a kernel that is longer than the padded
  input, groups that do not divide, and other wrong options.

      iex> x = ExCubecl.buffer!([1, 2, 3, 4], [1, 1, 4], :f32)
      iex> k = ExCubecl.buffer!([1, 10], [1, 1, 2], :f32)
      iex> ExCubecl.to_list!(ExCubecl.Ops.conv!(x, k))
      [[[21.0, 32.0, 43.0]]]
      iex> ExCubecl.to_list!(ExCubecl.Ops.conv!(x, k, strides: 2, padding: [{1, 0}]))
      [[[10.0, 32.0]]]
  """
  @spec conv(tensor, tensor, keyword) :: result
  def conv(input, kernel, opts \\ []), do: Convolution.run(input, kernel, opts)
end
