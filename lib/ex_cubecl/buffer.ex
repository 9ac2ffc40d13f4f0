defmodule ExCubecl.Buffer do
  @moduledoc """
  Typed, shaped pieces of device memory.

  A buffer is a handle: its elements are in device memory, which is freed when the last handle is garbage
  collected. There is no `free`.

  Several handles may share one storage: `view/3`, `reshape/2`, `slice_bytes/3`, `bitcast/2` and `clone/1` copy
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

  alias ExCubecl.{Device, DType, Error, Shape}
  alias ExCubecl.Buffer.{Copy, Create, Inference, Info, Read, Remote, Transfer, View, Write}
  alias ExCubecl.Cluster.{Client, Location}
  alias ExCubecl.Error.{Arguments, Operation}

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
      one, IEx and Livebook show a progress bar if it takes longer than half a second; `false` shows none. Transfers to another
      node report no progress

  ## Errors

  `:invalid_shape`, `:unsupported_dtype`, `:shape_mismatch`, `:invalid_value` (with the index),
  `:invalid_argument`, `:unknown_device`, `:too_large`, `:out_of_memory`, `:limit_exceeded`.

      iex> {:ok, buffer} = ExCubecl.Buffer.new([[1, 2], [3, 4]], [2, 2], :s16)
      iex> ExCubecl.Buffer.to_flat_list(buffer)
      {:ok, [1, 2, 3, 4]}
  """
  @spec new(data, shape, DType.t(), keyword) :: result(t)
  def new(data, shape, dtype, opts \\ [])

  # `new(data, shape, opts)` and `new(data, dtype, opts)`: the names of the arguments are those of the `!` twin.
  def new(data, shape, [{_, _} | _] = dtype, []), do: inferred(data, [shape, dtype])

  def new(data, shape, dtype, opts) do
    case Location.locate_option(opts) do
      {nil, opts} -> made(Create.new(data, shape, dtype, opts))
      {node, opts} -> made(Remote.new(node, data, shape, dtype, opts))
    end
  end

  @doc """
  As `new/4`, with the shape and the element type of the nested data: integers are `:s32`, floats, and floats with integers, are `:f32`.

  Errors: those of `new/4`; `:shape_mismatch` for a ragged list, with the index of the first row that differs.

      iex> ExCubecl.Buffer.new!([[1, 2.5], [3, 4]]) |> ExCubecl.Buffer.to_list!()
      [[1.0, 2.5], [3.0, 4.0]]
      iex> {:error, error} = ExCubecl.Buffer.new([[1, 2], [3]])
      iex> Exception.message(error)
      "new: the data is ragged: the row at index [1] has 1 element, and the first row at this depth has 2"
  """
  @spec new(data) :: result(t)
  def new(data), do: inferred(data, [])

  @doc """
  As `new/1`, with a shape, an element type, or the options of `new/4`. `new(data, shape, opts)` and `new(data, dtype, opts)` take options too.

      iex> ExCubecl.Buffer.dtype!(ExCubecl.Buffer.new!([[1, 2]], :u8))
      "u8"
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.new!([1, 2, 3, 4], [2, 2]))
      [[1, 2], [3, 4]]
  """
  @spec new(data, shape | DType.t() | keyword) :: result(t)
  def new(data, given), do: inferred(data, [given])

  defp inferred(data, given) do
    with {:ok, shape, dtype, opts} <- Inference.arguments(data, given),
         do: new(data, shape, dtype, opts)
  end

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
  def empty(shape, dtype, opts \\ []),
    do: made(Client.route_option(&Create.empty/3, [shape, dtype], opts))

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
  def full(shape, dtype, value, opts \\ []),
    do: made(Client.route_option(&Create.full/4, [shape, dtype, value], opts))

  @doc """
  Returns `{:ok, buffer}` with 0, 1, 2, ... in row-major order, made on the device. Integer types
  wrap around, as in `convert/2`. Options and errors as `new/4`.

      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.iota!([2, 2], :f32))
      [[0.0, 1.0], [2.0, 3.0]]
  """
  @spec iota(shape, DType.t(), keyword) :: result(t)
  def iota(shape, dtype, opts \\ []),
    do: made(Client.route_option(&Create.iota/3, [shape, dtype], opts))

  @doc """
  Returns `:ok` once the memory of the buffer is allocated. Elements that were not written yet are zeros.

      iex> buffer = ExCubecl.Buffer.empty!([2], :s32)
      iex> ExCubecl.Buffer.ensure_allocated(buffer)
      :ok
      iex> ExCubecl.Buffer.to_list(buffer)
      {:ok, [0, 0]}
  """
  @spec ensure_allocated(t) :: :ok | {:error, Error.t()}
  def ensure_allocated(buffer), do: route(buffer, &Write.ensure_allocated/1)

  @doc """
  Returns whether the memory of the buffer's storage is allocated.

      iex> buffer = ExCubecl.Buffer.empty!([2], :f32)
      iex> view = ExCubecl.Buffer.view!(buffer, 1, [1])
      iex> ExCubecl.Buffer.write!(view, [1.0])
      iex> ExCubecl.Buffer.allocated?(buffer)
      true
  """
  @spec allocated?(t) :: boolean
  def allocated?(buffer),
    do: Operation.unwrap!(route(buffer, &Info.allocated/1), :allocated?, buffer: buffer)

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
  def view(buffer, offset, shape), do: made(route(buffer, &View.view/3, [offset, shape]))

  @doc """
  Returns `{:ok, view}`: `len` raw bytes from byte `offset` on, as a `:u8` buffer that shares the
  storage.

      iex> buffer = ExCubecl.buffer!([1.0], [1], :f32)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.slice_bytes!(buffer, 2, 2))
      [128, 63]
  """
  @spec slice_bytes(t, non_neg_integer, non_neg_integer) :: result(t)
  def slice_bytes(buffer, offset, len),
    do: made(route(buffer, &View.slice_bytes/3, [offset, len]))

  @doc """
  Returns `{:ok, buffer}`: the same elements of the same storage in another shape. One dimension may be -1: it follows from the number of elements.

  Errors: `:shape_mismatch` if the number of elements differs, or if no dimension in place of the -1 makes it equal.

      iex> buffer = ExCubecl.Buffer.iota!([6], :s64)
      iex> ExCubecl.Buffer.to_list!(ExCubecl.Buffer.reshape!(buffer, {2, 3}))
      [[0, 1, 2], [3, 4, 5]]
      iex> ExCubecl.Buffer.shape!(ExCubecl.Buffer.reshape!(buffer, [-1, 2]))
      [3, 2]
  """
  @spec reshape(t, [integer] | tuple) :: result(t)
  def reshape(buffer, shape), do: made(route(buffer, &View.reshape/2, [shape]))

  @doc """
  Returns `{:ok, view}`: the same bytes as elements of another type. If the types differ in size, the last axis gets as many elements
  as its bytes make. `convert/3` converts values instead.

  Errors: `:shape_mismatch` if the bytes of the last axis are no whole number of elements, `:invalid_argument` for a view that does not start at a multiple of
  the size of an element of its storage, `:unsupported_dtype`.

      iex> buffer = ExCubecl.buffer!([[1.0, -2.0]], [1, 2], :f32)
      iex> bits = ExCubecl.Buffer.bitcast!(buffer, :u32)
      iex> ExCubecl.Buffer.to_list!(bits)
      [[0x3F800000, 0xC0000000]]
      iex> ExCubecl.Buffer.shape!(ExCubecl.Buffer.bitcast!(buffer, :u16))
      [1, 4]
  """
  @spec bitcast(t, DType.t()) :: result(t)
  def bitcast(buffer, dtype), do: made(route(buffer, &View.bitcast/2, [dtype]))

  @doc """
  Returns `{:ok, buffer}`, another handle of the same elements, with a new id.

      iex> buffer = ExCubecl.Buffer.zeros!([2], :u8)
      iex> clone = ExCubecl.Buffer.clone!(buffer)
      iex> ExCubecl.Buffer.fill!(clone, 7)
      iex> ExCubecl.Buffer.to_list!(buffer)
      [7, 7]
  """
  @spec clone(t) :: result(t)
  def clone(buffer), do: made(route(buffer, &View.clone/1))

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
  def duplicate(buffer, opts \\ []), do: made(route(buffer, &Copy.duplicate/2, [opts]))

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
    with {:ok, buffer} <- check(buffer) do
      case {Location.node_of(buffer), Location.locate(device)} do
        {nil, {nil, device}} -> made(Copy.transfer(buffer, device, opts))
        {_, device} -> made(Remote.transfer(buffer, device, opts))
      end
    end
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
  def convert(buffer, dtype, opts \\ []), do: made(route(buffer, &Copy.convert/3, [dtype, opts]))

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
    with {:ok, source} <- check(source), {:ok, target} <- check(target) do
      if local?(source) and local?(target),
        do: Copy.copy(source, target),
        else: Remote.copy(source, target)
    end
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
  def write(buffer, data, opts \\ []),
    do: route(buffer, &Write.write/3, &Remote.write/3, [data, opts])

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
  def fill(buffer, value), do: route(buffer, &Write.fill/2, [value])

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
  def read(buffer, opts \\ []), do: route(buffer, &Read.read/2, &Remote.read/2, [opts])

  @doc """
  Returns `{:ok, binary}` of `count` elements from element `offset` on.

  Errors: `:out_of_bounds`, `:not_allocated`.

      iex> ExCubecl.Buffer.read_part(ExCubecl.Buffer.iota!([10], :u8), 4, 2)
      {:ok, <<4, 5>>}
  """
  @spec read_part(t, non_neg_integer, non_neg_integer) :: result(binary)
  def read_part(buffer, offset, count), do: route(buffer, &Read.read_part/3, [offset, count])

  @doc """
  Returns `{:ok, binaries}` of several buffers, as `read/1` of each, but waits for the device only once.

  Errors: those of `read/1`, of any of the buffers.

      iex> buffers = for value <- 1..3, do: ExCubecl.Buffer.full!([2], :u8, value)
      iex> ExCubecl.Buffer.read_all(buffers)
      {:ok, [<<1, 1>>, <<2, 2>>, <<3, 3>>]}
  """
  @spec read_all([t]) :: result([binary])
  def read_all(buffers) do
    with {:ok, buffers} <- check_all(buffers) do
      if Enum.all?(buffers, &local?/1),
        do: Read.read_all(buffers),
        else: Remote.read_all(buffers)
    end
  end

  @doc """
  Returns `{:ok, list}`, nested as the shape; for the shape `[]` the element itself.

  Errors: `:not_allocated`.

      iex> ExCubecl.Buffer.to_list(ExCubecl.buffer!([1, 2, 3, 4], [2, 2], :u8))
      {:ok, [[1, 2], [3, 4]]}
  """
  @spec to_list(t) :: result(list | element)
  def to_list(buffer), do: route(buffer, &Read.to_list/1, &Remote.to_list/1, [])

  @doc """
  Returns `{:ok, list}` of all elements in row-major order.

      iex> ExCubecl.Buffer.to_flat_list(ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :u8))
      {:ok, [1, 2, 3, 4]}
  """
  @spec to_flat_list(t) :: result([element])
  def to_flat_list(buffer), do: route(buffer, &Read.to_flat_list/1, &Remote.to_flat_list/1, [])

  @doc """
  Returns `{:ok, element}` of a buffer with exactly one element.

  Errors: `:shape_mismatch` for any other number of elements.

      iex> ExCubecl.Buffer.item(ExCubecl.buffer!([2.5], [1, 1], :f32))
      {:ok, 2.5}
  """
  @spec item(t) :: result(element)
  def item(buffer), do: route(buffer, &Read.item/1, &Remote.item/1, [])

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
  def read_async(buffer), do: route(buffer, &Read.read_async/1, &Remote.read_async/1, [])

  @doc """
  Waits for a transfer and returns its result.

  Errors: `:timeout` after `timeout` milliseconds, and a later reply is discarded;
  `:invalid_argument` for a transfer of another process and for a transfer that was awaited before.

      iex> {:ok, transfer} = ExCubecl.Buffer.read_async(ExCubecl.Buffer.zeros!([2], :u8))
      iex> ExCubecl.Buffer.await(transfer, 10_000)
      {:ok, <<0, 0>>}
      iex> {:error, error} = ExCubecl.Buffer.await(transfer)
      iex> Exception.message(error)
      "await: this transfer was awaited before: a transfer has one result"
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
  def shape(buffer), do: with({:ok, buffer} <- check(buffer), do: {:ok, buffer.shape})

  @doc """
  Returns `{:ok, dtype}` as a string.

      iex> ExCubecl.Buffer.dtype(ExCubecl.Buffer.zeros!([1], :bf16))
      {:ok, "bf16"}
  """
  @spec dtype(t) :: result(String.t())
  def dtype(buffer),
    do: with({:ok, buffer} <- check(buffer), do: {:ok, Atom.to_string(buffer.dtype)})

  @doc """
  Returns `{:ok, bytes}` of the buffer's elements.

      iex> ExCubecl.Buffer.size(ExCubecl.Buffer.zeros!([3], :f64))
      {:ok, 24}
  """
  @spec size(t) :: result(non_neg_integer)
  def size(buffer),
    do:
      with(
        {:ok, buffer} <- check(buffer),
        do: {:ok, Shape.size(buffer.shape) * DType.size!(buffer.dtype)}
      )

  @doc """
  Returns `{:ok, id}` of the device that holds the buffer.

      iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
      iex> ExCubecl.Buffer.device(buffer) == ExCubecl.default_device()
      true
  """
  @spec device(t) :: result(Device.id())
  def device(buffer), do: with({:ok, buffer} <- check(buffer), do: {:ok, buffer.device})

  @doc """
  Returns `{:ok, id}` of this handle. Each handle, views and clones included, has a unique id; ids are never
  reused.

      iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
      iex> ExCubecl.Buffer.id!(buffer) == ExCubecl.Buffer.id!(ExCubecl.Buffer.clone!(buffer))
      false
  """
  @spec id(t) :: result(pos_integer)
  def id(buffer), do: route(buffer, &Info.id/1)

  @doc """
  Returns `{:ok, id}` of the storage, the same for all handles that share it.

      iex> buffer = ExCubecl.Buffer.zeros!([1], :f32)
      iex> clone = ExCubecl.Buffer.clone!(buffer)
      iex> ExCubecl.Buffer.storage_id!(buffer) == ExCubecl.Buffer.storage_id!(clone)
      true
  """
  @spec storage_id(t) :: result(pos_integer)
  def storage_id(buffer), do: route(buffer, &Info.storage_id/1)

  @doc """
  Returns `{:ok, bytes}`, the size of the buffer's storage; for a view this may be more than the size of the view.

      iex> view = ExCubecl.Buffer.view!(ExCubecl.Buffer.zeros!([100], :f32), 0, [1])
      iex> ExCubecl.Buffer.total_size(view)
      {:ok, 400}
  """
  @spec total_size(t) :: result(non_neg_integer)
  def total_size(buffer), do: route(buffer, &Info.total_size/1)

  @doc """
  Returns `{:ok, count}`, the number of handles that share the storage now. A handle that is garbage but was not collected yet
  still counts.

      iex> ExCubecl.Buffer.ref_count(ExCubecl.Buffer.zeros!([1], :f32))
      {:ok, 1}
  """
  @spec ref_count(t) :: result(pos_integer)
  def ref_count(buffer), do: route(buffer, &Info.ref_count/1)

  @doc """
  Returns whether two buffers share one storage.

      iex> buffer = ExCubecl.Buffer.zeros!([4], :u8)
      iex> ExCubecl.Buffer.same_storage?(buffer, ExCubecl.Buffer.reshape!(buffer, [2, 2]))
      true
      iex> ExCubecl.Buffer.same_storage?(buffer, ExCubecl.Buffer.duplicate!(buffer))
      false
  """
  @spec same_storage?(t, t) :: boolean
  def same_storage?(a, b), do: related?(:same_storage?, a, b, &Info.same_storage/2)

  @doc """
  Returns whether two buffers share at least one byte.

      iex> buffer = ExCubecl.Buffer.zeros!([10], :u8)
      iex> left = ExCubecl.Buffer.view!(buffer, 0, [5])
      iex> right = ExCubecl.Buffer.view!(buffer, 5, [5])
      iex> {ExCubecl.Buffer.overlap?(left, right), ExCubecl.Buffer.overlap?(left, buffer)}
      {false, true}
  """
  @spec overlap?(t, t) :: boolean
  def overlap?(a, b), do: related?(:overlap?, a, b, &Info.overlap/2)

  @doc """
  Returns `:ok` once all queued work is done, on the device of a buffer or on a device.

  Errors: those of earlier work that no call has waited for.

      iex> buffer = ExCubecl.Buffer.full!([1000], :f32, 1)
      iex> ExCubecl.Buffer.synchronize(buffer)
      :ok
  """
  @spec synchronize(t | Device.id() | Device.t()) :: :ok | {:error, Error.t()}
  def synchronize(%__MODULE__{} = buffer), do: route(buffer, &Info.synchronize/1)

  def synchronize(device) when is_tuple(device) or is_struct(device, Device),
    do: Device.synchronize(device)

  def synchronize(other),
    do: Arguments.invalid(:buffer, other, "an %ExCubecl.Buffer{} or a device")

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
  def pointer(buffer), do: route(buffer, &Info.pointer/1)

  ## Routing

  # Calls `fun` with a buffer and `args`, on the node of the buffer.
  defp route(buffer, fun, args \\ []) do
    with {:ok, buffer} <- check(buffer), do: Client.route(buffer, fun, args)
  end

  # Calls `local` or, for a buffer of another node, `remote`.
  defp route(buffer, local, remote, args) do
    with {:ok, buffer} <- check(buffer),
         do: apply(if(local?(buffer), do: local, else: remote), [buffer | args])
  end

  # Storages of different nodes share nothing.
  defp related?(name, a, b, fun) do
    related =
      with {:ok, a} <- check(a), {:ok, b} <- check(b) do
        if Location.node_of(a) == Location.node_of(b),
          do: Client.route(a, fun, [b]),
          else: {:ok, false}
      end

    Operation.unwrap!(related, name, a: a, b: b)
  end

  defp local?(buffer), do: Location.node_of(buffer) == nil

  defp made({:ok, %{ref: ref, dtype: dtype, shape: shape, device: device}}),
    do: {:ok, %__MODULE__{ref: ref, dtype: dtype, shape: shape, device: device}}

  defp made({:error, error}), do: {:error, error}

  @doc false
  # `buffer[index]`, the notation of NumPy and Julia, calls this function.
  @spec fetch(t, term) :: no_return
  def fetch(_buffer, index),
    do: raise(%Error{reason: :invalid_argument, details: %{argument: :access, index: index}})

  ## For the other modules of the library

  @doc false
  # Checks that a term is a buffer. A struct that was built by hand may hold any terms.
  def check(%__MODULE__{ref: ref, device: {_, _}, dtype: dtype, shape: shape} = buffer)
      when is_reference(ref) and is_list(shape) do
    with true <- DType.valid?(dtype), {:ok, _, _} <- Shape.validate(shape, dtype) do
      {:ok, buffer}
    else
      _ -> invalid(buffer)
    end
  end

  def check(other), do: invalid(other)

  @doc false
  def check_all(buffers) do
    if is_list(buffers) and not List.improper?(buffers),
      do: Error.map(buffers, &check/1),
      else: Arguments.invalid(:buffers, buffers, "a list of %ExCubecl.Buffer{}")
  end

  defp invalid(other), do: Arguments.invalid(:buffer, other, "an %ExCubecl.Buffer{}")
end
