defmodule ExCubecl.Kernel.Expressions do
  @moduledoc false
  # The part of `ExCubecl.Kernel.Parser` for expressions.

  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Quoted

  alias ExCubecl.DType
  alias ExCubecl.Kernel.{Below, Groups, Inlined, Unknown}

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

  @atomics ~w(atomic_add atomic_min atomic_max atomic_and atomic_or atomic_xor atomic_exchange)a

  # Arities of the built-ins that are not in @unary, @binary or @atomics. Unary :+ is here, unary :- is in @unary.
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

  @doc "The arities of a built-in function; `[]` for any other name."
  @spec arities(atom) :: [arity]
  def arities(name) do
    one = if is_map_key(@unary, name), do: [1], else: []
    two = if is_map_key(@binary, name) or name in @atomics, do: [2], else: []
    Enum.uniq(one ++ Keyword.get(@words, name, []) ++ two)
  end

  def expression(number, _state) when is_number(number), do: {:number, number}
  def expression(bool, _state) when is_boolean(bool), do: {:bool, bool}
  def expression({:__block__, _, [line]}, state), do: expression(line, state)

  def expression({name, meta, context}, state) when is_atom(name) and is_atom(context) do
    cond do
      name in state.known ->
        {:var, name}

      List.keymember?(state.shared, name, 0) ->
        fail(state, meta, "#{name} is shared memory: name an element, as in #{name}[local()]")

      true ->
        fail(state, meta, "#{name} was not set before: it is no argument and no local variable")
    end
  end

  def expression({{:., _, [Access, :get]}, meta, [{name, _, context}, index]}, state)
      when is_atom(name) and is_atom(context) do
    if not memory?(name, state),
      do: fail(state, meta, "#{name} is no argument: only buffers that are passed have elements")

    {:at, line(meta, state), name, expression(index, state)}
  end

  def expression({:index, _, []}, _state), do: {:index, nil}

  def expression({:index, meta, [axis]}, state) do
    if axis in [:x, :y, :z],
      do: {:index, axis},
      else: fail(state, meta, "an axis is :x, :y or :z")
  end

  def expression({:len, meta, [{name, _, context}]}, state) when is_atom(context) do
    if memory?(name, state), do: {:len, name}, else: fail(state, meta, "#{name} is no argument")
  end

  def expression({word, _, []}, _state) when word in [:local, :group], do: {word, nil}

  def expression({word, meta, [axis]}, state) when word in [:local, :group, :group_size] do
    cond do
      axis not in [:x, :y, :z] -> fail(state, meta, "an axis is :x, :y or :z")
      word == :group_size -> {:number, Groups.size(axis, state)}
      true -> {word, axis}
    end
  end

  def expression({:group_size, _, []}, state), do: {:number, Groups.size(nil, state)}

  def expression({:barrier, meta, []}, state),
    do: fail(state, meta, "barrier() has no value: it is a line of its own")

  def expression({op, meta, args}, state) when op in @atomics and is_list(args) do
    fail(
      state,
      meta,
      "#{op} stands alone, or behind a variable: before = #{op}(output[i], value)"
    )
  end

  def expression({:cast, meta, [value, dtype]}, state) do
    if dtype in DType.all(),
      do: {:cast, dtype, expression(value, state)},
      else: fail(state, meta, "#{inspect(dtype)} is no type: expected one of #{types()}")
  end

  def expression({:if, meta, [condition, branches]}, state) when is_list(branches) do
    unless branches[:else],
      do: fail(state, meta, "an if whose value is used needs an else")

    [then, other] = for key <- [:do, :else], do: one(branches[key], state)
    {:if, line(meta, state), expression(condition, state), then, other}
  end

  def expression({:cond, meta, [[do: clauses]]}, state) do
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

  def expression({:+, _, [value]}, state), do: expression(value, state)

  def expression({{:., _, [{:__MODULE__, _, context}, name]}, meta, args}, state)
      when is_atom(context),
      do: inline({nil, name}, meta, args, state)

  def expression({{:., _, [{:__aliases__, _, _} = module, name]}, meta, args}, state),
    do: inline({module, name}, meta, args, state)

  def expression({{:., _, [:math, name]}, meta, args}, state),
    do: expression({name, meta, args}, state)

  def expression({word, meta, _} = quoted, state)
      when word in [:=, :for, :@, :fn, :&, :^, :if, :cond, :{}, :%, :%{}, :<<>>],
      do: fail(state, meta, Unknown.value(quoted))

  def expression({name, meta, args}, state) when is_atom(name) and is_list(args) do
    case {args, @unary[name], @binary[name]} do
      {[value], function, _} when function != nil ->
        {:call, line(meta, state), function, [expression(value, state)]}

      {[left, right], _, function} when function != nil ->
        {:call, line(meta, state), function, [expression(left, state), expression(right, state)]}

      _ ->
        inline({nil, name}, meta, args, state)
    end
  end

  def expression(other, state), do: fail(state, meta(other), Unknown.value(other))

  @doc "A clause of a cond."
  def clause({:->, meta, [[condition], body]}, _state), do: {meta, condition, body}

  def clause(other, state),
    do: fail(state, meta(other), "a clause of cond is written as: condition -> ...")

  # A branch whose value is used: one expression, no assignments.
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

  # Replaces the call of an element-wise kernel by its body.
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
        {:inline, Inlined.kernel(kernel, Map.new(Enum.zip(names, args)), meta, state), args}

      {:other, other} ->
        not_found(module, name, length(args), other, meta, state)
    end
  end

  @spec not_found(Macro.t() | nil, atom, arity, ExCubecl.Kernel.Lookup.other(), keyword, map) ::
          no_return
  defp not_found(nil, name, arity, other, meta, state) do
    cond do
      name == state.name and arity == length(state.args) and state.module != nil ->
        fail(state, meta, Unknown.call(name, arity, :recursion))

      arities(name) != [] ->
        fail(state, meta, Unknown.call(name, arity, {:takes, arities(name)}))

      other == :below ->
        raise Below,
          called: {name, arity},
          file: state.file,
          line: line(meta, state)

      true ->
        fail(state, meta, Unknown.call(name, arity, other))
    end
  end

  defp not_found(_module, name, arity, other, meta, state),
    do: fail(state, meta, Unknown.call(name, arity, other))

  defp types, do: Enum.map_join(DType.all(), " ", &inspect/1)
end
