defmodule ExCubecl.Memory.Limits do
  @moduledoc false
  # Passes the memory limits of the configuration to the native side once, before a device is opened:
  #
  #     config :ex_cubecl, memory_limit: 2_000_000_000
  #     config :ex_cubecl, memory_limit: %{{:cuda, 0} => 8_000_000_000, "vulkan:0" => 1_000_000_000}

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Error.Arguments

  @key {__MODULE__, :applied}

  @doc "`ids` returns the ids of all devices, `parse` converts a device of the configuration to its id."
  @spec apply_once((() -> {:ok, list} | {:error, Error.t()}), (term -> {:ok, term} | term)) ::
          :ok | {:error, Error.t()}
  def apply_once(ids, parse) do
    if :persistent_term.get(@key, false),
      do: :ok,
      else: apply_all(Application.get_env(:ex_cubecl, :memory_limit), ids, parse)
  end

  defp apply_all(nil, _ids, _parse), do: done()

  defp apply_all(bytes, ids, parse) when is_integer(bytes) do
    with {:ok, ids} <- ids.(), do: apply_all(Map.new(ids, &{&1, bytes}), nil, parse)
  end

  defp apply_all(%{} = limits, _ids, parse) when not is_struct(limits),
    do: apply_all(Map.to_list(limits), nil, parse)

  defp apply_all(limits, _ids, parse) when is_list(limits) do
    with :ok <- each(limits, parse), do: done()
  end

  defp apply_all(other, _ids, _parse), do: invalid(other)

  defp each([], _parse), do: :ok

  defp each([{device, bytes} | rest], parse) when is_integer(bytes) and bytes >= 0 do
    with {:ok, id} <- parse.(device),
         {:ok, bytes} <- Arguments.index(:memory_limit, bytes),
         :ok <- Error.from_native(fn -> Native.memory_first_limit(id, bytes) end),
         do: each(rest, parse)
  end

  defp each([other | _], _parse), do: invalid(other)
  defp each(other, _parse), do: invalid(other)

  defp done, do: :persistent_term.put(@key, true)

  defp invalid(value) do
    expected = "bytes, or a map of devices to bytes, in `config :ex_cubecl, memory_limit: ...`"
    Arguments.invalid(:memory_limit, value, expected)
  end
end
