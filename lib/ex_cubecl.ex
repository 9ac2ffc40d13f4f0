defmodule ExCubecl do
  @moduledoc """
  Real GPU memory for Elixir.

  The elements are in device memory, and Elixir holds a handle:

      iex> {:ok, matrix} = ExCubecl.buffer([1.0, 2.0, 3.0, 4.0], [2, 2], :f32)
      iex> ExCubecl.to_list(matrix)
      {:ok, [[1.0, 2.0], [3.0, 4.0]]}
      iex> ExCubecl.size(matrix)
      {:ok, 16}

  When the last handle is garbage collected, the memory is freed. There is no
  `free`.

  This module has the basic functions. `ExCubecl.Buffer` has the rest: views, writes, copies,
  conversion, non-blocking reads. `ExCubecl.Device` describes the devices and `ExCubecl.Memory` their
  memory usage; `ExCubecl.Error` lists the error reasons.
  """

  use ExCubecl.Error.Bang

  alias ExCubecl.{Buffer, Compat, Device, DType, Error, View}
  alias ExCubecl.Error.Arguments

  @doc """
  Returns `{:ok, buffer}` with the given elements on a device.

  `data` is a flat list in row-major order, a list nested as the shape, or a native-endian binary.
  The shape is a list of dimensions, or a tuple; `[]` is a scalar, the maximum is 64 axes. Types are `:f32`, `:f64`, `:s32`,
  `:s64`, `:u32`, `:u8`, `:f16`, `:bf16`, `:s8`, `:s16`, `:u16`, `:u64`; float types also take `:nan`,
  `:infinity` and `:neg_infinity`.

  `device:` is the device of the buffer, by default `default_device/0`; `tag:`, `allocation:` and `progress:` are options, too: see `ExCubecl.Buffer.new/4`.

  Errors: `:invalid_shape`, `:unsupported_dtype`, `:shape_mismatch`, `:invalid_value`,
  `:invalid_argument`, `:unknown_device`, `:no_device`, `:too_large`, `:out_of_memory`,
  `:limit_exceeded`, each described in `ExCubecl.Error`.

      iex> {:ok, pixels} = ExCubecl.buffer([0, 128, 255], [3], :u8)
      iex> ExCubecl.read(pixels)
      {:ok, <<0, 128, 255>>}
      iex> {:error, error} = ExCubecl.buffer([1.0, 2.0], [3], :f32)
      iex> Exception.message(error)
      "buffer: shape [3] needs 3 elements, but the data has 2"
  """
  @spec buffer(Buffer.data(), Buffer.shape(), DType.t(), keyword) :: Buffer.result(Buffer.t())
  defdelegate buffer(data, shape, dtype, opts \\ []), to: Buffer, as: :new

  @doc """
  As `buffer/4`, with the shape and the element type of the nested data: integers are `:s32`, floats, and floats with integers, are `:f32`.

  A list that is ragged is a `:shape_mismatch` with the index of the first row that differs.

      iex> matrix = ExCubecl.buffer!([[1.0, 2.0], [3.0, 4.0]])
      iex> {ExCubecl.shape!(matrix), ExCubecl.dtype!(matrix)}
      {[2, 2], "f32"}
  """
  @spec buffer(Buffer.data()) :: Buffer.result(Buffer.t())
  defdelegate buffer(data), to: Buffer, as: :new

  @doc """
  As `buffer/1`, with a shape, an element type, or the options of `buffer/4`. `buffer(data, shape, opts)` and `buffer(data, dtype, opts)` take
  options too.

      iex> ExCubecl.to_list!(ExCubecl.buffer!([1, 2, 3, 4], [2, 2]))
      [[1, 2], [3, 4]]
      iex> ExCubecl.dtype!(ExCubecl.buffer!([[1, 2]], :f16))
      "f16"
  """
  @spec buffer(Buffer.data(), Buffer.shape() | DType.t() | keyword) :: Buffer.result(Buffer.t())
  defdelegate buffer(data, given), to: Buffer, as: :new

  @doc """
  Returns `{:ok, binary}`, the elements in row-major order, native-endian.

  Errors: as `ExCubecl.Buffer.read/2`.

      iex> ExCubecl.read(ExCubecl.buffer!([1, 2], [2], :u8))
      {:ok, <<1, 2>>}
      iex> ExCubecl.read!(ExCubecl.buffer!([1, 2], [2], :u8))
      <<1, 2>>
  """
  @spec read(Buffer.t() | View.t()) :: Buffer.result(binary)
  def read(buffer), do: with({:ok, buffer} <- contiguous(buffer), do: Buffer.read(buffer))

  @doc """
  Returns `{:ok, shape}`, a list of dimensions.

      iex> ExCubecl.shape(ExCubecl.buffer!([1, 2], {2, 1}, :u8))
      {:ok, [2, 1]}
  """
  @spec shape(Buffer.t() | View.t()) :: Buffer.result([non_neg_integer])
  def shape(%View{} = buffer), do: View.shape(buffer)
  def shape(buffer), do: Buffer.shape(buffer)

  @doc """
  Returns `{:ok, dtype}` as a string.

      iex> ExCubecl.dtype(ExCubecl.buffer!([1.0], [1], :f32))
      {:ok, "f32"}
  """
  @spec dtype(Buffer.t() | View.t()) :: Buffer.result(String.t())
  def dtype(%View{} = buffer), do: View.dtype(buffer)
  def dtype(buffer), do: Buffer.dtype(buffer)

  @doc """
  Returns `{:ok, bytes}`.

      iex> ExCubecl.size(ExCubecl.buffer!([1, 2, 3], [3], :s64))
      {:ok, 24}
  """
  @spec size(Buffer.t() | View.t()) :: Buffer.result(non_neg_integer)
  def size(%View{} = buffer), do: View.size(buffer)
  def size(buffer), do: Buffer.size(buffer)

  @doc """
  Returns `{:ok, list}`, nested as the shape.

  Errors: as `ExCubecl.Buffer.to_list/1`.

      iex> ExCubecl.to_list(ExCubecl.buffer!([1.5, :nan, :infinity, 4], [2, 2], :f32))
      {:ok, [[1.5, :nan], [:infinity, 4.0]]}
  """
  @spec to_list(Buffer.t() | View.t()) :: Buffer.result(list | Buffer.element())
  def to_list(buffer), do: with({:ok, buffer} <- contiguous(buffer), do: Buffer.to_list(buffer))

  @doc """
  Returns `{:ok, list}` of all elements in row-major order.

  Errors: as `ExCubecl.Buffer.to_flat_list/1`.

      iex> ExCubecl.to_flat_list(ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s8))
      {:ok, [1, 2, 3, 4]}
  """
  @spec to_flat_list(Buffer.t() | View.t()) :: Buffer.result([Buffer.element()])
  def to_flat_list(buffer),
    do: with({:ok, buffer} <- contiguous(buffer), do: Buffer.to_flat_list(buffer))

  @doc """
  Returns `{:ok, element}` of a buffer that has exactly one element.

  Errors: as `ExCubecl.Buffer.item/1`.

      iex> ExCubecl.item(ExCubecl.buffer!(42, [], :u16))
      {:ok, 42}
  """
  @spec item(Buffer.t() | View.t()) :: Buffer.result(Buffer.element())
  def item(buffer), do: with({:ok, buffer} <- contiguous(buffer), do: Buffer.item(buffer))

  # The elements of a view are copied on the device first, unless they are contiguous.
  defp contiguous(%View{} = buffer), do: View.to_buffer(buffer)
  defp contiguous(buffer), do: {:ok, buffer}

  @doc """
  Returns `{:ok, devices}`, every device of this machine, or of the connected `nodes:`. The id of a device
  of another node is `{node, id}`; a buffer with this id as `device:` is made on that node.

  Errors: `:no_device`, `:node_down`, and `:unsupported` for a node without ExCubecl, or with another
  version of it.

      iex> {:ok, [device | _]} = ExCubecl.devices()
      iex> device.kind in [:discrete_gpu, :integrated_gpu, :virtual_gpu, :cpu, :other]
      true
  """
  @spec devices(nodes: [node]) :: {:ok, [Device.t()]} | {:error, Error.t()}
  def devices(opts \\ []) do
    with {:ok, opts} <- Arguments.options(opts, [:nodes]) do
      case opts[:nodes] do
        nil -> Device.list()
        nodes -> Device.on_nodes(nodes)
      end
    end
  end

  @doc """
  Returns `{:ok, id}` of the default device, which is used if no device is given; see `ExCubecl.Device`.

      iex> {:ok, {_runtime, 0}} = ExCubecl.default_device()
  """
  @spec default_device() :: {:ok, Device.id()} | {:error, Error.t()}
  defdelegate default_device(), to: Device, as: :default

  @doc """
  Returns whether buffers can be made: the native library is loaded, and there is a device.

      iex> ExCubecl.available?()
      true
  """
  @spec available?() :: boolean
  def available?, do: match?({:ok, _}, Device.default())

  @doc """
  Returns the element types, all of which can be stored, read, copied, filled and converted on every
  device.

      iex> :bf16 in ExCubecl.supported_dtypes()
      true
  """
  @spec supported_dtypes() :: [DType.t()]
  defdelegate supported_dtypes(), to: DType, as: :all

  @doc """
  Returns the version of this package.

      iex> ExCubecl.version() =~ ~r/^\\d+\\.\\d+\\.\\d+/
      true
  """
  @spec version() :: String.t()
  def version, do: unquote(Mix.Project.config()[:version])

  ## Nx.Defn.Compiler, if Nx is available: see ExCubecl.Compiler

  if Code.ensure_loaded?(Nx.Defn.Compiler) do
    for {name, arity} <- Nx.Defn.Compiler.behaviour_info(:callbacks) do
      args = Macro.generate_arguments(arity, __MODULE__)
      @doc false
      defdelegate unquote(name)(unquote_splicing(args)), to: ExCubecl.Compiler
    end
  end

  if Code.ensure_loaded?(Nx.Backend) do
    @doc false
    # Nx.default_backend(ExCubecl) calls this function.
    @spec init(term) :: no_return
    def init(_options) do
      expected = "ExCubecl.Backend; ExCubecl is the compiler of Nx.Defn, compiler: ExCubecl"
      details = %{function: __MODULE__, argument: :backend, value: __MODULE__, expected: expected}
      raise %Error{reason: :invalid_argument, details: details}
    end
  end

  ## Calls for users of the Hex package of this name

  @doc "As `ExCubecl.Compat.device_count/0`: `{:ok, count}`, the number of devices."
  @spec device_count() :: {:ok, non_neg_integer} | {:error, Error.t()}
  defdelegate device_count(), to: Compat

  @doc "As `ExCubecl.Compat.device_info/0`: `{:ok, map}` with the description of the default device. `ExCubecl.Device.info/1` has more."
  @spec device_info() :: {:ok, map} | {:error, Error.t()}
  defdelegate device_info(), to: Compat

  @doc "As `ExCubecl.Compat.memory_info/0`: `{:ok, %{used: bytes, total: bytes}}` of the default device. `ExCubecl.Memory` has more."
  @spec memory_info() ::
          {:ok, %{used: non_neg_integer, total: pos_integer | nil}} | {:error, Error.t()}
  defdelegate memory_info(), to: Compat

  @doc "As `ExCubecl.Compat.kernels/0`: `{:ok, names}` of the kernels of `run_kernel/4`."
  @spec kernels() :: {:ok, [String.t()]}
  defdelegate kernels(), to: Compat

  @doc "As `ExCubecl.Compat.run_kernel/4`: queues a kernel by its name. `ExCubecl.Kernel` compiles kernels, `ExCubecl.Ops` has many."
  @spec run_kernel(String.t(), [Buffer.t()], Buffer.t(), map) ::
          {:ok, pos_integer} | {:error, Error.t()}
  defdelegate run_kernel(name, inputs, output, params \\ %{}), to: Compat
end
