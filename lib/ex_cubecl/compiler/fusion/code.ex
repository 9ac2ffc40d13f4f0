if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Code do
    @moduledoc false
    # The code of the members of a group, for elements of its result. Each member is a variable, which is calculated once for each way in which it is read: `moves` are
    # the steps of `ExCubecl.Compiler.Fusion.Node` from its own shape to that of the result.
    #
    # The source of an argument is `{:value, id, moves}` for an operand, or `{:iota, layout}`. Besides the moves of nodes there is `{:place, starts, shape}` for an
    # operand that is the part of `shape` at `starts`.

    alias ExCubecl.Compiler.Fusion.{Node, Pieces, Stub}
    alias ExCubecl.Nx.Expression
    alias ExCubecl.Ops.{Index, Results}
    alias ExCubecl.View.Strides
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @type source :: {:value, non_neg_integer, list} | {:iota, map}
    @type section :: %{results: [term], names: [atom], statements: list}

    @doc """
    Code of `members`, ids of `nodes`, without any section yet. With `indices?` a kernel calculates the elements of an iota, instead of reading them.
    `part` is a number that tells the names of codes in one kernel apart.
    """
    @spec new([non_neg_integer], %{non_neg_integer => Node.t()}, map, boolean, non_neg_integer) ::
            map
    def new(members, nodes, config, indices?, part \\ 0) do
      %{
        part: part,
        nodes: nodes,
        members: MapSet.new(members),
        config: config,
        indices?: indices?,
        given: %{},
        args: [],
        variables: 0,
        lets: [],
        used: [],
        known: %{},
        result: nil
      }
    end

    @doc "Code that reads the result of an operation at its own place, also in another shape of as many elements."
    @spec put_result(map, non_neg_integer) :: map
    def put_result(state, id), do: %{state | result: id}

    @doc "A section that calculates members and operands, stubs of a graph, each of which is read through moves: its results, and its statements, which use the arguments `names`."
    @spec section([{Nx.Tensor.t(), list}], map) :: {section, map}
    def section(roots, state) do
      state = %{state | lets: [], used: [], known: %{}}

      {results, state} =
        Enum.map_reduce(roots, state, fn {stub, moves}, state -> value(stub, moves, state) end)

      names = state.used |> Enum.uniq() |> Enum.sort()
      {%{results: results, names: names, statements: Enum.reverse(state.lets)}, state}
    end

    @doc "Later sections have the expression in place of the member."
    @spec give(map, non_neg_integer, term) :: map
    def give(state, id, expression), do: %{state | given: Map.put(state.given, id, expression)}

    @doc "The arguments of all sections with their types, and their sources."
    @spec arguments(map) :: {[{atom, ExCubecl.DType.t()}], [source]}
    def arguments(state) do
      {types, sources} = state.args |> Enum.reverse() |> Enum.unzip()
      names = for at <- 0..(length(types) - 1)//1, do: name(at, state)
      {Enum.zip(names, types), sources}
    end

    defp name(at, %{part: part}), do: Index.name(:"a#{part}", at)

    defp value(%T{data: %Expr{id: id}} = stub, moves, state) do
      case state.known do
        %{{^id, ^moves} => expression} ->
          {expression, state}

        _ ->
          {expression, state} = calculated(stub, id, moves, state)
          {expression, %{state | known: Map.put(state.known, {id, moves}, expression)}}
      end
    end

    defp calculated(stub, id, moves, state) do
      node = state.nodes[id]

      cond do
        is_map_key(state.given, id) ->
          {state.given[id], state}

        state.indices? and match?(%{kind: :iota}, node) ->
          argument(Stub.dtype(stub), {:iota, moved(Node.layout(node), moves)}, state)

        id == state.result ->
          argument(Stub.dtype(stub), {:value, id, []}, state)

        not MapSet.member?(state.members, id) ->
          argument(Stub.dtype(stub), {:value, id, moves}, state)

        node.kind == :view ->
          value(hd(node.operands), node.moves ++ moves, state)

        node.kind == :pieces ->
          pieces(node, moves, state)

        true ->
          map(node, moves, state)
      end
    end

    defp argument(dtype, source, state) do
      argument = {dtype, source}

      {at, args} =
        case Enum.find_index(state.args, &(&1 == argument)) do
          nil -> {length(state.args), [argument | state.args]}
          behind -> {length(state.args) - 1 - behind, state.args}
        end

      name = name(at, state)
      {Results.value(name), %{state | args: args, used: [name | state.used]}}
    end

    defp map(node, moves, state) do
      {values, state} =
        Enum.map_reduce(node.operands, state, fn operand, state ->
          case Stub.number(operand, state.config) do
            nil ->
              {expression, state} = value(operand, from(operand, node, moves), state)
              {{Stub.dtype(operand), expression}, state}

            number ->
              {number, state}
          end
        end)

      {:ok, expression} = Expression.of(node.expr.data.op, node.dtype, values, state.config)
      variable(node, expression, state)
    end

    defp variable(node, expression, state) do
      variable = {:v, state.part, state.variables}
      let = Index.let(variable, {:cast, node.dtype, expression})
      {Index.var(variable), %{state | lets: [let | state.lets], variables: state.variables + 1}}
    end

    # Nested selections, from the last piece on: it has all elements that are in no other piece.
    defp pieces(node, moves, state) do
      {expression, state} =
        node.pieces
        |> Enum.reverse()
        |> Enum.reduce({nil, state}, fn {stub, own, bounds}, {others, state} ->
          {expression, state} = piece(stub, own ++ moves, node, state)
          {coordinates, state} = Enum.map_reduce(bounds, state, &coordinate(&1, node, moves, &2))

          if others == nil or bounds == [],
            do: {expression, state},
            else: {{:if, 0, Pieces.inside?(coordinates), expression, others}, state}
        end)

      variable(node, expression, state)
    end

    defp piece(stub, moves, node, state) do
      case Stub.number(stub, state.config) do
        nil -> value(stub, moves, state)
        number -> {Pieces.number(number, node.dtype), state}
      end
    end

    defp coordinate({axis, first, last}, node, moves, state) do
      layout = moved(Pieces.coordinates(axis, node.shape), moves)
      {at, state} = argument(:s32, {:iota, layout}, state)
      {{at, first, last, Enum.at(node.shape, axis)}, state}
    end

    # What an operand lacks in shape is read as a broadcast, also where the result of the group is.
    defp from(operand, node, moves) do
      if moves == [] or Stub.shape(operand) == node.shape,
        do: moves,
        else: [{:broadcast, node.shape} | moves]
    end

    @doc "A view, or only its layout, after moves."
    @spec moved(map, list) :: map
    def moved(view, moves), do: Enum.reduce(moves, view, &move/2)

    defp move({:broadcast, shape}, view), do: Strides.broadcast(view, shape)

    defp move({:place, starts, shape}, %{offset: offset, strides: strides} = view) do
      before =
        Enum.zip_reduce(starts, strides, 0, fn start, stride, sum -> sum + start * stride end)

      %{view | offset: offset - before, shape: shape}
    end

    defp move({:transpose, axes}, view), do: Strides.transpose(view, axes)
    defp move({:reverse, axes}, view), do: Strides.reverse(view, axes)

    defp move({:slice, starts, lengths, strides}, view),
      do: Strides.slice(view, starts, lengths, strides)

    defp move({:reshape, shape}, view) do
      {:ok, view} = Strides.reshape(view, shape)
      view
    end
  end
end
