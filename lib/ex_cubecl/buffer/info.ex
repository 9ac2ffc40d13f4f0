defmodule ExCubecl.Buffer.Info do
  @moduledoc false
  # What the native side knows of a buffer of this node.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Error, Native}

  def allocated(buffer), do: ask(buffer, &Native.buffer_allocated/1)
  def synchronize(buffer), do: ask(buffer, &Native.buffer_synchronize/1)
  def pointer(buffer), do: ask(buffer, &Native.buffer_pointer/1)
  def id(buffer), do: ask(buffer, &Native.buffer_id/1)
  def storage_id(buffer), do: ask(buffer, &Native.buffer_storage_id/1)
  def total_size(buffer), do: ask(buffer, &Native.buffer_total_size/1)
  def ref_count(buffer), do: ask(buffer, &Native.buffer_ref_count/1)
  def overlap(a, b), do: ask(a, &Native.buffer_overlap(&1, b.ref))

  def same_storage(a, b) do
    with {:ok, first} <- storage_id(a), {:ok, second} <- storage_id(b), do: {:ok, first == second}
  end

  defp ask(buffer, call), do: Error.from_native(fn -> call.(buffer.ref) end)
end
