if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Operation do
    @moduledoc false
    # Products, convolutions and windows whose kernels know epilogues (`ExCubecl.Ops.Epilogue`): which nodes are some, and how they run.

    alias ExCubecl.{Buffer, Error, Ops, View}
    alias ExCubecl.Nx.{Dot, Types}
    alias ExCubecl.Ops.{Epilogue, Layout}
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @windows [:window_sum, :window_product, :window_max, :window_min]
    @floats [:f16, :bf16, :f32, :f64]

    @doc "The names of these operations."
    def names, do: [:dot, :conv | @windows]

    @doc """
    Whether the kernel of a node, whose types the device computes, is one that knows epilogues: the choice depends on shapes, and on strides, which are expected to be
    those of contiguous elements.
    """
    @spec own_kernel?(Nx.Tensor.t(), map) :: boolean
    def own_kernel?(%T{data: %Expr{op: :dot, args: args}} = out, config) do
      [a, _, _, b, _, _] = args
      [dtype, from_a, from_b] = for %T{type: type} <- [out, a, b], do: Types.dtype(type)

      Dot.exact?(from_a, dtype) and Dot.exact?(from_b, dtype) and
        Ops.Dot.own_kernel?(contiguous(a, config), contiguous(b, config), Dot.axes(args), dtype)
    end

    # Of other types, the operation has a result of another type first.
    def own_kernel?(%T{type: type, data: %Expr{op: :conv, args: [x, k, opts]}}, config) do
      x.type == type and k.type == type and Types.dtype(type) in @floats and
        Ops.Convolution.own_kernel?(contiguous(x, config), contiguous(k, config), opts)
    end

    def own_kernel?(%T{type: type, data: %Expr{args: [x | _]}}, _config), do: x.type == type

    defp contiguous(%T{type: type, shape: shape}, config),
      do: Layout.view(Tuple.to_list(shape), Types.dtype(type), config.device)

    @doc "The results of the epilogue of a node with these views as operands."
    @spec run(Nx.Tensor.t(), [View.t()], Epilogue.t()) ::
            {:ok, [Buffer.t()]} | {:error, Error.t()}
    def run(%T{type: type, data: %Expr{op: :dot, args: args}}, [a, b], epilogue),
      do: Ops.Dot.run(a, b, Dot.axes(args), Types.dtype(type), epilogue)

    def run(%T{data: %Expr{op: :conv, args: [_, _, opts]}}, [x, k], epilogue),
      do: Ops.Convolution.run(x, k, opts, epilogue)

    def run(%T{data: %Expr{op: op, args: [_, window, opts]}}, [x], epilogue) when op in @windows,
      do: Ops.Windows.run(op, x, window, opts, epilogue)
  end
end
