if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Work do
    @moduledoc false
    # The work memory of a step: the most bytes that it has besides its operands and results. Each operation of `ExCubecl.Ops` tells its own. Operands are taken to be
    # in row-major order, unless they are views. Small tensors count although the host may have them.

    alias ExCubecl.Compiler.Fusion.{Group, Node}
    alias ExCubecl.Compiler.Graph
    alias ExCubecl.Compiler.Work.{Matrices, Transforms}
    alias ExCubecl.Nx.{Blocks, Expression, Types}
    alias ExCubecl.{DType, Shape}

    alias ExCubecl.Ops.{
      ComputeType,
      Contraction,
      Convolution,
      Dot,
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
    # These free what they made for themselves.
    @freed [:dot, :conv] ++ @reductions ++ @places
    @exact [:sort, :argsort, :top_k] ++ @scans ++ @freed
    # Sums are accumulated beside the result, for each element in the order of its updates.
    @scattering [:indexed_add, :indexed_put]
    # Numbers that are made buffers.
    @numbers 64
    # These read their operands in any order.
    @in_place [:take, :gather, :take_along_axis, :pad, :concatenate, :stack] ++ Expression.names()
    # Elements of these are in another order, or one element is all of them.
    @moved [:transpose, :reverse, :slice, :broadcast, :constant]

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

    def bytes({:eager, id, operation, _args, _unused}, nodes, device) do
      %T{data: %Expr{args: args}} = node = nodes[id]
      operands = Graph.operands(node)
      {name, args} = callback(operation, args)

      cond do
        Enum.any?(operands, &match?(%T{type: {:tuple, _}}, &1)) -> 0
        name in Transforms.names() -> transform(name, operands, args, node)
        name in Matrices.names() -> Matrices.bytes(name, operands, results(node))
        name in @exact and Enum.all?(operands, &stored?/1) -> work(name, args, node, device)
        true -> conversions(name, operands, node)
      end
    end

    def bytes(_call, _nodes, _device), do: 0

    @doc "Whether a step may leave buffers that only a garbage collection frees."
    @spec garbage?(tuple, %{non_neg_integer => T.t()}) :: boolean
    def garbage?({:eager, id, operation, _args, _unused}, nodes) do
      {name, _args} = callback(operation, nodes[id].data.args)
      node = nodes[id]
      mixed? = Enum.any?(Graph.operands(node), &(&1.type != node.type))
      name not in @moved and (name not in @freed or (name == :dot and mixed?))
    end

    def garbage?(_call, _nodes), do: false

    # A block is the callback that runs it.
    defp callback(:block, [struct | args]) do
      tensors = List.last(args)

      case Blocks.callback(struct, tensors) do
        {:top_k, opts} -> {:top_k, [nil | tensors] ++ opts}
        {name, opts} -> {name, tensors ++ opts}
        :default -> {:default, []}
      end
    end

    defp callback(operation, args), do: {operation, args}

    defp transform(name, [tensor], args, node) do
      {dtype, _} = Types.storage(node.type)
      copied? = not row_major?(tensor) or not match?({^dtype, _}, Types.storage(tensor.type))
      Transforms.bytes(name, tensor, List.last(args), node, copied?)
    end

    # Operands in another type or another order, and the result in the type of the calculation. Complex numbers are calculated by several operations.
    defp conversions(name, operands, node) do
      results = results(node)
      tensors = Enum.filter(operands ++ results, &(Types.storage(&1.type) != nil))
      types = Enum.map(tensors, & &1.type)
      size = types |> Enum.map(&div(elem(&1, 1), 8)) |> Enum.max(fn -> 0 end)

      copied =
        for %T{type: type} = operand <- operands,
            type != hd(results).type or copied?(name, operand),
            do: operand

      cond do
        Enum.any?(types, &match?({:c, _}, &1)) ->
          2 * bytes_of(tensors, size)

        name in @scattering ->
          @numbers + bytes_of(copied, 8) + bytes_of(results, 24)

        copied == [] ->
          0

        true ->
          @numbers + bytes_of(copied, max(size, 4)) +
            bytes_of(results, max(div(elem(hd(results).type, 1), 8), 4))
      end
    end

    defp copied?(name, operand), do: name not in @in_place and not row_major?(operand)

    defp bytes_of(tensors, size), do: tensors |> Enum.map(&(size * count(&1))) |> Enum.sum()

    defp results(%T{type: {:tuple, _}, data: %Expr{args: args}}) do
      args
      |> Enum.find(&(is_tuple(&1) and match?(%T{}, elem(&1, 0))))
      |> case do
        nil -> [args |> Enum.at(1)] |> Nx.Defn.Composite.flatten_list()
        outs -> Tuple.to_list(outs)
      end
    end

    defp results(node), do: [node]

    defp count(%T{shape: shape}), do: Tuple.product(shape)

    # Tensors of other types are on the host, and those without elements need nothing.
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
      {shape, dtype} = given = given(tensor)
      axis = length(shape) - 1
      count = div(Shape.size(shape), max(List.last(shape), 1)) * opts[:k]
      # The places, and narrow values in the type of the calculation.
      converted = if DType.size!(dtype) < 4, do: 8 * count, else: 4 * count
      converted + Sorting.work(:top_k, given, {axis, opts[:k]}, row_major?(tensor), device)
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
      # Of several types, the product may be one of 64 bits first.
      others = for %T{type: type} = operand <- [a, b], type != node.type, do: operand
      wide = if others == [], do: 0, else: bytes_of([node | others], 8)
      wide + Dot.work(contraction, Types.dtype(node.type))
    end

    defp work(:conv, [input, kernel, opts], _node, device) do
      [input, kernel] = for tensor <- [input, kernel], do: layout(tensor, device)
      Convolution.work(input, kernel, opts)
    end

    # Windows.
    defp work(_operation, _args, _node, _device), do: 0

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
