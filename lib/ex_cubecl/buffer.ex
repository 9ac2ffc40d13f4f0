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
  alias ExCubecl.Buffer.Interface
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

  # The functions, by topic.
  use Interface.Creation
  use Interface.Sharing
  use Interface.Transfers
  use Interface.Reading
  use Interface.Queries

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
