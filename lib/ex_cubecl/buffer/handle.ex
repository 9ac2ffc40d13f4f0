defmodule ExCubecl.Buffer.Handle do
  @moduledoc false
  # Checks that a term is a buffer. A struct that was built by hand may hold any terms.

  alias ExCubecl.{DType, Error, Shape}
  alias ExCubecl.Error.Arguments

  # An atom instead of an alias: `ExCubecl.Buffer` depends on this module at compile time, and not the reverse.
  @buffer :"Elixir.ExCubecl.Buffer"

  def check(%{__struct__: @buffer, ref: ref, device: {_, _}, dtype: dtype, shape: shape} = buffer)
      when is_reference(ref) and is_list(shape) do
    with true <- DType.valid?(dtype), {:ok, _, _} <- Shape.validate(shape, dtype) do
      {:ok, buffer}
    else
      _ -> invalid(buffer)
    end
  end

  def check(other), do: invalid(other)

  def check_all(buffers) do
    if is_list(buffers) and not List.improper?(buffers),
      do: Enum.find(Enum.map(buffers, &check/1), {:ok, buffers}, &match?({:error, _}, &1)),
      else: Arguments.invalid(:buffers, buffers, "a list of %ExCubecl.Buffer{}")
  end

  @doc "A buffer of this node, for functions that do not support other nodes."
  def local(buffer), do: with({:ok, buffer} <- check(buffer), do: here(buffer))

  @doc "A list of buffers of this node."
  def local_all(buffers) do
    with {:ok, buffers} <- check_all(buffers),
         do: Enum.find(Enum.map(buffers, &here/1), {:ok, buffers}, &match?({:error, _}, &1))
  end

  # A remote handle that was sent back to the node of its buffer: the buffer that it refers to is no longer known.
  defp here(%{device: {node, {_, _}}}) when node == node(), do: Error.new(:stale, node: node)

  defp here(%{device: {_node, {_, _}} = device}),
    do: Error.new(:unsupported, operation: :remote_buffer, device: device)

  defp here(buffer), do: {:ok, buffer}

  @doc "The native reference of a buffer of this node."
  def reference(buffer), do: with({:ok, buffer} <- local(buffer), do: {:ok, buffer.ref})

  @doc "The native references of one buffer or of a list of buffers, as a list."
  def references(buffers) when is_list(buffers) do
    with {:ok, buffers} <- local_all(buffers), do: {:ok, Enum.map(buffers, & &1.ref)}
  end

  def references(buffer), do: with({:ok, ref} <- reference(buffer), do: {:ok, [ref]})

  def invalid(other), do: Arguments.invalid(:buffer, other, "an %ExCubecl.Buffer{}")
end
