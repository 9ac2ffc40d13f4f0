defmodule ExCubecl.Memory do
  @moduledoc """
  Memory usage of a device, its owners, and limits.

  The BEAM collects a process's garbage when its own heap fills up, and it cannot see device
  memory: a process that makes and drops large buffers may hold many dead ones. So a process that
  has made 64 MiB of buffers runs a minor garbage collection before it makes the next one (`config
  :ex_cubecl, gc_every: bytes`, or `:infinity` for never). If the device is out of memory, or its limit is
  reached, the process runs a full garbage collection, then the processes that made buffers on the device do,
  then all processes; unused memory is given back to the driver. Only if the allocation still fails it returns
  `:out_of_memory` or `:limit_exceeded`, with the processes that own the most memory.

  A limit is set by `set_limit/2` or in the configuration, for all devices or for single ones:

      config :ex_cubecl, memory_limit: 2_000_000_000
      config :ex_cubecl, memory_limit: %{{:cuda, 0} => 8_000_000_000}

  The option `device:` is the device of a call, by default the default device; a device of another node is `{node, id}`.

  The memory of a collected buffer is cached for later allocations. `trim/1` gives it back to the
  driver.

  `report/1` returns the live allocations. Every function that makes a buffer takes a `tag:` for this report:

      iex> buffer = ExCubecl.Buffer.zeros!([1024], :u8, tag: :doc_weights)
      iex> report = ExCubecl.Memory.report!()
      iex> report.by_tag[:doc_weights]
      %{bytes: 1024, buffers: 1}
      iex> report.by_owner[self()].bytes >= 1024
      true
      iex> ExCubecl.size!(buffer)
      1024
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Device, DType, Error}
  alias ExCubecl.Buffer.AllocOptions
  alias ExCubecl.Cluster.Client
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Memory.{Timeline, Usage}

  @typedoc "A device in any of its forms, `{node, device}` for a device of another node, `nil` for the default device."
  @type device :: Device.id() | String.t() | Device.t() | {node, term} | nil

  @typedoc """
  Bytes, and counts of buffers since the device was opened:

    * `live_bytes`, `live_buffers` - the allocations that hold memory now: buffers, buffers of pools while they are
      checked out, and arenas. Views share memory, lazy buffers have none yet; a buffer without elements
      counts once it was written
    * `peak_bytes` - the maximum of `live_bytes` since the start or `reset_peak/1`
    * `reserved_bytes` - the memory that the device's runtime holds for the library, used or not, staging included
    * `allocations`, `frees` - buffers that allocated memory, and buffers that freed it
    * `failed` - allocations that were refused after all retries
    * `reclaims` - how often garbage was collected because an allocation did not fit
    * `limit` - the maximum of `live_bytes`, `nil` for no limit
  """
  @type usage :: %{
          live_bytes: non_neg_integer,
          live_buffers: non_neg_integer,
          peak_bytes: non_neg_integer,
          reserved_bytes: non_neg_integer,
          allocations: non_neg_integer,
          frees: non_neg_integer,
          failed: non_neg_integer,
          reclaims: non_neg_integer,
          limit: non_neg_integer | nil
        }

  @doc """
  Returns `{:ok, usage}` of the device.

  Errors: `:unknown_device`, `:no_device`.

      iex> {:ok, before} = ExCubecl.Memory.usage()
      iex> buffer = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
      iex> {:ok, now} = ExCubecl.Memory.usage()
      iex> now.allocations > before.allocations
      true
      iex> ExCubecl.size!(buffer)
      8
  """
  @spec usage(device: device) :: {:ok, usage} | {:error, Error.t()}
  def usage(opts \\ []), do: Client.route_option(&Usage.usage/1, [], opts)

  @doc """
  Returns `{:ok, bytes}`, the total memory of the device, or `{:ok, nil}` if its driver does not report it.

  For a CPU that is the memory of the machine.

      iex> {:ok, total} = ExCubecl.Memory.total()
      iex> total == nil or total > 0
      true
  """
  @spec total(device: device) :: {:ok, pos_integer | nil} | {:error, Error.t()}
  def total(opts \\ []), do: Client.route_option(&Usage.total/1, [], opts)

  @doc """
  Gives unused memory back to the driver, and returns `{:ok, bytes}` with its size.

      iex> {:ok, bytes} = ExCubecl.Memory.trim()
      iex> bytes >= 0
      true
  """
  @spec trim(device: device) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def trim(opts \\ []), do: Client.route_option(&Usage.trim/1, [], opts)

  @doc """
  Returns `:ok` and limits the live bytes of the device to `bytes`; `nil` removes the limit.

  A limit below the current live bytes is accepted: allocations fail until enough was freed.
  An allocation that would exceed the limit returns `:limit_exceeded`.

      iex> ExCubecl.Memory.set_limit(nil, device: ExCubecl.default_device!())
      :ok
      iex> {:error, error} = ExCubecl.Memory.set_limit(-1)
      iex> error.reason
      :invalid_argument
  """
  @spec set_limit(non_neg_integer | nil, device: device) :: :ok | {:error, Error.t()}
  def set_limit(bytes, opts \\ []),
    do: Client.route_option(&Usage.set_limit/2, [bytes], opts)

  @doc """
  Returns `:ok` and resets `peak_bytes` to the current `live_bytes`.

      iex> ExCubecl.Memory.reset_peak()
      :ok
  """
  @spec reset_peak(device: device) :: :ok | {:error, Error.t()}
  def reset_peak(opts \\ []), do: Client.route_option(&Usage.reset_peak/1, [], opts)

  @typedoc """
  One live allocation: `owner` is the process that made it, `stacktrace` is set if `trace/1` was on
  at that time; it is on page `page` at byte `offset`, unless it has no bytes.
  """
  @type allocation :: %{
          storage_id: pos_integer,
          bytes: non_neg_integer,
          dtype: DType.t(),
          shape: [non_neg_integer],
          owner: pid,
          tag: term,
          age_ms: non_neg_integer,
          stacktrace: Exception.stacktrace() | nil,
          page: pos_integer | nil,
          offset: non_neg_integer | nil
        }

  @type sum :: %{bytes: non_neg_integer, buffers: non_neg_integer}

  @doc """
  Returns `{:ok, report}`: the largest live allocations, and sums of all of them by owner and by tag.

  `most:` is the number of allocations to list, 10 by default; `device:` is the device. A process that has exited may still be the owner of
  allocations that other processes have handles of. An arena is one allocation of bytes. `kernels` is `ExCubecl.Kernel.cache/0`:
  the cache of compiled kernels, for all devices.

      iex> buffer = ExCubecl.Buffer.zeros!([3, 1000], :f32, tag: "report")
      iex> {:ok, report} = ExCubecl.Memory.report(most: 1000)
      iex> found = Enum.find(report.largest, &(&1.tag == "report"))
      iex> {found.dtype, found.shape, found.bytes, found.owner == self()}
      {:f32, [3, 1000], 12000, true}
      iex> found.storage_id == ExCubecl.Buffer.storage_id!(buffer)
      true
  """
  @spec report(most: non_neg_integer, device: device) ::
          {:ok,
           %{
             largest: [allocation],
             by_owner: %{pid => sum},
             by_tag: %{term => sum},
             kernels: %{atom => non_neg_integer}
           }}
          | {:error, Error.t()}
  def report(opts \\ []), do: Client.route_option(&Usage.report/1, [], opts)

  @typedoc """
  A page of device memory. A `:slab` page is shared by many allocations, a `:dedicated` page holds one, an
  `:idle` page is cached for the next allocation of its size. `used` bytes include padding and the idle buffers of pools.
  """
  @type page :: %{
          page: pos_integer,
          bytes: pos_integer,
          used: non_neg_integer,
          kind: :slab | :dedicated | :idle
        }

  @doc """
  Returns `{:ok, %{pages: pages, allocations: allocations}}`: the memory layout of a device.

  Each allocation has its `page` and its byte `offset` on it. `most:` is the number of
  allocations to list, the largest first, 1000 by default; `device:` is the device. The page of an allocation that is not listed is
  listed if it is a slab. `ExCubecl.Memory.Chart` draws the map.

      iex> buffer = ExCubecl.Buffer.zeros!([10], :u8, tag: :mapped)
      iex> {:ok, %{pages: pages, allocations: all}} = ExCubecl.Memory.map()
      iex> found = Enum.find(all, &(&1.tag == :mapped))
      iex> page = Enum.find(pages, &(&1.page == found.page))
      iex> {page.kind, found.offset + found.bytes <= page.bytes}
      {:slab, true}
      iex> ExCubecl.size!(buffer)
      10
  """
  @spec map(most: non_neg_integer, device: device) ::
          {:ok, %{pages: [page], allocations: [allocation]}} | {:error, Error.t()}
  def map(opts \\ []), do: Client.route_option(&Usage.map/1, [], opts)

  @typedoc """
  The memory usage of a device at one time; `at` is in milliseconds since 1970. `by_tag` are the live bytes of the 200
  largest tags, `nil` unless they are recorded.
  """
  @type sample :: %{
          at: integer,
          live_bytes: non_neg_integer,
          live_buffers: non_neg_integer,
          reserved_bytes: non_neg_integer,
          peak_bytes: non_neg_integer,
          limit: non_neg_integer | nil,
          reclaims: non_neg_integer,
          failed: non_neg_integer,
          by_tag: %{term => non_neg_integer} | nil
        }

  @doc """
  Returns `:ok` and starts to record the memory usage of each open device; `false` stops recording.

  Starting discards the earlier samples; after stopping the samples can still be read. `true` is
  `[every: 100, keep: 600, tags: false]`: a sample each 100 milliseconds, of which each device keeps the last 600.
  `tags: true` records the live bytes of each tag, too, which takes longer the more allocations there are.
  An allocation that is made and freed between two samples is visible only in their `peak_bytes`.

      iex> ExCubecl.Memory.timeline(every: 5, keep: 10)
      iex> buffer = ExCubecl.Buffer.zeros!([1000], :u8)
      iex> Process.sleep(100)
      iex> ExCubecl.Memory.timeline(false)
      :ok
      iex> {:ok, samples} = ExCubecl.Memory.timeline()
      iex> samples = samples[ExCubecl.default_device!()]
      iex> {length(samples) in 1..10, List.last(samples).live_bytes >= ExCubecl.size!(buffer)}
      {true, true}
  """
  @spec timeline(boolean | keyword) :: :ok | {:error, Error.t()}
  def timeline(recording)
  def timeline(false), do: Timeline.record(nil)
  def timeline(true), do: timeline([])

  def timeline(opts) do
    with {:ok, opts} <- Arguments.options(opts, Keyword.keys(Timeline.defaults())),
         opts = Keyword.merge(Timeline.defaults(), opts),
         {:ok, every} <- Arguments.positive(:every, opts[:every]),
         {:ok, keep} <- Arguments.positive(:keep, opts[:keep]),
         {:ok, tags} <- Arguments.boolean(:tags, opts[:tags]),
         do: Timeline.record(%{every: every, keep: keep, tags: tags})
  end

  @doc """
  Returns `{:ok, samples}` of `timeline/1`: a map from devices to lists, the oldest sample first.

      iex> {:ok, samples} = ExCubecl.Memory.timeline()
      iex> is_map(samples)
      true
  """
  @spec timeline() :: {:ok, %{Device.id() => [sample]}} | {:error, Error.t()}
  def timeline, do: Timeline.samples()

  @doc """
  Returns `:ok` and starts or stops to record the stacktrace of each call that makes a buffer.
  `report/1` includes it. Recording costs some microseconds for each buffer.

      iex> ExCubecl.Memory.trace(true)
      iex> buffer = ExCubecl.Buffer.zeros!([77], :u8, tag: :traced)
      iex> ExCubecl.Memory.trace(false)
      iex> {:ok, report} = ExCubecl.Memory.report(most: 1000)
      iex> [{_module, _function, _arity, _location} | _] =
      ...>   Enum.find(report.largest, &(&1.tag == :traced)).stacktrace
      iex> ExCubecl.size!(buffer)
      77
  """
  @spec trace(boolean) :: :ok | {:error, Error.t()}
  def trace(on),
    do: with({:ok, on} <- Arguments.boolean(:trace, on), do: AllocOptions.set_tracing(on))
end
