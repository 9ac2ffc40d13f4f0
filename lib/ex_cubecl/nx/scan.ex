if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Scan do
    @moduledoc false
    # Cumulative operations. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.Nx.{Operand, Storage}
    alias ExCubecl.Ops
    alias ExCubecl.Ops.{ComputeType, Temporary}

    # The callbacks have the names of the operations.
    def names, do: [:cumulative_sum, :cumulative_product, :cumulative_min, :cumulative_max]

    def run(name, [out, tensor, opts], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, view} <- Operand.dtype(tensor) |> view(tensor, config),
           {:ok, buffer} <- apply(Ops, name, [view, Keyword.take(opts, [:axis, :reverse])]),
           do: Temporary.converted(buffer, dtype, [view.buffer])
    end

    defp view({:ok, _dtype}, tensor, config),
      do: tensor |> Storage.view(config) |> ComputeType.widened()

    defp view(:host, _tensor, _config), do: :host
  end
end
