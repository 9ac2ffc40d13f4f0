defmodule ExCubecl.Pool.Shared do
  @moduledoc false
  # The pools that all processes share, one for each size class and device. `ExCubecl.Pool.get_buffer/2`, `return_buffer/1` and
  # `shared_stats/0` are the public functions.

  alias ExCubecl.{Buffer, Device, DType, Error, Native}
  alias ExCubecl.Buffer.{AllocOptions, Handle, Pressure}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Pool.SizeClass

  @spec get(pos_integer, keyword) :: Buffer.result(Buffer.t())
  def get(bytes, opts) do
    with {:ok, opts} <- Arguments.options(opts, [:dtype, :device | AllocOptions.options()]),
         {:ok, dtype} <- Arguments.dtype(Keyword.get(opts, :dtype, :u8)),
         {:ok, {class, max}} <- SizeClass.of(bytes),
         {:ok, note} <- AllocOptions.from(Keyword.take(opts, AllocOptions.options())),
         {:ok, id} <- Device.resolve(opts[:device]) do
      shape = [div(class + DType.size!(dtype) - 1, DType.size!(dtype))]

      with {:ok, ref} <- take(id, dtype, shape, class, {max, note}),
           do: {:ok, struct!(Buffer, ref: ref, dtype: dtype, shape: shape, device: id)}
    end
  end

  # An idle buffer is taken on the calling scheduler; a new one is allocated by a thread of the library.
  defp take(id, dtype, shape, bytes, {max, note}) do
    Pressure.create(id, bytes, fn ->
      with {:ok, nil} <- Native.memory_take(id, dtype, shape, max, note),
           do: Native.memory_get(id, dtype, shape, max, note)
    end)
  end

  @spec return(Buffer.t()) :: :ok | {:error, Error.t()}
  def return(buffer) do
    with {:ok, ref} <- Handle.reference(buffer) do
      case Error.from_native(fn -> Native.memory_return(ref) end) do
        {:ok, nil} -> Error.from_native(fn -> Native.memory_return_wait(ref) end)
        result -> result
      end
    end
  end

  @spec stats() :: {:ok, %{tuple => ExCubecl.Pool.stats()}} | {:error, Error.t()}
  def stats do
    with {:ok, pools} <- Error.from_native(&Native.memory_stats/0),
         do: {:ok, Map.new(pools, &pool/1)}
  end

  defp pool({id, bytes, false, stats}), do: {{bytes, id}, stats}
  defp pool({id, bytes, true, stats}), do: {{bytes, id, :persistent}, stats}
end
