defmodule ExCubecl.Device.Limits do
  @moduledoc false
  # Passes the memory limits of the configuration to the native side once, before a device is opened:
  #
  #     config :ex_cubecl, memory_limit: 2_000_000_000
  #     config :ex_cubecl, memory_limit: %{{:cuda, 0} => 8_000_000_000, "vulkan:0" => 1_000_000_000}

  alias ExCubecl.{Error, Native}
  alias ExCubecl.Device.Id
  alias ExCubecl.Error.Arguments

  @key {__MODULE__, :applied}

  @spec apply_once() :: :ok | {:error, Error.t()}
  def apply_once do
    if :persistent_term.get(@key, false),
      do: :ok,
      else: apply_all(Application.get_env(:ex_cubecl, :memory_limit))
  end

  defp apply_all(nil), do: done()

  defp apply_all(bytes) when is_integer(bytes) do
    with {:ok, ids} <- Id.known(), do: apply_all(Map.new(ids, &{&1, bytes}))
  end

  defp apply_all(%{} = limits) when not is_struct(limits), do: apply_all(Map.to_list(limits))

  defp apply_all(limits) when is_list(limits) do
    with :ok <- each(limits), do: done()
  end

  defp apply_all(other), do: invalid(other)

  defp each([]), do: :ok

  defp each([{device, bytes} | rest]) when is_integer(bytes) and bytes >= 0 do
    with {:ok, id} <- Id.parse(device),
         {:ok, bytes} <- Arguments.index(:memory_limit, bytes),
         :ok <- Error.from_native(fn -> Native.memory_set_initial_limit(id, bytes) end),
         do: each(rest)
  end

  defp each([other | _]), do: invalid(other)
  defp each(other), do: invalid(other)

  defp done, do: :persistent_term.put(@key, true)

  defp invalid(value) do
    expected = "bytes, or a map of devices to bytes, in `config :ex_cubecl, memory_limit: ...`"
    Arguments.invalid(:memory_limit, value, expected)
  end
end
