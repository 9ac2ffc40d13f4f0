if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Windows do
    @moduledoc false
    # Convolutions, windows, and functions of the caller. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Ops}
    alias ExCubecl.Nx.{Operand, Storage, Tracing, Types}
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
      with {:ok, dtype, number} <- folded(out, tensor, initial, config),
           {:ok, kernel} <- Tracing.kernel(fun, tensor.type, out.type, config) do
        view = Storage.view(tensor, config)
        axes = opts[:axes] || Nx.axes(tensor)
        axes = Enum.sort(axes)

        with {:ok, result} <- Ops.Windows.reduce_axes(view, number, kernel, {axes, false}, dtype),
             do: Buffer.reshape(result, out.shape)
      end
    end

    def run(:window_reduce, [out, tensor, initial, window, opts, fun], config) do
      with true <- out.type == tensor.type,
           {:ok, _dtype, number} <- folded(out, tensor, initial, config),
           {:ok, kernel} <- Tracing.kernel(fun, tensor.type, out.type, config) do
        Ops.window_reduce(Storage.view(tensor, config), number, window, kernel, opts)
      else
        false -> :host
        other -> other
      end
    end

    # The type of a fold, which must have the values of all elements, and the initial number.
    defp folded(out, tensor, initial, config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, from} <- Operand.dtype(tensor),
           true <- Types.exact?(from, dtype) and Operand.computes?(config.device, dtype),
           {:ok, number} <- initial(initial, dtype, config) do
        {:ok, dtype, number}
      else
        _ -> :host
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
