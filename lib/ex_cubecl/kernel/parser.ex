defmodule ExCubecl.Kernel.Parser do
  @moduledoc false
  # Turns Elixir's quoted code into the intermediate form of kernels: plain tuples, untyped, checked as far
  # as possible without types. Code that is not valid in a kernel raises a CompileError with its line.
  #
  #   expression  {:number, n} {:bool, b} {:var, name} {:index, axis} {:len, name} {:shape, name, axis} {:at, line, name, e}
  #               {:call, line, function, [e]} {:cast, dtype, e} {:bitcast, line, dtype, e}
  #               {:if, line, c, e, e} {:inline, kernel, [e]}
  #   statement   {:let, line, name, e} {:write, line, name, e, e} {:branch, line, c, [s], [s]}
  #               {:for, line, name, e, e, [s]} {:while, line, c, e, [s]} {:atomic, line, op, name, e, e, name | nil} {:barrier, line}
  #               {:run, kernel, [e]}
  #
  # In a kernel of groups also {:local, axis}, {:group, axis}, {:plane_lane}, {:plane_size}, {:plane, line, op, e} and
  # {:plane_broadcast, line, e, lane}; `group` has the threads along x, y and z, `shared` the
  # memory of a group: {name, dtype | {:of, argument}, length}.

  import ExCubecl.Kernel.Expressions, only: [clause: 2, expression: 2, index: 4]
  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Quoted

  alias ExCubecl.Kernel.{Diagnostics, Expander, Fold, Groups, IndexedCalls, Scope}

  @atomics %{
    atomic_add: :add,
    atomic_min: :min,
    atomic_max: :max,
    atomic_and: :band,
    atomic_or: :bor,
    atomic_xor: :bxor,
    atomic_exchange: :exchange
  }

  # The same limit as on the native side.
  @max_size 20_000

  defguardp variable?(name, context) when is_atom(name) and is_atom(context)

  @doc """
  Parses a kernel with these arguments and this body. `resolve` finds other kernels: it takes
  `(module | nil, name, arity)` and returns as `ExCubecl.Kernel.Resolver.resolve/4`.
  """
  def parse(name, args, body, opts, env, resolve) do
    scope = Scope.new(name, args, env, resolve)
    body = Expander.expand(body, scope)
    scope = %{scope | group: Groups.threads(opts, body, scope)}

    {shared, lines} =
      body |> lines() |> Enum.split_with(&match?({:=, _, [_, {:shared, _, _}]}, &1))

    scope = Enum.reduce(shared, scope, &Groups.shared/2)
    outputs = (written(lines) ++ IndexedCalls.outputs(lines, scope)) |> Scope.outputs(scope)
    {statements, result} = body(lines, outputs, scope)

    %{
      name: name,
      args: scope.args,
      outputs: outputs,
      statements: statements,
      result: result,
      group: scope.group,
      shared: Enum.reverse(scope.shared),
      size: checked_size([statements, result], scope)
    }
  end

  # The buffers and shared arrays that are written to, anywhere in the body.
  defp written(lines) do
    {_, names} =
      Macro.prewalk(lines, [], fn
        {op, _, [{{:., _, [Access, :get]}, _, [{name, _, context}, _]}, _]} = node, names
        when (op == := or is_map_key(@atomics, op)) and variable?(name, context) ->
          {node, [name | names]}

        node, names ->
          {node, names}
      end)

    Enum.reverse(names)
  end

  # Where each kernel calls the previous one twice, the size doubles with each kernel. A traversal of the whole
  # expanded code would not end, so the sizes are added up instead.
  defp checked_size(code, scope) do
    case size(code, 0) do
      size when size <= @max_size ->
        size

      _ ->
        text = "it has more than 20,000 operations with all that it calls: use loops"
        fail(scope, scope.line, text)
    end
  end

  defp size({called, %{size: size}, args}, sum) when called in [:inline, :run],
    do: size(args, sum + size)

  defp size(list, sum) when is_list(list), do: Enum.reduce(list, sum, &size/2)

  defp size(tuple, sum) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.reduce(sum + 1, &size/2)

  defp size(_other, sum), do: sum

  ## Bodies

  # The statements and the result of an element-wise kernel; an indexed kernel has no result.
  defp body(_lines, [], %{group: [_ | _]} = scope) do
    text = "a kernel of groups writes into an argument, as in output[i] = ..."
    fail(scope, scope.line, text)
  end

  defp body([], [], scope) do
    text =
      "the body is empty: its last line is the result, or a line writes into an argument, as in output[i] = ..."

    fail(scope, scope.line, text)
  end

  defp body(lines, [], scope) do
    {before, [last]} = lines |> Enum.flat_map(&Fold.lines(&1, scope)) |> Enum.split(-1)
    {statements, scope} = statements(before, scope)

    with {:=, meta, [{name, _, context}, _]} when variable?(name, context) <- last do
      text =
        "the last line sets #{name}, and the value of a kernel is that of its last line: " <>
          "end with #{name}, or write into an argument, as in output[i] = ..."

      fail(scope, meta, text)
    end

    {statements, expression(last, scope)}
  end

  defp body(lines, _outputs, scope), do: {block(lines, scope), nil}

  ## Statements

  # A variable that is set in a block is not known after the block.
  defp block(lines, scope), do: lines |> statements(scope) |> elem(0)

  defp statements(lines, scope) do
    lines |> Enum.flat_map(&Fold.lines(&1, scope)) |> Enum.map_reduce(scope, &statement/2)
  end

  defp statement({:=, meta, [{{:., _, [Access, :get]}, _, [{name, _, _}, index]}, value]}, scope) do
    {{:write, line(meta, scope), name, index(name, index, meta, scope), expression(value, scope)},
     scope}
  end

  defp statement({:=, meta, [{name, _, context}, value]}, scope) when variable?(name, context) do
    {name, after_line} = Scope.put_variable(scope, name, meta)
    {set(value, name, meta, scope), after_line}
  end

  defp statement({:=, meta, [pattern, _]}, scope) do
    text = "#{Macro.to_string(pattern)} is no variable: patterns are not known here"
    fail(scope, meta, text)
  end

  defp statement({op, meta, [_, _] = args}, scope) when is_map_key(@atomics, op),
    do: {atomic(op, meta, args, nil, scope), scope}

  defp statement({:barrier, meta, []}, scope), do: {{:barrier, line(meta, scope)}, scope}

  defp statement({:if, meta, [condition, branches]}, scope) when is_list(branches) do
    condition = expression(condition, scope)
    [then, other] = for key <- [:do, :else], do: branches[key] |> lines() |> block(scope)
    {{:branch, line(meta, scope), condition, then, other}, scope}
  end

  defp statement({:cond, meta, [[do: clauses]]}, scope) when is_list(clauses),
    do: {conditions(clauses, line(meta, scope), scope), scope}

  defp statement({:for, meta, [{:<-, _, [{name, _, context}, range]}, [do: body]]}, scope)
       when variable?(name, context) do
    {from, to} = range(range, meta, scope)
    {counter, inside} = Scope.put_counter(scope, name, meta)
    {{:for, line(meta, scope), counter, from, to, body |> lines() |> block(inside)}, scope}
  end

  defp statement({:for, meta, _}, scope),
    do:
      fail(
        scope,
        meta,
        "a loop is written as: for i <- first..last do ... end, and one of several indices as loops in each other"
      )

  defp statement({:while, meta, [condition | rest]}, scope) do
    with true <- Enum.all?(rest, &Keyword.keyword?/1),
         [do: body, limit: limit] <- rest |> Enum.concat() |> Enum.sort_by(&elem(&1, 0)) do
      [condition, limit] = Enum.map([condition, limit], &expression(&1, scope))
      {{:while, line(meta, scope), condition, limit, body |> lines() |> block(scope)}, scope}
    else
      _ ->
        text =
          "a loop with a condition has a limit of its iterations, and is written as: while x > 1, limit: 100 do ... end"

        fail(scope, meta, text)
    end
  end

  defp statement(other, scope) do
    with nil <- IndexedCalls.statement(other, scope) do
      # An error in the expression itself is reported first.
      expression(other, scope)

      text =
        "#{Diagnostics.short(other)} does nothing here: write into an output, as in output[i] = ..., or set a variable"

      fail(scope, meta(other), text)
    else
      call -> {call, scope}
    end
  end

  # The statement that sets a variable.
  defp set({op, meta, [_, _] = args}, name, _meta, scope) when is_map_key(@atomics, op),
    do: atomic(op, meta, args, name, scope)

  defp set({:shared, _, _}, _name, meta, scope),
    do: fail(scope, meta, "shared memory is for all threads: not inside of an if or a loop")

  defp set(value, name, meta, scope),
    do: {:let, line(meta, scope), name, expression(value, scope)}

  # `before` is the variable that gets the previous element, or `nil`.
  defp atomic(op, meta, [target, value], before, scope) do
    with {{:., _, [Access, :get]}, _, [{name, _, context}, index]} when variable?(name, context) <-
           target do
      index = index(name, index, meta, scope)
      {:atomic, line(meta, scope), @atomics[op], name, index, expression(value, scope), before}
    else
      _ -> fail(scope, meta, "#{op} changes an element: #{op}(output[i], value)")
    end
  end

  defp conditions([clause | rest], line, scope) do
    {meta, condition, body} = clause(clause, scope)
    condition = expression(condition, scope)
    then = body |> lines() |> block(scope)
    other = if rest == [], do: [], else: [conditions(rest, line, scope)]
    {:branch, line(meta, scope), condition, then, other}
  end

  defp range({:.., _, [from, to]}, _meta, scope),
    do: {expression(from, scope), expression(to, scope)}

  defp range(other, meta, scope),
    do: fail(scope, meta, "#{Macro.to_string(other)} is no range: expected first..last")
end
