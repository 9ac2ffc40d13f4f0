if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Reduction do
    @moduledoc false
    # Reductions. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Error, View}
    alias ExCubecl.Nx.{Operand, Storage}
    alias ExCubecl.Ops
    alias ExCubecl.Ops.{ComputeType, Temporary}

    # The callbacks have the names of the operations.
    def names, do: [:sum, :product, :reduce_max, :reduce_min, :all, :any]

    def run(name, [out, tensor, opts], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, _} <- Operand.dtype(tensor),
           true <- reducible?(name, dtype, config),
           {:ok, view} <- tensor |> Storage.view(config) |> ComputeType.widened(),
           {:ok, buffer} <- reduced(name, view, Keyword.take(opts, [:axes])) do
        Temporary.converted(buffer, dtype, [view.buffer])
      else
        false -> :host
        other -> other
      end
    end

    @doc "The reduction of a view along `axes:`, in the type in which the device calculates it."
    @spec reduced(atom, View.t() | Buffer.t(), keyword) :: {:ok, Buffer.t()} | {:error, Error.t()}
    # On a device that does not calculate with bytes, truths are the least and the greatest of numbers in 32 bits.
    def reduced(name, view, opts) when name in [:all, :any] do
      if Operand.computes?(view.device, :u8) do
        along(name, view, opts)
      else
        with {:ok, truths} <- Ops.ElementWise.apply(:not_equal, [view, 0], dtype: :u32),
             do: along(if(name == :all, do: :reduce_min, else: :reduce_max), truths, opts)
      end
    end

    def reduced(name, view, opts), do: along(name, view, opts)

    defp along(name, view, opts),
      do: apply(Ops, name, [view, Enum.reject(opts, &match?({:axes, nil}, &1))])

    # Sums of integers are calculated in the widest integer type of the device.
    defp reducible?(name, dtype, config) do
      name not in [:sum, :product] or dtype not in [:s64, :u64] or
        Operand.computes?(config.device, dtype)
    end
  end
end
