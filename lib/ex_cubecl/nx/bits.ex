if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Bits do
    @moduledoc false
    # Callbacks that interpret the bytes of a tensor as another type.

    alias ExCubecl.Buffer
    alias ExCubecl.Nx.{Storage, Types}

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: [:bitcast]

    def run(:bitcast, [out, tensor], config) do
      case {Types.dtype(tensor.type), Types.dtype(out.type)} do
        {from, to} when from != nil and to != nil ->
          tensor |> Storage.buffer(config) |> Buffer.bitcast(to)

        _ ->
          :host
      end
    end
  end
end
