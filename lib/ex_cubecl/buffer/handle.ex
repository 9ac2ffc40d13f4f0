defmodule ExCubecl.Buffer.Handle do
  @moduledoc false
  # Buffers as arguments of functions that take buffers of this node only.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Buffer.Info
  alias ExCubecl.Cluster.Location

  @doc "A buffer of this node."
  def local(buffer), do: with({:ok, buffer} <- Buffer.check(buffer), do: here(buffer))

  @doc "A list of buffers of this node."
  def local_all(buffers) do
    with {:ok, buffers} <- Buffer.check_all(buffers), do: Error.map(buffers, &here/1)
  end

  defp here(buffer) do
    case Location.node_of(buffer) do
      nil -> {:ok, buffer}
      # A remote handle that was sent back to the node of its buffer: the buffer that it refers to is no longer known.
      node when node == node() -> Error.new(:stale, node: node)
      _ -> Error.new(:unsupported, operation: :remote_buffer, device: buffer.device)
    end
  end

  @doc "The native reference of a buffer of this node."
  def reference(buffer), do: with({:ok, buffer} <- local(buffer), do: {:ok, buffer.ref})

  @doc """
  Frees the memory of a buffer at once if no other handle shares it, and makes this handle stale: `{:ok, freed?}`. Memory of pools and arenas is theirs.
  """
  def release(buffer) do
    with {:ok, buffer} <- local(buffer), do: Info.release(buffer)
  end

  @doc "The native references of one buffer or of a list of buffers, as a list."
  def references(buffers) when is_list(buffers) do
    with {:ok, buffers} <- local_all(buffers), do: {:ok, Enum.map(buffers, & &1.ref)}
  end

  def references(buffer), do: with({:ok, ref} <- reference(buffer), do: {:ok, [ref]})
end
