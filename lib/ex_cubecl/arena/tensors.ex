defmodule ExCubecl.Arena.Tensors do
  @moduledoc false
  # The tensors and windows of an arena, whose fields the caller has checked. `ExCubecl.Arena` has the public functions.

  alias ExCubecl.{Buffer, DType, Error, Native}
  alias ExCubecl.Buffer.{Handle, Pressure}
  alias ExCubecl.Error.Arguments

  def alloc(arena, shape, dtype) do
    with {:ok, dtype} <- dtype(arena, dtype),
         {:ok, shape, count} <- Arguments.shape(shape, dtype),
         {:ok, ref} <- reserve(arena, dtype, shape, count * DType.size!(dtype)),
         do: {:ok, tensor(arena, ref, dtype, shape)}
  end

  # An arena without enough memory grows on a thread of the library.
  defp reserve(%{ref: ref} = arena, dtype, shape, bytes) do
    with {:ok, nil} <- Error.from_native(fn -> Native.arena_try_alloc(ref, dtype, shape) end) do
      Pressure.create(arena.device, bytes, fn -> Native.arena_alloc(ref, dtype, shape) end)
    end
  end

  def drop(%{ref: ref}, tensors) do
    with {:ok, refs} <- Handle.references(tensors),
         do: Error.from_native(fn -> Native.arena_drop(ref, refs) end)
  end

  def reshape(arena, shape, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:offset, :dtype]),
         {:ok, dtype} <- dtype(arena, opts[:dtype]),
         {:ok, shape, _count} <- Arguments.shape(shape, dtype),
         {:ok, offset} <- Arguments.index(:offset, Keyword.get(opts, :offset, 0)),
         {:ok, ref} <-
           Pressure.create(arena.device, 0, fn ->
             Native.arena_reshape(arena.ref, dtype, shape, offset)
           end),
         do: {:ok, tensor(arena, ref, dtype, shape)}
  end

  def detach(tensor) do
    with {:ok, ref} <- Handle.reference(tensor),
         {:ok, ref} <- Error.from_native(fn -> Native.buffer_detach(ref) end),
         do: {:ok, %{tensor | ref: ref}}
  end

  defp dtype(%{unit: unit}, nil) when unit != :bytes, do: {:ok, unit}

  defp dtype(_arena, nil) do
    expected =
      "one of #{Enum.map_join(DType.all(), " ", &inspect/1)}, here or as dtype: where the arena is made, which counts bytes"

    Error.new(:unsupported_dtype, dtype: nil, argument: :dtype, expected: expected)
  end

  defp dtype(_arena, dtype), do: Arguments.dtype(dtype)

  defp tensor(arena, ref, dtype, shape),
    do: struct!(Buffer, ref: ref, dtype: dtype, shape: shape, device: arena.device)
end
