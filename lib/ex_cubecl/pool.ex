defmodule ExCubecl.Pool do
  @moduledoc """
  A pool of buffers of one size for reuse.

  A pool is a process of your supervision tree. Checking out and in costs a few microseconds and
  sends no message to that process; only a caller that has to wait for a buffer calls it.

      iex> {:ok, pool} = ExCubecl.Pool.start_link(size: 4096, max: 2)
      iex> {:ok, buffer} = ExCubecl.Pool.checkout(pool)
      iex> ExCubecl.Buffer.fill(buffer, 7)
      iex> ExCubecl.Pool.checkin(pool, buffer)
      :ok
      iex> {:ok, %{available: 1, allocated: 1, max: 2}} = ExCubecl.Pool.stats(pool)

  A buffer that was checked in is stale: operations on any handle of it, view or clone, return `:stale` from
  then on, in every process, and the next holder cannot read the previous contents. A buffer is also given back
  when its holder exits, and when all of its handles are garbage collected.

  A checked-out buffer counts as live in `ExCubecl.Memory.usage/1`, owned by its holder. An idle buffer counts as
  reserved only, and is freed when an allocation on the device does not fit, by `ExCubecl.Memory.trim/1`, and when the
  pool exits. Buffers that are checked out at that time remain valid.

  `get_buffer/2` takes buffers of any size from pools that all processes share and no process has to start.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, DType, Error, Native}
  alias ExCubecl.Buffer.{AllocOptions, Handle, Pressure}
  alias ExCubecl.Error.{Arguments, Operation}
  alias ExCubecl.Pool.{Options, Server, Shared}

  @type pool :: GenServer.server()
  @type option ::
          {:size, pos_integer}
          | {:shape, Buffer.shape()}
          | {:dtype, DType.t()}
          | {:max, pos_integer}
          | {:device, term}
          | {:name, GenServer.name()}
          | {:tag, term}
          | {:allocation, :default | :persistent}

  @typedoc "Counts of buffers, and of checkouts: `hits` reused an idle buffer, `misses` allocated a new one, `waits` had to wait."
  @type stats :: %{
          available: non_neg_integer,
          allocated: non_neg_integer,
          max: pos_integer,
          hits: non_neg_integer,
          misses: non_neg_integer,
          waits: non_neg_integer
        }

  @doc """
  Returns the child specification of a pool, for a supervisor: `{ExCubecl.Pool, size: 4096}`.

      iex> {:ok, _supervisor} = Supervisor.start_link([{ExCubecl.Pool, size: 16, name: :of_the_docs}], strategy: :one_for_one)
      iex> ExCubecl.size!(ExCubecl.Pool.checkout!(:of_the_docs))
      16
  """
  @spec child_spec([option]) :: Supervisor.child_spec()
  def child_spec(opts), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [opts]}}

  @doc """
  Starts a pool and returns `{:ok, pid}`, or `{:error, error}`.

  ## Options

    * `:size` - bytes of each buffer; or
    * `:shape` - the shape of each buffer
    * `:dtype` - the type of each buffer, `:u8` by default
    * `:max` - the maximum number of buffers at once; by default the maximum of
      `get_buffer/2` for that size
    * `:device` - the device of the buffers
    * `:name` - as for `GenServer.start_link/3`
    * `:tag`, `:allocation` - as for `ExCubecl.Buffer.new/4`

  Errors: `:invalid_argument`, `:invalid_shape`, `:unsupported_dtype`, `:unknown_device`,
  `:too_large`.

      iex> {:ok, pool} = ExCubecl.Pool.start_link(shape: [2, 3], dtype: :f32, max: 4)
      iex> ExCubecl.shape(ExCubecl.Pool.checkout!(pool))
      {:ok, [2, 3]}
      iex> {:error, error} = ExCubecl.Pool.start_link(size: 0)
      iex> error.reason
      :invalid_argument
  """
  @spec start_link([option]) :: GenServer.on_start()
  def start_link(opts) do
    started =
      with {:ok, checked} <- Options.check(opts),
           %{id: id, dtype: dtype, shape: shape, max: max, note: note} = checked,
           {:ok, pool} <-
             Error.from_native(fn -> Native.pool_new(id, dtype, shape, max, note) end),
           do: GenServer.start_link(Server, {pool, max}, Keyword.take(opts, [:name]))

    Operation.named(started, :start_link, [:opts], [opts])
  end

  @doc """
  Returns `{:ok, buffer}`, an idle buffer or a new one. As with a lazy buffer, reading it is
  `:not_allocated` until it is written.

  ## Options

    * `:timeout` - milliseconds to wait if all buffers are checked out, `5000` by default
    * `:tag` - as for `ExCubecl.Buffer.new/4`, instead of the tag of the pool

  Errors: `:pool_exhausted` if no buffer was given back in time, `:stale` for a pool that has exited, and those
  of `ExCubecl.Buffer.new/4`.

      iex> {:ok, pool} = ExCubecl.Pool.start_link(size: 100, max: 1)
      iex> {:ok, held} = ExCubecl.Pool.checkout(pool)
      iex> {:error, error} = ExCubecl.Pool.checkout(pool, timeout: 10)
      iex> Exception.message(error)
      "checkout: all 1 of the pool are held, and none was returned within 10 ms: return one, wait longer, or raise max"
      iex> ExCubecl.size(held)
      {:ok, 100}
  """
  @spec checkout(pool, keyword) :: Buffer.result(Buffer.t())
  def checkout(pool, opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:timeout, :tag]),
         {:ok, timeout} <- Arguments.timeout(Keyword.get(opts, :timeout, 5000)),
         {:ok, note} <- AllocOptions.from(Keyword.take(opts, [:tag])),
         {:ok, pid} <- whereis(pool) do
      case Error.from_native(fn -> Native.pool_try_checkout(pid, note) end) do
        {:ok, {:allocate, id, bytes}} -> grow(pid, id, bytes, note, timeout)
        result -> made(result)
      end
    end
  end

  defp grow(pid, id, bytes, note, timeout) do
    case Pressure.create(id, bytes, fn -> Native.pool_checkout(pid, self(), note) end) do
      {:error, %Error{reason: :pool_exhausted}} when timeout != 0 -> wait(pid, note, timeout)
      result -> made(result)
    end
  end

  defp wait(pid, note, timeout) do
    made(GenServer.call(pid, {:wait, note, timeout}, :infinity))
  catch
    :exit, _ -> Error.new(:stale, reason: :closed)
  end

  defp made({:ok, lease}), do: {:ok, struct!(Buffer, lease)}
  defp made({:error, error}), do: {:error, error}

  @doc """
  Returns `:ok` and gives a buffer back to the pool. Every handle of it is stale from then on.

  Any process may give a buffer back, not only the one that checked it out.

  Errors: `:stale` for a buffer that was given back before or is not from this pool, `:invalid_argument` for
  a view or clone, `:device_lost`.

      iex> {:ok, pool} = ExCubecl.Pool.start_link(size: 100)
      iex> buffer = ExCubecl.Pool.checkout!(pool)
      iex> ExCubecl.Pool.checkin(pool, buffer)
      :ok
      iex> {:error, error} = ExCubecl.Pool.checkin(pool, buffer)
      iex> error.reason
      :stale
  """
  @spec checkin(pool, Buffer.t()) :: :ok | {:error, Error.t()}
  def checkin(pool, buffer) do
    with {:ok, ref} <- Handle.reference(buffer),
         {:ok, pid} <- whereis(pool),
         do: Error.from_native(fn -> Native.pool_checkin(pid, ref) end)
  end

  @doc """
  Checks a buffer out, calls `fun` with it, returns `{:ok, result}`, and checks the buffer in, also when `fun`
  raises. Options and errors as `checkout/2`.

      iex> {:ok, pool} = ExCubecl.Pool.start_link(size: 4)
      iex> ExCubecl.Pool.with_buffer(pool, fn buffer ->
      ...>   ExCubecl.Buffer.write!(buffer, [1, 2, 3, 4])
      ...>   ExCubecl.to_list!(buffer)
      ...> end)
      {:ok, [1, 2, 3, 4]}
  """
  @spec with_buffer(pool, keyword, (Buffer.t() -> value)) :: Buffer.result(value)
        when value: term
  def with_buffer(pool, opts \\ [], fun)

  def with_buffer(pool, opts, fun) when is_function(fun, 1) do
    with {:ok, buffer} <- checkout(pool, opts) do
      try do
        {:ok, fun.(buffer)}
      after
        # The result is ignored: it is `:stale` if `fun` gave the buffer back itself.
        checkin(pool, buffer)
      end
    end
  end

  def with_buffer(_pool, _opts, fun),
    do: Arguments.invalid(:fun, fun, "a function of one argument as the last argument")

  @doc """
  Returns `{:ok, stats}`: the number of buffers that are `:available`, the number that are `:allocated`, checked out or
  not, and the `:max`; the number of checkouts that reused an idle buffer (`:hits`), that allocated a new one
  (`:misses`), and that had to wait (`:waits`).

      iex> {:ok, pool} = ExCubecl.Pool.start_link(size: 100, max: 3)
      iex> ExCubecl.Pool.stats(pool)
      {:ok, %{available: 0, allocated: 0, max: 3, hits: 0, misses: 0, waits: 0}}
  """
  @spec stats(pool) :: Buffer.result(stats)
  def stats(pool) do
    with {:ok, pid} <- whereis(pool),
         do: Error.from_native(fn -> Native.pool_stats(pid) end)
  end

  ## Shared pools

  @doc """
  Returns `{:ok, buffer}` of at least `bytes` bytes, from a pool of its size class that all processes
  share. Give it back by `return_buffer/1`; the buffer of a process that exits is given back automatically.

  The size classes are 1, 4, 16, 64 and 256 KiB, 1, 4, 16 and 64 MiB, and each larger size is a class
  itself. Of each class, a device has at most 100 (to 4 KiB), 50 (to 64 KiB), 20 (to 16 MiB) or 15 buffers
  at once. `config :ex_cubecl, size_classes: [{bytes, max}, ...]` replaces the classes, and `larger_max: max`
  the maximum for each larger size.

  256 shared pools are kept, one for each size and device. If there are more, the least recently used pools of which no buffer
  is checked out are dropped with the memory that they keep.

  The previous contents of the buffer cannot be read: reading it is `:not_allocated` until it is
  written.

  ## Options

    * `:dtype` - its element type, `:u8` by default; the shape is flat
    * `:device`, `:tag`, `:allocation` - as for `ExCubecl.Buffer.new/4`

  Errors: `:pool_exhausted` at the maximum, `:invalid_argument` for bytes below one, `:too_large`, and
  those of `ExCubecl.Buffer.new/4`.

      iex> buffer = ExCubecl.Pool.get_buffer!(1500, dtype: :f32)
      iex> {ExCubecl.shape!(buffer), ExCubecl.size!(buffer)}
      {[1024], 4096}
      iex> ExCubecl.Pool.return_buffer(buffer)
      :ok
      iex> {:error, error} = ExCubecl.read(buffer)
      iex> error.reason
      :stale
  """
  @spec get_buffer(pos_integer, keyword) :: Buffer.result(Buffer.t())
  def get_buffer(bytes, opts \\ []), do: Shared.get(bytes, opts)

  @doc """
  Returns `:ok` and gives a buffer of `get_buffer/2` back to its pool. Every handle of it is stale from then on.

  Errors: `:stale` for a buffer that was given back before or is not from `get_buffer/2`, `:invalid_argument` for
  a view or clone, `:device_lost`.

      iex> {:error, error} = ExCubecl.Pool.return_buffer(ExCubecl.Buffer.zeros!([10], :u8))
      iex> error.reason
      :stale
  """
  @spec return_buffer(Buffer.t()) :: :ok | {:error, Error.t()}
  def return_buffer(buffer), do: Shared.return(buffer)

  @doc """
  Returns `{:ok, stats}` of the pools of `get_buffer/2`: a map from `{bytes, device}` to the counts of `stats/1`, or from
  `{bytes, device, :persistent}`.

      iex> buffer = ExCubecl.Pool.get_buffer!(100)
      iex> {:ok, stats} = ExCubecl.Pool.shared_stats()
      iex> stats[{1024, ExCubecl.default_device!()}].max
      100
      iex> ExCubecl.Pool.return_buffer(buffer)
      :ok
  """
  @spec shared_stats() :: Buffer.result(%{tuple => stats})
  def shared_stats, do: Shared.stats()

  defp whereis(pid) when is_pid(pid) and node(pid) == node(), do: {:ok, pid}

  defp whereis(pool) do
    case GenServer.whereis(pool) do
      pid when is_pid(pid) and node(pid) == node() -> {:ok, pid}
      _ -> Error.new(:stale, reason: :closed)
    end
  rescue
    # `GenServer.whereis/1` raises for a term that is not a name.
    _ -> Arguments.invalid(:pool, pool, "the pid or name of a pool on this node")
  end
end
