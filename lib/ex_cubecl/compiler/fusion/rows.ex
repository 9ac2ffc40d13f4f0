if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Fusion.Rows do
    @moduledoc false
    # Nodes that all work on the rows along some axes of a shape: reductions of the rows, values of a row, and elements, as in softmax and in normalizations.
    #
    # A description has the `shape` of the elements, the `axes`, and the `levels` of its nodes by id: `:element`, or `:row` for a value that each row has
    # once. The shape of such a value has the axes with the length 1, or has no such axes.

    alias ExCubecl.Compiler.Fusion.{Code, Node, Stub}
    alias ExCubecl.{Ops, Shape}
    alias ExCubecl.Ops.{Index, Reductions, Shapes}
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @type t :: %{
            shape: Shape.t(),
            axes: [non_neg_integer],
            levels: %{non_neg_integer => :element | :row}
          }

    @floats [:f16, :bf16, :f32]
    @reductions [:sum, :reduce_max, :reduce_min]
    # Elements of the largest shape whose rows along several axes, but not the last one, are a kernel: measured on lavapipe, a normalization takes half of the time
    # of single steps at 400,000 elements, two thirds at 800,000, and 1.2 times at 1.6 million.
    @apart 1_048_576

    @doc "The description of a single reduction, or `nil` if no kernel of this kind has it."
    @spec new(Node.t()) :: t | nil
    def new(%{expr: %T{data: %Expr{op: op, args: [_, opts]}}, operands: [x]} = node)
        when op in @reductions do
      shape = Stub.shape(x)

      axes = Enum.sort(opts[:axes] || Enum.to_list(0..(length(shape) - 1)//1))

      with true <- node.dtype in @floats and Stub.dtype(x) == node.dtype,
           n when n > 1 <- axes |> Enum.map(&Enum.at(shape, &1)) |> Shape.size(),
           true <- Ops.Rows.one_launch?(n, div(Shape.size(shape), n)),
           true <- near?(axes, shape) do
        %{shape: shape, axes: axes, levels: %{node.id => :row}}
      else
        _ -> nil
      end
    end

    def new(_node), do: nil

    # Elements of a row along several axes are far from each other where the last axis is not one of them.
    defp near?([_], _shape), do: true

    defp near?(axes, shape),
      do: (length(shape) - 1) in axes or Shape.size(shape) <= @apart

    @doc """
    The level of a node that reads nodes of the description, or `nil` if it is not one of the rows. A reduction may also reduce what other nodes only read, if `read?`.
    """
    @spec level(Node.t(), t, boolean) :: :element | :row | nil
    def level(%{kind: kind} = node, rows, read? \\ false) do
      operands =
        for %T{data: %Expr{id: id}} = x <- node.operands,
            level = rows.levels[id],
            do: {level, Stub.shape(x)}

      cond do
        kind == :reduce and (read? or match?([{:element, _}], operands)) -> reduction(node, rows)
        operands == [] -> nil
        true -> level(kind, node, operands, rows)
      end
    end

    defp reduction(node, %{shape: shape, axes: axes}),
      do: if(match?(%{shape: ^shape, axes: ^axes}, new(node)), do: :row)

    defp level(:map, %{shape: shape}, operands, %{shape: shape} = rows) do
      fits? = fn {level, own} ->
        level == :element or own == kept(rows) or (first?(rows) and own == dropped(rows))
      end

      if Enum.all?(operands, fits?), do: :element
    end

    defp level(:map, %{shape: shape}, operands, rows) do
      if row?(shape, rows) and Enum.all?(operands, &(&1 == {:row, shape})), do: :row
    end

    # Inserts or removes the axes, or repeats the value along them.
    defp level(:view, %{shape: shape, moves: moves}, [{:row, _}], rows) do
      cond do
        row?(shape, rows) and match?([{:reshape, _}], moves) -> :row
        shape == rows.shape and moves == [{:reshape, kept(rows)}, {:broadcast, shape}] -> :element
        true -> nil
      end
    end

    defp level(_kind, _node, _operands, _rows), do: nil

    defp row?(shape, rows), do: shape == kept(rows) or shape == dropped(rows)
    defp kept(%{shape: shape, axes: axes}), do: Shapes.kept(shape, axes)

    defp dropped(%{shape: shape, axes: axes}),
      do: for({length, at} <- Enum.with_index(shape), at not in axes, do: length)

    # Values without these axes are broadcast along them.
    defp first?(%{axes: axes}), do: axes == Enum.to_list(0..(length(axes) - 1)//1)

    @doc "Whether a kernel of the rows does more than one reduction."
    @spec worth?(t, %{non_neg_integer => Node.t()}) :: boolean
    def worth?(%{levels: levels}, nodes) do
      reductions = Enum.count(levels, fn {id, _} -> nodes[id].kind == :reduce end)

      reductions > 1 or
        Enum.any?(levels, fn {id, level} -> level == :element and nodes[id].kind == :map end)
    end

    ## Code

    @doc "The code of `ExCubecl.Ops.Rows` for a description, and the sources of its arguments. `state` is code with all members and no section."
    @spec code(t, [non_neg_integer], map) :: {Ops.Rows.code(), list}
    def code(rows, outputs, state) do
      members = Enum.sort_by(state.members, &state.nodes[&1].at)
      rows = Enum.reduce(members, %{rows | levels: %{}}, &put_level(state.nodes[&1], &2))
      members = Enum.filter(members, &(rows.levels[&1] == :row))
      {phases, state} = phases(members, rows, state)
      {elements, values} = Enum.split_with(outputs, &(state.nodes[&1].shape == rows.shape))
      {last, state} = Code.section(stubs(elements, state), state)
      {given, state} = Code.section(stubs(values, state), state)
      found = Map.new(Enum.zip(elements, last.results) ++ Enum.zip(values, given.results))

      results =
        for id <- outputs,
            do: {if(id in elements, do: :element, else: :row), found[id], state.nodes[id].dtype}

      {args, sources} = Code.arguments(state)

      code = %{
        name: :rows,
        acc: :f32,
        args: args,
        phases: phases,
        last: {last.names, last.statements},
        results: results
      }

      {Map.put(code, :key, :erlang.md5(:erlang.term_to_binary(code))), sources}
    end

    defp stubs(ids, state), do: for(id <- ids, do: {state.nodes[id].expr, []})

    # Members that were added because only others of the rows use them have no level so far.
    defp put_level(node, rows) do
      level = if node.kind == :reduce, do: :row, else: level(node, rows)
      if level, do: %{rows | levels: Map.put(rows.levels, node.id, level)}, else: rows
    end

    # Equal reductions are one: Nx calculates the mean again for the variance.
    defp phases(members, rows, state) do
      {phases, {state, _known}} =
        Enum.flat_map_reduce(members, {state, %{}}, fn id, {state, known} ->
          node = state.nodes[id]

          same =
            if node.kind == :reduce,
              do: {node.expr.data.op, hd(node.operands).data.id, node.dtype}

          case known do
            %{^same => expression} ->
              {[], {Code.give(state, id, expression), known}}

            _ ->
              {phases, state} = phase(node, rows, state)
              known = if same, do: Map.put(known, same, state.given[id]), else: known
              {phases, {state, known}}
          end
        end)

      {phases, state}
    end

    defp phase(%{kind: :reduce} = node, _rows, state) do
      [x] = node.operands
      {section, state} = Code.section([{x, []}], state)
      name = {:row, map_size(state.given)}
      {step, first} = Reductions.accumulator(node.expr.data.op, :f32)
      element = {:cast, :f32, hd(section.results)}
      phase = {:reduce, name, section.names, section.statements, element, {step, first}}
      {[phase], Code.give(state, node.id, {:cast, node.dtype, Index.var(name)})}
    end

    defp phase(%{kind: :map} = node, rows, state) do
      moves = if node.shape == dropped(rows), do: [{:reshape, kept(rows)}], else: []
      {section, state} = Code.section([{node.expr, moves}], state)
      name = {:row, map_size(state.given)}
      phase = {:value, name, section.names, section.statements, hd(section.results)}
      {[phase], Code.give(state, node.id, Index.var(name))}
    end

    defp phase(%{kind: :view}, _rows, state), do: {[], state}
  end
end
