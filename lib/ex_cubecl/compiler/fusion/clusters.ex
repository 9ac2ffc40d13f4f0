if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Clusters do
    @moduledoc false
    # A partition of a graph without cycles into clusters, such that the graph of the clusters has no cycles. At first each node is a cluster of its own.
    #
    # Nodes are numbered in a topological order. A set of nodes is an integer with one bit for each. Each cluster has the set of the nodes of all
    # clusters on which it depends: two clusters can be merged if no other cluster is between them, which is seen from those they depend on directly.

    import Bitwise

    @type t :: %{of: %{index => index}, clusters: %{index => cluster}}
    @type index :: non_neg_integer
    @type cluster :: %{members: [index], set: non_neg_integer, before: non_neg_integer}

    @doc "The clusters of nodes for which the indices of those on which they depend directly are given, in order."
    @spec new([[index]]) :: t
    def new(operands) do
      {clusters, _} =
        Enum.reduce(operands, {%{}, 0}, fn operands, {done, at} ->
          before = Enum.reduce(operands, 0, &(&2 ||| done[&1].before ||| done[&1].set))
          cluster = %{members: [at], set: bsl(1, at), before: before, operands: operands}
          {Map.put(done, at, cluster), at + 1}
        end)

      %{of: Map.new(clusters, fn {at, _} -> {at, at} end), clusters: clusters}
    end

    @doc "The number of the cluster of a node: the first of its members."
    @spec of(t, index) :: index
    def of(state, at), do: Map.fetch!(state.of, at)

    @doc "The members of a cluster, in order."
    @spec members(t, index) :: [index]
    def members(state, cluster), do: state.clusters[cluster].members

    @doc "Whether neither of two clusters depends on the other."
    @spec independent?(t, index, index) :: boolean
    def independent?(state, a, b) do
      %{^a => a, ^b => b} = state.clusters
      (a.before &&& b.set) == 0 and (b.before &&& a.set) == 0
    end

    @doc "Merges clusters, or returns `:cycle` if others, which depend on some of them, are needed for some of them."
    @spec merge(t, [index]) :: {:ok, t} | :cycle
    def merge(state, clusters) do
      case Enum.uniq(clusters) do
        [_] ->
          {:ok, state}

        several ->
          parts = Enum.map(several, &Map.fetch!(state.clusters, &1))
          set = parts |> Enum.map(& &1.set) |> Enum.reduce(&bor/2)
          outside = outside(state, parts, set)

          if Enum.any?(outside, &((state.clusters[&1].before &&& set) != 0)),
            do: :cycle,
            else: {:ok, merged(state, several, parts, set)}
      end
    end

    defp outside(state, parts, set) do
      for part <- parts,
          at <- part.operands,
          (bsl(1, at) &&& set) == 0,
          uniq: true,
          do: of(state, at)
    end

    defp merged(state, several, parts, set) do
      members = parts |> Enum.flat_map(& &1.members) |> Enum.sort()
      [first | _] = members
      operands = parts |> Enum.flat_map(& &1.operands) |> Enum.uniq()
      before = Enum.reduce(parts, 0, &(&1.before ||| &2)) &&& bnot(set)
      cluster = %{members: members, set: set, before: before, operands: operands}

      clusters =
        :maps.map(
          fn _at, other ->
            if (other.before &&& set) == 0,
              do: other,
              else: %{other | before: other.before ||| before ||| set}
          end,
          Map.drop(state.clusters, several)
        )

      %{
        state
        | of: Enum.reduce(members, state.of, &Map.put(&2, &1, first)),
          clusters: Map.put(clusters, first, cluster)
      }
    end

    @doc "The clusters in an order in which each one comes after those it depends on, and otherwise where its last member is."
    @spec in_order(t) :: [index]
    def in_order(state) do
      {order, _} =
        state.clusters
        |> Enum.map(fn {at, cluster} -> {List.last(cluster.members), at} end)
        |> Enum.sort()
        |> Enum.reduce({[], MapSet.new()}, fn {_, at}, done -> visit(at, state, done) end)

      Enum.reverse(order)
    end

    defp visit(at, state, {order, seen} = done) do
      if MapSet.member?(seen, at) do
        done
      else
        needed = for operand <- state.clusters[at].operands, do: of(state, operand)

        {order, seen} =
          needed
          |> Enum.reject(&(&1 == at))
          |> Enum.reduce({order, MapSet.put(seen, at)}, &visit(&1, state, &2))

        {[at | order], seen}
      end
    end
  end
end
