if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion do
    @moduledoc false
    # Element-wise operations, and what reads or feeds them, as few kernels. A kernel has the operations, types and casts of the callbacks of
    # `ExCubecl.Backend` that it replaces, one after the other, and therefore the bits of their results.

    alias ExCubecl.{Backend, Buffer, Error, Ops, Shape, View}
    alias ExCubecl.Compiler.{Graph, Reuse}
    alias ExCubecl.Compiler.Fusion.{Bindings, Code, Group, Node, Operation, Partition, Rows, Stub}
    alias ExCubecl.Error.Text
    alias ExCubecl.Nx.{Order, Storage}
    alias ExCubecl.Ops.{Epilogue, Reductions, Results, Shapes}
    alias ExCubecl.View.Strides
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @type step :: {:eager, Nx.Tensor.t()} | {:fused, Group.t()}

    @doc """
    The steps of a scope, in an order in which they can run, leaves first. Indices that only kernels use are no step. `config` is that of `ExCubecl.Backend`.
    """
    @spec partition(map, map) :: [step]
    def partition(scope, config) do
      nodes = Node.all(scope.nodes, config)
      clusters = Partition.clusters(scope, nodes, Bindings.most(config.device))

      leaves =
        for %T{data: %Expr{id: id}} = expr <- scope.nodes,
            nodes[id].kind == :leaf,
            do: {:eager, expr}

      steps = leaves ++ Enum.flat_map(clusters, &steps(&1, nodes, config))

      needed =
        steps |> Enum.flat_map(&read/1) |> MapSet.new() |> MapSet.union(MapSet.new(scope.outputs))

      Enum.reject(steps, &unused?(&1, nodes, needed))
    end

    defp steps(%{kind: :other, ids: ids}, nodes, _config),
      do: for(id <- ids, do: {:eager, nodes[id].expr})

    defp steps(cluster, nodes, config), do: [{:fused, group(cluster, nodes, config)}]

    defp read({:fused, group}), do: group.inputs
    defp read({:eager, expr}), do: for(%T{data: %Expr{id: id}} <- Graph.operands(expr), do: id)

    defp unused?({:eager, %T{data: %Expr{id: id}}}, nodes, needed),
      do: nodes[id].kind == :iota and id not in needed

    defp unused?(_step, _nodes, _needed), do: false

    defp group(cluster, nodes, config, part \\ 0)

    defp group(%{kind: {:parts, parts}} = cluster, nodes, config, _part) do
      groups = for {part, at} <- Enum.with_index(parts), do: group(part, nodes, config, at)

      %Group{
        kind: {:parts, groups},
        inputs: groups |> Enum.flat_map(& &1.inputs) |> Enum.uniq(),
        outputs: Enum.flat_map(groups, & &1.outputs),
        members: cluster.ids,
        small?: Enum.all?(groups, & &1.small?),
        results: groups |> Enum.map(& &1.results) |> Enum.reduce(&Map.merge/2)
      }
    end

    defp group(%{kind: kind, ids: ids, outputs: outputs} = cluster, nodes, config, part) do
      state = Code.new(ids, nodes, config, kind == :map, part)
      {shape, code, sources} = code(kind, outputs, nodes, state)
      epilogue = epilogue(cluster, nodes, config)

      %Group{
        kind: kind,
        inputs:
          (inputs(sources, kind) ++ inputs(epilogue_sources(epilogue), kind)) |> Enum.uniq(),
        outputs: outputs,
        members: ids,
        small?: Enum.all?(ids, &(Shape.size(nodes[&1].shape) <= config.host_limit)),
        results: Map.new(outputs, &{&1, nodes[&1].expr}),
        shape: shape,
        code: code,
        kernel: if(match?(%{statements: _, results: [_]}, code), do: Results.kernel(code)),
        sources: sources,
        root: root(kind, nodes),
        epilogue: epilogue,
        exponents: exponents(ids, nodes),
        exprs: for(id <- ids, do: nodes[id].expr)
      }
    end

    defp inputs(sources, kind) do
      for {:value, id, _} <- sources, not match?({_, ^id}, kind), do: id
    end

    defp root({kind, id}, nodes) when kind in [:reduce, :operation], do: nodes[id].expr
    defp root(_kind, _nodes), do: nil

    # The code of the results that are not the root itself, or of all if there are others.
    defp epilogue(%{kind: {kind, id}, ids: ids, outputs: outputs}, nodes, config)
         when kind in [:reduce, :operation] and outputs != [id] do
      state = ids |> List.delete(id) |> Code.new(nodes, config, true, 1) |> Code.put_result(id)
      {_shape, code, sources} = code(:map, outputs, nodes, state)
      {code, sources}
    end

    defp epilogue(_cluster, _nodes, _config), do: nil

    defp epilogue_sources(nil), do: []
    defp epilogue_sources({_code, sources}), do: sources

    defp code(:map, [first | _] = outputs, nodes, state) do
      {section, state} = Code.section(for(id <- outputs, do: {nodes[id].expr, []}), state)

      results =
        for {id, result} <- Enum.zip(outputs, section.results), do: {result, nodes[id].dtype}

      {args, sources} = Code.arguments(state)
      {nodes[first].shape, Results.code(:fused, args, section.statements, results), sources}
    end

    defp code({:reduce, id}, _outputs, nodes, state) do
      %{expr: %T{data: %Expr{op: op}}, operands: [operand]} = nodes[id]

      {section, state} = Code.section([{operand, []}], state)
      result = Reductions.element(op, hd(section.results), Stub.dtype(operand))
      {args, sources} = Code.arguments(state)
      {Stub.shape(operand), Results.code(op, args, section.statements, [result]), sources}
    end

    defp code({:operation, id}, _outputs, nodes, _state) do
      %{operands: operands, shape: shape} = nodes[id]
      {shape, nil, for(%T{data: %Expr{id: id}} <- operands, do: {:value, id, []})}
    end

    defp code({:rows, rows}, outputs, _nodes, state) do
      {code, sources} = Rows.code(rows, outputs, state)
      {rows.shape, code, sources}
    end

    defp exponents(ids, nodes) do
      for id <- ids,
          %T{data: %Expr{op: :pow}} = expr <- [nodes[id].expr],
          [_, exponent] = Graph.operands(expr),
          do: exponent.data.id
    end

    @doc """
    Runs a group on the values of its inputs: the id and the tensor of each output, and the ids of the inputs whose memory outputs have now. `values.shares` has the
    handles that several values have.
    """
    @spec run(Group.t(), %{(non_neg_integer | :shares) => term}, map) ::
            {[{non_neg_integer, Nx.Tensor.t()}], [non_neg_integer]}
    def run(%Group{} = group, values, config) do
      if group.small? and Enum.all?(group.inputs, &Storage.on_host?(values[&1])),
        do: apart(group, values, config),
        else: run_kernel(group, values, config)
    end

    defp run_kernel(group, values, config) do
      known =
        group.inputs |> Map.new(&{&1, value(values[&1], config)}) |> viewed(group, values, config)

      with true <- serves?(group, known, Bindings.most(config.device)),
           group = targeted(group, known, values.shares),
           {:ok, buffers} <- launch(group, known, config) do
        results =
          for {id, buffer} <- Enum.zip(group.outputs, buffers),
              do: {id, Storage.put(template(id, group), buffer, config)}

        {results, for({id, _buffer} <- replaced(group), do: id)}
      else
        {:error, %Error{reason: reason} = error}
        when reason not in [:unsupported, :unsupported_dtype] ->
          raise error

        _ ->
          apart(group, values, config)
      end
    end

    # Operands that are numbers, where the kernel needs views, and the backend on its own would have memory for each intermediate value.
    defp viewed(known, %{kind: {kind, _}, shape: shape} = group, values, config)
         when kind in [:reduce, :rows, :operation] do
      ids = for {:value, id, _} <- group.sources, uniq: true, do: id

      cond do
        Shape.size(shape) <= config.host_limit -> known
        kind == :operation -> put_views(known, ids, values, config)
        Enum.any?(group.sources, &view?(&1, known)) -> known
        true -> put_views(known, Enum.take(ids, 1), values, config)
      end
    end

    defp viewed(known, _group, _values, _config), do: known

    defp put_views(known, ids, values, config) do
      for id <- ids,
          not is_struct(known[id], View),
          into: known,
          do: {id, Storage.view(values[id], config)}
    end

    defp view?({:value, id, _moves}, known), do: is_struct(known[id], View)
    defp view?(_iota, _known), do: false

    # Whether the kernel calculates what the backend would on these values.
    # Which operands are numbers, and how many views the kernel reads of one tensor, is known only here.
    defp serves?(%{kind: {:parts, groups}} = group, known, most) do
      Enum.all?(groups, &serves?(&1, known, most)) and
        groups |> Enum.flat_map(& &1.sources) |> bound?(group.outputs, known, most)
    end

    defp serves?(group, known, most) do
      operands? =
        case group.kind do
          {:operation, _} -> Enum.all?(group.sources, &view?(&1, known))
          # Epilogues do not tell the shape of what is reduced.
          {:reduce, _} -> Enum.any?(group.sources, &view?(&1, known))
          _ -> Enum.any?(group.inputs, &is_struct(known[&1], View)) or indices?(group)
        end

      operands? and not Enum.any?(group.exponents, &(known[&1] == 2)) and
        bound?(group.sources ++ epilogue_sources(group.epilogue), group.outputs, known, most)
    end

    # The elements of a kernel that reads numbers alone can be indices.
    defp indices?(group),
      do:
        group.kind == :map and not group.small? and
          Enum.any?(group.sources, &match?({:iota, _}, &1))

    defp bound?(sources, outputs, known, most) do
      read? = &(elem(&1, 0) == :value and is_struct(known[elem(&1, 1)], View))
      length(outputs) + Enum.count(sources, read?) <= most
    end

    defp apart(%{kind: {:parts, groups}}, values, config) do
      {results, replaced} = groups |> Enum.map(&run(&1, values, config)) |> Enum.unzip()
      {Enum.concat(results), Enum.concat(replaced)}
    end

    defp apart(group, values, config), do: {one_by_one(group, values, config), []}

    # `into` with the ids and buffers of the operands that results replace, now that these are known.
    defp targeted(%{kind: {:parts, groups}} = group, known, shares),
      do: %{group | kind: {:parts, for(part <- groups, do: targeted(part, known, shares))}}

    defp targeted(%{into: into} = group, known, shares) do
      shape = if group.epilogue, do: shape_of_epilogue(group), else: group.shape

      into =
        for {out, id} <- into,
            buffer = Reuse.target(known[id], shape, shares),
            into: %{},
            do: {out, {id, buffer}}

      %{group | into: into}
    end

    defp replaced(%{kind: {:parts, groups}}), do: Enum.flat_map(groups, &replaced/1)
    defp replaced(%{into: into}), do: Map.values(into)

    defp targets(%{into: into}) when into == %{}, do: []

    defp targets(%{into: into, outputs: outputs}) do
      for out <- outputs do
        with {_id, buffer} <- into[out], do: buffer
      end
    end

    defp template(id, group), do: %{group.results[id] | data: nil}

    defp value(tensor, config) do
      case Storage.known_number(tensor) do
        {:ok, number} -> number
        :error -> Storage.view(tensor, config)
      end
    end

    # `given` is the id of a value that the kernel has.
    defp operands(sources, known, given \\ nil) do
      for source <- sources do
        case source do
          {:value, ^given, []} ->
            :given

          {:value, id, moves} ->
            moved(known[id], moves)

          iota ->
            iota
        end
      end
    end

    # A view of a part of a shape is one of a larger range than its buffer has.
    defp moved(%View{} = value, moves) do
      view = Code.moved(value, moves)
      if Enum.any?(moves, &match?({:place, _, _}, &1)), do: {:part, view}, else: view
    end

    defp moved(number, _moves), do: number

    defp launch(%{kind: {:parts, groups}}, known, config) do
      parts =
        for group <- groups do
          operands = operands(group.sources, known)
          {group.code, operands, group.shape, targets(group)}
        end

      with {:ok, buffers} <- Ops.Parts.run(parts, Storage.buffer_options(config)),
           do: {:ok, Enum.concat(buffers)}
    end

    defp launch(group, known, config) do
      operands = operands(group.sources, known)

      case launch(group.kind, group, operands, config, epilogue_of(group, known, config)) do
        {:ok, %Buffer{} = buffer} -> {:ok, [buffer]}
        other -> other
      end
    end

    defp epilogue_of(%{epilogue: nil}, _known, _config), do: nil

    defp epilogue_of(%{epilogue: {code, sources}, root: root} = group, known, config) do
      %Epilogue{
        code: code,
        operands: operands(sources, known, root.data.id),
        shape: shape_of_epilogue(group),
        opts: Storage.buffer_options(config),
        targets: targets(group)
      }
    end

    # The operation has its result in a shape of as many elements.
    defp shape_of_epilogue(%{root: %{data: %{id: root}}, outputs: outputs, results: results}) do
      [id | _] = List.delete(outputs, root)
      Stub.shape(results[id])
    end

    defp launch(:map, group, operands, config, nil) do
      options = Storage.buffer_options(config)
      targets = targets(group)

      cond do
        group.kernel == nil or Enum.any?(operands, &match?({_, _}, &1)) ->
          Results.run(group.code, operands, group.shape, options, targets)

        targets == [] ->
          operands = whole(operands, group.shape)
          Ops.Lowering.map(group.kernel, operands, Keyword.delete(options, :device))

        true ->
          with :ok <- Ops.Lowering.map(group.kernel, operands, into: hd(targets)),
               do: {:ok, targets}
      end
    end

    defp launch({:reduce, _id}, %{root: root} = group, operands, _config, epilogue) do
      %T{data: %Expr{op: op, args: [_, opts]}} = root
      axis = if opts[:axis], do: [opts[:axis]]
      axes = opts[:axes] || axis || Enum.to_list(0..(length(group.shape) - 1)//1)
      axes = Enum.sort(axes)
      operands = whole(operands, group.shape)
      [{_, dtype}] = group.code.results

      if op in Node.places() do
        elements = {group.kernel, operands, dtype}
        Order.index_of(root, elements, axes, op, opts[:tie_break])
      else
        dtypes = {dtype, Stub.dtype(root)}
        Reductions.run_kernel(op, group.kernel, operands, axes, dtypes, epilogue)
      end
    end

    defp launch({:operation, _id}, %{root: root}, operands, _config, epilogue),
      do: Operation.run(root, operands, epilogue)

    defp launch({:rows, rows}, group, operands, config, nil) do
      options = Storage.buffer_options(config)
      Ops.Rows.run_code(group.code, operands, {group.shape, rows.axes}, options, targets(group))
    end

    # The eager lowering takes the shape of its result from the broadcast of its operands. If all of them have axes of length 1 where the group is
    # longer, the first one is broadcast to the shape of the group.
    defp whole(operands, shape) do
      views = for %View{shape: shape} <- operands, do: shape

      case Shapes.broadcast(:fused, views) do
        {:ok, ^shape} -> operands
        _ -> first_whole(operands, shape)
      end
    end

    defp first_whole([%View{} = view | rest], shape), do: [Strides.broadcast(view, shape) | rest]
    defp first_whole([other | rest], shape), do: [other | first_whole(rest, shape)]

    ## On the backend

    defp one_by_one(group, values, config) do
      values =
        group.exprs
        |> Enum.reduce(values, &Map.put(&2, &1.data.id, callback(&1, &2, config)))

      for id <- group.outputs, do: {id, values[id]}
    end

    defp callback(%T{data: %Expr{op: op, args: args}} = expr, values, config) do
      args = for arg <- args, do: argument(arg, values, config)
      apply(Backend, op, [%{expr | data: nil} | args])
    end

    defp argument(%T{data: %Expr{op: :constant, args: [number]}} = stub, _values, config),
      do: Backend.constant(%{stub | data: nil}, number, config: config)

    defp argument(%T{data: %Expr{op: :iota, args: [axis], id: id}} = stub, values, config)
         when not is_map_key(values, id),
         do: Backend.iota(%{stub | data: nil}, axis, config: config)

    defp argument(%T{data: %Expr{id: id}}, values, _config), do: Map.fetch!(values, id)

    defp argument([%T{} | _] = list, values, config),
      do: Enum.map(list, &argument(&1, values, config))

    defp argument(other, _values, _config), do: other

    ## Descriptions

    @doc "What a group does, on one line."
    @spec describe(Group.t()) :: String.t()
    def describe(%Group{kind: {:parts, groups}}), do: Enum.map_join(groups, ", ", &describe/1)

    def describe(%Group{} = group) do
      names = Enum.map_join(group.exprs, " ", &Atom.to_string(&1.data.op))
      "#{names} of #{Text.show(group.shape)}"
    end
  end
end
