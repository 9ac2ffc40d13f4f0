if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Reduction do
    @moduledoc false
    # Reductions. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.Nx.{Operand, Storage}
    alias ExCubecl.Ops
    alias ExCubecl.Ops.ComputeType

    # The callbacks have the names of the operations.
    def names, do: [:sum, :product, :reduce_max, :reduce_min, :all, :any]

    def run(name, [out, tensor, opts], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, _} <- Operand.dtype(tensor),
           true <- reducible?(name, dtype, config),
           {:ok, view} <- tensor |> Storage.view(config) |> ComputeType.widened(),
           {:ok, buffer} <-
             apply(Ops, name, [view, if(opts[:axes], do: [axes: opts[:axes]], else: [])]) do
        ComputeType.converted(buffer, dtype)
      else
        false -> :host
        other -> other
      end
    end

    # Sums of integers are calculated in the widest integer type of the device.
    defp reducible?(name, dtype, config) do
      name not in [:sum, :product] or dtype not in [:s64, :u64] or
        Operand.computes?(config.device, dtype)
    end
  end
end
