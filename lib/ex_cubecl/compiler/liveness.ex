if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Liveness do
    @moduledoc false
    # When each value of a list of steps is needed last, and how many bytes are live at most. A step has `reads` and `writes`, lists of ids.

    alias ExCubecl.Compiler.Fusion.Group
    alias ExCubecl.Compiler.Graph
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    # The results of these share the memory of their operand.
    @shares [:reshape, :squeeze, :transpose, :reverse, :slice, :broadcast, :elem, :attach]
    @strided [:transpose, :reverse, :slice, :broadcast]
    @no_memory [:parameter, :captured, :constant, :fun, :effects]

    @doc """
    For each step the ids, among `owned`, that no later step reads and that are no outputs. `tuples` has the tuple of each component: a tuple is needed as long as
    one of its components.
    """
    @spec frees([map], [non_neg_integer], MapSet.t(), map) :: [[non_neg_integer]]
    def frees(steps, outputs, owned, tuples) do
      owner = &Map.get(tuples, &1, &1)
      outputs = MapSet.new(outputs, owner)

      {frees, _} =
        steps
        |> Enum.reverse()
        |> Enum.map_reduce(outputs, fn %{reads: reads, writes: writes}, needed ->
          touched = (reads ++ writes) |> Enum.map(owner) |> Enum.uniq()
          free = for id <- touched, id in owned, id not in needed, do: id
          {free, Enum.into(touched, needed)}
        end)

      Enum.reverse(frees)
    end

    @doc """
    The bytes that the values of a scope have during each step, those of nested programs included and arguments excepted. Results that replace an operand in its memory
    need none during the step. With `given?` the arguments belong to the scope. `work` has the work memory of a call, and `certain?` tells whether a group runs as a
    kernel in any case: if it does not, each of its members has memory until the end of the step.
    """
    @spec live(
            [map],
            map,
            %{non_neg_integer => Nx.Tensor.t()},
            boolean,
            {(tuple -> non_neg_integer), (Group.t() -> boolean)}
          ) :: [non_neg_integer]
    def live(steps, scope, nodes, given?, {work, certain?}) do
      copies = copies(scope.nodes)
      roots = roots(scope.nodes, copies)
      outputs = MapSet.new(scope.outputs, &root(roots, &1))
      last = last_uses(steps, roots)

      bytes = fn ids ->
        for(
          id <- ids,
          node = nodes[id],
          do: if(id in copies, do: size(node), else: bytes(node, given?))
        )
        |> Enum.sum()
      end

      {live, _} =
        steps
        |> Enum.with_index()
        |> Enum.map_reduce(0, fn {step, at}, live ->
          live = live + bytes.(step.writes)
          saved = saved(step, bytes, certain?)
          free = for id <- uniq_roots(step, roots), last[id] == at and id not in outputs, do: id

          inner = inner(step.call, bytes.(step.writes)) + work.(step.call)
          {live - saved + inner, live - bytes.(free)}
        end)

      live
    end

    defp uniq_roots(step, roots),
      do: Enum.uniq(for id <- step.reads ++ step.writes, do: root(roots, id))

    defp last_uses(steps, roots) do
      for {step, at} <- Enum.with_index(steps),
          id <- uniq_roots(step, roots),
          into: %{},
          do: {id, at}
    end

    # The value whose memory a value shares.
    defp roots(nodes, copies) do
      for %T{data: %Expr{id: id, op: op}} = node when op in @shares <- nodes,
          id not in copies,
          reduce: %{} do
        roots -> Map.put(roots, id, root(roots, shared(node).data.id))
      end
    end

    # A slice at tensors has them as further operands.
    defp shared(%T{data: %Expr{op: :attach}} = node), do: node |> Graph.operands() |> List.last()
    defp shared(node), do: node |> Graph.operands() |> hd()

    # Another shape of elements that are not in row-major order may be a copy.
    defp copies(nodes) do
      {copies, _strided} =
        for %T{data: %Expr{id: id, op: op}} = node when op in @shares <- nodes,
            reduce: {MapSet.new(), MapSet.new()} do
          {copies, strided} ->
            strided? = shared(node).data.id in strided

            cond do
              op == :reshape and strided? -> {MapSet.put(copies, id), strided}
              op in @strided or strided? -> {copies, MapSet.put(strided, id)}
              true -> {copies, strided}
            end
        end

      copies
    end

    defp root(roots, id), do: Map.get(roots, id, id)

    # The bytes of operands that results replace, less those of intermediate values without a kernel.
    defp saved(%{call: {:fused, %{into: into} = group}, writes: writes}, bytes, certain?) do
      if certain?.(group),
        do: bytes.(Map.values(into)),
        else: -bytes.(group.members -- writes)
    end

    defp saved(_step, _bytes, _certain?), do: 0

    # The state of a loop is the result, and the arguments of its body.
    defp inner({:cond, _, _, yes, no, _, _}, _bytes), do: max(yes.peak, no.peak)

    defp inner({:while, _, _, condition, body, _, _}, state),
      do: max(condition.peak, body.peak - state)

    defp inner({:lazy, _, program}, _bytes), do: program.peak
    defp inner(_call, _bytes), do: 0

    defp bytes(%T{data: %Expr{op: :parameter}} = node, true), do: size(node)
    defp bytes(node, _given?), do: bytes(node)

    @doc "The bytes of the result of a node, of all components of a tuple."
    @spec bytes(Nx.Tensor.t()) :: non_neg_integer
    def bytes(%T{data: %Expr{op: op}}) when op in @shares or op in @no_memory, do: 0

    def bytes(%T{type: {:tuple, _}, data: %Expr{op: :cond, args: [_, _, yes, _]}}),
      do: outputs(yes)

    def bytes(%T{type: {:tuple, _}, data: %Expr{op: :while, args: [initial | _]}}),
      do: total(initial)

    def bytes(%T{type: {:tuple, _}, data: %Expr{op: :block, args: [_struct, outs, _tensors]}}),
      do: [outs] |> Nx.Defn.Composite.flatten_list() |> total()

    def bytes(%T{type: {:tuple, _}, data: %Expr{args: [outs | _]}}) when is_tuple(outs),
      do: outs |> Tuple.to_list() |> total()

    def bytes(%T{type: {:tuple, _}}), do: 0
    def bytes(%T{} = node), do: size(node)

    defp outputs(scope) do
      nodes = Map.new(scope.nodes ++ scope.outside, &{&1.data.id, &1})
      scope.outputs |> Enum.map(&nodes[&1]) |> total()
    end

    defp total(tensors), do: tensors |> Enum.map(&size/1) |> Enum.sum()

    @doc "The bytes of a tensor; 0 of a tuple."
    @spec size(Nx.Tensor.t()) :: non_neg_integer
    def size(%T{type: {:tuple, _}}), do: 0
    def size(%T{shape: shape, type: {_, bits}}), do: div(Tuple.product(shape) * bits + 7, 8)
  end
end
