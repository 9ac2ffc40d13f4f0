# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Inspection do
    @moduledoc false
    # The text of a tensor: its device and the first elements, of which no more are read.

    alias ExCubecl.Error
    alias ExCubecl.Nx.Storage
    alias Nx.Tensor, as: T

    def inspect(%T{data: %{config: config}} = tensor, opts) do
      text = elements(tensor, opts)

      if Application.get_env(:ex_cubecl, :add_backend_on_inspect, true),
        do: Inspect.Algebra.concat([named(config), Inspect.Algebra.line(), text]),
        else: text
    end

    # A tensor without elements, such as a deallocated one, is still shown: with the reason.
    defp elements(tensor, opts) do
      limit = if opts.limit == :infinity, do: Nx.size(tensor), else: opts.limit + 1
      binary = Storage.to_binary(tensor, min(limit, Nx.size(tensor)))
      Nx.Backend.inspect(tensor, binary, opts)
    rescue
      error in Error -> "(#{Exception.message(error)})"
    end

    defp named(%{device: {runtime, index}}) when is_integer(index),
      do: "ExCubecl.Backend<#{runtime}:#{index}>"

    defp named(%{device: device}), do: "ExCubecl.Backend<#{Kernel.inspect(device)}>"
  end
end
