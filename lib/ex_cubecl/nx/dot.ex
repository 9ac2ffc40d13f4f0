if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Dot do
    @moduledoc false
    # Products of tensors. Nx calculates integers together with floats as 64-bit floats, which are needed here where the type of the result does not
    # have the integers.

    alias ExCubecl.{Buffer, Error, Ops, View}
    alias ExCubecl.Nx.{Operand, Storage, Types}
    alias ExCubecl.Ops.{ComputeType, Epilogue, Layout}
    alias Nx.Tensor, as: T

    @floats [:f16, :bf16, :f32, :f64]

    def names, do: [:dot]

    def run(:dot, [out, a, _, _, b, _, _] = args, config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, from_a} <- Operand.dtype(a),
           {:ok, from_b} <- Operand.dtype(b) do
        axes = axes(args)
        [a, b] = for tensor <- [a, b], do: Storage.view(tensor, config)

        cond do
          exact?(from_a, dtype) and exact?(from_b, dtype) -> Ops.Dot.run(a, b, axes, dtype)
          Operand.computes?(config.device, :f64) -> in_doubles(a, b, axes, dtype)
          true -> :host
        end
      end
    end

    defp axes([_out, _a, a_axes, a_batch, _b, b_axes, b_batch]),
      do: [contract_axes: {a_axes, b_axes}, batch_axes: {a_batch, b_batch}]

    @doc "Whether the product of tensors without elements, as they are in an expression, is one kernel that knows epilogues."
    @spec own_kernel?(Nx.Tensor.t(), [term], map) :: boolean
    def own_kernel?(out, [a, _, _, b, _, _] = args, config) do
      [dtype, from_a, from_b] = for tensor <- [out, a, b], do: Types.dtype(tensor.type)
      [a, b] = for tensor <- [a, b], do: contiguous(tensor, config)

      exact?(from_a, dtype) and exact?(from_b, dtype) and
        Ops.Dot.own_kernel?(a, b, axes([out | args]), dtype)
    end

    defp contiguous(%T{type: type, shape: shape}, config) do
      shape = Tuple.to_list(shape)

      %View{
        buffer: nil,
        offset: 0,
        shape: shape,
        strides: Layout.strides(shape),
        dtype: Types.dtype(type),
        device: config.device
      }
    end

    @doc "The product of views with the arguments of a callback, which has a kernel that knows epilogues."
    @spec run_epilogue([term], View.t(), View.t(), Epilogue.t()) ::
            {:ok, [Buffer.t()]} | {:error, Error.t()}
    def run_epilogue([out | _] = args, a, b, epilogue),
      do: Ops.Dot.run(a, b, axes(args), Types.dtype(out.type), epilogue)

    defp in_doubles(a, b, axes, dtype) do
      with {:ok, product} <- Ops.Dot.run(a, b, axes, :f64),
           do: ComputeType.converted(product, dtype)
    end

    defp exact?(from, dtype) when dtype in @floats,
      do: from in @floats or Types.exact?(from, dtype)

    defp exact?(_integer, _dtype), do: true
  end
end
