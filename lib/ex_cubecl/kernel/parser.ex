defmodule ExCubecl.Kernel.Parser do
  @moduledoc false
  # Turns Elixir's quoted code into the intermediate form of kernels: plain tuples, untyped, checked as far
  # as possible without types. Code that is not valid in a kernel raises a CompileError with its line.
  #
  #   expression  {:number, n} {:bool, b} {:var, name} {:index, axis} {:len, name} {:at, line, name, e}
  #               {:call, line, function, [e]} {:cast, dtype, e} {:if, line, c, e, e} {:inline, kernel, [e]}
  #   statement   {:let, line, name, e} {:write, line, name, e, e} {:branch, line, c, [s], [s]}
  #               {:for, line, name, e, e, [s]} {:atomic, line, op, name, e, e, name | nil} {:barrier, line}
  #
  # In a kernel of groups also {:local, axis} and {:group, axis}; `group` has the threads along x, y and z, `shared` the
  # memory of a group: {name, dtype | {:of, argument}, length}.

  import ExCubecl.Kernel.Expressions, only: [clause: 2, expression: 2]
  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Quoted

  alias ExCubecl.Kernel.{Groups, Unknown}

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

  @doc """
  Parses a kernel with these arguments and this body. `find` looks up other kernels: it takes
  `(module | nil, name, arity)` and returns a parsed kernel or `{:other, what}` as `ExCubecl.Kernel.Lookup` does.
  """
  def parse(name, args, body, opts, env, find) do
    state = %{
      file: env.file,
      line: env.line,
      name: name,
      module: env.module,
      in_library: in_library?(env),
      args: Enum.map(args, &argument(&1, env)),
      known: MapSet.new(),
      find: find,
      shared: [],
      group: nil
    }

    if Enum.uniq(state.args) != state.args,
      do: fail(state, env.line, "two arguments of the same name")

    if state.args == [],
      do: fail(state, env.line, "a kernel has arguments, at least a buffer")

    state = %{state | known: MapSet.new(state.args), group: Groups.threads(opts, body, state)}

    {memory, lines} =
      body |> lines() |> Enum.split_with(&match?({:=, _, [_, {:shared, _, _}]}, &1))

    state = Enum.reduce(memory, state, &Groups.shared/2)
    names = for {name, _, _} <- state.shared, do: name
    outputs = (lines |> written() |> Enum.uniq()) -- names

    for output <- outputs, output not in state.args do
      fail(
        state,
        env.line,
        "#{output} is no argument: only buffers that are passed can be written to"
      )
    end

    kernel = %{
      name: name,
      args: state.args,
      outputs: outputs,
      statements: [],
      result: nil,
      group: state.group,
      shared: Enum.reverse(state.shared)
    }

    kernel =
      if outputs == [] do
        if state.group,
          do:
            fail(
              state,
              env.line,
              "a kernel of groups writes into an argument, as in output[i] = ..."
            )

        {statements, result} = value_block(lines, state)
        %{kernel | statements: statements, result: result}
      else
        {statements, _} = statements(lines, state)
        %{kernel | statements: statements}
      end

    # Where each kernel calls the previous one twice, the size doubles with each kernel. A traversal of the whole
    # expanded code would not end, so the sizes are added up instead.
    size = size([kernel.statements, kernel.result], 0)

    if size > @max_size,
      do:
        fail(
          state,
          env.line,
          "it has more than 20,000 operations with all that it calls: use loops"
        )

    Map.put(kernel, :size, size)
  end

  defp size({:inline, %{size: size}, args}, sum), do: size(args, sum + size)
  defp size(list, sum) when is_list(list), do: Enum.reduce(list, sum, &size/2)

  defp size(tuple, sum) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.reduce(sum + 1, &size/2)

  defp size(_other, sum), do: sum

  defp argument({name, _, context}, _env) when is_atom(name) and is_atom(context), do: name

  defp argument({:when, meta, _}, env),
    do: fail(env, meta[:line] || env.line, "guards are not known in kernels: use if in the body")

  defp argument(other, env),
    do: fail(env, env.line, "arguments are names, not #{Macro.to_string(other)}")

  # The buffers that are written to, anywhere in the body.
  defp written(lines) do
    {_, names} =
      Macro.prewalk(lines, [], fn
        {:=, _, [{{:., _, [Access, :get]}, _, [{name, _, context}, _]}, _]} = node, names
        when is_atom(name) and is_atom(context) ->
          {node, [name | names]}

        {op, _, [{{:., _, [Access, :get]}, _, [{name, _, context}, _]}, _]} = node, names
        when is_map_key(@atomics, op) and is_atom(name) and is_atom(context) ->
          {node, [name | names]}

        node, names ->
          {node, names}
      end)

    Enum.reverse(names)
  end

  ## Statements

  defp statements(lines, state), do: Enum.map_reduce(lines, state, &statement/2)

  # Statements, and the last line, which has the value.
  defp value_block([], state),
    do:
      fail(
        state,
        state.line,
        "the body is empty: its last line is the result, or a line writes into an argument, as in output[i] = ..."
      )

  defp value_block(lines, state) do
    {before, [last]} = Enum.split(lines, -1)
    {statements, state} = statements(before, state)

    with {:=, meta, [{name, _, context}, _]} when is_atom(name) and is_atom(context) <- last do
      text =
        "the last line sets #{name}, and the value of a kernel is that of its last line: " <>
          "end with #{name}, or write into an argument, as in output[i] = ..."

      fail(state, meta, text)
    end

    {statements, expression(last, state)}
  end

  defp statement({:=, meta, [{{:., _, [Access, :get]}, _, [{name, _, _}, index]}, value]}, state) do
    {{:write, line(meta, state), name, expression(index, state), expression(value, state)}, state}
  end

  defp statement({:=, meta, [{name, _, context}, value]}, state)
       when is_atom(name) and is_atom(context) do
    if name in state.args or List.keymember?(state.shared, name, 0),
      do:
        fail(
          state,
          meta,
          "#{name} is an argument or shared memory: give the local variable another name"
        )

    local(value, name, meta, state)
  end

  defp statement({:=, meta, [pattern, _]}, state),
    do:
      fail(state, meta, "#{Macro.to_string(pattern)} is no variable: patterns are not known here")

  defp statement({op, meta, [_, _] = args}, state) when is_map_key(@atomics, op),
    do: {atomic(op, meta, args, nil, state), state}

  defp statement({:barrier, meta, []}, state), do: {{:barrier, line(meta, state)}, state}

  defp statement({:if, meta, [condition, branches]}, state)
       when is_list(branches) do
    condition = expression(condition, state)
    # A variable that is set in one branch only is not known after the branch.
    {then, _} = statements(lines(branches[:do]), state)

    {other, _} =
      if branches[:else], do: statements(lines(branches[:else]), state), else: {[], state}

    {{:branch, line(meta, state), condition, then, other}, state}
  end

  defp statement({:cond, meta, [[do: clauses]]}, state) when is_list(clauses),
    do: {conditions(clauses, line(meta, state), state), state}

  defp statement({:for, meta, [{:<-, _, [{name, _, context}, range]}, [do: body]]}, state)
       when is_atom(name) and is_atom(context) do
    {from, to} = range(range, meta, state)
    {body, _} = statements(lines(body), known(state, name))
    {{:for, line(meta, state), name, from, to, body}, state}
  end

  defp statement({:for, meta, _}, state),
    do: fail(state, meta, "a loop is written as: for i <- first..last do ... end")

  defp statement(other, state) do
    # An error in the expression itself is reported first.
    expression(other, state)

    fail(
      state,
      meta(other),
      "#{short(other)} does nothing here: write into an output, as in output[i] = ..., or set a variable"
    )
  end

  defp local({op, meta, [_, _] = args}, name, _meta, state) when is_map_key(@atomics, op),
    do: {atomic(op, meta, args, name, state), known(state, name)}

  defp local({:shared, _, _}, _name, meta, state),
    do: fail(state, meta, "shared memory is for all threads: not inside of an if or a loop")

  defp local(value, name, meta, state),
    do: {{:let, line(meta, state), name, expression(value, state)}, known(state, name)}

  defp atomic(
         op,
         meta,
         [{{:., _, [Access, :get]}, _, [{name, _, context}, index]}, value],
         before,
         state
       )
       when is_atom(name) and is_atom(context) do
    {:atomic, line(meta, state), @atomics[op], name, expression(index, state),
     expression(value, state), before}
  end

  defp atomic(op, meta, _args, _before, state),
    do: fail(state, meta, "#{op} changes an element: #{op}(output[i], value)")

  defp conditions([clause | rest], line, state) do
    {meta, condition, body} = clause(clause, state)
    condition = expression(condition, state)
    {then, _} = statements(lines(body), state)
    other = if rest == [], do: [], else: [conditions(rest, line, state)]
    {:branch, line(meta, state), condition, then, other}
  end

  defp range({:.., _, [from, to]}, _meta, state),
    do: {expression(from, state), expression(to, state)}

  defp range(other, meta, state),
    do: fail(state, meta, "#{Macro.to_string(other)} is no range: expected first..last")

  defp known(state, name), do: %{state | known: MapSet.put(state.known, name)}

  defp short(quoted), do: Unknown.short(quoted)
end
