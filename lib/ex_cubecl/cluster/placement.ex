defmodule ExCubecl.Cluster.Placement do
  @moduledoc false
  # Runs operations where their buffers are: on the node of buffers of another node, and once for each device of an `ExCubecl.Replicated`, which is known by
  # its fields here.

  use ExCubecl.Cluster.Callable

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Cluster.{Callable, Client, Location}
  alias ExCubecl.Error.Arguments

  @doc """
  The result of `fun`, an exported function of a callable module, with `args`. `here` runs it with arguments that are on one device of this node.
  """
  @spec run(function, list, (() -> term)) :: term
  def run(fun, args, here) do
    if placed?(args), do: place(fun, args), else: here.()
  end

  # Whether arguments, lists of them, or options are elsewhere. This is the only cost of calls on buffers of this node.
  defp placed?([first | rest]), do: placed?(first) or placed?(rest)
  defp placed?(%{buffers: [_ | _], shards: _}), do: true
  # A handle that was sent back to the node of its buffer is refused here.
  defp placed?(%{ref: _, device: _} = buffer), do: Location.node_of(buffer) not in [nil, node()]
  defp placed?({:device, device}), do: elem(Location.locate(device), 0) != nil
  defp placed?({key, value}) when is_atom(key), do: placed?(value)
  defp placed?(_other), do: false

  defp place(fun, args) do
    found = found(args, [])

    case Enum.split_with(found, &match?({:replicated, _}, &1)) do
      {[], [{_, place} | rest]} -> at_node(fun, args, place, rest)
      {[{_, first} | rest], others} -> on_each(fun, args, first, rest, others)
    end
  end

  # The replicated arguments, and the devices of all others.
  defp found([first | rest], done), do: found(rest, found(first, done))

  defp found(%{buffers: [_ | _], shards: _} = replicated, done),
    do: [{:replicated, replicated} | done]

  defp found(%{ref: _, device: device}, done), do: [{:device, device} | done]
  defp found(%{buffer: %{ref: _}, device: device}, done), do: [{:device, device} | done]
  defp found({:device, device}, done) when device != nil, do: [{:device, device} | done]
  defp found({key, value}, done) when is_atom(key), do: found(value, done)
  defp found(_other, done), do: done

  ## Other nodes

  defp at_node(fun, args, place, rest) do
    {node, _} = Location.locate(place)

    case Enum.find(rest, fn {_, other} -> elem(Location.locate(other), 0) != node end) do
      nil ->
        args = map(args, &without_node/1)
        Client.call(node, &__MODULE__.there/2, [fun, args]) |> buffers()

      {_, other} ->
        mixed(other, place)
    end
  end

  # The option `device:` names a device of the node on which the call runs.
  defp without_node({:device, device}), do: {:device, elem(Location.locate(device), 1)}
  defp without_node(other), do: other

  @doc "Runs `fun` on the node of its buffers."
  def there(fun, args) do
    if Callable.callable?(fun),
      do: apply(fun, map(args, &buffer/1)),
      else: Arguments.invalid(:function, fun, "a function that other nodes may call")
  end

  # What a node keeps for others, and what it returns to them, are maps with the fields of a buffer.
  defp buffer(%{ref: ref, dtype: dtype, shape: shape, device: device}) when is_reference(ref),
    do: %Buffer{ref: ref, dtype: dtype, shape: shape, device: device}

  defp buffer(other), do: other

  defp buffers({:ok, value}), do: {:ok, map(value, &buffer/1)}
  defp buffers(other), do: other

  @doc "Maps the terms in lists and tuples, the others by `fun`."
  def map(list, fun) when is_list(list) do
    if List.improper?(list), do: list, else: Enum.map(list, &map(&1, fun))
  end

  def map({:device, _} = option, fun), do: fun.(option)
  def map({first, second}, fun), do: {map(first, fun), map(second, fun)}
  def map(other, fun), do: fun.(other)

  ## Several devices

  defp on_each(fun, args, first, rest, others) do
    with {:ok, devices} <- devices(first),
         :ok <- same(rest, devices),
         :ok <- none(others, devices),
         {:ok, results} <- each(fun, args, length(devices)),
         do: together(results, first)
  end

  defp devices(%{buffers: buffers} = replicated) do
    case Buffer.check_all(buffers) do
      {:ok, buffers} -> {:ok, Enum.map(buffers, & &1.device)}
      {:error, _} -> Arguments.invalid(:replicated, replicated, "an %ExCubecl.Replicated{}")
    end
  end

  defp same([], _devices), do: :ok

  defp same([{_, replicated} | rest], devices) do
    with {:ok, others} <- devices(replicated) do
      case Enum.find(Enum.zip(others, devices), fn {other, device} -> other != device end) do
        nil when length(others) == length(devices) ->
          same(rest, devices)

        _ ->
          Error.new(:invalid_argument,
            argument: :replicated,
            reason: %{devices: others, replicated: devices}
          )
      end
    end
  end

  # A buffer beside replicated ones would be on one device only.
  defp none([], _devices), do: :ok

  defp none([{_, device} | rest], devices) do
    if Enum.all?(devices, &(&1 == device)),
      do: none(rest, devices),
      else:
        Error.new(:invalid_argument,
          argument: :buffer,
          reason: %{device: device, replicated: devices}
        )
  end

  defp each(fun, args, count) do
    Error.map(Enum.to_list(0..(count - 1)), fn index ->
      case apply(fun, map(args, &copy(&1, index))) do
        :ok -> {:ok, :ok}
        {:ok, value} -> {:ok, {:value, value}}
        error -> error
      end
    end)
  end

  defp copy(%{buffers: [_ | _] = buffers, shards: _}, index), do: Enum.at(buffers, index)
  defp copy(other, _index), do: other

  # The results of all devices, as of one: `:ok`, or replicated buffers where each device has a buffer.
  defp together([:ok | _], _like), do: :ok

  defp together([{:value, _} | _] = results, like),
    do: joined(for({:value, value} <- results, do: value), like)

  defp joined([%Buffer{} | _] = buffers, like) do
    with {:ok, buffers} <- rows(buffers, like.shards) do
      [%{shape: shape, dtype: dtype} | _] = buffers
      shape = if like.shards, do: [hd(shape) * length(buffers) | tl(shape)], else: shape
      {:ok, %{like | buffers: buffers, shape: shape, dtype: dtype}}
    end
  end

  defp joined([first | _] = results, like) when is_list(first),
    do: results |> Enum.zip_with(& &1) |> Error.map(&joined(&1, like))

  defp joined([first | _] = results, like) when is_tuple(first) do
    with {:ok, list} <- joined(Enum.map(results, &Tuple.to_list/1), like),
         do: {:ok, List.to_tuple(list)}
  end

  defp joined(results, _like), do: {:ok, results}

  # The shard of a scalar is a row of one element.
  defp rows(buffers, true), do: Error.map(buffers, &row/1)
  defp rows(buffers, false), do: {:ok, buffers}

  defp row(%{shape: []} = buffer), do: Buffer.reshape(buffer, [1])
  defp row(buffer), do: {:ok, buffer}

  defp mixed(other, place),
    do: Error.new(:invalid_argument, argument: :buffer, reason: %{device: other, on: place})
end
