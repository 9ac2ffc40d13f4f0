if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Dot do
    @moduledoc false
    # Products of tensors. Nx calculates integers together with floats as 64-bit floats: an integer that the type of the result does not have stays
    # on the host.

    alias ExCubecl.Nx.{Operand, Storage, Types}
    alias ExCubecl.Ops

    @floats [:f16, :bf16, :f32, :f64]

    def names, do: [:dot]

    def run(:dot, [out, a, a_axes, a_batch, b, b_axes, b_batch], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, from_a} <- Operand.dtype(a),
           {:ok, from_b} <- Operand.dtype(b) do
        if exact?(from_a, dtype) and exact?(from_b, dtype) do
          axes = [contract_axes: {a_axes, b_axes}, batch_axes: {a_batch, b_batch}]
          Ops.Dot.run(Storage.view(a, config), Storage.view(b, config), axes, dtype)
        else
          :host
        end
      end
    end

    defp exact?(from, dtype) when dtype in @floats,
      do: from in @floats or Types.exact?(from, dtype)

    defp exact?(_integer, _dtype), do: true
  end
end
