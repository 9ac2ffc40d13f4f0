defmodule ExCubecl.Cluster.Server do
  @moduledoc false
  # The entry point for calls from other nodes: runs one function of a callable module on buffers that this node keeps
  # for them.

  alias ExCubecl.Cluster.{Callable, Keeper}
  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  @version Mix.Project.config()[:version]

  @doc "The result of `fun`, or `{:made, key, fields}` if the result is a buffer."
  def run(version, caller, fun, args) do
    # On a node that only has the code the application is not started yet.
    with {:ok, _} <- Application.ensure_all_started(:ex_cubecl),
         :ok <- same(version),
         :ok <- allowed(fun),
         {:ok, args} <- local(args, []),
         do: keep(apply(fun, args), caller)
  end

  @doc "The version that both nodes must have."
  def version, do: @version

  defp same(@version), do: :ok
  defp same(_other), do: Error.new(:unsupported, operation: {:version, @version}, node: node())

  defp allowed(fun) do
    if Callable.callable?(fun),
      do: :ok,
      else: Arguments.invalid(:function, fun, "a function that other nodes may call")
  end

  defp local([], done), do: {:ok, Enum.reverse(done)}

  defp local([{:kept, key} | rest], done) do
    case Keeper.fetch(key) do
      {:ok, buffer} -> local(rest, [buffer | done])
      :error -> Error.new(:stale, node: node())
    end
  end

  defp local([other | rest], done), do: local(rest, [other | done])

  defp keep({:ok, %{ref: ref, dtype: _, shape: _, device: _} = buffer}, caller)
       when is_reference(ref) do
    with {:ok, key} <- Keeper.keep(buffer, caller),
         do: {:made, key, Map.take(buffer, [:dtype, :shape, :device])}
  end

  defp keep(other, _caller), do: other
end
