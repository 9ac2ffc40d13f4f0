defmodule ExCubecl.Cluster.Location do
  @moduledoc false
  # Whether a buffer or device is on this node or on another one: a buffer of another node has the device `{node, id}`, and
  # callers name devices of other nodes in the same form.

  defguardp is_remote(device)
            when is_tuple(device) and tuple_size(device) == 2 and is_atom(elem(device, 0)) and
                   (is_tuple(elem(device, 1)) or is_binary(elem(device, 1)) or
                      is_map(elem(device, 1)))

  @doc "The node of a buffer, `nil` for this one. A buffer is a map with the fields of `ExCubecl.Buffer`."
  @spec node_of(%{required(:device) => term, optional(any) => any}) :: node | nil
  def node_of(%{device: {node, _id} = device}) when is_remote(device), do: node
  def node_of(%{device: _device}), do: nil

  @doc "The node of a device in any of its forms, `nil` for this one, and the device without its node."
  @spec locate(term) :: {node | nil, term}
  def locate({node, id} = device) when is_remote(device) do
    cond do
      node == node() -> {nil, id}
      String.contains?(Atom.to_string(node), "@") -> {node, id}
      true -> {nil, device}
    end
  end

  # A description of a device, as `ExCubecl.Device` returns it.
  def locate(%{id: {_, _} = id, runtime: _}), do: locate(id)
  def locate(device), do: {nil, device}

  @doc "The node of the option `device:`, and the options with the device without its node."
  @spec locate_option(term) :: {node | nil, term}
  def locate_option([_ | _] = opts) do
    if Keyword.keyword?(opts) and Keyword.has_key?(opts, :device) do
      {node, device} = locate(opts[:device])
      {node, Keyword.put(opts, :device, device)}
    else
      {nil, opts}
    end
  end

  def locate_option(opts), do: {nil, opts}
end
