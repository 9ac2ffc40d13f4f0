defmodule ExCubecl.Kernel.Parser do
  @moduledoc false
  # From Elixir's quoted code to the language of kernels: plain tuples, untyped, checked for what can
  # be known without types. Whatever is not of the language is a CompileError with its line.
  #
  #   expression  {:number, n} {:bool, b} {:var, name} {:index, axis} {:len, name} {:at, line, name, e}
  #               {:call, line, function, [e]} {:cast, dtype, e} {:if, line, c, e, e} {:inline, kernel, [e]}
  #   statement   {:let, line, name, e} {:write, line, name, e, e} {:branch, line, c, [s], [s]}
  #               {:for, line, name, e, e, [s]}

  alias ExCubecl.DType

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

  @instead %{
    &&: "and",
    ||: "or",
    !: "not",
    ===: "==",
    !==: "!=",
    <>: "numbers only",
    ++: "numbers only",
    |>: "the call written out",
    case: "if or cond",
    while: "for i <- a..b",
    receive: "numbers only",
    fn: "another defkernel",
    unless: "if not ...",
    with: "if or cond"
  }

  @doc "A kernel of these arguments and this body; `find` looks up others: `(module | nil, name, arity)`."
  def parse(name, args, body, env, find) do
    state = %{
      file: env.file,
      line: env.line,
      args: Enum.map(args, &argument(&1, env)),
      known: MapSet.new(),
      find: find
    }

    if Enum.uniq(state.args) != state.args,
      do: fail(state, env.line, "two arguments of the same name")

    state = %{state | known: MapSet.new(state.args)}
    lines = lines(body)
    outputs = lines |> written() |> Enum.uniq()

    for output <- outputs, output not in state.args do
      fail(
        state,
        env.line,
        "#{output} is no argument: only buffers that are passed can be written to"
      )
    end

    kernel = %{name: name, args: state.args, outputs: outputs, statements: [], result: nil}

    if outputs == [] do
      {statements, result} = value_block(lines, state)
      %{kernel | statements: statements, result: result}
    else
      {statements, _} = statements(lines, state)
      %{kernel | statements: statements}
    end
  end

  defp argument({name, _, context}, _env) when is_atom(name) and is_atom(context), do: name

  defp argument(other, env),
    do: fail(env, env.line, "arguments are names, not #{Macro.to_string(other)}")

  defp lines({:__block__, _, lines}), do: lines
  defp lines(line), do: [line]

  # The buffers that are written to, wherever that is.
  defp written(lines) do
    {_, names} =
      Macro.prewalk(lines, [], fn
        {:=, _, [{{:., _, [Access, :get]}, _, [{name, _, context}, _]}, _]} = node, names
        when is_atom(name) and is_atom(context) ->
          {node, [name | names]}

        node, names ->
          {node, names}
      end)

    Enum.reverse(names)
  end

  ## Statements

  defp statements(lines, state), do: Enum.map_reduce(lines, state, &statement/2)

  # Statements, and a last line with the value.
  defp value_block(lines, state) do
    {before, [last]} = Enum.split(lines, -1)
    {statements, state} = statements(before, state)
    {statements, expression(last, state)}
  end

  defp statement({:=, meta, [{{:., _, [Access, :get]}, _, [{name, _, _}, index]}, value]}, state) do
    {{:write, line(meta, state), name, expression(index, state), expression(value, state)}, state}
  end

  defp statement({:=, meta, [{name, _, context}, value]}, state)
       when is_atom(name) and is_atom(context) do
    if name in state.args,
      do: fail(state, meta, "#{name} is an argument: give the local variable another name")

    {{:let, line(meta, state), name, expression(value, state)}, known(state, name)}
  end

  defp statement({:=, meta, [pattern, _]}, state),
    do:
      fail(state, meta, "#{Macro.to_string(pattern)} is no variable: patterns are not known here")

  defp statement({:if, meta, [condition, branches]}, state) do
    condition = expression(condition, state)
    # What is set in one branch only is not known behind it.
    {then, _} = statements(lines(branches[:do]), state)

    {other, _} =
      if branches[:else], do: statements(lines(branches[:else]), state), else: {[], state}

    {{:branch, line(meta, state), condition, then, other}, state}
  end

  defp statement({:cond, meta, [[do: clauses]]}, state),
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
    fail(
      state,
      meta(other),
      "#{short(other)} does nothing here: write into an output, as in output[i] = ..., or set a variable"
    )
  end

  defp conditions([{:->, meta, [[condition], body]} | rest], line, state) do
    {then, _} = statements(lines(body), state)
    other = if rest == [], do: [], else: [conditions(rest, line, state)]
    {:branch, line(meta, state), expression(condition, state), then, other}
  end

  defp range({:.., _, [from, to]}, _meta, state),
    do: {expression(from, state), expression(to, state)}

  defp range(other, meta, state),
    do: fail(state, meta, "#{Macro.to_string(other)} is no range: expected first..last")

  defp known(state, name), do: %{state | known: MapSet.put(state.known, name)}

  ## Expressions

  defp expression(number, _state) when is_number(number), do: {:number, number}
  defp expression(bool, _state) when is_boolean(bool), do: {:bool, bool}
  defp expression({:__block__, _, [line]}, state), do: expression(line, state)

  defp expression({name, meta, context}, state) when is_atom(name) and is_atom(context) do
    if name in state.known,
      do: {:var, name},
      else:
        fail(state, meta, "#{name} was not set before: it is no argument and no local variable")
  end

  defp expression({{:., _, [Access, :get]}, meta, [{name, _, context}, index]}, state)
       when is_atom(name) and is_atom(context) do
    if name not in state.args,
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
    if name in state.args, do: {:len, name}, else: fail(state, meta, "#{name} is no argument")
  end

  defp expression({:cast, meta, [value, dtype]}, state) do
    if dtype in DType.all(),
      do: {:cast, dtype, expression(value, state)},
      else: fail(state, meta, "#{inspect(dtype)} is no type: expected one of #{types()}")
  end

  defp expression({:if, meta, [condition, branches]}, state) do
    unless branches[:else],
      do: fail(state, meta, "an if whose value is used needs an else")

    [then, other] = for key <- [:do, :else], do: one(branches[key], state)
    {:if, line(meta, state), expression(condition, state), then, other}
  end

  defp expression({:cond, meta, [[do: clauses]]}, state) do
    {before, [{:->, _, [[last], value]}]} = Enum.split(clauses, -1)
    if last != true, do: fail(state, meta, "a cond whose value is used ends with: true -> ...")

    List.foldr(before, one(value, state), fn {:->, meta, [[condition], value]}, other ->
      {:if, line(meta, state), expression(condition, state), one(value, state), other}
    end)
  end

  defp expression({:+, _, [value]}, state), do: expression(value, state)

  defp expression({{:., _, [{:__aliases__, _, _} = module, name]}, meta, args}, state),
    do: inline({module, name}, meta, args, state)

  defp expression({{:., _, [:math, name]}, meta, args}, state),
    do: expression({name, meta, args}, state)

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

  defp expression(other, state),
    do:
      fail(state, meta(other), "#{short(other)} is not known in kernels: they have numbers only")

  # A branch of an expression: one value, nothing that is set.
  defp one(block, state) do
    case lines(block) do
      [line] -> expression(line, state)
      [first | _] -> fail(state, meta(first), "a branch whose value is used is one expression")
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

      %{args: names} = kernel when length(names) == length(args) ->
        {:inline, kernel, Enum.map(args, &expression(&1, state))}

      _ ->
        instead = if instead = @instead[name], do: ": use #{instead}", else: ""
        fail(state, meta, "#{name}/#{length(args)} is not known in kernels#{instead}")
    end
  end

  ## Errors

  defp line(meta, state), do: meta[:line] || state.line

  defp meta({_, meta, _}) when is_list(meta), do: meta
  defp meta(_), do: []

  defp short(quoted), do: quoted |> Macro.to_string() |> String.slice(0, 60)
  defp types, do: Enum.map_join(DType.all(), " ", &inspect/1)

  @spec fail(map, keyword | integer, String.t()) :: no_return
  defp fail(state, meta, text) do
    line = if is_list(meta), do: meta[:line] || state.line, else: meta
    raise CompileError, file: state.file, line: line, description: text
  end
end
