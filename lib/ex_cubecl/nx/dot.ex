if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Dot do
    @moduledoc false
    # Products of tensors. Nx calculates integers together with floats as 64-bit floats, which are needed here where the type of the result does not
    # have the integers.

    alias ExCubecl.{DType, Ops}
    alias ExCubecl.Nx.{Operand, Storage, Types}
    alias ExCubecl.Ops.ComputeType

    @floats [:f16, :bf16, :f32, :f64]

    def names, do: [:dot]

    def run(:dot, [out | [a, _, _, b, _, _] = args], config) do
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

    @doc "The axes of the arguments of a callback, as options of `ExCubecl.Ops.Dot.run/5`."
    @spec axes([term]) :: keyword
    def axes([_a, a_axes, a_batch, _b, b_axes, b_batch]),
      do: [contract_axes: {a_axes, b_axes}, batch_axes: {a_batch, b_batch}]

    defp in_doubles(a, b, axes, dtype) do
      with {:ok, product} <- Ops.Dot.run(a, b, axes, :f64),
           do: ComputeType.converted(product, dtype)
    end

    @doc "Whether a product of the type is calculated in it, where an operand has another one."
    @spec exact?(DType.t(), DType.t()) :: boolean
    def exact?(from, dtype) when dtype in @floats,
      do: from in @floats or Types.exact?(from, dtype)

    def exact?(_integer, _dtype), do: true
  end
end
