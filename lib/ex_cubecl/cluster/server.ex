defmodule ExCubecl.Cluster.Server do
  @moduledoc false
  # The entry point for calls from other nodes: runs one function of a callable module on buffers that this node keeps
  # for them.

  alias ExCubecl.Cluster.{Callable, Keeper}
  alias ExCubecl.Error
  alias ExCubecl.Error.Arguments

  @version Mix.Project.config()[:version]

  @doc "The result of `fun`, or `{:made, value}` if it is a buffer, or a list or tuple of buffers, each of which is `{:kept, key, fields}` there."
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

  defp local([term | rest], done) do
    with {:ok, value} <- kept(term), do: local(rest, [value | done])
  end

  defp kept({:kept, key}) do
    with :error <- Keeper.fetch(key), do: Error.new(:stale, node: node())
  end

  defp kept({:list, list}), do: local(list, [])
  defp kept({name, {:kept, _} = value}), do: pair(name, value)
  defp kept({name, {:list, _} = value}), do: pair(name, value)
  defp kept(other), do: {:ok, other}

  defp pair(name, value), do: with({:ok, value} <- kept(value), do: {:ok, {name, value}})

  defp keep({:ok, value} = result, caller) do
    if buffers?(value),
      do: with({:ok, value} <- keep_all(value, caller), do: {:made, value}),
      else: result
  end

  defp keep(other, _caller), do: other

  # A buffer, or a list or tuple of several, as operations return them.
  defp buffers?(%{ref: ref, dtype: _, shape: _, device: _}), do: is_reference(ref)
  defp buffers?([first | _]), do: buffers?(first)

  defp buffers?(tuple) when is_tuple(tuple) and tuple_size(tuple) > 0,
    do: buffers?(elem(tuple, 0))

  defp buffers?(_other), do: false

  defp keep_all(list, caller) when is_list(list), do: Error.map(list, &keep_all(&1, caller))

  defp keep_all(tuple, caller) when is_tuple(tuple) do
    with {:ok, list} <- keep_all(Tuple.to_list(tuple), caller), do: {:ok, List.to_tuple(list)}
  end

  defp keep_all(buffer, caller) do
    with {:ok, key} <- Keeper.keep(buffer, caller),
         do: {:ok, {:kept, key, Map.take(buffer, [:dtype, :shape, :device])}}
  end
end
