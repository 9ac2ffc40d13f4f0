defmodule ExCubecl.Cluster.Client do
  @moduledoc false
  # Calls functions on the node of a buffer or device, over Erlang distribution. The function is an argument, such as
  # `&ExCubecl.Buffer.View.view/3`, and a buffer is a map with `ref`, `dtype`, `shape` and `device`: so this module
  # depends on none of those that use it.

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Application.Service
  alias ExCubecl.Cluster.{Keeper, Location, Releaser, Server}
  alias ExCubecl.Error.Text

  @doc "Calls `fun` with a buffer and `args`, on the node of the buffer."
  @spec route(map, function, list) :: term
  def route(buffer, fun, args), do: call(Location.node_of(buffer), fun, [buffer | args])

  @doc "Calls `fun` with a device, on the node of the device."
  @spec route_device(term, function) :: term
  def route_device(device, fun) do
    {node, device} = Location.locate(device)
    call(node, fun, [device])
  end

  @doc "Calls `fun` with `args` and `opts`, on the node of the option `device:`."
  @spec route_option(function, list, term) :: term
  def route_option(fun, args, opts) do
    {node, opts} = Location.locate_option(opts)
    call(node, fun, args ++ [opts])
  end

  @doc """
  The result of `fun` on a node; `nil` is this node.

  It is an exported function of a module that uses `ExCubecl.Cluster.Callable`, and works on buffers and devices of its own node. The errors of another node name it in their details. A buffer of the result is a map with the fields of a buffer.
  """
  @spec call(node | nil, function, list) :: term
  def call(nil, fun, args), do: apply(fun, args)

  def call(node, fun, args) do
    result = :erpc.call(node, Server, :run, [Server.version(), self(), fun, keys(args)])
    # Keeps the handles in `args` alive until the reply: if one was collected earlier, its buffer
    # would be released while the call is in transit.
    keys(args)

    case result do
      {:made, value} -> made(value, node)
      {:error, %Error{} = error} -> {:error, from_node(error, node)}
      other -> other
    end
  catch
    :error, {:erpc, _reason} ->
      Error.new(:node_down, node: node)

    :error, {:exception, :undef, [{Server, _, _, _} | _]} ->
      Error.new(:unsupported, operation: :no_library, node: node)

    :error, {:exception, reason, _stack} ->
      Error.new(:driver, message: Text.show(reason), node: node)

    kind, reason ->
      Error.new(:driver, message: Text.show({kind, reason}), node: node)
  end

  defp from_node(error, node), do: %{error | details: Map.put_new(error.details, :node, node)}

  defp keys(args), do: Enum.map(args, &key/1)

  # Handles are sent as the keys of their buffers.
  defp key(%{ref: ref, device: {_, _}} = buffer),
    do: if(Location.node_of(buffer), do: {:kept, kept(ref)}, else: buffer)

  # Only a list with such handles is sent as another term: lists of elements may be long.
  defp key(list) when is_list(list) do
    if not List.improper?(list) and Enum.any?(list, &remote?/1),
      do: {:list, Enum.map(list, &key_in_list/1)},
      else: list
  end

  defp key(other), do: other

  defp key_in_list({name, value}) when is_atom(name), do: {name, key(value)}
  defp key_in_list(other), do: key(other)

  defp remote?({name, value}) when is_atom(name), do: remote?(value)
  defp remote?(%{ref: _, device: {_, _}} = buffer), do: Location.node_of(buffer) != nil

  defp remote?(list) when is_list(list),
    do: not List.improper?(list) and Enum.any?(list, &remote?/1)

  defp remote?(_other), do: false

  defp kept(ref) do
    {:ok, binary} = Native.remote_name(ref)
    {_node, key} = :erlang.binary_to_term(binary)
    key
  rescue
    # A struct that was built by hand: no buffer is kept under this key.
    _ -> nil
  end

  # The result with handles in place of the buffers that the other node keeps.
  defp made({:kept, key, fields}, node), do: handle(node, key, fields)

  defp made(list, node) when is_list(list), do: Error.map(list, &made(&1, node))

  defp made(tuple, node) when is_tuple(tuple) do
    with {:ok, list} <- made(Tuple.to_list(tuple), node), do: {:ok, List.to_tuple(list)}
  end

  # The keeper monitors this process until it is notified by `:had` that the handle exists.
  defp handle(node, key, %{device: id} = fields) do
    name = :erlang.term_to_binary({node, key})

    with {:ok, releaser} <- Service.whereis(Releaser),
         {:ok, ref} <- Error.from_native(fn -> Native.remote_handle(releaser, name) end) do
      send({Keeper, node}, {:had, key})
      {:ok, Map.merge(fields, %{ref: ref, device: {node, id}})}
    end
  end
end
