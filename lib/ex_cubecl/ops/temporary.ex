defmodule ExCubecl.Ops.Temporary do
  @moduledoc false
  # Buffers that an operation made for its own use. Their memory is free for the next operation, instead of after a garbage collection: launches are in order.

  alias ExCubecl.{Buffer, DType, Error}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Ops.ComputeType

  @doc "Frees the buffers of a list but those that are `kept`, such as operands and results, and `nil`. Memory that other handles share stays."
  @spec free([Buffer.t() | nil], [%{:ref => reference, optional(atom) => term} | nil]) ::
          :ok | {:error, Error.t()}
  def free(buffers, kept) do
    kept = for %{ref: ref} <- kept, do: ref
    temporary = for %Buffer{ref: ref} = buffer <- buffers, ref not in kept, uniq: true, do: buffer
    with {:ok, _freed} <- Error.map(temporary, &Handle.release/1), do: :ok
  end

  @doc "A result in a type. If it is converted, it is freed, unless it is a buffer that is `kept`."
  @spec converted(Buffer.t(), DType.t(), [map | nil]) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def converted(buffer, dtype, kept) do
    with {:ok, result} <- ComputeType.converted(buffer, dtype),
         :ok <- free([buffer], [result | kept]),
         do: {:ok, result}
  end
end
