defmodule ExCubecl.Error.Message.Memory do
  @moduledoc false
  # Messages about memory: that of devices, pools and arenas, and handles that lost theirs.

  alias ExCubecl.Error.Text

  def text(:too_large, %{requested: requested, limit: limit, device: device}),
    do:
      "#{Text.bytes(requested)} are more than #{Text.device(device)} takes in one buffer (#{Text.bytes(limit)}): " <>
        "use several smaller buffers"

  def text(:too_large, %{requested: requested, limit: limit}),
    do:
      "a list of #{requested} rows is more than the #{limit} that to_list makes: read the binary instead"

  def text(:out_of_memory, %{requested: requested, memory_limit: limit}),
    do:
      "the values of the program need #{Text.bytes(requested)} at a time, and memory_limit: allows #{Text.bytes(limit)}: " <>
        "allow more, or calculate with smaller tensors; ExCubecl.Compiler.explain/3 tells which values they are"

  def text(:out_of_memory, %{requested: requested, available: available, device: device} = more),
    do:
      "#{Text.device(device)} has no room for #{Text.bytes(requested)}#{available && " (#{Text.bytes(available)} are free)"}" <>
        "#{owners(more)}: drop buffers that are no longer needed, or see ExCubecl.Memory"

  def text(:limit_exceeded, %{devices: max}),
    do: "there are #{max} logical devices already: remove one with ExCubecl.Device.remove/1 first"

  def text(:limit_exceeded, %{requested: requested, used: used, capacity: capacity}),
    do:
      "#{Text.bytes(requested)} more do not fit into the arena of #{Text.bytes(capacity)}, of which #{Text.bytes(used)} are used: " <>
        "drop tensors, or make it larger or extendable"

  def text(:limit_exceeded, %{requested: requested, live: live, limit: limit} = details),
    do:
      "#{Text.bytes(requested)} more would exceed the limit of #{Text.bytes(limit)} on #{Text.device(details.device)}, where " <>
        "#{Text.bytes(live)} are live#{owners(details)}: drop buffers, or raise it with ExCubecl.Memory.set_limit/2"

  def text(:pool_exhausted, %{max: max} = details),
    do:
      "all #{max} of the pool are held#{if details[:timeout], do: ", and none was returned within #{details.timeout} ms"}: " <>
        "return one, wait longer, or raise max"

  def text(:stale, %{reason: :foreign}),
    do: "the buffer does not belong to this pool or arena: return it where it was taken from"

  def text(:stale, %{reason: :closed, pool: pool}),
    do: "there is no such pool as #{Text.show(pool)}: it was not started, or it has stopped"

  def text(:stale, %{reason: :closed}),
    do: "there is no such pool: it was not started, or it has stopped"

  def text(:stale, %{tensor: :other_node, node: node}),
    do:
      "the tensor is in device memory of the node #{node}, which sent only a reference to it: Nx.backend_copy/1 makes a copy in host memory " <>
        "that can be sent, and Nx.Serving takes that function for the input and the results of other nodes"

  def text(:stale, %{node: node}),
    do:
      "node #{Text.word(node)} does not keep the buffer: it was returned, the connection was lost, or the handle came from another node"

  def text(:stale, %{tensor: :deallocated}),
    do: "the tensor was deallocated, by Nx.backend_deallocate/1 or Nx.backend_transfer/2"

  def text(:stale, _),
    do:
      "the buffer was returned to its pool or arena: take a new one there, or before the return make a copy with ExCubecl.Buffer.duplicate/1"

  def text(_reason, _details), do: nil

  defp owners(%{owners: [_ | _] = owners}),
    do:
      " (most by #{Enum.map_join(owners, ", ", fn {pid, n} -> "#{inspect(pid)}: #{Text.bytes(n)}" end)})"

  defp owners(_), do: ""
end
