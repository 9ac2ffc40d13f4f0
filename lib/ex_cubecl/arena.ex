defmodule ExCubecl.Arena do
  @moduledoc """
  A linear allocator: one allocation of device memory, in which tensors are placed one after the other.

  Allocating in an arena takes a microsecond and does not involve the device. `drop/2` frees tensors
  in any order, `reset/1` frees all at once:

      iex> arena = ExCubecl.Arena.new!(1000, dtype: :f64)
      iex> a = ExCubecl.Arena.alloc!(arena, [10, 10])
      iex> b = ExCubecl.Arena.alloc!(arena, [20, 5], :f32)
      iex> ExCubecl.Buffer.fill(a, 1.5)
      iex> ExCubecl.Buffer.fill(b, 2)
      iex> ExCubecl.Arena.drop(arena, [a, b])
      :ok
      iex> ExCubecl.Arena.used(arena)
      {:ok, 0}
      iex> {:error, error} = ExCubecl.read(a)
      iex> error.reason
      :stale

  Tensors are buffers and work with every function of `ExCubecl.Buffer`. Reading a new tensor is
  `:not_allocated` until it is written: the previous contents of its bytes cannot be read. Once the tensor is
  dropped, or the arena is reset or freed, operations on any handle of it return `:stale`, in every process.

  An arena is a stack: the bytes of a dropped tensor can be reused once all tensors that were
  allocated after it are dropped too. Until then `used/1` counts them. Garbage collection of the handles of a
  tensor does not drop it: the tensor and those allocated before it keep their bytes until `reset/1`, so that the
  memory that an arena needs does not depend on the garbage collector.

  Each tensor starts at a multiple of the device's alignment; `used/1` counts the padding.

  An arena is one live allocation of bytes in `ExCubecl.Memory.report/1`. It is freed by
  `release/1`, at the end of `scoped/2`, or when the last handle of it and of its tensors is
  garbage collected. Any process may use it; `per_process/2` gives each process its own arena.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, Device, DType, Error, Native}
  alias ExCubecl.Arena.{Options, Tensors}
  alias ExCubecl.Buffer.Pressure
  alias ExCubecl.Error.{Arguments, Operation, Text}

  @enforce_keys [:ref, :unit, :device, :size]
  defstruct [:ref, :unit, :device, :size]

  @opaque handle :: reference
  @typedoc "`unit` is the type whose elements are counted, or `:bytes`."
  @type t :: %__MODULE__{
          ref: handle,
          unit: DType.t() | :bytes,
          device: Device.id(),
          size: non_neg_integer
        }
  @type result(value) :: Buffer.result(value)

  ## Making arenas

  @doc """
  Returns `{:ok, arena}` of `size` elements of `dtype`, or of `size` bytes if no type is given.

  ## Options

    * `:size` - instead of the argument. Without a size the arena starts empty and grows
    * `:dtype` - the type whose elements `size` counts, and the default type of `alloc/2`
    * `:extendable` - whether the arena allocates more memory when it is full, `true` by default. Tensors keep
      their addresses, and the allocated size doubles each time. A full fixed arena returns `:limit_exceeded`
    * `:device`, `:tag`, `:allocation` - as for `ExCubecl.Buffer.new/4`

  Errors: `:invalid_argument` for a size below one, `:unsupported_dtype`, `:unknown_device`,
  `:too_large`, `:out_of_memory`, `:limit_exceeded`.

      iex> arena = ExCubecl.Arena.new!(4096, extendable: false)
      iex> {:error, error} = ExCubecl.Arena.alloc(arena, [1025], :f32)
      iex> {error.reason, error.details.capacity}
      {:limit_exceeded, 4096}
  """
  @spec new(pos_integer | keyword, keyword) :: result(t)
  def new(size_or_opts \\ [], opts \\ []) do
    with {:ok, options} <- Options.check(size_or_opts, opts) do
      growth = if options.extendable, do: :extendable, else: :fixed
      make(options, &Native.arena_new(&1.id, &1.bytes, growth, &1.note))
    end
  end

  @doc """
  Returns `{:ok, arena}`, which gives each process a separate arena of `size`.

  The arena of a process is made at its first allocation, and freed by `reset/1` or `release/1` in that process,
  or when the process exits. Its tensors are then stale. Options and errors are those of `new/2`; the further option is

    * `:max` - the maximum number of processes that have an arena at once, unlimited by default; beyond it, `:pool_exhausted`

  `free/1` frees the arenas of all processes.

      iex> arena = ExCubecl.Arena.per_process!(1000, dtype: :f32)
      iex> ExCubecl.Arena.alloc!(arena, [100])
      iex> other = Task.async(fn -> ExCubecl.Arena.used!(arena) end)
      iex> {ExCubecl.Arena.used!(arena) >= 100, Task.await(other)}
      {true, 0}
  """
  @spec per_process(pos_integer | keyword, keyword) :: result(t)
  def per_process(size_or_opts \\ [], opts \\ []) do
    with {:ok, options} <- Options.check(size_or_opts, opts, [:max]) do
      make(%{options | reserve: 0}, fn %{id: id, bytes: bytes, note: note} ->
        Native.arena_per_process(id, bytes, options.max, options.extendable, note)
      end)
    end
  end

  @doc """
  Makes a fixed arena, calls `fun` with it, returns `{:ok, result}`, and frees the arena, also when `fun`
  raises, throws or exits.

  Options are a size or those of `new/2`; `extendable: true` makes an extendable arena, `per_process: true`
  makes one of `per_process/2`. A list of several options makes several arenas, for a function of as many
  arguments. Errors are those of `new/2`.

      iex> ExCubecl.Arena.scoped([size: 1000, dtype: :s64], fn arena ->
      ...>   ExCubecl.Arena.alloc!(arena, [10, 10]) |> ExCubecl.Buffer.fill!(3)
      ...>   ExCubecl.Arena.used!(arena)
      ...> end)
      {:ok, 100}
      iex> ExCubecl.Arena.scoped([1000, [size: 2000, dtype: :f64]], fn one, other ->
      ...>   {ExCubecl.Arena.capacity!(one), ExCubecl.Arena.capacity!(other)}
      ...> end)
      {:ok, {1000, 2000}}
  """
  @spec scoped(pos_integer | keyword | [pos_integer | keyword], (... -> value)) :: result(value)
        when value: term
  def scoped(opts, fun) do
    several = if several?(opts), do: opts, else: [opts]

    if is_function(fun, length(several)),
      do: scoped(several, fun, []),
      else:
        Arguments.invalid(
          :fun,
          fun,
          "a function of #{Text.count(length(several), "arena")} as the last argument"
        )
  end

  defp several?([first | _] = list), do: not is_tuple(first) and not List.improper?(list)
  defp several?(_), do: false

  defp scoped([], fun, arenas), do: {:ok, apply(fun, Enum.reverse(arenas))}

  defp scoped([opts | rest], fun, arenas) do
    with {:ok, arena} <- for_scope(opts) do
      try do
        scoped(rest, fun, [arena | arenas])
      after
        free(arena)
      end
    end
  end

  defp for_scope(opts) when is_list(opts) do
    if Keyword.keyword?(opts) do
      {shared, opts} = Keyword.pop(opts, :per_process, false)
      opts = Keyword.put_new(opts, :extendable, false)
      if shared, do: per_process(opts), else: new(opts)
    else
      Arguments.invalid(:options, opts, "a size or a keyword list")
    end
  end

  defp for_scope(size), do: new(size, extendable: false)

  @doc """
  Runs `fun` with an arena without memory, and returns `{:ok, peak}`: the size that an arena needs for `fun`, in
  bytes, or in elements if `dtype:` is given.

  Tensors of that arena allocate memory only when they are written, so that `fun` can also compute with them.
  The options are `:dtype` and `:device`. Errors: `:unsupported_dtype`.

      iex> {:ok, peak} = ExCubecl.Arena.measure(fn arena ->
      ...>   a = ExCubecl.Arena.alloc!(arena, [1024], :f32)
      ...>   ExCubecl.Arena.drop!(arena, a)
      ...>   ExCubecl.Arena.alloc!(arena, [512], :f32)
      ...> end)
      iex> peak
      4096
  """
  @spec measure([dtype: DType.t(), device: term], (t -> term)) :: result(non_neg_integer)
  def measure(opts \\ [], fun)

  def measure(opts, fun) when is_function(fun, 1) do
    with {:ok, opts} <- Arguments.options(opts, [:dtype, :device]),
         {:ok, options} <- Options.check(opts, []),
         {:ok, arena} <- make(options, &Native.arena_new(&1.id, 0, :measuring, &1.note)) do
      fun.(arena)
      in_units(arena, ask(arena, &Native.arena_peak/1))
    end
  end

  def measure(_opts, fun),
    do: Arguments.invalid(:fun, fun, "a function of one argument as the last argument")

  defp make(options, call) do
    with {:ok, ref} <- Pressure.create(options.id, options.reserve, fn -> call.(options) end) do
      %{unit: unit, size: size, id: id} = options
      {:ok, %__MODULE__{ref: ref, unit: unit, size: size, device: id}}
    end
  end

  ## Tensors

  @doc """
  Returns `{:ok, tensor}`, a buffer of this shape in the arena. The type defaults to that of the arena.

  Errors: `:limit_exceeded` if a fixed arena is full, `:stale` if the arena was released, `:pool_exhausted` if too many processes have one of `per_process/2`,
  `:invalid_argument` while it has windows (see `reshape/3`), and the errors of `ExCubecl.Buffer.new/4` when it grows.

      iex> arena = ExCubecl.Arena.new!(100, dtype: :u8)
      iex> tensor = ExCubecl.Arena.alloc!(arena, [2, 2])
      iex> ExCubecl.Buffer.write(tensor, [[1, 2], [3, 4]])
      iex> ExCubecl.to_list(tensor)
      {:ok, [[1, 2], [3, 4]]}
  """
  @spec alloc(t, Buffer.shape(), DType.t() | nil) :: result(Buffer.t())
  def alloc(arena, shape, dtype \\ nil),
    do: with({:ok, arena} <- check(arena), do: Tensors.alloc(arena, shape, dtype))

  @doc """
  Returns `:ok` and drops a tensor, or a list of tensors in any order: all of them, or none on error.

  Every handle of a dropped tensor is stale from then on. Its bytes can be reused as soon as
  all tensors that were allocated after it are dropped too; until then they count as used.

  Errors: `:invalid_argument` for views, `:stale` for tensors that were dropped before or belong to another
  arena.

      iex> arena = ExCubecl.Arena.new!(1000, dtype: :f64)
      iex> {a, b} = {ExCubecl.Arena.alloc!(arena, [10, 10]), ExCubecl.Arena.alloc!(arena, [20, 5])}
      iex> ExCubecl.Arena.drop(arena, a)
      :ok
      iex> ExCubecl.Arena.used(arena)
      {:ok, 200}
      iex> ExCubecl.Arena.drop(arena, b)
      :ok
      iex> ExCubecl.Arena.used(arena)
      {:ok, 0}
      iex> {:error, error} = ExCubecl.Arena.drop(arena, a)
      iex> error.reason
      :stale
  """
  @spec drop(t, Buffer.t() | [Buffer.t()]) :: :ok | {:error, Error.t()}
  def drop(arena, tensors),
    do: with({:ok, arena} <- check(arena), do: Tensors.drop(arena, tensors))

  @doc """
  Returns `{:ok, window}`: a buffer of this shape over a range of the arena, without an allocation.

  Windows may overlap; a write through one is visible through the others. An arena has either windows or
  tensors until `reset/1`, which makes them stale.

  ## Options

    * `:offset` - the element to start at, 0 by default
    * `:dtype` - the type, by default that of the arena

  Errors: `:invalid_argument` while the arena has tensors, `:limit_exceeded` past the end of a fixed
  arena, `:out_of_bounds` past the end of an arena that has windows already, and those of `ExCubecl.Buffer.new/4`.

      iex> arena = ExCubecl.Arena.new!(1000, dtype: :s32)
      iex> a = ExCubecl.Arena.reshape!(arena, [10, 10])
      iex> b = ExCubecl.Arena.reshape!(arena, [20, 5], offset: 50)
      iex> ExCubecl.Buffer.fill(a, 7)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.view!(b, 49, [2]))
      [7, 0]
  """
  @spec reshape(t, Buffer.shape(), keyword) :: result(Buffer.t())
  def reshape(arena, shape, opts \\ []),
    do: with({:ok, arena} <- check(arena), do: Tensors.reshape(arena, shape, opts))

  @doc """
  Returns `{:ok, buffer}`: the same elements, as a buffer that aliasing checks do not relate to the arena.

  Tensors of one arena have the same storage (`ExCubecl.Buffer.same_storage?/2`); a detached buffer
  has a separate storage id and overlaps no other buffer. It has the lifetime of the tensor and becomes stale with it.

      iex> arena = ExCubecl.Arena.new!(100)
      iex> {a, b} = {ExCubecl.Arena.alloc!(arena, [4], :f32), ExCubecl.Arena.alloc!(arena, [4], :f32)}
      iex> ExCubecl.Buffer.same_storage?(a, b)
      true
      iex> ExCubecl.Buffer.same_storage?(a, ExCubecl.Arena.detach!(b))
      false
  """
  @spec detach(Buffer.t()) :: result(Buffer.t())
  def detach(tensor), do: Tensors.detach(tensor)

  ## The whole arena

  @doc """
  Returns `:ok` and drops all tensors and windows. The memory is kept, as one allocation. For an arena
  of `per_process/2` it frees the arena of the calling process.

      iex> arena = ExCubecl.Arena.new!(100)
      iex> tensor = ExCubecl.Arena.alloc!(arena, [10], :u8)
      iex> ExCubecl.Arena.reset(arena)
      :ok
      iex> ExCubecl.Buffer.allocated?(tensor)
      false
  """
  @spec reset(t) :: :ok | {:error, Error.t()}
  def reset(arena), do: ask(arena, &Native.arena_reset/1)

  @doc """
  Returns `:ok` and frees the arena with all of its tensors and windows; for an arena of `per_process/2` only the
  arena of the calling process. A second call does nothing.

      iex> arena = ExCubecl.Arena.new!(100)
      iex> ExCubecl.Arena.release(arena)
      :ok
      iex> {:error, error} = ExCubecl.Arena.alloc(arena, [1], :u8)
      iex> error.reason
      :stale
  """
  @spec release(t) :: :ok | {:error, Error.t()}
  def release(arena), do: ask(arena, &Native.arena_release/1)

  @doc """
  Returns `:ok` and frees the arena with all of its tensors and windows; for an arena of `per_process/2` those of all processes.

      iex> ExCubecl.Arena.free(ExCubecl.Arena.per_process!(100))
      :ok
  """
  @spec free(t) :: :ok | {:error, Error.t()}
  def free(arena), do: ask(arena, &Native.arena_free/1)

  @doc """
  Returns `{:ok, used}`, in elements of the arena's type, or in bytes if it has none. Padding between
  tensors counts, and so does a dropped tensor if a later tensor is not dropped. While the arena has windows,
  all of it counts as used.

      iex> arena = ExCubecl.Arena.new!(1000, dtype: :f64)
      iex> ExCubecl.Arena.alloc!(arena, [20, 5])
      iex> ExCubecl.Arena.used(arena)
      {:ok, 100}
  """
  @spec used(t) :: result(non_neg_integer)
  def used(arena), do: in_units(arena, ask(arena, &Native.arena_used/1))

  @doc """
  Returns `{:ok, capacity}`, in the same unit as `used/1`: the current size of the arena.

      iex> ExCubecl.Arena.capacity(ExCubecl.Arena.new!(1000, dtype: :f64))
      {:ok, 1000}
  """
  @spec capacity(t) :: result(non_neg_integer)
  def capacity(arena) do
    case ask(arena, &Native.arena_capacity/1) do
      {:ok, nil} -> {:ok, arena.size}
      {:ok, bytes} -> {:ok, div(bytes, Options.bytes(arena.unit))}
      {:error, error} -> {:error, error}
    end
  end

  defp in_units(arena, {:ok, bytes}), do: {:ok, Options.in_units(bytes, arena.unit)}
  defp in_units(_arena, {:error, error}), do: {:error, error}

  @doc """
  Returns whether the arena allocates more memory when it is full.

      iex> arena = ExCubecl.Arena.new!(1000)
      iex> ExCubecl.Arena.set_extendable(arena, false)
      :ok
      iex> ExCubecl.Arena.extendable?(arena)
      false
  """
  @spec extendable?(t) :: boolean
  def extendable?(arena),
    do: Operation.unwrap!(ask(arena, &Native.arena_extendable/1), :extendable?, arena: arena)

  @doc """
  Returns `:ok` and sets whether the arena allocates more memory when it is full; for an arena of `per_process/2`
  that holds for the arenas of all processes.

      iex> arena = ExCubecl.Arena.new!(100)
      iex> ExCubecl.Arena.set_extendable(arena, false)
      :ok
      iex> {:error, error} = ExCubecl.Arena.alloc(arena, [1000], :u8)
      iex> error.reason
      :limit_exceeded
  """
  @spec set_extendable(t, boolean) :: :ok | {:error, Error.t()}
  def set_extendable(arena, extendable) do
    with {:ok, extendable} <- Arguments.boolean(:extendable, extendable),
         do: ask(arena, &Native.arena_set_extendable(&1, extendable))
  end

  defp ask(arena, call) do
    with {:ok, arena} <- check(arena), do: Error.from_native(fn -> call.(arena.ref) end)
  end

  # A struct that was built by hand may hold any terms.
  defp check(%__MODULE__{ref: ref, device: {_, _}, size: size, unit: unit} = arena)
       when is_reference(ref) and is_integer(size) do
    if unit == :bytes or DType.valid?(unit), do: {:ok, arena}, else: no_arena(arena)
  end

  defp check(other), do: no_arena(other)

  defp no_arena(other), do: Arguments.invalid(:arena, other, "an %ExCubecl.Arena{}")
end
