if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Work do
    @moduledoc false
    # The work memory of a step: the most bytes that it has besides its operands and results. Each operation of `ExCubecl.Ops` tells its own. Operands are taken to be
    # in row-major order, unless they are views. Small tensors count although the host may have them.

    alias ExCubecl.Compiler.Fusion.{Group, Node}
    alias ExCubecl.Compiler.Graph
    alias ExCubecl.Nx.{Blocks, Types}
    alias ExCubecl.{DType, Shape}

    alias ExCubecl.Ops.{
      ComputeType,
      Contraction,
      Convolution,
      Dot,
      Fourier,
      Layout,
      Reductions,
      Scan,
      Sorting
    }

    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @scans [:cumulative_sum, :cumulative_product, :cumulative_min, :cumulative_max]
    @reductions [:sum, :product, :reduce_min, :reduce_max, :all, :any]
    @places [:argmin, :argmax]
    @moved [:transpose, :reverse, :slice, :broadcast]

    @doc "The work memory of a call of a program on a device."
    @spec bytes(tuple, %{non_neg_integer => T.t()}, ExCubecl.Device.id()) :: non_neg_integer
    def bytes({:fused, %Group{kind: {:operation, _id}, root: root}}, _nodes, device),
      do: work(root.data.op, root.data.args, root, device)

    def bytes({:fused, %Group{kind: {:reduce, _id}, root: root} = group}, _nodes, device) do
      %T{data: %Expr{op: op, args: [operand | _]}} = root
      count = Shape.size(Node.shape(root))
      n = div(Shape.size(group.shape), max(count, 1))
      Reductions.work(op, n, count, Node.dtype(operand), device)
    end

    # Complex numbers. The transform is copied without the numbers that are almost 0.
    def bytes({:eager, id, operation, _args, _unused}, nodes, _device)
        when operation in [:fft, :ifft] do
      %T{data: %Expr{args: [tensor, opts]}} = node = nodes[id]
      {dtype, [2]} = Types.storage(node.type)
      count = div(Tuple.product(node.shape), opts[:length])
      copied? = not row_major?(tensor) or not match?({^dtype, _}, Types.storage(tensor.type))
      copies = if copied?, do: 2 * complex(tensor), else: 0
      Fourier.work(opts[:length], count, dtype) + complex(node) + copies
    end

    def bytes({:eager, id, operation, _args, _unused}, nodes, device) do
      %T{data: %Expr{args: args}} = node = nodes[id]

      if Enum.all?(Graph.operands(node), &stored?/1),
        do: work(operation, args, node, device),
        else: 0
    end

    def bytes(_call, _nodes, _device), do: 0

    # Tensors of other types are on the host, and those without elements need nothing.
    defp stored?(%T{type: {:tuple, _}}), do: false

    defp stored?(%T{type: type, shape: shape}),
      do: Types.dtype(type) != nil and Tuple.product(shape) > 0

    defp work(op, [tensor, opts], node, device) when op in [:sort, :argsort] do
      {shape, dtype} = given(tensor)
      axis = axis(opts, shape)
      # The places are converted.
      converted = if op == :argsort, do: converted(node, :s32), else: 0

      converted +
        Sorting.work(op, {shape, dtype}, {axis, Enum.at(shape, axis)}, row_major?(tensor), device)
    end

    defp work(:top_k, [_outs, tensor, opts], _node, device) do
      {shape, _dtype} = given = given(tensor)
      Sorting.work(:top_k, given, {length(shape) - 1, opts[:k]}, row_major?(tensor), device)
    end

    defp work(op, [tensor, opts], node, device) when op in @scans do
      {shape, dtype} = given = given(tensor)
      type = compute_type(dtype, device)
      reverse? = opts[:reverse] || false

      converted(node, dtype) + widened(given, type) +
        Scan.work(given, axis(opts, shape), reverse?, row_major?(tensor))
    end

    defp work(op, [tensor, opts], node, device) when op in @reductions or op in @places do
      {shape, dtype} = given = given(tensor)
      axes = opts[:axes] || List.wrap(opts[:axis])
      axes = if axes == [], do: Enum.to_list(0..(length(shape) - 1)//1), else: axes
      n = axes |> Enum.map(&Enum.at(shape, &1)) |> Shape.size()
      count = div(Shape.size(shape), n)
      type = compute_type(dtype, device)
      # The result in the type of the accumulator.
      result = if op in @places, do: 4 * count, else: converted(node, dtype) |> min(8 * count)
      widened(given, type) + result + Reductions.work(op, n, count, type, device)
    end

    defp work(:dot, [a, a_axes, a_batch, b, b_axes, b_batch], node, device) do
      [left, right] = for tensor <- [a, b], do: layout(tensor, device)
      opts = [contract_axes: {a_axes, b_axes}, batch_axes: {a_batch, b_batch}]
      {:ok, contraction} = Contraction.dot(left, right, opts)
      Dot.work(contraction, Types.dtype(node.type))
    end

    defp work(:conv, [input, kernel, opts], _node, device) do
      [input, kernel] = for tensor <- [input, kernel], do: layout(tensor, device)
      Convolution.work(input, kernel, opts)
    end

    defp work(:block, [struct | args], node, device) do
      [tensor | _] = tensors = List.last(args)

      case Blocks.callback(struct, tensors) do
        {:top_k, opts} -> work(:top_k, [nil, tensor | opts], node, device)
        {name, opts} -> work(name, tensors ++ opts, node, device)
        :default -> 0
      end
    end

    defp work(_operation, _args, _node, _device), do: 0

    defp complex(%T{shape: shape, type: {_, bits}}), do: div(bits * Tuple.product(shape), 8)

    defp given(%T{type: type} = tensor), do: {Node.shape(tensor), Types.dtype(type)}
    defp row_major?(%T{data: %Expr{op: op}}), do: op not in @moved

    defp axis(opts, shape), do: Integer.mod(opts[:axis], length(shape))

    defp layout(tensor, device) do
      {shape, dtype} = given(tensor)
      Layout.view(shape, dtype, device)
    end

    defp compute_type(dtype, device) do
      {:ok, type} = ComputeType.of(dtype, device)
      type
    end

    defp widened({_shape, dtype}, dtype), do: 0
    defp widened({shape, _dtype}, type), do: Shape.size(shape) * DType.size!(type)

    # A result of the type `dtype`, if the node has another one.
    defp converted(%T{type: type} = node, dtype) do
      if Types.dtype(type) == dtype,
        do: 0,
        else: Shape.size(Node.shape(node)) * DType.size!(dtype)
    end
  end
end
