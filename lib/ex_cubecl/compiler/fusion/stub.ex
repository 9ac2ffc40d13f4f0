if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Stub do
    @moduledoc false
    # The nodes and operands of a graph as kernels have them.

    alias ExCubecl.Backend
    alias ExCubecl.Nx.{Storage, Types}
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @doc "The number that a constant is, as the backend has it; `nil` for other operands."
    def number(%T{data: %Expr{op: :constant, args: [number]}} = stub, config) do
      {:ok, number} =
        %{stub | data: nil} |> Backend.constant(number, config: config) |> Storage.known_number()

      number
    end

    def number(_stub, _config), do: nil

    @doc "The type of the elements of a tensor in kernels, `nil` if there is none."
    def dtype(%T{type: {:tuple, _}}), do: nil

    def dtype(%T{type: type}), do: Types.dtype(type)

    def shape(%T{shape: shape}), do: Tuple.to_list(shape)
  end
end
