if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Reuse do
    @moduledoc false
    # Results of groups that replace an operand in its memory. The operand is an intermediate value that nothing needs after the step, and it has the type of the result.
    # The kernel reads an element of it at the place of the element that it writes, and no invocation reads one that another may have written:
    #
    #   * In an element-wise kernel, each invocation reads only the element that it writes.
    #   * In a kernel of rows, an invocation or a workgroup reads only elements of its own row, and writes them in its last loop, each in the invocation that has read it in the
    #     same iteration. All loops before are those of reductions, which end with a barrier of the workgroup. Values of rows are excluded: the first invocation writes
    #     them while others may still read.
    #   * An epilogue reads an operand of its own at the element of its result, in the invocation that then writes it, after the operation. Operands of the operation are
    #     excluded, since other invocations read them. So is the result in which the kernel of a product keeps its sums before the epilogue reads anything.
    #
    # A plan holds for values whose operation made memory for them. Whether a value still has that memory for itself is asked when the program runs: callbacks of
    # the backend may return an operand, and functions of the caller may keep what they were given.

    alias ExCubecl.{DType, Shape, View}
    alias ExCubecl.Buffer.Temporaries
    alias ExCubecl.Compiler.Fusion.{Group, Stub}
    alias ExCubecl.Compiler.Liveness
    alias ExCubecl.View.Strides

    # The results of these callbacks have memory of their own, in row-major order.
    @made [:dot, :conv, :window_sum, :window_max, :window_min, :concatenate] ++
            [:sum, :product, :reduce_max, :reduce_min, :argmax, :argmin, :all, :any]
    # Operations whose kernel may keep sums in the first result of their type (`ExCubecl.Ops.TiledProduct`).
    @products [:dot, :conv]
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

    defp planned(%Group{kind: :map} = group, free, nodes),
      do: replacing(group, group.outputs, flat(free, group.sources, group.shape, nodes), nodes)

    defp planned(%Group{kind: {:rows, _}, shape: shape} = group, free, nodes) do
      elements = for id <- group.outputs, Stub.shape(group.results[id]) == shape, do: id
      replacing(group, elements, flat(free, group.sources, shape, nodes), nodes)
    end

    defp planned(%Group{epilogue: {_code, sources}, root: root} = group, free, nodes) do
      free = for id <- free, not read?(id, group.sources), do: id
      outputs = group.outputs -- kept(group)
      replacing(group, outputs, flat(free, sources, Stub.shape(root), nodes), nodes)
    end

    defp planned(group, _free, _nodes), do: group

    defp replacing(group, outputs, free, nodes) do
      {into, _} =
        Enum.flat_map_reduce(outputs, free, fn out, free ->
          dtype = Stub.dtype(group.results[out])

          case Enum.find(free, &(Stub.dtype(nodes[&1]) == dtype)) do
            nil -> {[], free}
            id -> {[{out, id}], List.delete(free, id)}
          end
        end)

      %{group | into: Map.new(into)}
    end

    defp kept(%{root: %{data: %{op: op}} = root} = group) when op in @products,
      do: group.outputs |> Enum.filter(&(group.results[&1].type == root.type)) |> Enum.take(1)

    defp kept(_group), do: []

    # The ids that are read only flat. Another shape of the same elements does not change their order. A single element is read as a number that is broadcast,
    # unless it has the shape of the result.
    defp flat(free, sources, shape, nodes) do
      for id <- free,
          read?(id, sources),
          Shape.size(shape) > 1 and Shape.size(Stub.shape(nodes[id])) == Shape.size(shape),
          Enum.all?(sources, &flat?(&1, id)),
          do: id
    end

    defp read?(id, sources), do: Enum.any?(sources, &match?({:value, ^id, _}, &1))

    defp flat?({:value, id, moves}, id), do: Enum.all?(moves, &match?({:reshape, _}, &1))
    defp flat?(_source, _id), do: true

    @doc "The buffer of a view in a shape, if nothing else has the memory. `shares` has the references of the handles that several values have."
    @spec target(View.t() | term, Shape.t(), map) :: ExCubecl.Buffer.t() | nil
    def target(%View{buffer: %{ref: ref} = buffer, offset: 0} = view, shape, shares) do
      if not is_map_key(shares, ref) and Shape.size(buffer.shape) == Shape.size(shape) and
           Strides.contiguous?(view) and Temporaries.alone?(buffer, bytes(buffer)),
         do: %{buffer | shape: shape}
    end

    def target(_other, _shape, _shares), do: nil

    defp bytes(%{shape: shape, dtype: dtype}), do: Shape.size(shape) * DType.size!(dtype)
  end
end
