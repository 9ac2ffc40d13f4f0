defmodule ExCubecl.Replicated do
  @moduledoc """
  One buffer on several devices: a copy on each, or a shard on each.

      iex> {:ok, {runtime, _} = first} = ExCubecl.default_device()
      iex> ExCubecl.Device.open(first, as: {runtime, 1002})
      iex> rep = ExCubecl.Replicated.from!([1, 2, 3], [3], :s32, devices: [first, {runtime, 1002}])
      iex> ExCubecl.Replicated.read!(rep, 1)
      <<1::32-native, 2::32-native, 3::32-native>>
      iex> ExCubecl.Replicated.write!(rep, [4, 5, 6], 0)
      iex> Enum.map(0..1, &ExCubecl.to_list!(ExCubecl.Replicated.shard!(rep, &1)))
      [[4, 5, 6], [1, 2, 3]]

  A write to all devices changes all of them or none: the new content is uploaded to separate memory on every
  device at once, and replaces the old content only when all uploads are complete. An error
  names the device in its details, and every device keeps its old content.

  All replicas change together: of two concurrent writes, the same one is last on every device, and `read/1` and
  `gather/1` return the content of a single write. `write/3`, and a write to the buffer of `shard/2`, change one
  device only.

  If no `devices:` are given, those of `ExCubecl.Device.adapters/0` are used. A device may be on another node, `{node, id}`: a write then copies the uploaded
  elements on one device after the other, so that other processes may see the new content on some devices and the old on others.

  ## Operations

  The functions of `ExCubecl.Ops` and `ExCubecl.Kernel.run/3` take replicated buffers in place of buffers, also as `into:`. They run on each device, with the copy or shard there and the same
  numbers, and the result is replicated, or `:ok`. All replicated arguments have the same devices in the same order; a buffer beside them, or other
  devices, are an error that names both places. An operation on shards runs on each shard, without elements of the others: the
  results are the shards of the result, concatenated along the first dimension, and a scalar counts as one row. `all_reduce/2` combines them. If an operation fails on
  a device, what it wrote with `into:` on the devices before remains.

      iex> x = ExCubecl.Replicated.from!([1.0, 2.0], [2], :f32)
      iex> y = ExCubecl.Ops.multiply!(x, 10)
      iex> ExCubecl.to_list!(ExCubecl.Replicated.shard!(y, 0))
      [10.0, 20.0]
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{Handle, Pressure}
  alias ExCubecl.Cluster.Location
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Replicated.{Options, Reduce, Spread}

  @enforce_keys [:buffers, :shape, :dtype, :shards]
  defstruct [:buffers, :shape, :dtype, :shards]

  @type t :: %__MODULE__{
          buffers: [Buffer.t()],
          shape: [non_neg_integer],
          dtype: DType.t(),
          shards: boolean
        }
  @type result(value) :: Buffer.result(value)

  @doc """
  Returns `{:ok, replicated}` without content: it allocates no memory before it is written.

  ## Options

    * `:devices` - the list of devices, by default those of `ExCubecl.Device.adapters/0`
    * `:shards` - `true` gives each device an equal range of the first dimension, in the order of the
      devices, instead of a copy of all elements
    * `:tag`, `:allocation` - as for `ExCubecl.Buffer.new/4`

  Errors: `:invalid_argument` for a list of devices that is empty or names a device twice, and for shards
  if the number of devices does not divide the first dimension; `:unknown_device`, and those of `ExCubecl.Buffer.empty/3`.

      iex> rep = ExCubecl.Replicated.new!([2, 3], :f32)
      iex> {:error, error} = ExCubecl.Replicated.read(rep, 0)
      iex> error.reason
      :not_allocated
  """
  @spec new(Buffer.shape(), DType.t(), keyword) :: result(t)
  def new(shape, dtype, opts \\ []) do
    with {:ok, %{shape: shape, dtype: dtype, shards: shards} = options} <-
           Options.check(shape, dtype, opts),
         {:ok, buffers} <- empty(options.devices, options.part, dtype, options.alloc),
         do: {:ok, %__MODULE__{buffers: buffers, shape: shape, dtype: dtype, shards: shards}}
  end

  defp empty(devices, shape, dtype, opts) do
    Enum.reduce_while(Enum.reverse(devices), {:ok, []}, fn device, {:ok, buffers} ->
      case Buffer.empty(shape, dtype, [device: device] ++ opts) do
        {:ok, buffer} -> {:cont, {:ok, [buffer | buffers]}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
  end

  @doc """
  Returns `{:ok, replicated}` with the given elements on every device. Data as for
  `ExCubecl.Buffer.new/4`, options as for `new/3`.

  Errors: those of `new/3`, and those of `write/2`.

      iex> rep = ExCubecl.Replicated.from!([[1, 2], [3, 4]], {2, 2}, :u8)
      iex> {ExCubecl.Replicated.shape!(rep), ExCubecl.Replicated.dtype!(rep)}
      {[2, 2], "u8"}
  """
  @spec from(Buffer.data(), Buffer.shape(), DType.t(), keyword) :: result(t)
  def from(data, shape, dtype, opts \\ []) do
    with {:ok, rep} <- new(shape, dtype, opts), :ok <- write(rep, data), do: {:ok, rep}
  end

  @doc """
  Returns `:ok` and replaces the elements on every device, or, with shards, on each device its shard. A list
  is decoded once. Other processes see the old elements on all devices, or the new ones on all.

  Errors: `:shape_mismatch`, `:invalid_value`, `:device_lost`, `:out_of_memory`, `:limit_exceeded`;
  each device then keeps its old content.

      iex> rep = ExCubecl.Replicated.new!([2], :u8)
      iex> ExCubecl.Replicated.write(rep, [7, 8])
      :ok
      iex> {:error, error} = ExCubecl.Replicated.write(rep, [7])
      iex> error.reason
      :shape_mismatch
      iex> ExCubecl.Replicated.read!(rep, 0)
      <<7, 8>>
  """
  @spec write(t, Buffer.data()) :: :ok | {:error, Error.t()}
  def write(rep, data) do
    with {:ok, rep} <- check(rep),
         {:ok, data} <- Arguments.data(data, rep.shape) do
      if Enum.all?(rep.buffers, &(Location.node_of(&1) in [nil, node()])),
        do: write_all(rep, data),
        else: Spread.write(rep, data)
    end
  end

  defp write_all(rep, data) do
    with {:ok, refs} <- Handle.references(rep.buffers) do
      bytes = Enum.sum(Enum.map(rep.buffers, &(Shape.size(&1.shape) * DType.size!(rep.dtype))))

      Telemetry.span(:upload, bytes, %{device: nil, dtype: rep.dtype}, fn ->
        Pressure.create(hd(rep.buffers).device, bytes, fn ->
          Native.replicated_write(refs, rep.dtype, rep.shape, data, rep.shards)
        end)
      end)
    end
  end

  @doc """
  Returns `:ok` and replaces the elements, in place, only on the device at `index` of the device list.

  Errors: `:out_of_bounds` for an index past the end of the list, and those of `ExCubecl.Buffer.write/3`.

      iex> rep = ExCubecl.Replicated.from!([1, 2], [2], :u8)
      iex> ExCubecl.Replicated.write(rep, [3, 4], 0)
      :ok
      iex> ExCubecl.Replicated.read!(rep, 0)
      <<3, 4>>
  """
  @spec write(t, Buffer.data(), non_neg_integer) :: :ok | {:error, Error.t()}
  def write(rep, data, index) do
    with {:ok, buffer} <- shard(rep, index), do: Buffer.write(buffer, data)
  end

  @doc """
  Returns `{:ok, binaries}`, the elements of each device in the order of the device list; it waits for all
  devices together. A `write/2` in another process is visible in all of the binaries or in none.

  Errors: `:not_allocated`, `:device_lost`; `read/2` can still read the remaining devices.

      iex> ExCubecl.Replicated.read(ExCubecl.Replicated.from!([1], [1], :u8)) |> elem(1) |> hd()
      <<1>>
  """
  @spec read(t) :: result([binary])
  def read(rep) do
    with {:ok, rep} <- check(rep), do: Buffer.read_all(rep.buffers)
  end

  @doc """
  Returns `{:ok, binary}`, the elements on the device at `index` of the device list.

  Errors: `:out_of_bounds`, and those of `ExCubecl.Buffer.read/1`.

      iex> rep = ExCubecl.Replicated.from!([1, 2], [2], :u8)
      iex> ExCubecl.Replicated.read(rep, 0)
      {:ok, <<1, 2>>}
  """
  @spec read(t, non_neg_integer) :: result(binary)
  def read(rep, index) do
    with {:ok, buffer} <- shard(rep, index), do: Buffer.read(buffer)
  end

  @doc """
  Returns `{:ok, binary}` with all elements: all shards concatenated, or the first copy.

  Errors: those of `read/1`.

      iex> rep = ExCubecl.Replicated.from!([1, 2], [2], :u8, shards: true)
      iex> ExCubecl.Replicated.gather(rep)
      {:ok, <<1, 2>>}
  """
  @spec gather(t) :: result(binary)
  def gather(rep) do
    with {:ok, rep} <- check(rep), do: gather_from(rep)
  end

  defp gather_from(%{shards: false, buffers: [first | _]}), do: Buffer.read(first)

  defp gather_from(%{buffers: buffers}) do
    with {:ok, parts} <- Buffer.read_all(buffers), do: {:ok, IO.iodata_to_binary(parts)}
  end

  @doc """
  Returns `{:ok, replicated}` with a copy on each device of what `operation` makes of the shards or copies of all devices, element by element:
  `:sum`, `:mean`, `:max` or `:min`.

  The elements are combined in the order of the device list, on its first device, to which the others are copied. Types are those of
  `ExCubecl.Ops.add/3`, `divide/3`, `max/3` and `min/3`: a mean of integers is `:f32`.

  Errors: `:invalid_argument` for another operation, and those of `ExCubecl.Buffer.transfer/3` and of the operation.

      iex> {:ok, {runtime, _} = first} = ExCubecl.default_device()
      iex> ExCubecl.Device.open(first, as: {runtime, 1005})
      iex> x = ExCubecl.Replicated.from!([1, 2, 3, 4], [4], :s32, devices: [first, {runtime, 1005}], shards: true)
      iex> sums = ExCubecl.Ops.sum!(x)
      iex> total = ExCubecl.Replicated.all_reduce!(sums, :sum)
      iex> for index <- 0..1, do: ExCubecl.to_list!(ExCubecl.Replicated.shard!(total, index))
      [[10], [10]]
  """
  @spec all_reduce(t, :sum | :mean | :max | :min) :: result(t)
  def all_reduce(rep, operation) do
    with {:ok, rep} <- check(rep),
         {:ok, [%{dtype: dtype, shape: shape} | _] = buffers} <-
           Reduce.all(rep.buffers, operation),
         do: {:ok, %__MODULE__{buffers: buffers, shape: shape, dtype: dtype, shards: false}}
  end

  @doc """
  Returns `{:ok, buffer}`, the buffer on the device at `index` of the device list.

  Errors: `:out_of_bounds`, `:invalid_argument` for an index that is not a non-negative integer.

      iex> rep = ExCubecl.Replicated.from!([1, 2], [2], :u8)
      iex> ExCubecl.to_list(ExCubecl.Replicated.shard!(rep, 0))
      {:ok, [1, 2]}
      iex> {:error, error} = ExCubecl.Replicated.shard(rep, 99)
      iex> error.reason
      :out_of_bounds
  """
  @spec shard(t, non_neg_integer) :: result(Buffer.t())
  def shard(rep, index) do
    with {:ok, rep} <- check(rep), {:ok, index} <- Arguments.index(:index, index) do
      case Enum.fetch(rep.buffers, index) do
        {:ok, buffer} ->
          {:ok, buffer}

        :error ->
          Error.new(:out_of_bounds,
            unit: "device",
            offset: index,
            count: 1,
            size: length(rep.buffers)
          )
      end
    end
  end

  @doc """
  Returns `{:ok, shape}` of all elements; with shards, the shape before the split.

      iex> ExCubecl.Replicated.shape(ExCubecl.Replicated.from!([1, 2], [2], :u8))
      {:ok, [2]}
  """
  @spec shape(t) :: result([non_neg_integer])
  def shape(rep), do: with({:ok, rep} <- check(rep), do: {:ok, rep.shape})

  @doc """
  Returns `{:ok, dtype}` as a string.

      iex> ExCubecl.Replicated.dtype(ExCubecl.Replicated.from!([1, 2], [2], :u8))
      {:ok, "u8"}
  """
  @spec dtype(t) :: result(String.t())
  def dtype(rep), do: with({:ok, rep} <- check(rep), do: {:ok, Atom.to_string(rep.dtype)})

  @doc """
  Returns `{:ok, ids}` of the devices, in the order of the device list.

      iex> ExCubecl.Replicated.devices(ExCubecl.Replicated.new!([1], :u8, devices: [ExCubecl.default_device!()]))
      {:ok, [ExCubecl.default_device!()]}
  """
  @spec devices(t) :: result([ExCubecl.Device.id()])
  def devices(rep),
    do: with({:ok, rep} <- check(rep), do: {:ok, Enum.map(rep.buffers, & &1.device)})

  # A struct that was built by hand may hold any terms.
  defp check(%__MODULE__{buffers: [_ | _], dtype: dtype, shape: shape, shards: shards} = rep)
       when is_boolean(shards) do
    with true <- DType.valid?(dtype) and is_list(shape),
         {:ok, ^shape, _} <- Shape.validate(shape, dtype),
         {:ok, _} <- Buffer.check_all(rep.buffers),
         true <- Enum.all?(rep.buffers, &(&1.dtype == dtype)) do
      {:ok, rep}
    else
      _ -> invalid(rep)
    end
  end

  defp check(other), do: invalid(other)

  defp invalid(other), do: Arguments.invalid(:replicated, other, "an %ExCubecl.Replicated{}")
end
