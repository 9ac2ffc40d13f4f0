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

      get = fn -> Native.pool_get_buffer(id, dtype, shape, max, note) end

      with {:ok, ref} <- Pressure.create(id, class, get),
           do: {:ok, struct!(Buffer, ref: ref, dtype: dtype, shape: shape, device: id)}
    end
  end

  @spec return(Buffer.t()) :: :ok | {:error, Error.t()}
  def return(buffer) do
    with {:ok, ref} <- Handle.reference(buffer),
         do: Error.from_native(fn -> Native.pool_return_buffer(ref) end)
  end

  @spec stats() :: {:ok, %{tuple => ExCubecl.Pool.stats()}} | {:error, Error.t()}
  def stats do
    with {:ok, pools} <- Error.from_native(&Native.pool_shared_stats/0),
         do: {:ok, Map.new(pools, &pool/1)}
  end

  defp pool({id, bytes, false, stats}), do: {{bytes, id}, stats}
  defp pool({id, bytes, true, stats}), do: {{bytes, id, :persistent}, stats}
end
