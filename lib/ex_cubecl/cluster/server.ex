defmodule ExCubecl.Cluster.Server do
  @moduledoc false
  # The entry point for calls from other nodes: runs one function of `ExCubecl.Buffer` or `ExCubecl.Device` on
  # buffers that this node keeps for them.

  alias ExCubecl.{DType, Error}
  alias ExCubecl.Cluster.Keeper

  @buffer :"Elixir.ExCubecl.Buffer"
  @version Mix.Project.config()[:version]

  @doc "The result of `function`, or `{:made, key, type, shape, device}` if the result is a buffer."
  def run(version, caller, module, function, args) do
    # On a node that only has the code the application is not started yet.
    with {:ok, _} <- Application.ensure_all_started(:ex_cubecl),
         :ok <- same(version),
         {:ok, args} <- local(args, []),
         do: keep(apply(module, function, args), caller)
  end

  @doc "The version that both nodes must have."
  def version, do: @version

  defp same(@version), do: :ok
  defp same(_other), do: Error.new(:unsupported, operation: {:version, @version}, node: node())

  defp local([], done), do: {:ok, Enum.reverse(done)}

  defp local([{:kept, key} | rest], done) do
    case Keeper.fetch(key) do
      {:ok, buffer} -> local(rest, [buffer | done])
      :error -> Error.new(:stale, node: node())
    end
  end

  defp local([other | rest], done), do: local(rest, [other | done])

  defp keep({:ok, %{__struct__: @buffer} = buffer}, caller) do
    true = DType.valid?(buffer.dtype)

    with {:ok, key} <- Keeper.keep(buffer, caller),
         do: {:made, key, buffer.dtype, buffer.shape, buffer.device}
  end

  defp keep(other, _caller), do: other
end
