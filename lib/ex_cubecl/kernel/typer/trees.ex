defmodule ExCubecl.Kernel.Typer.Trees do
  @moduledoc false
  # The trees of statements and of expressions, which contain each other.
  #
  # A typed expression is `{type, tree}` with a dtype or `:bool`, `{:number, n}`, or `{:argument, kind, name}`
  # for a number that is an argument of the call and takes its type where it is used.

  import ExCubecl.Kernel.Types
  import ExCubecl.Kernel.Typer.Variables

  alias ExCubecl.Kernel.{Functions, Indices, Inliner, Types}

  ## Statements

  @doc "The trees of statements. The assignments of a called kernel are inserted before the statement that calls it."
  def block(statements, %{prefix: outer} = state) do
    {blocks, state} =
      Enum.map_reduce(statements, state, fn statement, state ->
        {tree, state} = statement(statement, %{state | prefix: []})
        {Enum.reverse([tree | state.prefix]), state}
      end)

    {Enum.concat(blocks), %{state | prefix: outer}}
  end

  defp statement({:let, line, name, value}, state) do
    {typed, state} = expression(value, state)
    assign(name, typed, line, state)
  end

  defp statement({:write, line, name, index, value}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = index(index, line, state)
    {typed, state} = expression(value, state)
    {value, state} = coerce(typed, dtype, state)
    {{:write, slot(name, state), index, value}, state}
  end

  # The element of an output at the index of the invocation. Only operations of this library have this statement.
  defp statement({:put, line, name, value}, state) do
    dtype = dtype_of(name, line, state)
    {typed, state} = expression(value, state)
    {value, state} = coerce(typed, dtype, state)
    {{:put, slot(name, state), value}, state}
  end

  defp statement({:branch, line, condition, then, other}, state) do
    {condition, state} = condition(condition, line, state)
    {then, state} = block(then, state)
    {other, state} = block(other, state)
    {{:if, condition, then, other}, state}
  end

  defp statement({:for, line, name, from, to, body}, state) do
    {from, state} = index(from, line, state, :s32)
    {to, state} = index(to, line, state, :s32)
    {_, state} = assign(name, {:s32, :global_id}, line, state)
    {body, state} = block(body, state)
    counter(name, state.variables[name], line)
    {{:for, state.locals[name], from, to, body}, state}
  end

  # What the condition calls is executed before each iteration, too.
  defp statement({:while, line, condition, limit, body}, state) do
    {limit, state} = index(limit, line, state, :s32, "the limit of a loop")
    {condition, inner} = condition(condition, line, %{state | prefix: []})
    head = Enum.reverse(inner.prefix)
    {body, state} = block(body, %{inner | prefix: state.prefix})
    {{:while, limit, head, condition, body}, state}
  end

  defp statement({:atomic, line, op, name, index, value, before}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = index(index, line, state)
    {typed, state} = expression(value, state)
    {value, state} = coerce(typed, dtype, state)

    if op in [:band, :bor, :bxor] and floating?(dtype),
      do: type_error(line, "bits are of integers, and #{name} is of #{dtype}")

    {local, state} = before(before, {dtype, value}, line, state)
    {{:atomic, op, slot(name, state), index, value, local}, state}
  end

  defp statement({:barrier, _line}, state), do: {:barrier, state}

  # All statements of the called kernel but the last are inserted before it.
  defp statement({:run, kernel, args}, state) do
    {trees, _bound, state} = called(kernel, args, state)
    {before, [last]} = Enum.split(trees, -1)
    {last, %{state | prefix: Enum.reverse(before) ++ state.prefix}}
  end

  # Vectors of four elements, by their index. Only operations of this library have these statements, which the language has not.
  defp statement({:load_vector, line, name, index, variables}, state) do
    typed = {dtype_of(name, line, state), :element}
    {index, state} = index(index, line, state, :s32)
    state = Enum.reduce(variables, state, &elem(assign(&1, typed, line, &2), 1))
    locals = Enum.map(variables, &state.locals[&1])
    {{:load_vector, slot(name, state), index, locals}, state}
  end

  defp statement({:store_vector, line, name, index, values}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = index(index, line, state, :s32)

    {values, state} =
      Enum.map_reduce(values, state, fn value, state ->
        {typed, state} = expression(value, state)
        coerce(typed, dtype, state)
      end)

    {{:store_vector, slot(name, state), index, values}, state}
  end

  defp counter(_name, :s32, _line), do: :ok

  defp counter(name, type, line) do
    text = "#{shown(name)} counts a loop and is of s32: a value of #{type} needs another name"
    type_error(line, text)
  end

  defp before(nil, _typed, _line, state), do: {nil, state}

  defp before(name, {dtype, _} = typed, line, state) do
    {_, state} = assign(name, typed, line, state)

    if state.variables[name] != dtype,
      do:
        type_error(
          line,
          "#{shown(name)} is of #{state.variables[name]} elsewhere, and the previous element is of #{dtype}"
        )

    {state.locals[name], state}
  end

  ## Expressions

  @doc "The typed expression of a parsed one."
  def expression({:number, number}, state), do: {{:number, number}, state}
  def expression({:bool, value}, state), do: {{:bool, {:bool, value}}, state}

  def expression({:index, axis}, state) do
    {index, state} = Indices.index(axis, state)
    {{:s32, index}, state}
  end

  def expression({:local, axis}, state), do: {{:s32, Indices.local(axis, state)}, state}

  def expression({:group, axis}, state) do
    {group, state} = Indices.group(axis, state)
    {{:s32, group}, state}
  end

  def expression({:len, name}, state) do
    case state.kinds[name] do
      {_, _} ->
        {{:s32, {:len, slot(name, state)}}, state}

      _ ->
        type_error(
          0,
          "len(#{name}) is the number of elements of a buffer, and #{name} is a number"
        )
    end
  end

  # Each launch has the lengths of the axes of its buffers.
  def expression({:shape, name, axis}, state) do
    case state.kinds[name] do
      {_, _} ->
        {length, state} = scalar({:shape, name, axis}, :s32, state)
        {{:s32, length}, state}

      _ ->
        type_error(0, "shape(#{name}, #{axis}) is of a buffer, and #{name} is a number")
    end
  end

  def expression({:var, name}, state) do
    case state.kinds[name] do
      {:buffer, dtype} -> element_at_self(name, dtype, state)
      {:one, dtype} -> {{dtype, {:read, slot(name, state), {:const, :s32, 0}}}, state}
      kind when kind in [:int, :float] -> {{:argument, kind, name}, state}
      nil -> {variable(name, state), state}
    end
  end

  def expression({:at, line, name, index}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = index(index, line, state)
    {{dtype, {:read, slot(name, state), index}}, state}
  end

  def expression({:cast, dtype, value}, state) do
    {typed, state} = expression(value, state)
    {tree, state} = converted(typed, dtype, state)
    {{dtype, tree}, state}
  end

  def expression({:bitcast, line, dtype, value}, state) do
    {{type, tree}, state} = value |> expression(state) |> defaulted()
    {{dtype, Types.bitcast(tree, type, dtype, line)}, state}
  end

  def expression({:if, line, condition, then, other}, state) do
    {condition, state} = condition(condition, line, state)
    {then, state} = expression(then, state)
    {other, state} = expression(other, state)
    type = merged(then, other, line, state)
    {then, state} = coerce(then, type, state)
    {other, state} = coerce(other, type, state)
    {{type, chosen(condition, then, other)}, state}
  end

  def expression({:inline, kernel, args}, state) do
    {trees, bind, state} = called(kernel, args, state)
    state = %{state | prefix: Enum.reverse(trees) ++ state.prefix}
    kernel.result |> bind.() |> expression(state)
  end

  def expression({word}, state) when word in [:plane_lane, :plane_size],
    do: {{:s32, word}, state}

  def expression({:plane, line, op, value}, state) do
    {type, tree, state} = word(value, "plane_#{op}", line, state)
    {{type, {:plane, op, tree}}, state}
  end

  def expression({:plane_broadcast, line, value, lane}, state) do
    {type, tree, state} = word(value, "plane_broadcast", line, state)
    {{type, {:plane_broadcast, tree, lane}}, state}
  end

  def expression({:bound, typed}, state), do: {typed, state}

  def expression({:call, line, function, args}, state) do
    {typed, state} = Enum.map_reduce(args, state, &expression/2)

    case Functions.call(function, typed, line, state) do
      # The floats of the function are of its type.
      {{:kernel, kernel, [{float, _} | _] = args, type}, %{float: f, integer: i} = state} ->
        inline = {:inline, kernel, Enum.map(args, &{:bound, &1})}
        {typed, state} = expression(inline, %{state | float: float, integer: :s32})
        {tree, state} = coerce(typed, type, %{state | float: f, integer: i})
        {{type, tree}, state}

      typed ->
        typed
    end
  end

  # The statements of a called kernel. Its argument names are bound to the caller's values; its variables get unique names.
  defp called(kernel, args, state) do
    {typed, state} = Enum.map_reduce(args, state, &expression/2)
    state = %{state | calls: state.calls + 1}
    unique = &{state.calls, &1}

    {bound, state} =
      Enum.map_reduce(Enum.zip(kernel.args, typed), state, fn {name, typed}, state ->
        {value, state} = once(unique.(name), typed, state)
        {{name, value}, state}
      end)

    bound = Map.new(bound)
    bind = &Inliner.bind(&1, bound, unique)
    {trees, state} = kernel.statements |> bind.() |> block(state)
    {trees, bind, state}
  end

  defp chosen({:bool, true}, then, _other), do: then
  defp chosen({:bool, false}, _then, other), do: other
  defp chosen(condition, then, other), do: {:select, condition, then, other}

  # The types that each device with planes has operations for.
  defp word(value, operation, line, state) do
    case value |> expression(state) |> defaulted() do
      {{type, tree}, state} when type in [:f32, :s32, :u32] ->
        {type, tree, state}

      {{type, _}, _} ->
        type_error(
          line,
          "#{operation} is of :f32, :s32 or :u32, not of #{if type == :bool, do: "a comparison", else: inspect(type)}: use cast(x, :f32)"
        )
    end
  end

  defp condition(condition, line, state) do
    case expression(condition, state) do
      {{:bool, tree}, state} -> {tree, state}
      _ -> type_error(line, "a condition is a comparison, such as x > 0, not a number")
    end
  end

  # No buffer has an element that an index of s32 does not reach, so its numbers need no 64 bits.
  defp index(index, line, %{integer: outer} = state, wanted \\ nil, what \\ "an index") do
    {typed, state} = expression(index, %{state | integer: :s32}) |> defaulted()
    {tree, state} = index_of(typed, state, line, wanted, what)
    {tree, %{state | integer: outer}}
  end

  defp index_of(typed, state, line, wanted, what) do
    case {typed, state} do
      {{:bool, _}, _} ->
        type_error(line, "#{what} is an integer, not a comparison")

      {{type, _}, _} when floating?(type) ->
        type_error(line, "#{what} is an integer, not a float: use cast(x, :s32)")

      {{type, _} = typed, state} ->
        coerce(typed, wanted || type, state)
    end
  end
end
