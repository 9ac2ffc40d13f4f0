if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Limits do
    @moduledoc false
    # Whether a program fits into memory, before it starts.

    alias ExCubecl.{Error, Memory}

    # The usage of the device is read only for programs that need a part of it that matters: that costs as much as a launch.
    @least 1024 * 1024

    @doc "Raises `:out_of_memory` if the values of a program need more than a limit, or than the limit of its device leaves."
    def check(%{peak: peak}, limit, %{device: device}) do
      if limit && peak > limit, do: refuse(peak, limit, device, memory_limit: limit)
      if peak >= @least, do: check(peak, device)
      :ok
    end

    defp check(peak, device) do
      with {:ok, %{limit: of_device, live_bytes: live}} when is_integer(of_device) <-
             Memory.usage(device: device),
           free when free < peak <- max(of_device - live, 0),
           do: collected(peak, device)
    end

    # Garbage may hold memory.
    defp collected(peak, device) do
      :erlang.garbage_collect()

      with {:ok, %{limit: of_device, live_bytes: live}} <- Memory.usage(device: device),
           free when free < peak <- max(of_device - live, 0),
           do: refuse(peak, free, device)
    end

    defp refuse(peak, available, device, more \\ []) do
      details = [requested: peak, available: available, device: device] ++ more
      Error.unwrap!(Error.new(:out_of_memory, details))
    end
  end
end
