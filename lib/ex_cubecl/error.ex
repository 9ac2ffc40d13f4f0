defmodule ExCubecl.Error do
  @moduledoc """
  The error that functions of ExCubecl return as `{:error, error}`, and that their `!` variants raise. Predicates, whose names end in `?`, return a
  boolean and raise it for a wrong argument.

  Match on `reason`; `details` holds `function`, the name of the function that was called, and the numbers; `Exception.message/1` describes the error, the
  expected value and the remedy.

      iex> {:error, error} = ExCubecl.buffer([1, 2, 300], [3], :u8)
      iex> error.reason
      :invalid_value
      iex> error.details
      %{function: :buffer, index: 2, value: 300, dtype: :u8}
      iex> Exception.message(error)
      "buffer: element 2 of the data is 300, which u8 cannot hold: expected an integer from 0 to 255"

  | reason | what happened |
  |---|---|
  | `:invalid_shape` | a shape that is not a list or tuple of non-negative integers, or that has too many elements |
  | `:shape_mismatch` | the number of elements of the data differs from that of the shape |
  | `:invalid_value` | an element that its type cannot hold; `index` is its index |
  | `:unsupported_dtype` | an element type that does not exist |
  | `:type_mismatch` | two buffers of different element types |
  | `:out_of_bounds` | a view, read or write past the end |
  | `:overlap` | a copy between buffers that share bytes, or a kernel or operation that writes a buffer which shares bytes with another operand |
  | `:not_allocated` | a read of a lazy buffer that was never written |
  | `:too_large` | more bytes than the device supports in one buffer |
  | `:out_of_memory` | the device, or the host for a CPU device, is out of memory |
  | `:limit_exceeded` | the allocation would exceed the limit of `ExCubecl.Memory.set_limit/2`, or a fixed arena is full |
  | `:loop_limit` | the device's driver stopped a loop of a kernel before its end |
  | `:pool_exhausted` | every buffer of the pool is checked out |
  | `:stale` | the buffer was given back to its pool or arena, or does not belong to it |
  | `:no_device` | no device on this machine |
  | `:unknown_device` | no device of that name |
  | `:device_in_use` | a logical device cannot be removed while it has live buffers |
  | `:device_lost` | the device was reset or lost; the contents of its buffers are lost |
  | `:node_down` | the node of the buffer or device cannot be reached |
  | `:unsupported` | the device does not support the operation, or the other node has another version of ExCubecl, or none |
  | `:invalid_argument` | an argument of the wrong kind, such as a term that is not a buffer |
  | `:file` | a file cannot be read or written; `posix` is the reason of the operating system |
  | `:invalid_file` | a file is truncated, damaged, or not of its format |
  | `:timeout` | a reply did not arrive in time |
  | `:busy` | the device was too busy for a preview |
  | `:driver` | an error inside CubeCL or the driver, with its message |
  | `:nif_not_loaded` | the native library is missing |

  ## Reasons of every function

  The documentation of a function lists the reasons that are particular to it. Besides, any function may return `:invalid_argument` for an argument or an option of the
  wrong kind; `:unknown_device`, `:no_device`, `:nif_not_loaded`, `:device_lost` and `:driver` for the device and its driver; `:stale` for a buffer of a pool or an arena; and
  `:node_down` and `:unsupported` for one of another node.
  """

  alias ExCubecl.Error.Message
  alias ExCubecl.Native

  @type reason ::
          :invalid_shape
          | :shape_mismatch
          | :invalid_value
          | :unsupported_dtype
          | :type_mismatch
          | :out_of_bounds
          | :overlap
          | :not_allocated
          | :too_large
          | :out_of_memory
          | :limit_exceeded
          | :loop_limit
          | :pool_exhausted
          | :stale
          | :no_device
          | :unknown_device
          | :device_in_use
          | :device_lost
          | :node_down
          | :unsupported
          | :invalid_argument
          | :file
          | :invalid_file
          | :timeout
          | :busy
          | :driver
          | :nif_not_loaded

  @type t :: %__MODULE__{reason: reason, details: map}

  defexception [:reason, details: %{}]

  @doc false
  @spec new(reason, Enumerable.t()) :: {:error, t}
  def new(reason, details \\ %{}),
    do: {:error, %__MODULE__{reason: reason, details: Map.new(details)}}

  @doc false
  # Converts every result of a native call: `{reason, details}` becomes an exception, `{:ok, :ok}` becomes
  # `:ok`, and a reference that is not a resource of the library, or a missing library, becomes an error.
  @spec from_native((() -> term)) :: {:ok, term} | :ok | {:error, t}
  def from_native(call) do
    case call.() do
      {:ok, :ok} -> :ok
      {:ok, value} -> {:ok, value}
      {:error, {reason, details}} -> new(reason, details)
      value -> {:ok, value}
    end
  rescue
    ArgumentError ->
      new(:invalid_argument, argument: :reference, expected: "one that ExCubecl made on this node")

    # A stub raises `:nif_not_loaded`, and Rustler raises `:nif_panicked` after a panic.
    error in ErlangError ->
      case error do
        %{original: :nif_not_loaded} ->
          new(:nif_not_loaded, path: Native.library_path(), load_error: Native.load_error())

        %{original: :nif_panicked} ->
          new(:driver, message: "the native library panicked")

        other ->
          reraise other, __STACKTRACE__
      end
  end

  @doc false
  @spec unwrap!({:ok, value} | :ok | {:error, t}) :: value | :ok when value: term
  def unwrap!({:ok, value}), do: value
  def unwrap!(:ok), do: :ok
  def unwrap!({:error, %__MODULE__{} = error}), do: raise(error)

  @doc false
  # The values of `fun` for the elements of a list, or the first error.
  @spec map(list, (term -> {:ok, term} | {:error, t})) :: {:ok, list} | {:error, t}
  def map(list, fun), do: map(list, fun, [])

  defp map([], _fun, done), do: {:ok, Enum.reverse(done)}

  defp map([element | rest], fun, done) do
    with {:ok, value} <- fun.(element), do: map(rest, fun, [value | done])
  end

  @doc false
  # Calls `fun`, which returns `:ok`, for each element until one is an error.
  @spec each(Enumerable.t(), (term -> :ok | {:error, t})) :: :ok | {:error, t}
  def each(elements, fun) do
    Enum.reduce_while(elements, :ok, fn element, :ok ->
      case fun.(element) do
        :ok -> {:cont, :ok}
        error -> {:halt, error}
      end
    end)
  end

  @impl true
  def message(error), do: Message.of(error)
end

defimpl Inspect, for: ExCubecl.Error do
  import Inspect.Algebra

  alias ExCubecl.Error.Message

  # The message comes first, because a shell or a log may cut the rest. Shapes in the details are lists of numbers, not charlists.
  def inspect(error, opts) do
    opts = %{opts | charlists: :as_lists}

    case message(error) do
      {:ok, message} ->
        fields = [message: message, reason: error.reason, details: error.details]
        field = fn {key, value}, opts -> concat("#{key}: ", to_doc(value, opts)) end
        container_doc("#ExCubecl.Error<", fields, ">", opts, field)

      :error ->
        Inspect.Any.inspect(error, opts)
    end
  end

  # An error that was built by hand may have any details.
  defp message(error) do
    {:ok, Message.of(error)}
  rescue
    _ -> :error
  end
end
