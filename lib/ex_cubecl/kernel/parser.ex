defmodule ExCubecl.Kernel.Parser do
  @moduledoc false
  # From Elixir's quoted code to the language of kernels: plain tuples, untyped, checked for what can
  # be known without types. Whatever is not of the language is a CompileError with its line.
  #
  #   expression  {:number, n} {:bool, b} {:var, name} {:index, axis} {:len, name} {:at, line, name, e}
  #               {:call, line, function, [e]} {:cast, dtype, e} {:if, line, c, e, e} {:inline, kernel, [e]}
  #   statement   {:let, line, name, e} {:write, line, name, e, e} {:branch, line, c, [s], [s]}
  #               {:for, line, name, e, e, [s]} {:atomic, line, op, name, e, e, name | nil} {:barrier, line}
  #
  # In a kernel of groups also {:local, axis} and {:group, axis}; `group` has the threads along x, y and z, `shared` the
  # memory of a group: {name, dtype | {:of, argument}, length}.

  import ExCubecl.Kernel.Mistake

  alias ExCubecl.DType
  alias ExCubecl.Kernel.{Groups, Unknown}

  @unary %{
    -: :neg,
    not: :not,
    bnot: :bnot,
    "~~~": :bnot,
    abs: :abs,
    exp: :exp,
    log: :log,
    log1p: :log1p,
    sin: :sin,
    cos: :cos,
    tan: :tan,
    tanh: :tanh,
    sinh: :sinh,
    cosh: :cosh,
    asin: :asin,
    acos: :acos,
    atan: :atan,
    sqrt: :sqrt,
    rsqrt: :rsqrt,
    round: :round,
    floor: :floor,
    ceil: :ceil,
    trunc: :trunc,
    erf: :erf,
    nan?: :nan?,
    infinite?: :infinite?,
    count_ones: :count_ones
  }

  @binary %{
    +: :add,
    -: :sub,
    *: :mul,
    /: :divide,
    div: :div,
    rem: :rem,
    **: :pow,
    pow: :pow,
    atan2: :atan2,
    min: :min,
    max: :max,
    and: :and,
    or: :or,
    band: :band,
    &&&: :band,
    bor: :bor,
    |||: :bor,
    bxor: :bxor,
    bsl: :shl,
    <<<: :shl,
    bsr: :shr,
    >>>: :shr,
    ==: :eq,
    !=: :ne,
    <: :lt,
    <=: :le,
    >: :gt,
    >=: :ge
  }

  @atomics %{
    atomic_add: :add,
    atomic_min: :min,
    atomic_max: :max,
    atomic_and: :band,
    atomic_or: :bor,
    atomic_xor: :bxor,
    atomic_exchange: :exchange
  }

  # How many arguments the words take that are neither @unary nor @binary; :+ and :- are of one too.
  @words [
    index: [0, 1],
    len: [1],
    cast: [2],
    local: [0, 1],
    group: [0, 1],
    group_size: [0, 1],
    shared: [2],
    barrier: [0],
    +: [1]
  ]

  @doc "How many arguments a function of the language takes: none of them for a name that is none."
  @spec arities(atom) :: [arity]
  def arities(name) do
    one = if is_map_key(@unary, name), do: [1], else: []
    two = if is_map_key(@binary, name) or is_map_key(@atomics, name), do: [2], else: []
    Enum.uniq(one ++ Keyword.get(@words, name, []) ++ two)
  end

  @doc """
  A kernel of these arguments and this body; `find` looks up others: `(module | nil, name, arity)`, and returns a
  parsed kernel or `{:other, what}` as `ExCubecl.Kernel.Lookup`.
  """
  def parse(name, args, body, opts, env, find) do
    state = %{
      file: env.file,
      line: env.line,
      name: name,
      module: env.module,
      args: Enum.map(args, &argument(&1, env)),
      known: MapSet.new(),
      find: find,
      shared: [],
      group: nil,
      # Whether all threads of a group come by, and the loop variables that are the same for all.
      together: true,
      same: MapSet.new()
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
  end

  defp argument({name, _, context}, _env) when is_atom(name) and is_atom(context), do: name

  defp argument({:when, meta, _}, env),
    do: fail(env, meta[:line] || env.line, "guards are not known in kernels: use if in the body")

  defp argument(other, env),
    do: fail(env, env.line, "arguments are names, not #{Macro.to_string(other)}")

  # Quoted code that was put together has blocks within blocks.
  defp lines({:__block__, _, lines}), do: Enum.flat_map(lines, &lines/1)
  defp lines(nil), do: []
  defp lines(line), do: [line]

  # The buffers that are written to, wherever that is.
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

  # Statements, and a last line with the value.
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

  defp statement({:barrier, meta, []}, state) do
    unless state.together,
      do:
        fail(
          state,
          meta,
          "a barrier is where all threads of a group come by: not in an if or a loop that depends on the thread"
        )

    {{:barrier, line(meta, state)}, state}
  end

  defp statement({:if, meta, [condition, branches]}, %{together: outer} = state)
       when is_list(branches) do
    condition = expression(condition, state)
    state = together(state, [condition])
    # What is set in one branch only is not known behind it.
    {then, _} = statements(lines(branches[:do]), state)

    {other, _} =
      if branches[:else], do: statements(lines(branches[:else]), state), else: {[], state}

    {{:branch, line(meta, state), condition, then, other}, %{state | together: outer}}
  end

  defp statement({:cond, meta, [[do: clauses]]}, state) when is_list(clauses),
    do: {conditions(clauses, line(meta, state), state), state}

  defp statement({:for, meta, [{:<-, _, [{name, _, context}, range]}, [do: body]]}, state)
       when is_atom(name) and is_atom(context) do
    {from, to} = range(range, meta, state)
    inner = state |> known(name) |> together([from, to])
    inner = if inner.together and not set?(body, name), do: same(inner, name), else: inner
    {body, _} = statements(lines(body), inner)
    {{:for, line(meta, state), name, from, to, body}, state}
  end

  defp statement({:for, meta, _}, state),
    do: fail(state, meta, "a loop is written as: for i <- first..last do ... end")

  defp statement(other, state) do
    # What is wrong with itself comes first.
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
    state = together(state, [expression(condition, state)])
    {then, _} = statements(lines(body), state)
    other = if rest == [], do: [], else: [conditions(rest, line, state)]
    {:branch, line(meta, state), expression(condition, state), then, other}
  end

  defp clause({:->, meta, [[condition], body]}, _state), do: {meta, condition, body}

  defp clause(other, state),
    do: fail(state, meta(other), "a clause of cond is written as: condition -> ...")

  defp range({:.., _, [from, to]}, _meta, state),
    do: {expression(from, state), expression(to, state)}

  defp range(other, meta, state),
    do: fail(state, meta, "#{Macro.to_string(other)} is no range: expected first..last")

  defp known(state, name), do: %{state | known: MapSet.put(state.known, name)}
  defp same(state, name), do: %{state | same: MapSet.put(state.same, name)}

  defp together(state, deciding),
    do: %{state | together: state.together and Enum.all?(deciding, &Groups.same?(&1, state))}

  # Whether the body of a loop sets its variable.
  defp set?(body, name) do
    {_, found} =
      Macro.prewalk(body, false, fn
        {:=, _, [{^name, _, context}, _]} = node, _found when is_atom(context) -> {node, true}
        {:<-, _, [{^name, _, context}, _]} = node, _found when is_atom(context) -> {node, true}
        node, found -> {node, found}
      end)

    found
  end

  ## Expressions

  defp expression(number, _state) when is_number(number), do: {:number, number}
  defp expression(bool, _state) when is_boolean(bool), do: {:bool, bool}
  defp expression({:__block__, _, [line]}, state), do: expression(line, state)

  defp expression({name, meta, context}, state) when is_atom(name) and is_atom(context) do
    cond do
      name in state.known ->
        {:var, name}

      List.keymember?(state.shared, name, 0) ->
        fail(state, meta, "#{name} is shared memory: name an element, as in #{name}[local()]")

      true ->
        fail(state, meta, "#{name} was not set before: it is no argument and no local variable")
    end
  end

  defp expression({{:., _, [Access, :get]}, meta, [{name, _, context}, index]}, state)
       when is_atom(name) and is_atom(context) do
    if not memory?(name, state),
      do: fail(state, meta, "#{name} is no argument: only buffers that are passed have elements")

    {:at, line(meta, state), name, expression(index, state)}
  end

  defp expression({:index, _, []}, _state), do: {:index, nil}

  defp expression({:index, meta, [axis]}, state) do
    if axis in [:x, :y, :z],
      do: {:index, axis},
      else: fail(state, meta, "an axis is :x, :y or :z")
  end

  defp expression({:len, meta, [{name, _, context}]}, state) when is_atom(context) do
    if memory?(name, state), do: {:len, name}, else: fail(state, meta, "#{name} is no argument")
  end

  defp expression({word, _, []}, _state) when word in [:local, :group], do: {word, nil}

  defp expression({word, meta, [axis]}, state) when word in [:local, :group, :group_size] do
    cond do
      axis not in [:x, :y, :z] -> fail(state, meta, "an axis is :x, :y or :z")
      word == :group_size -> {:number, Groups.size(axis, state)}
      true -> {word, axis}
    end
  end

  defp expression({:group_size, _, []}, state), do: {:number, Groups.size(nil, state)}

  defp expression({:barrier, meta, []}, state),
    do: fail(state, meta, "barrier() has no value: it is a line of its own")

  defp expression({op, meta, args}, state) when is_map_key(@atomics, op) and is_list(args) do
    fail(
      state,
      meta,
      "#{op} stands alone, or behind a variable: before = #{op}(output[i], value)"
    )
  end

  defp expression({:cast, meta, [value, dtype]}, state) do
    if dtype in DType.all(),
      do: {:cast, dtype, expression(value, state)},
      else: fail(state, meta, "#{inspect(dtype)} is no type: expected one of #{types()}")
  end

  defp expression({:if, meta, [condition, branches]}, state) when is_list(branches) do
    unless branches[:else],
      do: fail(state, meta, "an if whose value is used needs an else")

    [then, other] = for key <- [:do, :else], do: one(branches[key], state)
    {:if, line(meta, state), expression(condition, state), then, other}
  end

  defp expression({:cond, meta, [[do: clauses]]}, state) do
    {before, last} = if is_list(clauses), do: Enum.split(clauses, -1), else: {[], []}

    value =
      case last do
        [{:->, _, [[true], value]}] -> value
        _ -> fail(state, meta, "a cond whose value is used ends with: true -> ...")
      end

    List.foldr(before, one(value, state), fn clause, other ->
      {meta, condition, value} = clause(clause, state)
      {:if, line(meta, state), expression(condition, state), one(value, state), other}
    end)
  end

  defp expression({:+, _, [value]}, state), do: expression(value, state)

  defp expression({{:., _, [{:__MODULE__, _, context}, name]}, meta, args}, state)
       when is_atom(context),
       do: inline({nil, name}, meta, args, state)

  defp expression({{:., _, [{:__aliases__, _, _} = module, name]}, meta, args}, state),
    do: inline({module, name}, meta, args, state)

  defp expression({{:., _, [:math, name]}, meta, args}, state),
    do: expression({name, meta, args}, state)

  defp expression({word, meta, _} = quoted, state)
       when word in [:=, :for, :@, :fn, :&, :^, :if, :cond, :{}, :%, :%{}, :<<>>],
       do: fail(state, meta, Unknown.value(quoted))

  defp expression({name, meta, args}, state) when is_atom(name) and is_list(args) do
    case {args, @unary[name], @binary[name]} do
      {[value], function, _} when function != nil ->
        {:call, line(meta, state), function, [expression(value, state)]}

      {[left, right], _, function} when function != nil ->
        {:call, line(meta, state), function, [expression(left, state), expression(right, state)]}

      _ ->
        inline({nil, name}, meta, args, state)
    end
  end

  defp expression(other, state), do: fail(state, meta(other), Unknown.value(other))

  # A branch of an expression: one value, nothing that is set.
  defp one(block, state) do
    case lines(block) do
      [line] ->
        expression(line, state)

      [] ->
        fail(
          state,
          state.line,
          "a branch whose value is used is one expression, and this has none"
        )

      [first | _] ->
        fail(state, meta(first), "a branch whose value is used is one expression")
    end
  end

  # The element-wise function of another kernel, in place of its call.
  defp inline({module, name}, meta, args, state) do
    case state.find.(module, name, length(args)) do
      %{result: nil} ->
        fail(
          state,
          meta,
          "#{name}/#{length(args)} is an indexed kernel: only element-wise ones can be called"
        )

      %{args: names} = kernel ->
        args = Enum.map(args, &expression(&1, state))
        {:inline, memory(kernel, Map.new(Enum.zip(names, args)), meta, state), args}

      {:other, other} ->
        not_found(module, name, length(args), other, meta, state)
    end
  end

  defp not_found(nil, name, arity, other, meta, state) do
    cond do
      name == state.name and arity == length(state.args) and state.module != nil ->
        fail(state, meta, Unknown.call(name, arity, :recursion))

      arities(name) != [] ->
        fail(state, meta, Unknown.call(name, arity, {:takes, arities(name)}))

      other == :below ->
        raise ExCubecl.Kernel.Below,
          called: {name, arity},
          file: state.file,
          line: line(meta, state)

      true ->
        fail(state, meta, Unknown.call(name, arity, other))
    end
  end

  defp not_found(_module, name, arity, other, meta, state),
    do: fail(state, meta, Unknown.call(name, arity, other))

  # Where another kernel reads elements of an argument, it is those of the buffer that is passed.
  defp memory(kernel, passed, meta, state) do
    names =
      for name <- kernel.args, reads?([kernel.statements, kernel.result], name), into: %{} do
        case passed[name] do
          {:var, buffer} ->
            {name, buffer}

          _ ->
            text =
              "#{kernel.name} reads elements of #{name}, or its length: pass an argument of this kernel there, " <>
                "not an expression"

            fail(state, meta, text)
        end
      end

    for {name, buffer} <- names, not memory?(buffer, state) do
      fail(
        state,
        meta,
        "#{kernel.name} reads elements of #{name}, and #{buffer} is no argument of this kernel"
      )
    end

    %{kernel | statements: of(kernel.statements, names), result: of(kernel.result, names)}
  end

  defp reads?({:at, _, name, index}, wanted), do: name == wanted or reads?(index, wanted)
  defp reads?({:len, name}, wanted), do: name == wanted
  defp reads?(%{statements: s, result: r}, wanted), do: reads?(s, wanted) or reads?(r, wanted)
  defp reads?(list, wanted) when is_list(list), do: Enum.any?(list, &reads?(&1, wanted))

  defp reads?(tuple, wanted) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> reads?(wanted)

  defp reads?(_other, _wanted), do: false

  defp of({:at, line, name, index}, names),
    do: {:at, line, Map.get(names, name, name), of(index, names)}

  defp of({:len, name}, names), do: {:len, Map.get(names, name, name)}

  defp of(%{statements: statements, result: result} = kernel, names),
    do: %{kernel | statements: of(statements, names), result: of(result, names)}

  defp of(list, names) when is_list(list), do: Enum.map(list, &of(&1, names))

  defp of(tuple, names) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> of(names) |> List.to_tuple()

  defp of(other, _names), do: other

  defp memory?(name, state), do: name in state.args or List.keymember?(state.shared, name, 0)

  ## Errors

  # A line of this library tells nobody anything.
  @ours [ExCubecl.Ops, ExCubecl.Ops.Kernels, ExCubecl.NamedKernels, ExCubecl.Batch]

  defp line(_meta, %{module: module}) when module in @ours, do: 0
  defp line(meta, state), do: meta[:line] || state.line

  defp meta({_, meta, _}) when is_list(meta), do: meta
  defp meta(_), do: []

  defp short(quoted), do: Unknown.short(quoted)
  defp types, do: Enum.map_join(DType.all(), " ", &inspect/1)
end
