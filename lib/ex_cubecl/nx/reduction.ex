if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Reduction do
    @moduledoc false
    # Reductions and matrix products. Results as those of `ExCubecl.Nx.ElementWise`.

    alias ExCubecl.{Buffer, Ops, Shape}
    alias ExCubecl.Nx.{ElementWise, Operand, Storage, Types}
    alias Nx.Tensor, as: T

    @reductions [:sum, :product, :reduce_max, :reduce_min, :all, :any]

    def names, do: @reductions ++ [:argmax, :argmin, :dot]

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

    # Nx takes infinities for numbers between others, and the devices NaN for the least one.
    def run(name, [out, tensor, opts], config) when name in [:argmax, :argmin] do
      with {:ok, dtype} when dtype not in [:f16, :bf16, :f32, :f64] <- dtype(tensor),
           {:ok, result} <- place(name, Storage.buffer(tensor, config), opts) do
        finished(result, out)
      else
        {:error, error} -> {:error, error}
        _ -> :host
      end
    end

    def run(:dot, [out, a, a_axes, a_batch, b, b_axes, b_batch], config) do
      with {:ok, dtype} <- dtype(out),
           {:ok, from_a} <- dtype(a),
           {:ok, from_b} <- dtype(b),
           true <- multiplies?(from_a, dtype) and multiplies?(from_b, dtype),
           {:ok, a} <- matrices(Storage.buffer(a, config), dtype, a_batch, a_axes, :rows),
           {:ok, b} <- matrices(Storage.buffer(b, config), dtype, b_batch, b_axes, :columns),
           {:ok, result} <- products(a, b) do
        Buffer.reshape(result, out.shape)
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

    defp place(name, buffer, opts) do
      axis = if opts[:axis], do: [axis: opts[:axis]], else: []
      apply(Ops, name, [buffer, [tie_break: opts[:tie_break]] ++ axis])
    end

    defp finished(result, out) do
      with {:ok, result} <- converted(result, Types.dtype(out.type)),
           do: Buffer.reshape(result, out.shape)
    end

    defp converted(%{dtype: dtype} = buffer, dtype), do: {:ok, buffer}
    defp converted(buffer, dtype), do: Buffer.convert(buffer, dtype)

    ## Products

    defp multiplies?(from, dtype) when dtype in [:f16, :f32, :f64],
      do: from in [:f16, :f32, :f64] or Types.exact?(from, dtype)

    defp multiplies?(_from, :bf16), do: false
    defp multiplies?(_from, _dtype), do: true

    # As [batch, rows, contracted] or [batch, contracted, columns].
    defp matrices(buffer, dtype, batch, contracted, side) do
      all = Enum.to_list(0..(length(buffer.shape) - 1)//1)
      free = (all -- batch) -- contracted
      lengths = fn axes -> axes |> Enum.map(&Enum.at(buffer.shape, &1)) |> Shape.size() end

      {axes, shape} =
        case side do
          :rows -> {batch ++ free ++ contracted, [batch, free, contracted]}
          :columns -> {batch ++ contracted ++ free, [batch, contracted, free]}
        end

      with {:ok, buffer} <- converted(buffer, dtype),
           {:ok, buffer} <-
             if(axes == all, do: {:ok, buffer}, else: Ops.transpose(buffer, axes: axes)),
           do: Buffer.reshape(buffer, Enum.map(shape, lengths))
    end

    defp products(%{shape: [1 | a_rest]} = a, %{shape: [1 | b_rest]} = b),
      do: Ops.matmul(Buffer.reshape!(a, a_rest), Buffer.reshape!(b, b_rest))

    defp products(%{shape: [batch | a_rest]} = a, %{shape: [batch | b_rest]} = b) do
      results =
        for index <- 0..(batch - 1) do
          part = fn buffer, rest -> Buffer.view!(buffer, index * Shape.size(rest), rest) end
          Ops.matmul!(part.(a, a_rest), part.(b, b_rest))
        end

      Ops.concatenate(results)
    end
  end
end
