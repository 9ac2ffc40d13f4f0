if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Indexing do
    @moduledoc false
    # Reads and writes at indices. Results as those of `ExCubecl.Nx.ElementWise`, and `:raises` for an index out of bounds.

    alias ExCubecl.{Ops, View}
    alias ExCubecl.Nx.{Movement, Operand, Storage}
    alias ExCubecl.View.Strides

    @writes [:indexed_put, :indexed_add]

    # More indices than these are compared with the bounds on the device, also those of a tensor of another backend.
    @most_on_host 1_024

    def names, do: [:take, :take_along_axis, :gather] ++ @writes

    def run(:gather, [_out, tensor, indices, opts], config) do
      with {:ok, check} <- check(tensor, indices, opts[:axes]),
           {:ok, [x, indices]} <- Storage.views([tensor, indices], config),
           do: inside(Ops.gather_nd(x, indices, axes: opts[:axes], check: check))
    end

    def run(name, [out, target, indices, updates, opts], config) when name in @writes do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, check} <- check(target, indices, opts[:axes]),
           {:ok, [target, indices, updates]} <- Storage.views([target, indices, updates], config),
           {:ok, common} <- Operand.common([target, updates], dtype, config.device),
           [target, updates] = Enum.map([target, updates], &Operand.cast(&1, common)),
           {:ok, result} <-
             inside(written(name, target, indices, updates, axes: opts[:axes], check: check)),
           do: {:ok, Operand.cast(result, dtype)}
    end

    def run(name, [_out, tensor, indices, axis], config) do
      axis = if is_integer(axis), do: axis, else: axis[:axis]

      # The callbacks have the names of the operations.
      with {:ok, check} <- check(tensor, indices, [axis]),
           {:ok, [x, indices]} <- Storage.views([tensor, indices], config),
           do: inside(apply(Ops, name, [x, indices, [axis: axis, check: check]]))
    end

    # Whether the device has to look for indices that are out of bounds, for which the call waits. Those in host memory are compared here.
    defp check(tensor, indices, axes) do
      lengths = for axis <- axes, do: elem(tensor.shape, axis)

      case Storage.on_host?(indices) and indices_on_host(indices, lengths) do
        false -> {:ok, true}
        pairs -> if Enum.all?(pairs, &inside?/1), do: {:ok, false}, else: :raises
      end
    end

    # Indices with the lengths of their axes.
    defp indices_on_host(indices, lengths) do
      case Storage.known_number(indices) do
        {:ok, index} ->
          for length <- lengths, do: {index, length}

        :error ->
          Nx.size(indices.shape) <= @most_on_host and
            indices |> Storage.to_host() |> Nx.to_flat_list() |> Enum.zip(Stream.cycle(lengths))
      end
    end

    defp inside?({index, length}), do: index >= 0 and index < length

    defp written(name, target, indices, updates, opts) do
      axes = opts[:axes]
      rest = Enum.to_list(0..(length(target.shape) - 1)//1) -- axes

      if tl(updates.shape) == Enum.map(rest, &Enum.at(target.shape, &1)),
        do: apply(Ops, name, [target, indices, updates, opts]),
        else: in_rows(name, target, indices, updates, {axes, rest}, opts)
    end

    # Updates that are smaller than the addressed slices: as in Nx.BinaryBackend, their elements are those of the first elements of a slice in row-major order.
    defp in_rows(name, target, indices, updates, {axes, rest}, opts) do
      [order, count] = [axes ++ rest, length(axes)]
      view = Strides.transpose(target, order)
      {lengths, rest} = Enum.split(view.shape, count)
      [updates_count | update] = updates.shape
      [size, width] = Enum.map([rest, update], &Enum.product/1)
      [zeros, ones] = for n <- [0, 1], do: List.duplicate(n, count + 1)
      axes = Enum.to_list(0..(count - 1)//1)
      back = for axis <- 0..(length(order) - 1)//1, do: Enum.find_index(order, &(&1 == axis))

      with {:ok, rows} <- reshaped(view, lengths ++ [size]),
           {:ok, updates} <- reshaped(updates, [updates_count, width]),
           first = Strides.slice(rows, zeros, lengths ++ [width], ones),
           options = [axes: axes, check: opts[:check]],
           {:ok, first} <- apply(Ops, name, [first, indices, updates, options]),
           {:ok, result} <- Ops.put_slice(rows, zeros, first),
           {:ok, result} <- reshaped(View.new(result), view.shape),
           do: {:ok, Strides.transpose(result, back)}
    end

    defp reshaped(view, shape) do
      with {:ok, buffer} <- Movement.contiguous(view),
           do: Strides.reshape(View.new(buffer), shape)
    end

    defp inside({:error, %{reason: :out_of_bounds}}), do: :raises
    defp inside(result), do: result
  end
end
