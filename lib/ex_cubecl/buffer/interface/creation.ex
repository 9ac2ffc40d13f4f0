defmodule ExCubecl.Buffer.Interface.Creation do
  @moduledoc false
  # Functions of `ExCubecl.Buffer` that make buffers: documentation, specs and the modules that implement them.

  alias ExCubecl.{DType, Error}
  alias ExCubecl.Buffer.{Create, Inference, Info, Remote, Write}
  alias ExCubecl.Cluster.{Client, Location}
  alias ExCubecl.Error.Operation

  defmacro __using__(_opts) do
    quote unquote: false, location: :keep do
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

      Errors: those of `new/4`.

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
    end
  end
end
