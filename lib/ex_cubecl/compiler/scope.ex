if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Scope do
    @moduledoc false
    # The nodes of a graph by the scope in which they run. The results of a condition are scopes of their own, since only one of them is calculated. A node belongs to
    # the innermost scope that contains all of its uses. If it is used only in some branches of conditions within that scope, a run may not need it at all: it then
    # becomes a lazy scope of its own, which runs when the first of these uses does.
    #
    # A scope has
    #
    #   * `nodes` - its nodes, operands first. A constant is a node of each scope that uses it. The arguments of a `:cond` are
    #     `[predicate, [value from outside], scope if true, scope if false]`, those of a `:lazy` `[[value from outside], scope]`, and those of
    #     `:while` and `:fun` have scopes in place of graphs
    #   * `outputs` - the ids of its results
    #   * `uses` - how often each id is used in the scope; an output is a use
    #   * `outside` - operands that are nodes of other scopes

    alias ExCubecl.Compiler.Graph
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @enforce_keys [:nodes, :outputs, :uses, :outside]
    defstruct [:nodes, :outputs, :uses, :outside]

    @type t :: %__MODULE__{
            nodes: [Nx.Tensor.t()],
            outputs: [non_neg_integer],
            uses: %{non_neg_integer => pos_integer},
            outside: [Nx.Tensor.t()]
          }

    @doc "The scope of a graph."
    @spec of(Graph.t()) :: t
    def of(%Graph{nodes: nodes, outputs: outputs}) do
      scopes = placed(nodes, outputs)
      build(0, outputs, scopes)
    end

    ## Places

    # The scopes are numbers. `parents` has the parent and the depth of each; `contexts` the scopes that use a node; `members` the nodes of a scope.
    defp placed(nodes, outputs) do
      state = %{nodes: nodes, parents: %{0 => {nil, 0}}, contexts: %{}, members: %{}}
      state = Map.merge(state, %{inner: %{}, others: %{}})
      state = use_in(outputs, 0, state)

      nodes
      |> Map.keys()
      |> Enum.sort(:desc)
      |> Enum.reduce(state, fn id, state ->
        case state.contexts do
          %{^id => contexts} -> place(nodes[id], contexts, state)
          _ -> state
        end
      end)
    end

    defp use_in(stubs, scope, state) do
      Enum.reduce(stubs, state, fn %T{data: %Expr{id: id}}, state ->
        contexts =
          Map.update(state.contexts, id, [scope], &if(scope in &1, do: &1, else: [scope | &1]))

        %{state | contexts: contexts}
      end)
    end

    defp place(%T{data: %Expr{op: :constant}} = node, contexts, state),
      do: Enum.reduce(contexts, state, &member(node, &1, &2))

    defp place(%T{data: %Expr{op: op}} = node, _contexts, state)
         when op in [:parameter, :captured],
         do: member(node, 0, state)

    defp place(%T{data: %Expr{id: id}} = node, contexts, state) do
      contexts = certain(contexts, state)
      home = Enum.reduce(contexts, &common(&1, &2, state.parents))

      if home in contexts do
        node |> member(home, state) |> inside(node, home)
      else
        {scope, state} = scope(home, state)
        state = %{state | inner: Map.put(state.inner, id, scope)}
        lazy = %{node | data: %Expr{id: id, op: :lazy, args: [], context: nil}}
        state = Enum.reduce(contexts, state, &member(lazy, &1, &2))
        node |> member(scope, state) |> inside(node, scope)
      end
    end

    # What both results of a condition use is used where the condition is.
    defp certain(contexts, %{others: others, parents: parents} = state) do
      case Enum.find(contexts, &(Map.get(others, &1) in contexts)) do
        nil ->
          contexts

        scope ->
          {parent, _} = parents[scope]
          rest = contexts -- [scope, others[scope]]
          certain(if(parent in rest, do: rest, else: [parent | rest]), state)
      end
    end

    # The uses that a node makes of others.
    defp inside(state, %T{data: %Expr{id: id, op: :cond, args: [predicate, yes, no]}}, scope) do
      {yes_scope, state} = scope(scope, state)
      {no_scope, state} = scope(scope, state)
      others = Map.merge(state.others, %{yes_scope => no_scope, no_scope => yes_scope})
      inner = Map.put(state.inner, {:cond, id}, {yes_scope, no_scope})
      state = %{state | inner: inner, others: others}
      state = use_in([predicate], scope, state)
      use_in(no, no_scope, use_in(yes, yes_scope, state))
    end

    defp inside(state, node, scope), do: use_in(Graph.operands(node), scope, state)

    defp member(node, scope, state),
      do: %{state | members: Map.update(state.members, scope, [node], &[node | &1])}

    defp scope(parent, %{parents: parents} = state) do
      {_, depth} = parents[parent]
      new = map_size(parents)
      {new, %{state | parents: Map.put(parents, new, {parent, depth + 1})}}
    end

    defp common(scope, scope, _parents), do: scope

    defp common(a, b, parents) do
      {{up_a, depth_a}, {up_b, depth_b}} = {parents[a], parents[b]}

      cond do
        depth_a > depth_b -> common(up_a, b, parents)
        depth_b > depth_a -> common(a, up_b, parents)
        true -> common(up_a, up_b, parents)
      end
    end

    ## Scopes

    defp build(scope, outputs, placed) do
      nodes =
        for node <- Enum.sort_by(Map.get(placed.members, scope, []), & &1.data.id),
            do: rewritten(node, placed)

      operands = Enum.flat_map(nodes, &Graph.operands/1) ++ outputs
      here = MapSet.new(nodes, & &1.data.id)

      %__MODULE__{
        nodes: nodes,
        outputs: Enum.map(outputs, & &1.data.id),
        uses: Enum.frequencies_by(operands, & &1.data.id),
        outside: operands |> Enum.uniq_by(& &1.data.id) |> Enum.reject(&(&1.data.id in here))
      }
    end

    defp rewritten(%T{data: %Expr{id: id, op: :lazy}} = node, placed) do
      inner = build(placed.inner[id], [Graph.stub(placed.nodes[id])], placed)
      put_args(node, [inner.outside, inner])
    end

    defp rewritten(%T{data: %Expr{id: id, op: :cond, args: [predicate, yes, no]}} = node, placed) do
      {yes_scope, no_scope} = placed.inner[{:cond, id}]
      [yes, no] = [build(yes_scope, yes, placed), build(no_scope, no, placed)]
      outside = Enum.uniq_by(yes.outside ++ no.outside, & &1.data.id)
      put_args(node, [predicate, outside, yes, no])
    end

    defp rewritten(%T{data: %Expr{op: op, args: args}} = node, _placed)
         when op in [:while, :fun] do
      put_args(node, for(arg <- args, do: if(is_struct(arg, Graph), do: of(arg), else: arg)))
    end

    defp rewritten(node, _placed), do: node

    defp put_args(%T{data: expr} = node, args), do: %{node | data: %{expr | args: args}}
  end
end
