if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Node do
    @moduledoc false
    # What fusion can do with a node of a scope. The kinds are
    #
    #   * `:map` - an element-wise operation that a kernel calculates with the same bits as the callback
    #   * `:view` - elements of the operand through other strides; `moves` are the steps by which a view of the operand becomes one of the result
    #   * `:pieces` - elements of one of several operands, as `ExCubecl.Compiler.Fusion.Pieces` describes them
    #   * `:iota` - indices, which a kernel calculates where it reads them
    #   * `:reduce` - a reduction whose operand a kernel can calculate
    #   * `:operation` - one of `ExCubecl.Compiler.Fusion.Operation`
    #   * `:other` - everything else
    #   * `:leaf` - a value that is given
    #
    # Small tensors in host memory are calculated there, without a launch, and conditions read them there: nodes of such operands only are not fused. Whether a leaf is
    # one is not known: each of one element is taken for one. A group of other small tensors is run on the host if they are there.

    alias ExCubecl.Device
    alias ExCubecl.Compiler.Fusion.{Operation, Pieces, Stub}
    alias ExCubecl.Compiler.Graph
    alias ExCubecl.Nx.{Expression, Reduction}
    alias ExCubecl.Ops.Layout
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @enforce_keys [:id, :at, :kind, :expr, :dtype, :shape, :operands, :host?]
    defstruct @enforce_keys ++ [:moves, :pieces]

    @type t :: %__MODULE__{}

    @leaves [:parameter, :captured, :constant]
    @view [:reshape, :squeeze, :broadcast, :transpose, :slice, :reverse]
    # Types that have every index of a tensor of some size, or round it as a cast of :u32 does.
    @indices [:s32, :u32, :s64, :u64, :f32, :f64]
    @elements Expression.names()
    @places [:argmax, :argmin]
    @reductions @places ++ Reduction.names()
    @operations Operation.names()
    @pieces Pieces.names()

    @doc "The names of reductions whose results are indices."
    def places, do: @places

    @doc "The nodes of a scope by id."
    @spec all([Nx.Tensor.t()], map) :: %{non_neg_integer => t}
    def all(exprs, config) do
      {:ok, computed} = Device.dtypes(config.device)

      Enum.reduce(exprs, %{}, fn expr, known ->
        Map.put(known, expr.data.id, %{new(expr, known, computed, config) | at: map_size(known)})
      end)
    end

    defp new(%T{data: %Expr{id: id, op: op}} = expr, known, computed, config) do
      operands = if op in @leaves, do: [], else: Graph.operands(expr)
      host? = host?(expr, operands, known, config)

      computed? =
        Enum.all?([expr | operands], &(Stub.dtype(&1) in computed)) and 0 not in Stub.shape(expr)

      node = %__MODULE__{
        id: id,
        at: nil,
        kind: :other,
        expr: expr,
        dtype: Stub.dtype(expr),
        shape: Stub.shape(expr),
        operands: operands,
        host?: host?
      }

      cond do
        op in @leaves -> %{node | kind: :leaf}
        host? or not computed? -> node
        true -> kind(node, op, config)
      end
    end

    defp kind(%{dtype: dtype} = node, :iota, _config) when dtype in @indices,
      do: %{node | kind: :iota}

    defp kind(node, op, config) when op in @elements do
      values = for operand <- node.operands, do: dry(operand, config)
      known = Expression.of(op, node.dtype, values, config)

      if length(values) == length(node.expr.data.args) and known != :unknown,
        do: %{node | kind: :map},
        else: node
    end

    defp kind(%{operands: [x]} = node, op, _config) when op in @view do
      case moves(op, node.expr.data.args, x, node.shape) do
        nil -> node
        moves -> %{node | kind: :view, moves: moves}
      end
    end

    defp kind(node, op, config) when op in @pieces do
      case Pieces.of(node.expr, config) do
        nil -> node
        pieces -> %{node | kind: :pieces, pieces: pieces}
      end
    end

    defp kind(%{operands: [_]} = node, op, _config) when op in @reductions,
      do: %{node | kind: :reduce}

    defp kind(node, op, config) when op in @operations do
      if Operation.own_kernel?(node.expr, config),
        do: %{node | kind: :operation},
        else: node
    end

    defp kind(node, _op, _config), do: node

    defp dry(operand, config) do
      case Stub.number(operand, config) do
        nil -> {Stub.dtype(operand), {:var, :x}}
        number -> number
      end
    end

    defp host?(%T{type: {:tuple, _}}, _operands, _known, _config), do: false
    defp host?(%T{data: %Expr{op: :constant}}, _operands, _known, _config), do: true

    defp host?(%T{data: %Expr{op: op}} = expr, _operands, _known, _config) when op in @leaves,
      do: given?(expr)

    defp host?(expr, operands, known, config) do
      Tuple.product(expr.shape) <= config.host_limit and
        Enum.all?(operands, fn %T{data: %Expr{id: id, op: op}} = operand ->
          case known do
            _ when op == :constant -> true
            %{^id => node} -> node.host?
            _ -> given?(operand)
          end
        end)
    end

    defp given?(%T{shape: shape}), do: Tuple.product(shape) == 1

    ## Moves

    # Axes of length 1 can be inserted into any view; other reshapes depend on the strides.
    defp moves(op, [x | _], _x, shape) when op in [:reshape, :squeeze] do
      wide = &Enum.reject(&1, fn length -> length == 1 end)
      if wide.(Stub.shape(x)) == wide.(shape), do: [{:reshape, shape}]
    end

    defp moves(:broadcast, [x, shape, axes], _x, _shape) do
      lengths = Enum.zip(axes, Stub.shape(x))

      from =
        for axis <- 0..(tuple_size(shape) - 1)//1,
            do: lengths |> List.keyfind(axis, 0, {axis, 1}) |> elem(1)

      to = Tuple.to_list(shape)
      [{:reshape, from} | if(from == to, do: [], else: [{:broadcast, to}])]
    end

    defp moves(:transpose, [_x, axes], _operand, _shape), do: [{:transpose, axes}]
    defp moves(:reverse, [_x, axes], _operand, _shape), do: [{:reverse, axes}]

    defp moves(:slice, [x, starts, lengths, strides], _operand, shape) do
      if Enum.all?(starts, &is_integer/1) do
        starts =
          for {start, size, length} <- Enum.zip([starts, Stub.shape(x), lengths]),
              do: start |> max(0) |> min(size - length)

        [{:slice, starts, shape, strides}]
      end
    end

    @doc "The layout of the indices that an iota consists of, as that of a view."
    def layout(%{shape: shape, expr: %T{data: %Expr{args: [axis]}}}) do
      strides =
        if axis == nil do
          Layout.strides(shape)
        else
          for at <- 0..(length(shape) - 1)//1, do: if(at == axis, do: 1, else: 0)
        end

      %{offset: 0, shape: shape, strides: strides}
    end
  end
end
