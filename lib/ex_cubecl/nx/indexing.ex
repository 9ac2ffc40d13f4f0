if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Indexing do
    @moduledoc false
    # Reads and writes at indices. Results as those of `ExCubecl.Nx.ElementWise`; an index out of bounds raises as in Nx.BinaryBackend.

    alias ExCubecl.Ops
    alias ExCubecl.Nx.{Operand, Storage, Types}
    alias Nx.Tensor, as: T

    def names, do: [:take, :take_along_axis, :gather, :indexed_put, :indexed_add]

    def run(:gather, [_out, tensor, indices, opts], config) do
      with {:ok, [buffer, indices]} <- buffers([tensor, indices], config) do
        buffer
        |> Ops.gather_nd(indices, axes: opts[:axes], check: true)
        |> inside(moved(tensor, opts[:axes]))
      end
    end

    # Nx.BinaryBackend puts updates that are smaller than the addressed slices in other places than their first elements.
    def run(name, [out, target, indices, updates, opts], config)
        when name in [:indexed_put, :indexed_add] do
      shape = moved(target, opts[:axes])
      {n, depth} = indices.shape

      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [target, indices, updates]} <- buffers([target, indices, updates], config),
           true <- updates.shape == [n | shape |> Tuple.to_list() |> Enum.drop(depth)],
           {:ok, common} <- Operand.common([target, updates], dtype, config.device),
           [target, updates] = Enum.map([target, updates], &Operand.cast(&1, common)),
           opts = [axes: opts[:axes], check: true],
           {:ok, result} <- inside(apply(Ops, name, [target, indices, updates, opts]), shape) do
        {:ok, Operand.cast(result, dtype)}
      else
        false -> :host
        other -> other
      end
    end

    def run(name, [_out, tensor, indices, axis], config) do
      axis = if is_integer(axis), do: axis, else: axis[:axis]

      with {:ok, [buffer, indices]} <- buffers([tensor, indices], config) do
        # The callbacks have the names of the operations.
        result = apply(Ops, name, [buffer, indices, [axis: axis, check: true]])
        inside(result, tensor.shape, axis)
      end
    end

    defp buffers(tensors, config) do
      if Enum.all?(tensors, &Types.dtype(&1.type)),
        do: {:ok, Enum.map(tensors, &Storage.buffer(&1, config))},
        else: :host
    end

    # The shape with the addressed axes first.
    defp moved(%T{shape: shape}, axes) do
      all = Enum.to_list(0..(tuple_size(shape) - 1)//1)
      (axes ++ (all -- axes)) |> Enum.map(&elem(shape, &1)) |> List.to_tuple()
    end

    defp inside(result, shape, axis \\ nil)

    defp inside({:error, %{reason: :out_of_bounds, details: details}}, shape, axis) do
      axis = axis || List.last(details.position)

      raise ArgumentError,
            "index #{details.index} is out of bounds for axis #{axis} in shape #{inspect(shape)}"
    end

    defp inside(result, _shape, _axis), do: result
  end
end
