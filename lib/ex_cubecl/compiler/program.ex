if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Program do
    @moduledoc false
    # A scope as a list of steps in the order in which they run, each with the values that are freed after it. Values are numbered by the ids of the nodes.
    # A program frees what its own steps made, and only that: arguments, captured tensors and values of an outer scope belong to others. The body of a loop frees its
    # arguments, too: they are the state of the round before, which is given up. The components of a tuple belong to the tuple, since several nodes may take the
    # same one, in this scope and in those within it.
    #
    # A step is `{call, free}`, with the ids of the values that nothing needs after it. `peak` is the most bytes that a run of the outermost program needs, as `ExCubecl.Compiler.Rehearsal` tells
    # it. A call is one of
    #
    #   * `{:value, id, tensor}`: a constant
    #   * `{:constant, id, out, number}`: a constant of the default backend, where the backend of the operands is not known
    #   * `{:parameter, id, index}`, `{:captured, id, index}`; `{:drop, indices}` frees arguments that no node takes
    #   * `{:eager, id, operation, arguments, unused}`: a callback of the backend; an argument is `{:id, id}`, `{:list, arguments}` or `{:term, term}`;
    #     `unused` are the components of a tuple that no node takes
    #   * `{:create, id, operation, arguments}`: the same without operands
    #   * `{:fused, group}`: the kernels of a group of nodes
    #   * `{:elem, id, tuple, index}`, `{:attach, id, value}`
    #   * `{:cond, id, predicate, program, program, tuple?, unused}`, `{:while, id, initial, condition, body, tuple?, unused}`, where
    #     an id of `initial` is `{:host, id}` if the loop reads the value on the host
    #   * `{:lazy, id, program}`, `{:fun, id, arity, program}`, `{:effects, values, calls}`, `{:runtime_call, id, values, index, outs, tuple?, unused}`

    alias ExCubecl.Backend
    alias ExCubecl.Compiler.{Fusion, Graph, Liveness, Reuse, Scope}
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @creation [:eye, :iota]
    @leaves [:parameter, :captured, :constant]
    # Values of these belong to others, or have no memory.
    @borrowed @leaves ++ [:lazy, :fun, :effects]

    @enforce_keys [:steps, :outputs, :borrowed]
    defstruct [:steps, :outputs, :borrowed, peak: 0]

    @type t :: %__MODULE__{
            steps: [{tuple, [non_neg_integer]}],
            outputs: [non_neg_integer],
            borrowed: MapSet.t(),
            peak: non_neg_integer
          }

    @doc """
    The program of a scope. `config` is that of `ExCubecl.Backend`. With `generic?: true` each operation runs on the backend of its operands, for functions
    that a backend calls with tensors of its own.
    """
    @spec build(Scope.t(), map, boolean) :: t
    def build(%Scope{} = scope, config, generic? \\ false),
      do: build(scope, config, generic?, taken(scope))

    # `taken` are the components of tuples that nodes of the graph take, `given` the number of arguments that belong to the program.
    defp build(scope, config, generic?, taken, given \\ 0) do
      nodes = Map.new(scope.nodes, &{&1.data.id, &1})
      context = %{config: config, generic?: generic?, taken: taken, given: given}
      steps = for step <- partition(scope, config, generic?), do: step(step, context)
      steps = dropped(scope, given) ++ leaves(scope, steps, context) ++ steps

      owned = for node <- scope.nodes, owned?(node, given), into: MapSet.new(), do: node.data.id

      tuples =
        for %T{data: %Expr{op: :elem, args: [tuple, at]} = expr} <- scope.nodes,
            into: %{},
            do: {expr.id, {tuple.data.id, at}}

      owners = Map.new(tuples, fn {id, {tuple, _at}} -> {id, tuple} end)
      frees = Liveness.frees(steps, scope.outputs, owned, owners)
      steps = Reuse.plan(steps, frees, nodes)

      %__MODULE__{
        steps: Enum.zip(Enum.map(steps, & &1.call), frees),
        outputs: scope.outputs,
        borrowed: borrowed(scope.outputs, owned, tuples)
      }
    end

    # A group of kernels belongs to one device, and a step of a function to the backend that calls it.
    defp partition(scope, config, generic?) do
      steps =
        if generic?,
          do: Enum.map(scope.nodes, &{:eager, &1}),
          else: Fusion.partition(scope, config)

      Enum.reject(steps, &match?({:eager, %T{data: %Expr{op: op}}} when op in @leaves, &1))
    end

    # The values that steps or the caller need of the nodes that are no steps.
    defp leaves(scope, steps, context) do
      needed = Enum.into(Enum.flat_map(steps, & &1.reads), MapSet.new(scope.outputs))

      for %T{data: %Expr{id: id, op: op}} = node when op in @leaves <- scope.nodes,
          id in needed or (op == :parameter and context.given > 0),
          do: step({:eager, node}, context)
    end

    defp dropped(_scope, 0), do: []

    defp dropped(scope, given) do
      taken = for %T{data: %Expr{op: :parameter, args: [index]}} <- scope.nodes, do: index
      [%{call: {:drop, Enum.to_list(0..(given - 1)) -- taken}, reads: [], writes: []}]
    end

    defp owned?(%T{data: %Expr{op: :parameter}}, given), do: given > 0
    defp owned?(%T{data: %Expr{op: op}}, _given), do: op not in @borrowed

    # The positions of outputs that must be copied, because they belong to others or to an earlier position.
    defp borrowed(outputs, owned, tuples) do
      {positions, _} =
        outputs
        |> Enum.with_index()
        |> Enum.flat_map_reduce([], fn {id, at}, taken ->
          value = Map.get(tuples, id, id)
          owner = if is_tuple(value), do: elem(value, 0), else: value

          if owner in owned and value not in taken,
            do: {[], [value | taken]},
            else: {[at], taken}
        end)

      MapSet.new(positions)
    end

    # The components of tuples that nodes take, those of scopes within a scope included.
    defp taken(%Scope{nodes: nodes}), do: Enum.reduce(nodes, %{}, &taken/2)

    defp taken(%T{data: %Expr{op: :elem, args: [tuple, index]}}, taken),
      do: Map.update(taken, tuple.data.id, [index], &[index | &1])

    defp taken(%T{data: %Expr{op: op, args: args}}, taken) when op in [:cond, :lazy],
      do:
        for(
          %Scope{nodes: nodes} <- args,
          node <- nodes,
          reduce: taken,
          do: (acc -> taken(node, acc))
        )

    defp taken(_node, taken), do: taken

    ## Steps: the call, and the ids that it reads and writes

    defp step({:fused, group}, _context),
      do: %{call: {:fused, group}, reads: group.inputs, writes: group.outputs}

    defp step({:eager, %T{data: %Expr{id: id}} = node}, context),
      do: %{call: call(node, context), reads: ids(Graph.operands(node)), writes: [id]}

    defp ids(stubs), do: stubs |> Enum.map(& &1.data.id) |> Enum.uniq()

    defp call(%T{data: %Expr{id: id, op: op, args: args}} = node, context),
      do: call(op, args, id, node, context)

    defp call(:constant, [number], id, node, context) do
      if context.generic?,
        do: {:constant, id, out(node), number},
        else: {:value, id, Backend.constant(out(node), number, config: context.config)}
    end

    defp call(op, [index], id, _node, _context) when op in [:parameter, :captured],
      do: {op, id, index}

    defp call(:elem, [tuple, index], id, _node, _context), do: {:elem, id, tuple.data.id, index}
    defp call(:attach, [_effects, value], id, _node, _context), do: {:attach, id, value.data.id}

    defp call(:cond, [predicate, _outside, yes, no], id, node, context) do
      [yes, no] = for scope <- [yes, no], do: inner(scope, context)
      {:cond, id, predicate.data.id, yes, no, tuple?(node), unused(node, context)}
    end

    defp call(:while, [initial, condition, body], id, node, context) do
      initial = for {stub, at} <- Enum.with_index(initial), do: initial(stub, at, condition, body)
      condition = build(condition, context.config, context.generic?)
      body = build(body, context.config, context.generic?, taken(body), length(initial))
      {:while, id, initial, condition, body, tuple?(node), unused(node, context)}
    end

    defp call(:lazy, [_outside, scope], id, _node, context),
      do: {:lazy, id, inner(scope, context)}

    defp call(:fun, [arity, scope], id, _node, context),
      do: {:fun, id, arity, build(scope, context.config, true)}

    defp call(:effects, [values, calls], _id, _node, _context),
      do: {:effects, Enum.map(values, & &1.data.id), calls}

    defp call(:runtime_call, [values, index, outs], id, node, context) do
      values = Enum.map(values, & &1.data.id)
      {:runtime_call, id, values, index, outs, tuple?(node), unused(node, context)}
    end

    defp call(op, args, id, node, _context) when op in @creation,
      do: {:create, id, op, Enum.map([out(node) | args], &argument/1)}

    defp call(:block, [struct | args], id, node, context) do
      # A block with several results has their descriptions.
      {outs, args} = Enum.split(args, length(args) - 1)
      [args] = args
      out = if outs == [], do: out(node), else: hd(outs)
      callback = fn _struct -> raise "the backend has this block" end

      args = [
        {:term, struct},
        {:term, out},
        {:list, Enum.map(args, &argument/1)},
        {:term, callback}
      ]

      {:eager, id, :block, args, unused(node, context)}
    end

    defp call(op, args, id, node, context) do
      args = if tuple?(node), do: args, else: [out(node) | args]
      {:eager, id, op, Enum.map(args, &argument/1), unused(node, context)}
    end

    # An integer that a condition reads is the same on the host, unless it is divided. In host memory it costs no launch and no wait in each round.
    @divisions [:quotient, :remainder, :pow]

    defp initial(%T{type: {kind, bits}, data: %Expr{id: id}} = stub, at, condition, body) do
      parameter? = &match?(%T{data: %Expr{op: :parameter, args: [^at]}}, &1)
      divides? = &(&1.data.op in @divisions)

      if kind in [:s, :u] and bits >= 8 and Liveness.size(stub) == div(bits, 8) and
           Enum.any?(condition.nodes, parameter?) and
           not Enum.any?(condition.nodes ++ body.nodes, divides?),
         do: {:host, id},
         else: id
    end

    # A scope of the same graph.
    defp inner(scope, context),
      do: build(scope, context.config, context.generic?, context.taken)

    defp out(node), do: %{node | data: nil}
    defp tuple?(%T{type: type}), do: match?({:tuple, _}, type)

    defp unused(%T{type: {:tuple, size}, data: %Expr{id: id}}, %{taken: taken}),
      do: Enum.to_list(0..(size - 1)//1) -- Map.get(taken, id, [])

    defp unused(_node, _context), do: []

    defp argument(%T{data: %Expr{id: id}}), do: {:id, id}

    defp argument(list) when is_list(list) do
      if Enum.any?(list, &match?(%T{data: %Expr{}}, &1)),
        do: {:list, Enum.map(list, &argument/1)},
        else: {:term, list}
    end

    defp argument(other), do: {:term, other}
  end
end
