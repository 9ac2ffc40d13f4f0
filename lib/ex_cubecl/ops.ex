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

  Element-wise operations take `as:`, a type to which the operands are converted first, and `dtype:`, a type to which the result is converted:

      iex> x = ExCubecl.buffer!([100, 200], [2], :u8)
      iex> ExCubecl.to_list!(ExCubecl.Ops.add!(x, x))
      [200, 144]
      iex> ExCubecl.to_list!(ExCubecl.Ops.add!(x, x, as: :s32))
      [200, 400]

  `into:` is an option of every operation whose result has a known shape: a buffer of this shape and type, with or without memory, in which the result is made; the call then
  returns `:ok`. Kernels write it in place of a new buffer, except for large products of floats, whose library makes a buffer of its own, and for types with which the device does not calculate
  or that the kernel does not return, such as indices of `:s64`: these results are copied to it. Element-wise operations take an operand of theirs; other operations refuse a buffer that shares bytes with an
  operand (`:overlap`).

      iex> x = ExCubecl.buffer!([3, 1, 2], [3], :s32)
      iex> sorted = ExCubecl.Buffer.zeros!([3], :s32)
      iex> ExCubecl.Ops.sort(x, into: sorted)
      :ok
      iex> ExCubecl.to_list!(sorted)
      [1, 2, 3]

  An operation runs where its buffers are. For buffers of another node it runs on that node, where its result stays; an `ExCubecl.Replicated` in place of a buffer
  runs it once on each device, and makes the result replicated. Operands in different places are `:invalid_argument`, which names both.

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

  use ExCubecl.Ops.Placed
  use ExCubecl.Error.Bang

  import Elixir.Kernel, except: [abs: 1, ceil: 1, floor: 1, max: 2, min: 2, round: 1]

  alias ExCubecl.{Buffer, Error, Random, View}
  alias ExCubecl.Ops.Interface

  @typedoc "An `ExCubecl.Replicated`."
  @type replicated :: %{
          required(:__struct__) => module,
          required(:buffers) => [Buffer.t()],
          required(:shards) => boolean,
          optional(atom) => term
        }
  @typedoc "A buffer, a strided view of one (`ExCubecl.View`), or a copy or shard on each of several devices (`ExCubecl.Replicated`)."
  @type tensor :: Buffer.t() | View.t() | replicated
  @type operand :: tensor | number
  @type result :: {:ok, Buffer.t() | replicated} | {:error, Error.t()}

  # The functions, by topic.
  use Interface.ElementWise
  use Interface.Movement
  use Interface.Indexing
  use Interface.Reductions
  use Interface.Order
  use Interface.Normalization
  use Interface.Products
  use Interface.Fourier
  use Interface.Windows

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
end
