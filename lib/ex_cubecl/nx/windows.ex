if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Windows do
    @moduledoc false
    # Convolutions, windows, and functions of the caller. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Ops}
    alias ExCubecl.Nx.{Float8, Folding, Operand, Storage, Tracing, Types}
    alias ExCubecl.Ops.{ComputeType, Lowering}
    alias Nx.Tensor, as: T

    @floats [:f16, :f32, :f64]
    @aggregates [:window_sum, :window_product, :window_max, :window_min]
    @scatters [:window_scatter_max, :window_scatter_min]

    @doc "The names of the callbacks that `run/3` knows."
    def names, do: [:conv, :map, :reduce, :window_reduce] ++ @aggregates ++ @scatters

    def run(:conv, [out, input, kernel, opts], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [input, kernel]} <- Storage.views([input, kernel], config),
           {:ok, result} <- Ops.conv(input, kernel, opts),
           do: ComputeType.converted(result, dtype)
    end

    def run(name, [out, tensor, window, opts], config) when name in @aggregates do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [view]} <- Storage.views([tensor], config),
           {:ok, result} <- apply(Ops, name, [view, window, opts]),
           do: ComputeType.converted(result, dtype)
    end

    def run(name, [out, tensor, source, initial, window, opts], config) when name in @scatters do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, [view, source, initial]} <- Storage.views([tensor, source, initial], config),
           {:ok, result} <- apply(Ops, name, [view, source, initial, window, opts]),
           do: ComputeType.converted(result, dtype)
    end

    # A callback of Nx 0.7.
    def run(:map, [out, tensor, _opts, fun], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           true <- Operand.computes?(config.device, dtype),
           {:ok, kernel} <- Tracing.map_kernel(fun, tensor.type, out.type, config),
           {:ok, [view]} <- Storage.views([tensor], config) do
        Lowering.map(kernel, [view])
      else
        false -> :host
        other -> other
      end
    end

    def run(:reduce, [out, tensor, initial, opts, fun], config) do
      with {:ok, dtype, view, number} <- folded(:reduce, {out, tensor, initial, fun}, config),
           {:ok, kernel} <- Tracing.kernel(fun, tensor.type, out.type, config) do
        axes = Enum.sort(opts[:axes] || Nx.axes(tensor))

        with {:ok, number} <- Ops.Initial.checked(:reduce, number),
             {:ok, result} <- Ops.Windows.reduce_axes(view, number, kernel, {axes, false}, dtype),
             do: Buffer.reshape(result, out.shape)
      end
    end

    def run(:window_reduce, [out, tensor, initial, window, opts, fun], config) do
      operands = {out, tensor, initial, fun}

      with true <- out.type == tensor.type,
           {:ok, _dtype, view, number} <- folded(:window_reduce, operands, config),
           {:ok, kernel} <- Tracing.kernel(fun, tensor.type, out.type, config) do
        Ops.window_reduce(view, number, window, kernel, opts)
      else
        false -> :host
        other -> other
      end
    end

    # The type of a fold, its elements and the initial number.
    defp folded(name, {out, tensor, initial, fun}, config) do
      cond do
        not Enum.any?([out, tensor], &Float8.type?(&1.type)) ->
          numbers(out, tensor, initial, config)

        out.type == tensor.type and Folding.exact?(initial, out.type) and
            Folding.typed?(name, fun) ->
          {:ok, :u8, bytes(tensor, config), first_byte(initial, out.type, config)}

        true ->
          :host
      end
    end

    # The type must have the values of all elements, and the initial number.
    defp numbers(out, tensor, initial, config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, from} <- Operand.dtype(tensor),
           true <- Types.exact?(from, dtype) and Operand.computes?(config.device, dtype),
           {:ok, number} <- initial(initial, dtype, config) do
        {:ok, dtype, Storage.view(tensor, config), number}
      else
        _ -> :host
      end
    end

    defp bytes(tensor, config), do: Storage.view(%{tensor | type: {:u, 8}}, config)

    defp first_byte(initial, type, config) do
      case Storage.known_number(initial) do
        {:ok, _number} -> Float8.byte_of(initial, type)
        :error -> bytes(initial, config)
      end
    end

    defp initial(%T{type: type} = initial, dtype, config) do
      case Storage.known_number(initial) do
        {:ok, number} ->
          if fits?(number, dtype), do: {:ok, number}, else: :host

        :error ->
          if Types.dtype(type) && Types.exact?(Types.dtype(type), dtype),
            do: {:ok, Storage.view(initial, config)},
            else: :host
      end
    end

    defp fits?(number, dtype) when is_integer(number) and dtype in @floats,
      do: Operand.integer_fits?(number, dtype)

    defp fits?(number, dtype) when is_integer(number), do: Operand.cast(number, dtype) == number
    defp fits?(_number, dtype), do: dtype in @floats
  end
end
