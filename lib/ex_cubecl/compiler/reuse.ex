if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Reuse do
    @moduledoc false
    # Results of groups that replace an operand in its memory. The operand is an intermediate value that nothing needs after the step, it has the type of the result,
    # and each invocation reads only the element of it that it writes.
    #
    # A plan holds for values whose operation made memory for them. Whether a value still has that memory for itself is asked when the program runs: callbacks of
    # the backend may return an operand, and functions of the caller may keep what they were given.

    alias ExCubecl.{Shape, View}
    alias ExCubecl.Buffer.Info
    alias ExCubecl.Compiler.Fusion.{Group, Node}
    alias ExCubecl.Compiler.Liveness
    alias ExCubecl.View.Strides

    # The results of these callbacks have memory of their own, in row-major order.
    @made [:dot, :conv, :window_sum, :window_max, :window_min, :concatenate] ++
            [:sum, :product, :reduce_max, :reduce_min, :argmax, :argmin, :all, :any]
    # Bytes of the smallest state of a loop that is replaced. Its first round has the state of the caller, for which the kernel is compiled once more.
    @large 1024 * 1024

    @doc "The steps, with the plan of each group: `into` has the id of the operand that a result replaces by that of the result."
    @spec plan([map], [[non_neg_integer]], %{non_neg_integer => Nx.Tensor.t()}) :: [map]
    def plan(steps, frees, nodes) do
      {made, others} = Enum.split_with(steps, &made?(&1.call))
      made = for step <- made, id <- step.writes, into: MapSet.new(), do: id

      state =
        for %{call: {:parameter, id, _}} <- steps, Liveness.size(nodes[id]) >= @large, do: id

      made = Enum.into(state, made)

      made =
        for step <- others, id <- step.reads, reduce: made, do: (made -> MapSet.delete(made, id))

      for {step, free} <- Enum.zip(steps, frees) do
        case step.call do
          {:fused, group} ->
            free = Enum.filter(free, &MapSet.member?(made, &1))
            %{step | call: {:fused, planned(group, free, nodes)}}

          _ ->
            step
        end
      end
    end

    defp made?({:fused, _group}), do: true
    defp made?({:eager, _id, operation, _args, _unused}), do: operation in @made
    defp made?(_call), do: false

    defp planned(%Group{kind: {:parts, groups}} = group, free, nodes) do
      readers = groups |> Enum.flat_map(& &1.inputs) |> Enum.frequencies()
      free = Enum.filter(free, &(readers[&1] == 1))
      groups = for part <- groups, do: planned(part, free, nodes)

      %{
        group
        | kind: {:parts, groups},
          into: groups |> Enum.map(& &1.into) |> Enum.reduce(&Map.merge/2)
      }
    end

    defp planned(%Group{kind: :map, outputs: outputs} = group, free, nodes) do
      free = for id <- free, flat?(nodes[id], id, group), do: id

      {into, _} =
        Enum.flat_map_reduce(outputs, free, fn out, free ->
          dtype = Node.dtype(group.results[out])

          case Enum.find(free, &(Node.dtype(nodes[&1]) == dtype)) do
            nil -> {[], free}
            id -> {[{out, id}], List.delete(free, id)}
          end
        end)

      %{group | into: Map.new(into)}
    end

    defp planned(group, _free, _nodes), do: group

    # Another shape of the same elements does not change their order. A single element is read as a number that is broadcast, unless it has the shape of the result.
    defp flat?(node, id, %{sources: sources, shape: shape}) do
      moves = for {:value, ^id, moves} <- sources, do: moves

      moves != [] and Shape.size(shape) > 1 and Shape.size(Node.shape(node)) == Shape.size(shape) and
        moves |> Enum.concat() |> Enum.all?(&match?({:reshape, _}, &1))
    end

    @doc "The buffer of a view in a shape, if nothing else has the memory. `shares` has the references of the handles that several values have."
    @spec target(View.t() | term, Shape.t(), map) :: ExCubecl.Buffer.t() | nil
    def target(%View{buffer: %{ref: ref} = buffer, offset: 0} = view, shape, shares) do
      if not is_map_key(shares, ref) and Shape.size(buffer.shape) == Shape.size(shape) and
           Strides.contiguous?(view) and Info.ref_count(buffer) == {:ok, 1},
         do: %{buffer | shape: shape}
    end

    def target(_other, _shape, _shares), do: nil
  end
end
