defmodule ExCubecl.Buffer do
  @moduledoc """
  Typed, shaped pieces of device memory.

  A buffer is a handle: its elements are in device memory, which is freed when the last handle is garbage
  collected. There is no `free`.

  Several handles may share one storage: `view/3`, `reshape/2`, `slice_bytes/3` and `clone/1` copy
  nothing, and a write through one handle is visible through all. `duplicate/1`, `convert/2` and
  `transfer/2` make a new storage.

  Any process may use a buffer, also several processes at once. Each single call is atomic: a read never sees
  half of a write, fill or copy. Processes that need an order between their calls must synchronize themselves.

  A call on zero elements, such as a fill of an empty view, checks its arguments like any other and changes
  nothing: a lazy buffer stays lazy. A read of zero elements does not require an earlier write.

  A buffer may be on another Erlang node: it is made with `device: {node, id}`, and every function of this
  module accepts it and runs on that node. Elements cross the network only for reads and writes.

  Functions return `:ok`, `{:ok, value}` or `{:error, %ExCubecl.Error{}}`; those with a `!` return
  the value or raise. Every function that takes a buffer returns `:invalid_argument` for any other
  term, and every function that uses the device returns `:device_lost` once the device was lost.

      iex> alias ExCubecl.Buffer
      iex> matrix = Buffer.iota!([2, 3], :f32)
      iex> row = Buffer.view!(matrix, 3, [3])
      iex> Buffer.write!(row, [9, 9, 9])
      iex> Buffer.to_list!(matrix)
      [[0.0, 1.0, 2.0], [9.0, 9.0, 9.0]]
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Device, DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{AllocOptions, Handle, Progress, Transfer}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Memory.Pressure

  @enforce_keys [:ref, :dtype, :shape, :device]
  defstruct [:ref, :dtype, :shape, :device]

  @opaque handle :: reference
  @type t :: %__MODULE__{
          ref: handle,
          dtype: DType.t(),
          shape: [non_neg_integer],
          device: Device.id()
        }
  @type result(value) :: {:ok, value} | {:error, Error.t()}
  @type shape :: [non_neg_integer] | tuple
  @type element :: number | :nan | :infinity | :neg_infinity

  @typedoc "A flat list, a list nested as the shape, or a native-endian binary."
  @type data :: [element | data] | binary | element

  ## Making buffers

  @doc """
  Returns `{:ok, buffer}` with the given elements.

  `data` is a flat list in row-major order, a list nested as the shape, or a binary of
  native-endian elements; for the shape `[]` also the number itself. Float types take numbers,
  `:nan`, `:infinity` and `:neg_infinity`.

  ## Options

    * `:device` - the device of the buffer, `{node, id}` for a device of another node. Defaults to
      `ExCubecl.default_device/0`
    * `:tag` - a short term; `ExCubecl.Memory.report/1` has a sum for each tag
    * `:allocation` - `:persistent` for a long-lived buffer: it is placed apart from short-lived
      buffers, so that it does not prevent their memory from being given back to the driver
    * `:progress` - for a binary, a function that is called with the transferred bytes and the total
      bytes, several times during the transfer and once at its end, in a separate process. Without
      one, IEx and Livebook show a progress bar for 256 MiB and more; `false` shows none. Transfers to another
      node report no progress

  ## Errors

  `:invalid_shape`, `:unsupported_dtype`, `:shape_mismatch`, `:invalid_value` (with the index),
  `:invalid_argument`, `:unknown_device`, `:too_large`, `:out_of_memory`, `:limit_exceeded`.

      iex> {:ok, buffer} = ExCubecl.Buffer.new([[1, 2], [3, 4]], [2, 2], :s16)
      iex> ExCubecl.Buffer.to_flat_list(buffer)
      {:ok, [1, 2, 3, 4]}
  """
  @spec new(data, shape, DType.t(), keyword) :: result(t)
  def new(data, shape, dtype, opts \\ []) do
    make(shape, dtype, opts, [:progress], fn target ->
      with {:ok, data} <- Arguments.data(data, target.shape),
           {:ok, progress} <- Progress.check(opts[:progress]),
           do: created_from(target, data, progress)
    end)
  end

  defp created_from(%{id: id, dtype: dtype} = target, data, progress) do
    bytes = target.count * DType.size(dtype)

    Telemetry.span(:upload, bytes, %{device: id, dtype: dtype}, fn ->
      create(target, target.count, fn -> from_data(target, data, progress) end)
    end)
  end

  # Up to this many bytes are written on the caller's scheduler, if that does not block.
  @small 16 * 1024

  defp from_data(target, data, progress) do
    expected = target.count * DType.size(target.dtype)

    if expected in 1..@small and (is_list(data) or byte_size(data) == expected) do
      %{id: id, dtype: dtype, shape: shape, note: note} = target

      with {:ok, nil} <- Native.buffer_from_small(id, dtype, shape, data, note),
           do: from_much(target, data, progress)
    else
      from_much(target, data, progress)
    end
  end

  defp from_much(%{id: id, dtype: dtype, shape: shape, note: note}, data, progress)
       when is_binary(data) do
    Progress.watch(byte_size(data), progress, fn watcher ->
      Native.buffer_from_binary(id, dtype, shape, data, note, watcher)
    end)
  end

  defp from_much(%{id: id, dtype: dtype, shape: shape, note: note}, data, _progress),
    do: Native.buffer_from_list(id, dtype, shape, data, note)

  @doc """
  Returns `{:ok, buffer}` without content. It allocates no device memory before the first write, fill
  or copy into it; until then reading it is `:not_allocated`.

  ## Options

    * `:device`, `:tag`, `:allocation` - as for `new/4`
    * `:lazy` - `false` allocates the memory in this call; its elements are zeros. Defaults to `true`

  Errors: as `new/4`.

      iex> buffer = ExCubecl.Buffer.empty!([1000], :f64)
      iex> ExCubecl.Buffer.allocated?(buffer)
      false
      iex> {:error, error} = ExCubecl.Buffer.read(buffer)
      iex> error.reason
      :not_allocated
  """
  @spec empty(shape, DType.t(), keyword) :: result(t)
  def empty(shape, dtype, opts \\ []) do
    make(shape, dtype, opts, [:lazy], fn target ->
      case Keyword.get(opts, :lazy, true) do
        true -> create(target, 0, fn -> blank(target) end)
        false -> filled(target, &Native.buffer_allocate/1)
        other -> Arguments.invalid(:lazy, other, "true or false")
      end
    end)
  end

  @doc """
  Returns `{:ok, buffer}` of zeros, made on the device. Options and errors as `new/4`.

      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.zeros!([2, 2], :u8))
      [[0, 0], [0, 0]]
  """
  @spec zeros(shape, DType.t(), keyword) :: result(t)
  def zeros(shape, dtype, opts \\ []), do: full(shape, dtype, 0, opts)

  @doc """
  Returns `{:ok, buffer}` whose elements are all `value`, made on the device. Options and errors as
  `new/4`.

      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.full!([3], :f16, :infinity))
      [:infinity, :infinity, :infinity]
  """
  @spec full(shape, DType.t(), element, keyword) :: result(t)
  def full(shape, dtype, value, opts \\ []) do
    make(shape, dtype, opts, [], fn target ->
      filled(target, &Native.buffer_fill(&1, value))
    end)
  end

  @doc """
  Returns `{:ok, buffer}` with 0, 1, 2, ... in row-major order, made on the device. Integer types
  wrap around, as in `convert/2`. Options and errors as `new/4`.

      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.iota!([2, 2], :f32))
      [[0.0, 1.0], [2.0, 3.0]]
  """
  @spec iota(shape, DType.t(), keyword) :: result(t)
  def iota(shape, dtype, opts \\ []) do
    make(shape, dtype, opts, [], fn %{id: id, note: note} = target ->
      create(target, target.count, fn ->
        Native.buffer_iota(id, dtype, target.shape, note)
      end)
    end)
  end

  # Checks the arguments that all constructors share, and passes them to `call`.
  defp make(shape, dtype, opts, more, call) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, shape, count} <- Arguments.shape(shape, dtype),
         {:ok, id, note} <- place(opts, [:device | more]),
         do: call.(%{id: id, dtype: dtype, shape: shape, count: count, note: note})
  end

  defp place([], _known) do
    with {:ok, id} <- Device.resolve(nil),
         {:ok, note} <- AllocOptions.from([]),
         do: {:ok, id, note}
  end

  defp place(opts, known) do
    with {:ok, opts} <- Arguments.options(opts, known ++ AllocOptions.options()),
         {:ok, id} <- Device.resolve(opts[:device]),
         {:ok, note} <- AllocOptions.from(opts),
         do: {:ok, id, note}
  end

  defp create(target, count, call) do
    with {:ok, ref} <- Pressure.create(target.id, count * DType.size(target.dtype), call) do
      {:ok, %__MODULE__{ref: ref, dtype: target.dtype, shape: target.shape, device: target.id}}
    end
  end

  defp blank(%{id: id, dtype: dtype, shape: shape, note: note} = target) do
    with {:ok, nil} <- Native.buffer_empty(id, dtype, shape, note),
         {:ok, :ok} <- Native.device_open(id),
         do: blank(target)
  end

  defp filled(target, fill) do
    create(target, target.count, fn ->
      with {:ok, ref} <- blank(target), {:ok, :ok} <- fill.(ref), do: {:ok, ref}
    end)
  end

  @doc """
  Returns `:ok` once the memory of the buffer is allocated. Elements that were not written yet are zeros.

      iex> buffer = ExCubecl.Buffer.empty!([2], :s32)
      iex> ExCubecl.Buffer.ensure_allocated(buffer)
      :ok
      iex> ExCubecl.Buffer.to_list(buffer)
      {:ok, [0, 0]}
  """
  @spec ensure_allocated(t) :: :ok | {:error, Error.t()}
  def ensure_allocated(buffer) do
    with {:ok, buffer} <- Handle.check(buffer),
         do: change(buffer, 1, fn -> Native.buffer_allocate(buffer.ref) end)
  end

  @doc """
  Returns whether the memory of the buffer's storage is allocated.

      iex> buffer = ExCubecl.Buffer.empty!([2], :f32)
      iex> view = ExCubecl.Buffer.view!(buffer, 1, [1])
      iex> ExCubecl.Buffer.write!(view, [1.0])
      iex> ExCubecl.Buffer.allocated?(buffer)
      true
  """
  @spec allocated?(t) :: boolean
  def allocated?(buffer), do: Error.unwrap!(ask(buffer, &Native.buffer_allocated/1))

  ## Looking at the same elements

  @doc """
  Returns `{:ok, view}`: the elements from `offset` on, in row-major order, as `shape`.

  A view shares the storage; the offset of a view of a view is relative to the inner view; a view of a lazy buffer
  is lazy too. Offsets count elements; no alignment is required.

  Errors: `:out_of_bounds`, `:invalid_shape`, `:invalid_argument` for an offset that is not a
  non-negative integer.

      iex> buffer = ExCubecl.Buffer.iota!([10], :u8)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.view!(buffer, 3, [2, 2]))
      [[3, 4], [5, 6]]
  """
  @spec view(t, non_neg_integer, shape) :: result(t)
  def view(buffer, offset, shape) do
    with {:ok, buffer} <- Handle.check(buffer),
         {:ok, shape, count} <- Arguments.shape(shape, buffer.dtype),
         :ok <- Arguments.part(offset, count, Shape.size(buffer.shape)),
         {:ok, ref} <- Error.from_native(fn -> Native.buffer_view(buffer.ref, offset, count) end),
         do: {:ok, %{buffer | ref: ref, shape: shape}}
  end

  @doc """
  Returns `{:ok, view}`: `len` raw bytes from byte `offset` on, as a `:u8` buffer that shares the
  storage.

      iex> buffer = ExCubecl.buffer!([1.0], [1], :f32)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.slice_bytes!(buffer, 2, 2))
      [128, 63]
  """
  @spec slice_bytes(t, non_neg_integer, non_neg_integer) :: result(t)
  def slice_bytes(buffer, offset, len) do
    with {:ok, buffer} <- Handle.check(buffer),
         :ok <- Arguments.part(offset, len, Shape.size(buffer.shape) * DType.size(buffer.dtype)),
         {:ok, ref} <-
           Error.from_native(fn -> Native.buffer_slice_bytes(buffer.ref, offset, len) end),
         do: {:ok, %{buffer | ref: ref, shape: [len], dtype: :u8}}
  end

  @doc """
  Returns `{:ok, buffer}`: the same elements of the same storage in another shape.

  Errors: `:shape_mismatch` if the number of elements differs.

      iex> buffer = ExCubecl.Buffer.iota!([6], :s64)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.reshape!(buffer, {2, 3}))
      [[0, 1, 2], [3, 4, 5]]
  """
  @spec reshape(t, shape) :: result(t)
  def reshape(buffer, shape) do
    with {:ok, buffer} <- Handle.check(buffer),
         {:ok, shape, count} <- Arguments.shape(shape, buffer.dtype) do
      case Shape.size(buffer.shape) do
        ^count ->
          view(buffer, 0, shape)

        other ->
          details = [operation: :reshape, expected: count, actual: other, shape: shape]
          Error.new(:shape_mismatch, details)
      end
    end
  end

  @doc """
  Returns `{:ok, buffer}`, another handle of the same elements, with a new id.

      iex> buffer = ExCubecl.Buffer.zeros!([2], :u8)
      iex> clone = ExCubecl.Buffer.clone!(buffer)
      iex> ExCubecl.Buffer.fill!(clone, 7)
      iex> ExCubecl.Buffer.to_list!(buffer)
      [7, 7]
  """
  @spec clone(t) :: result(t)
  def clone(buffer) do
    with {:ok, ref} <- ask(buffer, &Native.buffer_clone/1), do: {:ok, %{buffer | ref: ref}}
  end

  ## Copies

  @doc """
  Returns `{:ok, copy}`: the same elements in a new storage on the same device.

  Options: `:tag` and `:allocation`, as for `new/4`.

  Errors: `:not_allocated`, and those of `new/4`.

      iex> buffer = ExCubecl.Buffer.iota!([3], :u8)
      iex> copy = ExCubecl.Buffer.duplicate!(buffer)
      iex> ExCubecl.Buffer.fill!(buffer, 7)
      iex> ExCubecl.Buffer.to_list!(copy)
      [0, 1, 2]
  """
  @spec duplicate(t, keyword) :: result(t)
  def duplicate(buffer, opts \\ []) do
    with {:ok, buffer} <- Handle.check(buffer),
         do: derive(buffer, buffer.dtype, buffer.device, opts)
  end

  @doc """
  Returns `{:ok, copy}`: the same elements in a new storage on another device.

  Options: `:tag`, `:allocation` and `:progress`, as for `new/4`.

  Errors: `:unknown_device`, `:not_allocated`, and those of `new/4`.

      iex> {:ok, device} = ExCubecl.default_device()
      iex> copy = ExCubecl.Buffer.transfer!(ExCubecl.Buffer.iota!([3], :u8), device)
      iex> ExCubecl.Buffer.to_list!(copy)
      [0, 1, 2]
  """
  @spec transfer(t, term, keyword) :: result(t)
  def transfer(buffer, device, opts \\ []) do
    with {:ok, buffer} <- Handle.check(buffer),
         {:ok, id} <- Device.resolve(device),
         {:ok, opts} <- Arguments.options(opts, [:progress | AllocOptions.options()]),
         {:ok, progress} <- Progress.check(opts[:progress]),
         do: derive(buffer, buffer.dtype, id, Keyword.delete(opts, :progress), progress)
  end

  @doc """
  Returns `{:ok, converted}`: the elements converted to another type, in a new storage.

  Every device gives the same bits. The rules are those of `cast` and of stores in kernels:

    * float to integer: truncated toward zero and clamped to the range of the type (300.7 as
      `:u8` is 255, -1.0 is 0); NaN is 0
    * integer to integer: the low bits are kept, so that it wraps around (300 as `:u8` is 44)
    * any type to float: the nearest value, ties to even; infinity past the largest value;
      subnormal numbers and the sign of zero are kept; NaN becomes the quiet NaN without payload
    * to the same type: a bitwise copy

  Options: `:tag` and `:allocation`, as for `new/4`.

  Errors: `:unsupported_dtype`, `:not_allocated`, and those of `new/4`.

      iex> buffer = ExCubecl.buffer!([1.5, -1.0, 300.7, :nan, :infinity], [5], :f32)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.convert!(buffer, :u8))
      [1, 0, 255, 0, 255]
  """
  @spec convert(t, DType.t(), keyword) :: result(t)
  def convert(buffer, dtype, opts \\ []) do
    with {:ok, buffer} <- Handle.check(buffer),
         {:ok, dtype} <- Arguments.dtype(dtype),
         do: derive(buffer, dtype, buffer.device, opts)
  end

  defp derive(%{ref: ref, shape: shape} = buffer, dtype, id, opts, progress \\ false) do
    with {:ok, opts} <- Arguments.options(opts, AllocOptions.options()),
         {:ok, note} <- AllocOptions.from(opts) do
      create(%{id: id, dtype: dtype, shape: shape}, Shape.size(shape), fn ->
        if dtype == buffer.dtype,
          do: duplicated(buffer, id, note, progress),
          else: Native.buffer_convert(ref, dtype, shape, note)
      end)
    end
  end

  defp duplicated(%{ref: ref, shape: shape} = buffer, id, note, progress) do
    bytes = Shape.size(shape) * DType.size(buffer.dtype)
    progress = if id == buffer.device, do: false, else: progress
    Progress.watch(bytes, progress, &Native.buffer_duplicate(ref, id, shape, note, &1))
  end

  @doc """
  Returns `:ok` and copies all elements of `source` into `target`; if both are on the same device, the copy
  runs on it. Type and number of elements must be equal; the shapes need not.

  Errors: `:type_mismatch`, `:shape_mismatch`, `:not_allocated` for a lazy source, `:overlap` for
  buffers that share bytes, also a buffer and itself. On error the target is unchanged.

      iex> target = ExCubecl.Buffer.zeros!([2, 2], :f32)
      iex> ExCubecl.Buffer.copy(ExCubecl.Buffer.iota!([4], :f32), target)
      :ok
      iex> ExCubecl.Buffer.to_list!(target)
      [[0.0, 1.0], [2.0, 3.0]]
  """
  @spec copy(t, t) :: :ok | {:error, Error.t()}
  def copy(source, target) do
    with {:ok, source} <- Handle.check(source),
         {:ok, target} <- Handle.check(target),
         {:error, %{reason: :shape_mismatch} = error} <-
           change(target, Shape.size(target.shape), fn ->
             Native.buffer_copy(source.ref, target.ref)
           end),
         do: {:error, %{error | details: Map.put(error.details, :operation, :copy)}}
  end

  ## Changing elements

  @doc """
  Returns `:ok` and replaces elements in place; the write is visible through every view of them.

  Without an offset, `data` is as for `new/4` with the buffer's shape. With an offset it is a flat
  list or a binary with the elements that replace those from the offset on.

  ## Options

    * `:offset` - the first element to replace
    * `:progress` - as for `new/4`

  Errors: `:shape_mismatch`, `:invalid_value`, `:out_of_bounds`. On error the buffer is unchanged.

      iex> buffer = ExCubecl.Buffer.zeros!([4], :s32)
      iex> ExCubecl.Buffer.write(buffer, [7, 8], offset: 2)
      :ok
      iex> ExCubecl.Buffer.to_list!(buffer)
      [0, 0, 7, 8]
  """
  @spec write(t, data, keyword) :: :ok | {:error, Error.t()}
  def write(buffer, data, opts \\ []) do
    with {:ok, buffer} <- Handle.check(buffer),
         {:ok, opts} <- Arguments.options(opts, [:offset, :progress]),
         {:ok, progress} <- Progress.check(opts[:progress]),
         {:ok, data} <- Arguments.data(data, buffer.shape),
         {:ok, offset, shape} <- place(buffer, data, opts[:offset]),
         do: upload(buffer, {offset, shape}, data, progress)
  end

  defp upload(%{ref: ref, dtype: dtype} = buffer, {offset, shape}, data, progress) do
    bytes = if shape, do: Shape.size(shape) * DType.size(dtype), else: byte_size(data)

    Telemetry.span(:upload, bytes, %{device: buffer.device, dtype: dtype}, fn ->
      change(buffer, bytes, fn -> do_write(ref, {offset, shape}, data, progress) end)
    end)
  end

  # A write to a buffer without memory allocates it. A write of zero elements allocates nothing.
  defp change(buffer, 0, call), do: Pressure.create(buffer.device, 0, call)

  defp change(%{ref: ref} = buffer, _count, call) do
    case Error.from_native(fn -> Native.buffer_missing(ref) end) do
      {:ok, bytes} -> Pressure.create(buffer.device, bytes, call)
      {:error, error} -> {:error, error}
    end
  end

  # The offset to write at, and the shape of a list (`nil` for a binary). Without an offset the data must fill
  # the buffer; with an offset it is flat, and its length is the number of elements to write.
  defp place(buffer, data, nil) when is_binary(data) do
    case Shape.size(buffer.shape) * DType.size(buffer.dtype) do
      expected when expected == byte_size(data) ->
        {:ok, 0, nil}

      expected ->
        Error.new(:shape_mismatch, expected_bytes: expected, actual_bytes: byte_size(data))
    end
  end

  defp place(buffer, _data, nil), do: {:ok, 0, buffer.shape}

  defp place(buffer, data, offset) when is_binary(data) do
    count = div(byte_size(data), DType.size(buffer.dtype))
    with :ok <- Arguments.part(offset, count, Shape.size(buffer.shape)), do: {:ok, offset, nil}
  end

  defp place(buffer, data, offset) do
    if List.improper?(data) do
      Error.new(:invalid_argument, argument: :data, reason: :improper_list)
    else
      with :ok <- Arguments.part(offset, length(data), Shape.size(buffer.shape)),
           do: {:ok, offset, [length(data)]}
    end
  end

  defp do_write(ref, {offset, nil}, binary, progress) do
    Progress.watch(byte_size(binary), progress, fn watcher ->
      Native.buffer_write(ref, offset, binary, watcher)
    end)
  end

  defp do_write(ref, {offset, shape}, list, _progress),
    do: Native.buffer_write_list(ref, offset, shape, list)

  @doc """
  Returns `:ok` and sets every element to `value`, on the device.

  Errors: `:invalid_value`.

      iex> buffer = ExCubecl.Buffer.empty!([3], :f32)
      iex> ExCubecl.Buffer.fill(buffer, 0.5)
      :ok
      iex> ExCubecl.Buffer.to_list!(buffer)
      [0.5, 0.5, 0.5]
  """
  @spec fill(t, element) :: :ok | {:error, Error.t()}
  def fill(buffer, value) do
    with {:ok, buffer} <- Handle.check(buffer),
         do:
           change(buffer, Shape.size(buffer.shape), fn ->
             Native.buffer_fill(buffer.ref, value)
           end)
  end

  ## Reading

  @doc """
  Returns `{:ok, binary}`, the elements in row-major order, native-endian.

  A part of the binary keeps all of it in memory, as with any binary: to keep only a small part, copy that part with
  `:binary.copy/1`.

  Option: `:progress`, as for `new/4`.

  Errors: `:not_allocated`.

      iex> ExCubecl.Buffer.read(ExCubecl.Buffer.iota!([3], :u8))
      {:ok, <<0, 1, 2>>}
  """
  @spec read(t, keyword) :: result(binary)
  def read(buffer, opts \\ []) do
    with {:ok, buffer} <- Handle.check(buffer),
         {:ok, opts} <- Arguments.options(opts, [:progress]),
         {:ok, progress} <- Progress.check(opts[:progress]) do
      count = Shape.size(buffer.shape)

      download(buffer, count, fn ref ->
        Progress.watch(count * DType.size(buffer.dtype), progress, &Native.buffer_read(ref, &1))
      end)
    end
  end

  defp download(%{ref: ref, dtype: dtype} = buffer, count, call) do
    metadata = %{device: buffer.device, dtype: dtype}

    Telemetry.span(:read, count * DType.size(dtype), metadata, fn ->
      Error.from_native(fn -> call.(ref) end)
    end)
  end

  @doc """
  Returns `{:ok, binary}` of `count` elements from element `offset` on.

  Errors: `:out_of_bounds`, `:not_allocated`.

      iex> ExCubecl.Buffer.read_part(ExCubecl.Buffer.iota!([10], :u8), 4, 2)
      {:ok, <<4, 5>>}
  """
  @spec read_part(t, non_neg_integer, non_neg_integer) :: result(binary)
  def read_part(buffer, offset, count) do
    with {:ok, buffer} <- Handle.check(buffer),
         :ok <- Arguments.part(offset, count, Shape.size(buffer.shape)),
         do: download(buffer, count, &Native.buffer_read_part(&1, offset, count))
  end

  @doc """
  Returns `{:ok, binaries}` of several buffers, as `read/1` of each, but waits for the device only once.

  Errors: those of `read/1`, of any of the buffers.

      iex> buffers = for value <- 1..3, do: ExCubecl.Buffer.full!([2], :u8, value)
      iex> ExCubecl.Buffer.read_all(buffers)
      {:ok, [<<1, 1>>, <<2, 2>>, <<3, 3>>]}
  """
  @spec read_all([t]) :: result([binary])
  def read_all(buffers) do
    with {:ok, buffers} <- Handle.check_all(buffers),
         do: download_all(buffers)
  end

  defp download_all([]), do: {:ok, []}

  defp download_all([%{device: device} | _] = buffers) do
    bytes = Enum.sum(Enum.map(buffers, &(Shape.size(&1.shape) * DType.size(&1.dtype))))

    Telemetry.span(:read, bytes, %{device: device, dtype: nil}, fn ->
      Error.from_native(fn -> Native.buffer_read_all(Enum.map(buffers, & &1.ref)) end)
    end)
  end

  @doc """
  Returns `{:ok, list}`, nested as the shape; for the shape `[]` the element itself.

  Errors: `:not_allocated`.

      iex> ExCubecl.Buffer.to_list(ExCubecl.buffer!([1, 2, 3, 4], [2, 2], :u8))
      {:ok, [[1, 2], [3, 4]]}
  """
  @spec to_list(t) :: result(list | element)
  def to_list(buffer) do
    with {:ok, buffer} <- Handle.check(buffer),
         do:
           download(
             buffer,
             Shape.size(buffer.shape),
             &Native.buffer_to_list(&1, buffer.shape)
           )
  end

  @doc """
  Returns `{:ok, list}` of all elements in row-major order.

      iex> ExCubecl.Buffer.to_flat_list(ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :u8))
      {:ok, [1, 2, 3, 4]}
  """
  @spec to_flat_list(t) :: result([element])
  def to_flat_list(buffer) do
    with {:ok, buffer} <- Handle.check(buffer) do
      count = Shape.size(buffer.shape)
      download(buffer, count, &Native.buffer_to_list(&1, [count]))
    end
  end

  @doc """
  Returns `{:ok, element}` of a buffer with exactly one element.

  Errors: `:shape_mismatch` for any other number of elements.

      iex> ExCubecl.Buffer.item(ExCubecl.buffer!([2.5], [1, 1], :f32))
      {:ok, 2.5}
  """
  @spec item(t) :: result(element)
  def item(buffer) do
    with {:ok, buffer} <- Handle.check(buffer) do
      case Shape.size(buffer.shape) do
        1 -> download(buffer, 1, &Native.buffer_to_list(&1, []))
        other -> Error.new(:shape_mismatch, operation: :item, expected: 1, actual: other)
      end
    end
  end

  @doc """
  Returns `{:ok, transfer}`, a reference, and starts a read whose bytes are sent to the calling process
  without blocking it.

  The reply is a message `{transfer, result}` with a result as of `read/1`; receive it with `await/2`,
  or in `handle_info/2` of a GenServer. The bytes are those at the time of the call: later writes do
  not change them. The process may exit, stop waiting or drop the buffer without a leak.

  Errors: `:not_allocated`.

      iex> buffer = ExCubecl.Buffer.iota!([4], :u8)
      iex> {:ok, transfer} = ExCubecl.Buffer.read_async(buffer)
      iex> ExCubecl.Buffer.await(transfer)
      {:ok, <<0, 1, 2, 3>>}
  """
  @spec read_async(t) :: result(reference)
  def read_async(buffer) do
    with {:ok, buffer} <- Handle.check(buffer),
         do: Transfer.start(buffer.ref, Shape.size(buffer.shape))
  end

  @doc """
  Waits for a transfer and returns its result.

  Errors: `:timeout` after `timeout` milliseconds, and a later reply is discarded;
  `:invalid_argument` for a transfer of another process and for a transfer that was awaited before.

      iex> {:ok, transfer} = ExCubecl.Buffer.read_async(ExCubecl.Buffer.zeros!([2], :u8))
      iex> ExCubecl.Buffer.await(transfer, 10_000)
      {:ok, <<0, 0>>}
      iex> {:error, error} = ExCubecl.Buffer.await(transfer)
      iex> Exception.message(error)
      "this transfer was awaited before: an answer comes once"
  """
  @spec await(reference, timeout) :: result(binary)
  def await(transfer, timeout \\ 5_000), do: Transfer.await(transfer, timeout)

  ## Asking about a buffer

  @doc """
  Returns `{:ok, shape}`, a list of dimensions.

      iex> ExCubecl.Buffer.shape(ExCubecl.Buffer.zeros!({2, 3}, :f32))
      {:ok, [2, 3]}
  """
  @spec shape(t) :: result([non_neg_integer])
  def shape(buffer), do: with({:ok, buffer} <- Handle.check(buffer), do: {:ok, buffer.shape})

  @doc """
  Returns `{:ok, dtype}` as a string.

      iex> ExCubecl.Buffer.dtype(ExCubecl.Buffer.zeros!([1], :bf16))
      {:ok, "bf16"}
  """
  @spec dtype(t) :: result(String.t())
  def dtype(buffer),
    do: with({:ok, buffer} <- Handle.check(buffer), do: {:ok, Atom.to_string(buffer.dtype)})

  @doc """
  Returns `{:ok, bytes}` of the buffer's elements.

      iex> ExCubecl.Buffer.size(ExCubecl.Buffer.zeros!([3], :f64))
      {:ok, 24}
  """
  @spec size(t) :: result(non_neg_integer)
  def size(buffer),
    do:
      with(
        {:ok, buffer} <- Handle.check(buffer),
        do: {:ok, Shape.size(buffer.shape) * DType.size(buffer.dtype)}
      )

  @doc """
  Returns `{:ok, id}` of the device that holds the buffer.

      iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
      iex> ExCubecl.Buffer.device(buffer) == ExCubecl.default_device()
      true
  """
  @spec device(t) :: result(Device.id())
  def device(buffer), do: with({:ok, buffer} <- Handle.check(buffer), do: {:ok, buffer.device})

  @doc """
  Returns `{:ok, id}` of this handle. Each handle, views and clones included, has a unique id; ids are never
  reused.

      iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
      iex> ExCubecl.Buffer.id!(buffer) == ExCubecl.Buffer.id!(ExCubecl.Buffer.clone!(buffer))
      false
  """
  @spec id(t) :: result(pos_integer)
  def id(buffer), do: ask(buffer, &Native.buffer_id/1)

  @doc """
  Returns `{:ok, id}` of the storage, the same for all handles that share it.

      iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
      iex> clone = ExCubecl.Buffer.clone!(buffer)
      iex> ExCubecl.Buffer.storage_id!(buffer) == ExCubecl.Buffer.storage_id!(clone)
      true
  """
  @spec storage_id(t) :: result(pos_integer)
  def storage_id(buffer), do: ask(buffer, &Native.buffer_storage_id/1)

  @doc """
  Returns `{:ok, bytes}`, the size of the buffer's storage; for a view this may be more than the size of the view.

      iex> view = ExCubecl.Buffer.view!(ExCubecl.Buffer.zeros!([100], :f32), 0, [1])
      iex> ExCubecl.Buffer.total_size(view)
      {:ok, 400}
  """
  @spec total_size(t) :: result(non_neg_integer)
  def total_size(buffer), do: ask(buffer, &Native.buffer_total_size/1)

  @doc """
  Returns `{:ok, count}`, the number of handles that share the storage now. A handle that is garbage but was not collected yet
  still counts.

      iex> ExCubecl.Buffer.ref_count(ExCubecl.Buffer.zeros!([1], :f32))
      {:ok, 1}
  """
  @spec ref_count(t) :: result(pos_integer)
  def ref_count(buffer), do: ask(buffer, &Native.buffer_ref_count/1)

  @doc """
  Returns whether two buffers share one storage.

      iex> buffer = ExCubecl.Buffer.zeros!([4], :u8)
      iex> ExCubecl.Buffer.same_storage?(buffer, ExCubecl.Buffer.reshape!(buffer, [2, 2]))
      true
      iex> ExCubecl.Buffer.same_storage?(buffer, ExCubecl.Buffer.duplicate!(buffer))
      false
  """
  @spec same_storage?(t, t) :: boolean
  def same_storage?(a, b), do: Error.unwrap!(storage_id(a)) == Error.unwrap!(storage_id(b))

  @doc """
  Returns whether two buffers share at least one byte.

      iex> buffer = ExCubecl.Buffer.zeros!([10], :u8)
      iex> left = ExCubecl.Buffer.view!(buffer, 0, [5])
      iex> right = ExCubecl.Buffer.view!(buffer, 5, [5])
      iex> {ExCubecl.Buffer.overlap?(left, right), ExCubecl.Buffer.overlap?(left, buffer)}
      {false, true}
  """
  @spec overlap?(t, t) :: boolean
  def overlap?(a, b) do
    b = Error.unwrap!(Handle.check(b))
    Error.unwrap!(ask(a, &Native.buffer_overlap(&1, b.ref)))
  end

  @doc """
  Returns `:ok` once all queued work is done, on the device of a buffer or on a device.

  Errors: those of earlier work that no call has waited for.

      iex> buffer = ExCubecl.Buffer.full!([1000], :f32, 1)
      iex> ExCubecl.Buffer.synchronize(buffer)
      :ok
  """
  @spec synchronize(t | Device.id() | Device.t()) :: :ok | {:error, Error.t()}
  def synchronize(%__MODULE__{} = buffer), do: ask(buffer, &Native.buffer_synchronize/1)

  def synchronize(device) when is_tuple(device) or is_struct(device, Device),
    do: Device.synchronize(device)

  def synchronize(other), do: Handle.invalid(other)

  @doc """
  Returns `{:ok, address}` of the first element in the device's memory, for other CUDA libraries.

  The address is valid as long as a handle of the buffer is alive. The caller must call `synchronize/1`
  between work of this library and work of the other one.

  Errors: `:unsupported` on devices that have no such addresses.

      iex> case ExCubecl.Buffer.pointer(ExCubecl.Buffer.zeros!([1], :f32)) do
      ...>   {:ok, address} -> is_integer(address)
      ...>   {:error, error} -> error.reason == :unsupported
      ...> end
      true
  """
  @spec pointer(t) :: result(pos_integer)
  def pointer(buffer), do: ask(buffer, &Native.buffer_pointer/1)

  use ExCubecl.Cluster.Dispatch,
    new: 4,
    empty: 3,
    full: 4,
    iota: 3,
    ensure_allocated: 1,
    allocated?: 1,
    view: 3,
    slice_bytes: 3,
    reshape: 2,
    clone: 1,
    duplicate: 2,
    convert: 3,
    transfer: 3,
    copy: 2,
    write: 3,
    fill: 2,
    read: 2,
    read_part: 3,
    read_all: 1,
    to_list: 1,
    to_flat_list: 1,
    item: 1,
    read_async: 1,
    synchronize: 1,
    pointer: 1,
    id: 1,
    storage_id: 1,
    total_size: 1,
    ref_count: 1,
    same_storage?: 2,
    overlap?: 2

  defp ask(buffer, call) do
    with {:ok, buffer} <- Handle.check(buffer), do: Error.from_native(fn -> call.(buffer.ref) end)
  end
end
