if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Indexing do
    @moduledoc false
    # Reads and writes at indices. Results as those of `ExCubecl.Nx.ElementWise`, and `:raises` for an index out of bounds.

    alias ExCubecl.Ops
    alias ExCubecl.Nx.{Operand, Storage}

    @writes [:indexed_put, :indexed_add]

    def names, do: [:take, :take_along_axis, :gather] ++ @writes

    def run(:gather, [_out, tensor, indices, opts], config) do
      with {:ok, [x, indices]} <- Storage.views([tensor, indices], config),
           do: inside(Ops.gather_nd(x, indices, axes: opts[:axes], check: true))
    end

    def run(name, [out, target, indices, updates, opts], config) when name in @writes do
      opts = [axes: opts[:axes], check: true]

      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [target, indices, updates]} <- Storage.views([target, indices, updates], config),
           true <- whole?(target, updates, opts[:axes]),
           {:ok, common} <- Operand.common([target, updates], dtype, config.device),
           [target, updates] = Enum.map([target, updates], &Operand.cast(&1, common)),
           {:ok, result} <- inside(apply(Ops, name, [target, indices, updates, opts])) do
        {:ok, Operand.cast(result, dtype)}
      else
        false -> :host
        other -> other
      end
    end

    def run(name, [_out, tensor, indices, axis], config) do
      axis = if is_integer(axis), do: axis, else: axis[:axis]

      # The callbacks have the names of the operations.
      with {:ok, [x, indices]} <- Storage.views([tensor, indices], config),
           do: inside(apply(Ops, name, [x, indices, [axis: axis, check: true]]))
    end

    # Nx.BinaryBackend puts updates that are smaller than the addressed slices in other places than their first elements.
    defp whole?(%{shape: shape}, %{shape: [_ | updates]}, axes) do
      rest = Enum.to_list(0..(length(shape) - 1)//1) -- axes
      updates == Enum.map(rest, &Enum.at(shape, &1))
    end

    defp inside({:error, %{reason: :out_of_bounds}}), do: :raises
    defp inside(result), do: result
  end
end
