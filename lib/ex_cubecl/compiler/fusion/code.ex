if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Code do
    @moduledoc false
    # The code of the members of a group, for elements of its result. Each member is a variable, which is calculated once for each way in which it is read: `moves` are
    # the steps of `ExCubecl.Compiler.Fusion.Node` from its own shape to that of the result.
    #
    # The source of an argument is `{:value, id, moves}` for an operand, or `{:iota, layout}`.

    alias ExCubecl.Compiler.Fusion.Node
    alias ExCubecl.Nx.Expression
    alias ExCubecl.Ops.{Index, Results}
    alias ExCubecl.View.Strides
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @type source :: {:value, non_neg_integer, list} | {:iota, map}
    @type t :: %{
            args: [{atom, ExCubecl.DType.t()}],
            sources: [source],
            statements: list,
            results: [term]
          }

    @args for at <- 0..63, do: :"a#{at}"

    @doc """
    The code of `roots` among `members`, ids of `nodes`. Options:

      * `:indices` - whether the kernel calculates the elements of an iota, instead of reading them
      * `:given` - the expressions of members that are calculated before, by id
    """
    @spec build(
            [non_neg_integer],
            [non_neg_integer],
            %{non_neg_integer => Node.t()},
            map,
            keyword
          ) :: t
    def build(roots, members, nodes, config, opts) do
      state = %{
        nodes: nodes,
        members: MapSet.new(members),
        config: config,
        given: Keyword.get(opts, :given, %{}),
        indices?: Keyword.get(opts, :indices, false),
        args: [],
        lets: [],
        known: %{}
      }

      {results, state} = Enum.map_reduce(roots, state, &value(nodes[&1].expr, [], &2))
      {args, sources} = state.args |> Enum.reverse() |> Enum.unzip()

      %{
        args: Enum.zip(@args, args),
        sources: sources,
        statements: Enum.reverse(state.lets),
        results: results
      }
    end

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
          argument(stub, {:iota, moved(Node.layout(node), moves)}, state)

        not MapSet.member?(state.members, id) ->
          argument(stub, {:value, id, moves}, state)

        node.kind == :view ->
          value(hd(node.operands), node.moves ++ moves, state)

        true ->
          map(node, moves, state)
      end
    end

    defp argument(stub, source, state) do
      name = Enum.at(@args, length(state.args))
      {Results.value(name), %{state | args: [{Node.dtype(stub), source} | state.args]}}
    end

    defp map(node, moves, state) do
      {values, state} =
        Enum.map_reduce(node.operands, state, fn operand, state ->
          case Node.number(operand, state.config) do
            nil ->
              {expression, state} = value(operand, from(operand, node, moves), state)
              {{Node.dtype(operand), expression}, state}

            number ->
              {number, state}
          end
        end)

      {:ok, expression} = Expression.of(node.expr.data.op, node.dtype, values, state.config)
      variable = {:v, length(state.lets)}
      let = Index.let(variable, {:cast, node.dtype, expression})
      {Index.var(variable), %{state | lets: [let | state.lets]}}
    end

    # What an operand lacks in shape is read as a broadcast, also where the result of the group is.
    defp from(operand, node, moves) do
      if moves == [] or Node.shape(operand) == node.shape,
        do: moves,
        else: [{:broadcast, node.shape} | moves]
    end

    @doc "A view, or only its layout, after moves."
    @spec moved(map, list) :: map
    def moved(view, moves), do: Enum.reduce(moves, view, &move/2)

    defp move({:broadcast, shape}, view), do: Strides.broadcast(view, shape)
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
