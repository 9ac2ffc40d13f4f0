if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Layout do
    @moduledoc false
    # Callbacks that create elements, move them, or change their type. Results as those of `ExCubecl.Nx.ElementWise`, or `{:share, view}` for a view of
    # the memory of an operand. A complex number is a pair along a last axis, which stays as it is.

    alias ExCubecl.{Buffer, Error, Ops, View}
    alias ExCubecl.Nx.{Movement, Operand, Storage, Types}
    alias ExCubecl.Ops.ComputeType
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    def names do
      [:reshape, :squeeze, :broadcast, :transpose, :slice, :reverse] ++
        [:concatenate, :stack, :pad, :put_slice, :as_type]
    end

    def run(:squeeze, [out, tensor, _axes], config), do: run(:reshape, [out, tensor], config)

    def run(:reshape, [out, tensor | _], config) do
      with {:ok, view} <- view(tensor, config) do
        case Strides.reshape(view, Storage.shape(out)) do
          {:ok, view} -> {:share, view}
          :copy -> Movement.contiguous(view)
        end
      end
    end

    def run(:broadcast, [out, tensor, shape, axes], config) do
      with {:ok, view} <- view(tensor, config) do
        lengths = Enum.zip(axes, view.shape)

        from = for axis <- axes(shape), do: lengths |> List.keyfind(axis, 0, {axis, 1}) |> elem(1)

        # Axes of length 1 can always be inserted.
        {:ok, view} = Strides.reshape(view, from ++ parts(tensor))
        {:share, Strides.broadcast(view, Storage.shape(out))}
      end
    end

    def run(:transpose, [_out, tensor, axes], config) do
      with {:ok, view} <- view(tensor, config),
           do: {:share, Strides.transpose(view, axes ++ part_axis(tensor))}
    end

    def run(:slice, [out, tensor, starts, lengths, strides], config) do
      with {:ok, view} <- view(tensor, config) do
        starts = clamped(starts, tensor.shape, lengths) ++ whole(tensor, 0)
        {:share, Strides.slice(view, starts, Storage.shape(out), strides ++ whole(tensor, 1))}
      end
    end

    def run(:reverse, [_out, tensor, axes], config) do
      with {:ok, view} <- view(tensor, config), do: {:share, Strides.reverse(view, axes)}
    end

    def run(name, [out, tensors, axis], config) when name in [:concatenate, :stack],
      do: moved(out, tensors, config, &apply(Ops, name, [&1, [axis: axis]]))

    def run(:pad, [%{type: {kind, _}} = out, tensor, value, padding], config) do
      value = number(value)

      # Both parts of a complex number are padded with the same number.
      if kind == :c and value != 0 do
        :host
      else
        padding = padding ++ whole(tensor, {0, 0, 0})

        moved(out, [tensor], config, fn [view] ->
          Ops.pad(view, Operand.cast(value, view.dtype), padding)
        end)
      end
    end

    def run(:put_slice, [out, tensor, starts, source], config) do
      starts = clamped(starts, tensor.shape, Tuple.to_list(source.shape)) ++ whole(tensor, 0)
      moved(out, [tensor, source], config, fn [x, y] -> Ops.put_slice(x, starts, y) end)
    end

    def run(:as_type, [out, tensor], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, _} <- Operand.dtype(tensor),
           {:ok, view} <- view(tensor, config),
           do: if(view.dtype == dtype, do: {:share, view}, else: Ops.as_type(view, dtype))
    end

    defp view(%T{type: type} = tensor, config),
      do: if(Types.storage(type), do: {:ok, Storage.view(tensor, config)}, else: :host)

    defp axes({}), do: []
    defp axes(shape), do: Enum.to_list(0..(tuple_size(shape) - 1))

    ## The axis of the parts of complex numbers

    defp parts(%T{type: type}), do: type |> Types.storage() |> elem(1)
    defp whole(tensor, value), do: Enum.map(parts(tensor), fn _ -> value end)
    defp part_axis(tensor), do: whole(tensor, tuple_size(tensor.shape))

    ## Operands

    # Starts that are tensors are read.
    defp clamped(starts, shape, lengths) do
      for {start, size, length} <- Enum.zip([starts, Tuple.to_list(shape), lengths]),
          do: start |> number() |> max(0) |> min(size - length)
    end

    defp number(%T{} = tensor), do: Nx.to_number(tensor)
    defp number(number), do: number

    # The operands in the type of the result, or one that has its values where kernels do not have that type.
    defp moved(out, tensors, config, fun) do
      with {dtype, _} <- Types.storage(out.type),
           {:ok, views} <- in_type(tensors, dtype, config),
           {:ok, buffer} <- fun.(views) do
        ComputeType.converted(buffer, dtype)
      else
        nil -> :host
        other -> other
      end
    end

    # Complex and real numbers, and 8-bit floats and numbers of other types, are stored in different ways.
    defp in_type([%T{type: type} | _] = tensors, dtype, config) do
      alike? = Enum.all?(tensors, &(&1.type == type))

      if alike? or Enum.all?(tensors, &Types.dtype(&1.type)) do
        Error.map(tensors, fn tensor ->
          with {:ok, view} <- Movement.cast(Storage.view(tensor, config), dtype),
               do: ComputeType.widened(view)
        end)
      else
        :host
      end
    end

    ## Creation

    @doc "0, 1, 2, ... in row-major order, or along an axis."
    def iota(%T{shape: shape} = out, axis, config) do
      with {:ok, dtype} <- Operand.dtype(out) do
        options = Storage.buffer_options(config)
        lengths = Tuple.to_list(shape)

        if axis == nil do
          Buffer.iota(lengths, dtype, options)
        else
          ones = List.duplicate(1, length(lengths))

          with {:ok, line} <- Buffer.iota([Enum.at(lengths, axis)], dtype, options) do
            along = List.replace_at(ones, axis, Enum.at(lengths, axis))
            {:ok, view} = Strides.reshape(View.new(line), along)
            {:ok, Strides.broadcast(view, lengths)}
          end
        end
      end
    end

    @doc "Identity matrices."
    def eye(%T{shape: shape} = out, config) do
      lengths = Tuple.to_list(shape)

      with {:ok, dtype} <- Operand.dtype(out),
           type = Operand.compute_type(dtype, config.device),
           {:ok, matrix} <- Ops.eye(Enum.take(lengths, -2), type, device: config.device),
           {:ok, view} <- Movement.cast(View.new(matrix), dtype),
           do: {:ok, Strides.broadcast(view, lengths)}
    end
  end
end
