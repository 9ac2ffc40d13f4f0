defmodule ExCubecl.Buffer.Info do
  @moduledoc false
  # What the native side knows of a buffer of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Native.Rehearsal

  def allocated(buffer), do: ask(buffer, &Native.buffer_allocated/1)
  def synchronize(buffer), do: ask(buffer, &Native.buffer_synchronize/1)
  def pointer(buffer), do: ask(buffer, &Native.buffer_pointer/1)
  def id(buffer), do: ask(buffer, &Native.buffer_id/1)
  def storage_id(buffer), do: ask(buffer, &Native.buffer_storage_id/1)
  def total_size(buffer), do: ask(buffer, &Native.buffer_total_size/1)

  def ref_count(%{ref: ref} = buffer) do
    handles = if Rehearsal.on?(), do: Rehearsal.handles(ref)
    if handles, do: {:ok, handles}, else: ask(buffer, &Native.buffer_ref_count/1)
  end

  def release(%{ref: ref} = buffer) do
    if Rehearsal.on?(), do: Rehearsal.release(ref), else: ask(buffer, &Native.buffer_release/1)
  end

  def overlap(a, b), do: ask(a, &Native.buffer_overlap(&1, b.ref))

  def same_storage(a, b) do
    with {:ok, first} <- storage_id(a), {:ok, second} <- storage_id(b), do: {:ok, first == second}
  end

  @doc "Whether two native references are of the same memory."
  def same_storage?(ref, ref), do: true

  def same_storage?(first, second) do
    [first, second] =
      for ref <- [first, second], do: Error.from_native(fn -> Native.buffer_storage_id(ref) end)

    first == second
  end

  defp ask(buffer, call), do: Error.from_native(fn -> call.(buffer.ref) end)
end
