defmodule ExCubecl.Random do
  @moduledoc """
  Random numbers on the device: the counter-based generator Threefry 2x32 of `Nx.Random` and `jax.random`, with the same numbers for the same keys.

      iex> alias ExCubecl.Random
      iex> key = Random.key!(1701)
      iex> {x, key} = Random.uniform!(key, [3])
      iex> ExCubecl.to_list!(x)
      [0.021928906440734863, 0.5889178514480591, 0.8947794437408447]
      iex> {y, _key} = Random.uniform!(key, [3])
      iex> ExCubecl.to_list!(y) == ExCubecl.to_list!(x)
      false

  There is no hidden state: a **key** determines the numbers, and each draw returns the key of the next draw. A key is a pair of integers of 32 bits in
  host memory, so that keys cost no launch; that of an Nx program is `key |> Nx.to_flat_list() |> List.to_tuple()`. `split/2` makes keys for
  concurrent processes or several devices. Each draw is one kernel.

  The numbers are those of `Nx.Random`, on every device: integers, shuffles, and `:f32` and `:f64` floats of `uniform/3` to the last bit, those of `normal/3` up to
  the error of `erf_inv` on the device. `:f16` and `:bf16` are calculated in `:f32` and rounded once, where Nx rounds after each step; with the default bounds,
  `uniform/3` has the bits of Nx.

  `device:` is an option of each function that draws into a new buffer. The errors are those of `ExCubecl.Buffer.new/4`.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, Device, DType, Error, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Random.{Draw, Sampling, Threefry}

  @mask 0xFFFF_FFFF

  @typedoc "Two integers of 32 bits."
  @type key :: {0..0xFFFFFFFF, 0..0xFFFFFFFF}

  @typedoc "What a draw returns, and the key of the next draw."
  @type result :: {:ok, {Buffer.t(), key}} | {:error, Error.t()}

  defguardp word?(term) when is_integer(term) and term in 0..@mask

  @doc """
  Returns `{:ok, key}` for a seed, an integer of 64 bits.

      iex> ExCubecl.Random.key!(999_999_999_999)
      {232, 3567587327}
  """
  @spec key(integer) :: {:ok, key} | {:error, Error.t()}
  def key(seed) when is_integer(seed) and seed in -0x8000000000000000..0xFFFFFFFFFFFFFFFF,
    do: {:ok, words(seed)}

  def key(other), do: Arguments.invalid(:seed, other, "an integer of 64 bits")

  defp words(integer),
    do: {Bitwise.band(Bitwise.bsr(integer, 32), @mask), Bitwise.band(integer, @mask)}

  @doc """
  Returns `{:ok, keys}`, a list of `parts:` keys, 2 by default, that are independent of each other and of the key.

      iex> ExCubecl.Random.split!(ExCubecl.Random.key!(1701))
      [{56197195, 1801093307}, {961309823, 1704866707}]
  """
  @spec split(key, parts: pos_integer) :: {:ok, [key]} | {:error, Error.t()}
  def split(key, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:parts]),
         {:ok, key} <- checked(key),
         {:ok, parts} <- count(Keyword.get(opts, :parts, 2)),
         do: {:ok, Threefry.parts(key, parts)}
  end

  # The keys are in host memory.
  defp count(parts) when is_integer(parts) and parts in 1..1_000_000, do: {:ok, parts}
  defp count(other), do: Arguments.invalid(:parts, other, "an integer from 1 to 1,000,000")

  @doc """
  Returns `{:ok, key}`, another key for each integer of 64 bits, such as the number of a step or of a process.

      iex> ExCubecl.Random.fold_in!(ExCubecl.Random.key!(42), 99)
      {2015327502, 1351855566}
  """
  @spec fold_in(key, integer) :: {:ok, key} | {:error, Error.t()}
  def fold_in(key, integer) do
    with {:ok, key} <- checked(key),
         {:ok, words} <- key(integer),
         do: {:ok, Threefry.hash(key, words)}
  end

  @doc """
  Returns `{:ok, {buffer, key}}` with floats that are uniformly distributed from `low:` (0.0) to below `high:` (1.0). `dtype:` is `:f32` by default.

      iex> {x, _key} = ExCubecl.Random.uniform!(ExCubecl.Random.key!(1701), [2], low: -1, high: 1, dtype: :f64)
      iex> Enum.all?(ExCubecl.to_list!(x), & &1 >= -1 and &1 < 1)
      true
  """
  @spec uniform(key, Buffer.shape(),
          low: number,
          high: number,
          dtype: DType.t(),
          device: Device.id()
        ) ::
          result
  def uniform(key, shape, opts \\ []),
    do: draw(key, opts, [:low, :high, :dtype, :device], &Draw.uniform(&1, shape, opts))

  @doc """
  Returns `{:ok, {buffer, key}}` with floats that are normally distributed with `mean:` (0.0) and standard `deviation:` (1.0). `dtype:` is `:f32` by default.

      iex> {x, _key} = ExCubecl.Random.normal!(ExCubecl.Random.key!(42), [1000])
      iex> abs(ExCubecl.item!(ExCubecl.Ops.mean!(x))) < 0.1
      true
  """
  @spec normal(key, Buffer.shape(),
          mean: number,
          deviation: number,
          dtype: DType.t(),
          device: Device.id()
        ) ::
          result
  def normal(key, shape, opts \\ []),
    do: draw(key, opts, [:mean, :deviation, :dtype, :device], &Draw.normal(&1, shape, opts))

  @doc """
  Returns `{:ok, {buffer, key}}` with integers that are uniformly distributed over a range, of which both ends are included. `dtype:` is `:s32` by default; the range must
  be within the type, and smaller than all its numbers.

      iex> {x, _key} = ExCubecl.Random.integers!(ExCubecl.Random.key!(1701), [3, 2], 1..99, dtype: :u32)
      iex> ExCubecl.to_list!(x)
      [[9, 20], [19, 6], [71, 15]]
  """
  @spec integers(key, Buffer.shape(), Range.t(), dtype: DType.t(), device: Device.id()) :: result
  def integers(key, shape, range, opts \\ [])

  # The limits of NumPy and PyTorch.
  def integers(_key, _shape, low, high) when is_integer(low) and is_integer(high),
    do: Arguments.invalid(:range, low, "one range, first..last, of which both ends are included")

  def integers(key, shape, range, opts),
    do: draw(key, opts, [:dtype, :device], &Draw.integers(&1, shape, range, opts))

  @doc """
  Returns `{:ok, {buffer, key}}` with the elements in another order along `axis:`, 0 by default: that of all slices along the axis is the same, or with
  `independent: true` another one for each.

  Errors: `:not_allocated`.

      iex> {x, _key} = ExCubecl.Random.shuffle!(ExCubecl.Random.key!(42), ExCubecl.Buffer.iota!([5], :s32))
      iex> Enum.sort(ExCubecl.to_list!(x))
      [0, 1, 2, 3, 4]
  """
  @spec shuffle(key, Buffer.t() | View.t(), axis: integer, independent: boolean) :: result
  def shuffle(key, buffer, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :independent]),
         {:ok, key} <- checked(key),
         do: Sampling.shuffle(key, buffer, opts)
  end

  @doc """
  Returns `{:ok, {buffer, key}}` with random slices along `axis:`, or without it, with random elements.

    * `:samples` - their number, 1 by default
    * `:replace` - `false` takes each slice at most once. Defaults to `true`
    * `:probabilities` - a buffer of floats, one for each slice, none of which is negative. They need not add up to 1. By default, all are equal

  The samples are those of `Nx.Random.choice/3` since Nx 0.9. With probabilities, a sample may be a neighbour of that of Nx where the cumulative
  sums differ by rounding.

  Errors: `:not_allocated`, and `:shape_mismatch` for another number of probabilities than slices.

      iex> x = ExCubecl.buffer!([10, 20, 30], [3], :s32)
      iex> {drawn, _key} = ExCubecl.Random.choice!(ExCubecl.Random.key!(1), x, samples: 3, replace: false)
      iex> Enum.sort(ExCubecl.to_list!(drawn))
      [10, 20, 30]
  """
  @spec choice(key, Buffer.t() | View.t(), keyword) :: result
  def choice(key, buffer, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:axis, :samples, :replace, :probabilities]),
         {:ok, key} <- checked(key),
         do: Sampling.choice(key, buffer, opts)
  end

  # The first part of a key is the next one, the second one draws.
  defp draw(key, opts, known, fun) do
    with {:ok, _} <- Arguments.options(opts, known),
         {:ok, key} <- checked(key),
         [next, own] = Threefry.parts(key, 2),
         {:ok, result} <- fun.(own),
         do: {:ok, {result, next}}
  end

  defp checked({a, b} = key) when word?(a) and word?(b), do: {:ok, key}
  defp checked(other), do: Arguments.invalid(:key, other, "a key of ExCubecl.Random.key/1")
end
