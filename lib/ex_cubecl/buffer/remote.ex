defmodule ExCubecl.Buffer.Remote do
  @moduledoc false
  # The calls on buffers of other nodes that are more than the same call on the other node: those that carry elements,
  # and those on two buffers. Elements are sent in chunks.

  alias ExCubecl.{DType, Error, Native, Shape}
  alias ExCubecl.Buffer.{AllocOptions, Copy, Create, Progress, Read, Write}
  alias ExCubecl.Cluster.{Client, Location}
  alias ExCubecl.Error.Arguments

  # Bytes of one message. One chunk is in transit at a time.
  @chunk 8 * 1024 * 1024

  ## Creation

  @doc "A buffer on another node. Its elements are encoded here, so that invalid data is found before anything is sent."
  def new(node, data, shape, dtype, opts) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, opts} <- without_progress(opts, [:device | AllocOptions.options()]),
         {:ok, shape, count} <- Arguments.shape(shape, dtype),
         {:ok, data} <- Arguments.data(data, shape),
         {:ok, binary} <- encode(data, dtype, shape, count),
         do: create(node, binary, shape, dtype, opts)
  end

  defp encode(list, dtype, shape, _count) when is_list(list),
    do: Error.from_native(fn -> Native.list_to_binary(dtype, shape, list) end)

  defp encode(binary, dtype, _shape, count),
    do: with(:ok <- same_bytes(binary, count * DType.size!(dtype)), do: {:ok, binary})

  defp same_bytes(binary, expected) when byte_size(binary) == expected, do: :ok

  defp same_bytes(binary, expected),
    do: Error.new(:shape_mismatch, expected_bytes: expected, actual_bytes: byte_size(binary))

  defp create(node, binary, shape, dtype, opts) when byte_size(binary) <= @chunk,
    do: Client.call(node, &Create.new/4, [binary, shape, dtype, opts])

  defp create(node, binary, shape, dtype, opts) do
    with {:ok, buffer} <- Client.call(node, &Create.empty/3, [shape, dtype, opts]),
         :ok <- send_chunks(buffer, &{:ok, binary_part(binary, &1, &2)}),
         do: {:ok, buffer}
  end

  # A progress callback is not sent to the other node, and transfers between nodes report no progress.
  defp without_progress(opts, known) do
    with {:ok, opts} <- Arguments.options(opts, [:progress | known]),
         {:ok, _} <- Progress.check(opts[:progress]),
         do: {:ok, Keyword.delete(opts, :progress)}
  end

  ## Reads

  def read(buffer, opts),
    do: with({:ok, _} <- without_progress(opts, []), do: fetch(buffer))

  # A read is atomic: if it takes several messages, they read from a copy of the buffer on the other node.
  defp fetch(buffer) do
    if bytes(buffer) <= @chunk do
      Client.route(buffer, &Read.read/2, [[]])
    else
      with {:ok, copy} <- Client.route(buffer, &Copy.duplicate/2, [[]]),
           do: fetch_chunks(copy, <<>>)
    end
  end

  defp fetch_chunks(buffer, done) do
    case min(bytes(buffer) - byte_size(done), @chunk) do
      0 ->
        {:ok, done}

      len ->
        with {:ok, chunk} <- read_bytes(buffer, byte_size(done), len),
             do: fetch_chunks(buffer, done <> chunk)
    end
  end

  defp read_bytes(buffer, offset, len) do
    size = DType.size!(buffer.dtype)
    Client.route(buffer, &Read.read_part/3, [div(offset, size), div(len, size)])
  end

  @doc "The binaries of several buffers, some of which are on other nodes."
  def read_all(buffers) do
    Error.map(buffers, fn buffer ->
      if Location.node_of(buffer), do: fetch(buffer), else: Read.read(buffer, [])
    end)
  end

  # The elements are sent as bytes, which are smaller than terms.
  def to_list(buffer), do: elements(buffer, buffer.shape)
  def to_flat_list(buffer), do: elements(buffer, [Shape.size(buffer.shape)])
  def item(buffer), do: with(:ok <- Read.one_element(buffer), do: elements(buffer, []))

  defp elements(buffer, shape) do
    with {:ok, binary} <- fetch(buffer),
         do: Error.from_native(fn -> Native.binary_to_list(binary, buffer.dtype, shape) end)
  end

  def read_async(buffer) do
    caller = self()

    with {:ok, transfer} <- Error.from_native(&Native.transfer_new/0) do
      spawn(fn ->
        result = fetch(buffer)
        if Native.transfer_wanted(transfer), do: send(caller, {transfer, result})
      end)

      {:ok, transfer}
    end
  end

  ## Writes

  # A write is atomic: if it takes several messages, they write to a new buffer, which is then copied to the target.
  def write(buffer, data, opts) do
    with {:ok, opts} <- without_progress(opts, [:offset]) do
      if is_binary(data) and byte_size(data) > @chunk and opts == [],
        do: write_chunks(buffer, data),
        else: Client.route(buffer, &Write.write/3, [data, opts])
    end
  end

  defp write_chunks(%{device: {node, id}} = buffer, data) do
    with :ok <- same_bytes(data, bytes(buffer)),
         {:ok, staged} <- beside(node, id, buffer, []),
         :ok <- send_chunks(staged, &{:ok, binary_part(data, &1, &2)}),
         do: Client.call(node, &Copy.copy/2, [staged, buffer])
  end

  # A new buffer of the same shape and type.
  defp beside(node, id, buffer, opts),
    do: Client.call(node, &Create.empty/3, [buffer.shape, buffer.dtype, [device: id] ++ opts])

  defp send_chunks(buffer, part, offset \\ 0) do
    case min(bytes(buffer) - offset, @chunk) do
      0 ->
        :ok

      len ->
        first = div(offset, DType.size!(buffer.dtype))

        with {:ok, data} <- part.(offset, len),
             :ok <- Client.route(buffer, &Write.write/3, [data, [offset: first]]) do
          # The chunk that was sent is a garbage binary outside of the heap, which would be collected too late.
          :erlang.garbage_collect(self(), type: :minor)
          send_chunks(buffer, part, offset + len)
        end
    end
  end

  ## Between nodes

  @doc "A copy on the device `id` of a node, `nil` for this one."
  def transfer(buffer, {node, id}, opts) do
    with {:ok, opts} <- without_progress(opts, AllocOptions.options()) do
      if node == Location.node_of(buffer),
        do: Client.call(node, &Copy.transfer/3, [buffer, id, opts]),
        else: carry(buffer, buffer, {node, id}, opts)
    end
  end

  def copy(source, target) do
    {from, to} = {Location.node_of(source), Location.node_of(target)}

    cond do
      # A handle that was sent back to the node of its buffer has the name of this node.
      (from || node()) == (to || node()) ->
        Client.call(from || to, &Copy.copy/2, [source, target])

      to == nil ->
        copy(source, target, {nil, target.device})

      true ->
        copy(source, target, target.device)
    end
  end

  defp copy(source, target, device) do
    with :ok <- same_type(source, target),
         :ok <- same_count(source, target),
         {:ok, staged} <- carry(source, target, device, []),
         do: Client.route(staged, &Copy.copy/2, [target])
  end

  # A new buffer with the elements of `source` and the shape of `like`. The elements are those of a copy that no other
  # process has a handle of, so they do not change meanwhile.
  defp carry(source, like, {node, id}, opts) do
    with {:ok, copy} <- Client.route(source, &Copy.duplicate/2, [[]]),
         {:ok, target} <- beside(node, id, like, opts),
         :ok <- send_chunks(target, &read_bytes(copy, &1, &2)),
         do: {:ok, target}
  end

  defp same_type(%{dtype: dtype}, %{dtype: dtype}), do: :ok

  defp same_type(source, target),
    do: Error.new(:type_mismatch, expected: target.dtype, actual: source.dtype)

  defp same_count(source, target) do
    case {Shape.size(target.shape), Shape.size(source.shape)} do
      {count, count} ->
        :ok

      {expected, actual} ->
        Error.new(:shape_mismatch, operation: :copy, expected: expected, actual: actual)
    end
  end

  defp bytes(buffer), do: Shape.size(buffer.shape) * DType.size!(buffer.dtype)
end
