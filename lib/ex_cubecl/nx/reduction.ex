if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Reduction do
    @moduledoc false
    # Reductions. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Ops}
    alias ExCubecl.Nx.{ElementWise, Operand, Storage, Types}
    alias Nx.Tensor, as: T

    @reductions [:sum, :product, :reduce_max, :reduce_min, :all, :any]

    def names, do: @reductions

    def run(name, [out, tensor, opts], config) when name in @reductions do
      with {:ok, dtype} <- dtype(tensor),
           true <- reducible?(name, dtype, out.type, config),
           {:ok, buffer} <- start(name, Storage.buffer(tensor, config)),
           {:ok, result} <- along(name, buffer, opts[:axes]) do
        finished(result, out)
      else
        false -> :host
        other -> other
      end
    end

    defp dtype(%T{} = tensor), do: Operand.dtype(tensor)

    ## Reductions

    defp reducible?(name, dtype, out, config) do
      wide? = Types.dtype(out) in [:s64, :u64]
      sums? = name in [:sum, :product]
      not sums? or (dtype != :bf16 and (not wide? or Operand.computes?(config.device, :s64)))
    end

    defp start(name, buffer) when name in [:all, :any], do: ElementWise.truths(buffer)
    defp start(_name, buffer), do: {:ok, buffer}

    defp along(name, buffer, nil), do: reduce(name, buffer, [])
    defp along(name, buffer, axes), do: reduce(name, buffer, axes: axes)

    defp reduce(:all, buffer, opts), do: Ops.reduce_min(buffer, opts)
    defp reduce(:any, buffer, opts), do: Ops.reduce_max(buffer, opts)
    defp reduce(name, buffer, opts), do: apply(Ops, name, [buffer, opts])

    defp finished(result, out) do
      with {:ok, result} <- converted(result, Types.dtype(out.type)),
           do: Buffer.reshape(result, out.shape)
    end

    defp converted(%{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
    defp converted(buffer, dtype), do: Buffer.convert(buffer, dtype)
  end
end
