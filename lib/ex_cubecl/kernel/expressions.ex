defmodule ExCubecl.Kernel.Expressions do
  @moduledoc false
  # The part of `ExCubecl.Kernel.Parser` for expressions.

  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Quoted

  alias ExCubecl.DType
  alias ExCubecl.DType.Suggestion
  alias ExCubecl.Kernel.{BuiltIns, Diagnostics, ForwardReference, Groups, Inliner, Scope}

  @unary BuiltIns.unary()
  @binary BuiltIns.binary()
  @atomics BuiltIns.atomics()
  @planes %{plane_sum: :sum, plane_product: :product, plane_min: :min, plane_max: :max}

  def expression(number, _state) when is_number(number), do: {:number, number}
  def expression(bool, _state) when is_boolean(bool), do: {:bool, bool}
  def expression({:__block__, _, [line]}, scope), do: expression(line, scope)

  def expression({name, meta, context}, scope) when is_atom(name) and is_atom(context),
    do: {:var, Scope.readable(name, meta, scope)}

  def expression({{:., _, [Access, :get]}, meta, [{name, _, context}, index]}, scope)
      when is_atom(name) and is_atom(context) do
    if not Scope.memory?(name, scope),
      do: fail(scope, meta, "#{name} is no argument: only buffers that are passed have elements")

    {:at, line(meta, scope), name, index(name, index, meta, scope)}
  end

  def expression({:index, _, []}, _state), do: {:index, nil}

  def expression({:index, meta, [axis]}, scope) do
    if axis in [:x, :y, :z],
      do: {:index, axis},
      else: fail(scope, meta, "an axis is :x, :y or :z")
  end

  def expression({:len, meta, [{name, _, context}]}, scope) when is_atom(context) do
    if Scope.memory?(name, scope),
      do: {:len, name},
      else: fail(scope, meta, "#{name} is no argument")
  end

  def expression({:shape, meta, [{name, _, context}, axis]}, scope) when is_atom(context) do
    axis = literal(axis)

    cond do
      name not in scope.args ->
        fail(scope, meta, "#{name} is no argument: shape(x, axis) is of a buffer that is passed")

      not is_integer(axis) ->
        fail(
          scope,
          meta,
          "the axis of shape(#{name}, axis) is a number: from 0, or from -1 at the end"
        )

      true ->
        {:shape, name, axis}
    end
  end

  def expression({:shape, meta, [_, _]}, scope) do
    text =
      "shape takes an argument and an axis, such as shape(x, 0), or shape(x, -1) for the last axis"

    fail(scope, meta, text)
  end

  def expression({word, _, []}, _state) when word in [:local, :group], do: {word, nil}

  def expression({word, meta, [axis]}, scope) when word in [:local, :group, :group_size] do
    cond do
      axis not in [:x, :y, :z] -> fail(scope, meta, "an axis is :x, :y or :z")
      word == :group_size -> {:number, Groups.size(axis, scope)}
      true -> {word, axis}
    end
  end

  def expression({:group_size, _, []}, scope), do: {:number, Groups.size(nil, scope)}

  def expression({word, _, []}, _scope) when word in [:plane_lane, :plane_size], do: {word}

  def expression({name, meta, [value]}, scope) when is_map_key(@planes, name),
    do: {:plane, line(meta, scope), @planes[name], expression(value, scope)}

  def expression({:plane_broadcast, meta, [value, lane]}, scope) do
    if is_integer(lane) and lane in 0..127,
      do: {:plane_broadcast, line(meta, scope), expression(value, scope), lane},
      else:
        fail(
          scope,
          meta,
          "the lane of plane_broadcast(x, lane) is a number that is known here, from 0 to 127"
        )
  end

  def expression({:barrier, meta, []}, scope),
    do: fail(scope, meta, "barrier() has no value: it is a line of its own")

  def expression({op, meta, args}, scope) when op in @atomics and is_list(args) do
    fail(
      scope,
      meta,
      "#{op} stands alone, or behind a variable: before = #{op}(output[i], value)"
    )
  end

  def expression({:cast, meta, [value, dtype]}, scope),
    do: {:cast, dtype(dtype, meta, scope), expression(value, scope)}

  def expression({:bitcast, meta, [value, dtype]}, scope),
    do: {:bitcast, line(meta, scope), dtype(dtype, meta, scope), expression(value, scope)}

  def expression({:if, meta, [condition, branches]}, scope) when is_list(branches) do
    unless branches[:else],
      do: fail(scope, meta, "an if whose value is used needs an else")

    [then, other] = for key <- [:do, :else], do: one(branches[key], scope)
    {:if, line(meta, scope), expression(condition, scope), then, other}
  end

  def expression({:cond, meta, [[do: clauses]]}, scope) do
    {before, last} = if is_list(clauses), do: Enum.split(clauses, -1), else: {[], []}

    value =
      case last do
        [{:->, _, [[true], value]}] -> value
        _ -> fail(scope, meta, "a cond whose value is used ends with: true -> ...")
      end

    List.foldr(before, one(value, scope), fn clause, other ->
      {meta, condition, value} = clause(clause, scope)
      {:if, line(meta, scope), expression(condition, scope), one(value, scope), other}
    end)
  end

  def expression({:+, _, [value]}, scope), do: expression(value, scope)

  # `x ^ 2` is a call of x with a pinned number.
  def expression({name, meta, [{:^, _, [_]}]}, scope) when is_atom(name),
    do:
      fail(
        scope,
        meta,
        "^ is no operator: the power is #{name} ** n, and the exclusive or of bits bxor(a, b)"
      )

  def expression({{:., _, [{:__MODULE__, _, context}, name]}, meta, args}, scope)
      when is_atom(context),
      do: inline({nil, name}, meta, args, scope)

  def expression({{:., _, [{:__aliases__, _, _} = module, name]}, meta, args}, scope),
    do: inline({module, name}, meta, args, scope)

  def expression({{:., _, [:math, name]}, meta, args}, scope),
    do: expression({name, meta, args}, scope)

  def expression({word, meta, _} = quoted, scope)
      when word in [:=, :for, :while, :@, :fn, :&, :^, :if, :cond, :{}, :%, :%{}, :<<>>],
      do: fail(scope, meta, Diagnostics.value(quoted))

  # The `&` of C.
  def expression({_, meta, [{:&, _, [number]}]} = quoted, scope) when is_integer(number),
    do: fail(scope, meta, Diagnostics.value(quoted))

  def expression({name, meta, args}, scope) when is_atom(name) and is_list(args) do
    case {args, @unary[name], @binary[name]} do
      {[value], function, _} when function != nil ->
        {:call, line(meta, scope), function, [expression(value, scope)]}

      {[left, right], _, function} when function != nil ->
        {:call, line(meta, scope), function, [expression(left, scope), expression(right, scope)]}

      _ ->
        inline({nil, name}, meta, args, scope)
    end
  end

  def expression(other, scope), do: fail(scope, meta(other), Diagnostics.value(other))

  @doc "The index of an element of a buffer."
  def index(name, several, meta, scope) when is_list(several) or tuple_size(several) == 2,
    do: fail(scope, meta, Diagnostics.index(name))

  def index(name, {:{}, _, _}, meta, scope), do: fail(scope, meta, Diagnostics.index(name))
  def index(_name, index, _meta, scope), do: expression(index, scope)

  defp literal({:-, _, [number]}) when is_integer(number), do: -number
  defp literal(other), do: other

  @doc "A clause of a cond."
  def clause({:->, meta, [[condition], body]}, _state), do: {meta, condition, body}

  def clause(other, scope),
    do: fail(scope, meta(other), "a clause of cond is written as: condition -> ...")

  # A branch whose value is used: one expression, no assignments.
  defp one(block, scope) do
    case lines(block) do
      [line] ->
        expression(line, scope)

      [] ->
        fail(
          scope,
          scope.line,
          "a branch whose value is used is one expression, and this has none"
        )

      [first | _] ->
        fail(scope, meta(first), "a branch whose value is used is one expression")
    end
  end

  # Replaces the call of an element-wise kernel by its body.
  defp inline({module, name}, meta, args, scope) do
    case scope.resolve.(module, name, length(args)) do
      %{result: nil} ->
        fail(
          scope,
          meta,
          "#{name}/#{length(args)} is an indexed kernel, which has no value: a call of it is a line of its own"
        )

      %{args: names} = kernel ->
        args = Enum.map(args, &expression(&1, scope))
        {:inline, Inliner.inline(kernel, Map.new(Enum.zip(names, args)), meta, scope), args}

      {:other, other} ->
        not_found(module, name, length(args), other, meta, scope)
    end
  end

  @spec not_found(Macro.t() | nil, atom, arity, ExCubecl.Kernel.Resolver.other(), keyword, map) ::
          no_return
  defp not_found(nil, name, arity, other, meta, scope) do
    cond do
      name == scope.name and arity == length(scope.args) and scope.module != nil ->
        fail(scope, meta, Diagnostics.call(name, arity, :recursion))

      BuiltIns.arities(name) != [] ->
        fail(scope, meta, Diagnostics.call(name, arity, {:takes, BuiltIns.arities(name)}))

      other == :forward ->
        raise ForwardReference,
          called: {name, arity},
          file: scope.file,
          line: line(meta, scope)

      true ->
        fail(scope, meta, Diagnostics.call(name, arity, other))
    end
  end

  defp not_found(_module, name, arity, other, meta, scope),
    do: fail(scope, meta, Diagnostics.call(name, arity, other))

  defp dtype(dtype, meta, scope) do
    if dtype in DType.all(),
      do: dtype,
      else: fail(scope, meta, "#{Diagnostics.short(dtype)} is no type: #{expected(dtype)}")
  end

  defp expected(dtype), do: Suggestion.text(dtype, "expected")
end
