defmodule ExCubecl.Cluster.Remote do
  @moduledoc false
  # Buffers on other nodes, over Erlang distribution: a handle on this node refers to a buffer that
  # `ExCubecl.Cluster.Keeper` keeps on the other node, and calls on it run on that node. Elements cross
  # the network only for reads and writes, in chunks.

  alias ExCubecl.{DType, Error, Native, Shape}
  alias ExCubecl.Application.Service
  alias ExCubecl.Buffer.{AllocOptions, Progress}
  alias ExCubecl.Error.{Arguments, Text}
  alias ExCubecl.Cluster.{Keeper, Releaser, Server}

  @buffer :"Elixir.ExCubecl.Buffer"
  @device :"Elixir.ExCubecl.Device"

  # Bytes of one message. One chunk is in transit at a time.
  @chunk 8 * 1024 * 1024

  # `{node, device}`.
  defguardp is_place(device)
            when is_tuple(device) and tuple_size(device) == 2 and is_atom(elem(device, 0)) and
                   (is_tuple(elem(device, 1)) or is_binary(elem(device, 1)) or
                      is_map(elem(device, 1)))

  defguardp is_remote(buffer)
            when is_map(buffer) and is_map_key(buffer, :device) and is_map_key(buffer, :ref) and
                   is_place(:erlang.map_get(:device, buffer))

  @creating [:new, :empty, :full, :iota]

  @doc "`:here`, or `{:there, call}` for a call that involves another node."
  def route(@buffer, function, args), do: route(function, args)

  # Calls whose first argument is a device.
  def route(module, function, [%{__struct__: @device, id: id} | rest]) when is_place(id),
    do: route(module, function, [id | rest])

  def route(module, function, [{node, id} = device | rest]) when is_place(device) do
    cond do
      node == node() -> {:there, fn -> apply(module, function, [id | rest]) end}
      node?(node) -> {:there, fn -> call(node, module, function, [id | rest]) end}
      true -> :here
    end
  end

  def route(module, function, args),
    do: by_option(args, &apply(module, function, &1), &call(&1, module, function, &2))

  defp route(function, args) when function in @creating,
    do: by_option(args, &apply(@buffer, function, &1), &create(&1, function, &2))

  defp route(:transfer, [buffer, %{__struct__: @device, id: id}, opts]) when is_place(id),
    do: route(:transfer, [buffer, id, opts])

  defp route(:transfer, [buffer, device, _opts] = args)
       when is_remote(buffer) or is_place(device),
       do: {:there, fn -> apply(&transfer/3, args) end}

  defp route(:copy, [source, target]) when is_remote(source) or is_remote(target),
    do: {:there, fn -> copy(source, target) end}

  defp route(:read_all, [buffers]) when is_list(buffers) do
    if not List.improper?(buffers) and Enum.any?(buffers, &remote?/1),
      do: {:there, fn -> each(buffers, &apply(@buffer, :read, [&1]), []) end},
      else: :here
  end

  defp route(function, [a, b])
       when function in [:overlap?, :same_storage?] and (is_remote(a) or is_remote(b)) do
    {:there,
     fn ->
       case {node_of(a), node_of(b)} do
         {node, node} -> bare(call(node, @buffer, function, [a, b]))
         _ -> false
       end
     end}
  end

  defp route(function, [buffer | rest]) when is_remote(buffer),
    do: {:there, fn -> on(buffer, function, rest) end}

  defp route(_function, _args), do: :here

  defp remote?(buffer), do: is_remote(buffer)

  # Calls whose last argument is options, with the device in `device:`.
  defp by_option(args, here, there) do
    with [_ | _] = opts <- List.last(args),
         true <- Keyword.keyword?(opts),
         {node, id} = place when is_place(place) <- id(opts[:device]) do
      args = List.replace_at(args, -1, Keyword.put(opts, :device, id))

      cond do
        node == node() -> {:there, fn -> here.(args) end}
        node?(node) -> {:there, fn -> there.(node, args) end}
        true -> :here
      end
    else
      _ -> :here
    end
  end

  defp id(%{__struct__: @device, id: id}), do: id
  defp id(other), do: other

  defp node?(name), do: String.contains?(Atom.to_string(name), "@")

  ## Making

  defp create(node, :new, [data, shape, dtype, opts]) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, opts} <- unwatched(opts, [:device | AllocOptions.options()]),
         {:ok, shape, count} <- Arguments.shape(shape, dtype),
         {:ok, data} <- Arguments.data(data, shape),
         {:ok, binary} <- encode(data, dtype, shape, count),
         do: create_from(node, binary, shape, dtype, opts)
  end

  defp create(node, function, args), do: call(node, @buffer, function, args)

  # A list is encoded on this node, so that invalid data is found before anything is sent.
  defp encode(list, dtype, shape, _count) when is_list(list),
    do: Error.from_native(fn -> Native.list_to_binary(dtype, shape, list) end)

  defp encode(binary, dtype, _shape, count) do
    case count * DType.size(dtype) do
      expected when expected == byte_size(binary) ->
        {:ok, binary}

      expected ->
        Error.new(:shape_mismatch, expected_bytes: expected, actual_bytes: byte_size(binary))
    end
  end

  defp create_from(node, binary, shape, dtype, opts) when byte_size(binary) <= @chunk,
    do: call(node, @buffer, :new, [binary, shape, dtype, opts])

  defp create_from(node, binary, shape, dtype, opts) do
    with {:ok, buffer} <- call(node, @buffer, :empty, [shape, dtype, opts]),
         :ok <- send_parts(buffer, &{:ok, binary_part(binary, &1, &2)}),
         do: {:ok, buffer}
  end

  ## Calls on one buffer

  defp on(buffer, :read, [opts]), do: with({:ok, _} <- unwatched(opts, []), do: read(buffer))

  defp on(buffer, :write, [data, opts]) do
    with {:ok, opts} <- unwatched(opts, [:offset]), do: write(buffer, data, opts)
  end

  defp on(buffer, :read_async, []), do: read_async(buffer)

  defp on(buffer, function, rest) when function in [:to_list, :to_flat_list, :item] do
    # The elements are sent as bytes, which are smaller than terms.
    shape = if function == :to_list, do: buffer.shape, else: [Shape.size(buffer.shape)]

    with :ok <- single(function, buffer), {:ok, binary} <- read(buffer) do
      list = Error.from_native(fn -> Native.binary_to_list(binary, buffer.dtype, shape) end)
      if function == :item, do: first(list), else: list
    else
      {:error, error} -> {:error, error}
      _ -> call(node_of(buffer), @buffer, function, [buffer | rest])
    end
  end

  defp on(buffer, function, rest) do
    result = call(node_of(buffer), @buffer, function, [buffer | rest])
    if function == :allocated?, do: bare(result), else: result
  end

  # A progress callback is not sent to the other node, and transfers between nodes report no progress.
  defp unwatched(opts, known) do
    with {:ok, opts} <- Arguments.options(opts, [:progress | known]),
         {:ok, _} <- Progress.check(opts[:progress]),
         do: {:ok, Keyword.delete(opts, :progress)}
  end

  defp single(:item, buffer) do
    case Shape.size(buffer.shape) do
      1 -> :ok
      other -> Error.new(:shape_mismatch, operation: :item, expected: 1, actual: other)
    end
  end

  defp single(_function, _buffer), do: :ok

  defp first({:ok, [element]}), do: {:ok, element}
  defp first(other), do: other

  # A predicate returns a boolean and raises errors, also for remote buffers.
  defp bare({:error, %Error{} = error}), do: raise(error)
  defp bare(value), do: value

  # A read is atomic: if it takes several messages, they read from a copy of the buffer on the other node.
  defp read(buffer) do
    if bytes(buffer) <= @chunk do
      call(node_of(buffer), @buffer, :read, [buffer, []])
    else
      with {:ok, copy} <- call(node_of(buffer), @buffer, :duplicate, [buffer]),
           do: fetch_parts(copy, <<>>, fn binary, _offset, part -> {:ok, binary <> part} end)
    end
  end

  defp write(buffer, data, opts) do
    if is_binary(data) and byte_size(data) > @chunk and opts == [] do
      with :ok <- same_bytes(buffer, data),
           {:ok, staged} <- beside(buffer),
           :ok <- send_parts(staged, &{:ok, binary_part(data, &1, &2)}),
           do: call(node_of(buffer), @buffer, :copy, [staged, buffer])
    else
      call(node_of(buffer), @buffer, :write, [buffer, data, opts])
    end
  end

  defp same_bytes(buffer, data) do
    case bytes(buffer) do
      expected when expected == byte_size(data) ->
        :ok

      expected ->
        Error.new(:shape_mismatch, expected_bytes: expected, actual_bytes: byte_size(data))
    end
  end

  # A new buffer of the same shape and type, on the same device.
  defp beside(%{device: {node, id}} = buffer),
    do: call(node, @buffer, :empty, [buffer.shape, buffer.dtype, [device: id]])

  defp read_async(buffer) do
    caller = self()

    with {:ok, transfer} <- Error.from_native(&Native.transfer_new/0) do
      spawn(fn ->
        result = read(buffer)
        if Native.transfer_wanted(transfer), do: send(caller, {transfer, result})
      end)

      {:ok, transfer}
    end
  end

  ## Between nodes

  defp transfer(buffer, device, opts) do
    with {:ok, opts} <- unwatched(opts, AllocOptions.options()),
         do: carry_over(buffer, device, opts)
  end

  defp carry_over(buffer, device, opts) do
    {from, {to, id}} = {node_of(buffer), place(device)}

    cond do
      not is_remote(buffer) and to == node() -> apply(@buffer, :transfer, [buffer, id, opts])
      from == to -> call(from, @buffer, :transfer, [buffer, id, opts])
      true -> carry(buffer, to, id, opts)
    end
  end

  defp place({node, id} = device) when is_place(device), do: {node, id}
  defp place(device), do: {node(), device}

  defp carry(buffer, to, id, opts) do
    with {:ok, source} <- apply(@buffer, :duplicate, [buffer]),
         {:ok, target} <-
           apply(@buffer, :empty, [buffer.shape, buffer.dtype, [device: {to, id}] ++ opts]),
         :ok <- pour(source, target),
         do: {:ok, target}
  end

  defp copy(source, target) do
    node = node_of(source)

    cond do
      node == node_of(target) ->
        call(node, @buffer, :copy, [source, target])

      source.dtype != target.dtype ->
        Error.new(:type_mismatch, expected: target.dtype, actual: source.dtype)

      Shape.size(source.shape) != Shape.size(target.shape) ->
        expected = Shape.size(target.shape)
        actual = Shape.size(source.shape)
        Error.new(:shape_mismatch, operation: :copy, expected: expected, actual: actual)

      true ->
        with {:ok, copy} <- apply(@buffer, :duplicate, [source]),
             {:ok, staged} <-
               apply(@buffer, :empty, [target.shape, target.dtype, [device: target.device]]),
             :ok <- pour(copy, staged),
             do: apply(@buffer, :copy, [staged, target])
    end
  end

  # `source` is a copy that no other process has a handle of, so it does not change meanwhile.
  defp pour(source, target) do
    size = DType.size(source.dtype)

    send_parts(target, fn offset, len ->
      apply(@buffer, :read_part, [source, div(offset, size), div(len, size)])
    end)
  end

  defp send_parts(buffer, part, offset \\ 0) do
    case min(bytes(buffer) - offset, @chunk) do
      0 ->
        :ok

      len ->
        first = div(offset, DType.size(buffer.dtype))

        with {:ok, data} <- part.(offset, len),
             :ok <- apply(@buffer, :write, [buffer, data, [offset: first]]) do
          # The chunk that was sent is a garbage binary outside of the heap, which would be collected too late.
          :erlang.garbage_collect(self(), type: :minor)
          send_parts(buffer, part, offset + len)
        end
    end
  end

  defp fetch_parts(buffer, state, take, offset \\ 0) do
    size = DType.size(buffer.dtype)

    case min(bytes(buffer) - offset, @chunk) do
      0 ->
        {:ok, state}

      len ->
        args = [buffer, div(offset, size), div(len, size)]

        with {:ok, part} <- call(node_of(buffer), @buffer, :read_part, args),
             {:ok, state} <- take.(state, offset, part),
             do: fetch_parts(buffer, state, take, offset + len)
    end
  end

  defp each([], _call, done), do: {:ok, Enum.reverse(done)}

  defp each([buffer | rest], call, done) do
    with {:ok, value} <- call.(buffer), do: each(rest, call, [value | done])
  end

  ## The wire

  @doc "All devices of these nodes, with ids as `device:` takes them."
  def devices(nodes) do
    with {:ok, lists} <- each(nodes, &devices_of/1, []), do: {:ok, Enum.concat(lists)}
  end

  defp devices_of(node) when is_atom(node) do
    with {:ok, devices} <- call(node, @device, :list, []),
         do: {:ok, for(d <- devices, do: %{d | id: {node, d.id}, adapter: {node, d.adapter}})}
  end

  defp devices_of(other), do: Arguments.invalid(:nodes, other, "names of connected nodes")

  defp call(node, module, function, args) do
    names = Enum.map(args, &outgoing/1)
    result = :erpc.call(node, Server, :run, [Server.version(), self(), module, function, names])
    # Keeps the handles in `args` alive until the reply: if one was collected earlier, its buffer
    # would be released while the call is in transit.
    Enum.each(args, &outgoing/1)

    case result do
      {:made, key, dtype, shape, id} -> handle(node, key, dtype, shape, id)
      {:error, %Error{} = error} -> {:error, told_by(error, node)}
      other -> other
    end
  catch
    :error, {:erpc, _reason} ->
      Error.new(:node_down, node: node)

    :error, {:exception, :undef, [{Server, _, _, _} | _]} ->
      lacking(node)

    :error, {:exception, reason, _stack} ->
      Error.new(:driver, message: Text.show(reason), node: node)

    kind, reason ->
      Error.new(:driver, message: Text.show({kind, reason}), node: node)
  end

  defp lacking(node), do: Error.new(:unsupported, operation: :no_library, node: node)

  defp told_by(error, node), do: %{error | details: Map.put_new(error.details, :node, node)}

  defp outgoing(buffer) when is_remote(buffer) do
    {:ok, binary} = Native.remote_key(buffer.ref)
    {_node, key} = :erlang.binary_to_term(binary)
    {:kept, key}
  rescue
    # A struct that was built by hand: no buffer is kept under this key.
    _ -> {:kept, nil}
  end

  defp outgoing(other), do: other

  # The keeper monitors this process until it is notified by `:had` that the handle exists.
  defp handle(node, key, dtype, shape, id) do
    name = :erlang.term_to_binary({node, key})

    with {:ok, releaser} <- Service.whereis(Releaser),
         {:ok, ref} <- Error.from_native(fn -> Native.remote_handle(releaser, name) end) do
      send({Keeper, node}, {:had, key})
      {:ok, struct!(@buffer, ref: ref, dtype: dtype, shape: shape, device: {node, id})}
    end
  end

  defp node_of(%{device: {node, _id} = device}) when is_place(device), do: node
  defp node_of(_local), do: node()

  defp bytes(buffer), do: Shape.size(buffer.shape) * DType.size(buffer.dtype)
end
