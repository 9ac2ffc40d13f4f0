defmodule ExCubecl.Kernel.Typer do
  @moduledoc false
  # Turns a parsed kernel and the kinds of its arguments into the typed tree that the native side takes.
  # Types merge as in Nx; a number takes the type of the other operand.
  #
  # A typed expression is `{type, tree}` with a dtype or `:bool`, `{:number, n}`, or `{:argument, kind, name}`
  # for a number that is an argument of the call and takes its type where it is used.

  import ExCubecl.Kernel.Types

  alias ExCubecl.Kernel.{Bindings, Functions, Indices, Inliner, Types}

  @max_passes 20

  @doc """
  The tree with the result's type, the bindings and the order of numbers, or the type error.

  Kinds are `{:buffer, dtype}`, `{:one, dtype}` for a buffer of one element that is broadcast, `:int`
  and `:float` for numbers. With `report?` the tree has one more output, into which the kernel writes indices that
  are out of bounds.
  """
  @spec type(map, %{atom => term}, boolean) :: {:ok, map} | {:error, Exception.t()}
  def type(kernel, kinds, report?) do
    shared = for {name, type, _} <- kernel.shared, into: %{}, do: {name, memory(type, kinds)}
    bindings = Bindings.new(kernel, kinds, report?)
    {:ok, infer(kernel, bindings, Map.merge(kinds, shared), %{}, @max_passes)}
  rescue
    error in Types.TypeError -> {:error, error}
  end

  defp memory({:of, name}, kinds) do
    case kinds[name] do
      {_, dtype} -> {:shared, dtype}
      _ -> type_error(0, "#{name} is a number: shared memory takes the type of a buffer")
    end
  end

  defp memory(dtype, _kinds), do: {:shared, dtype}

  # A variable has one type. The kernel is typed again until no assignment changes the type of a variable.
  defp infer(kernel, bindings, kinds, variables, passes) do
    state = start(kernel, bindings, kinds, variables)
    {body, state} = block(kernel.statements, state)
    {put, type, state} = result(kernel.result, bindings, state)

    cond do
      state.variables == variables ->
        typed(kernel, bindings, body ++ put, type, state)

      passes == 0 ->
        type_error(
          0,
          "the types of its variables cannot be inferred: they change with each of #{@max_passes} passes"
        )

      true ->
        infer(kernel, bindings, kinds, state.variables, passes - 1)
    end
  end

  defp start(kernel, bindings, kinds, variables) do
    %{
      kinds: kinds,
      slots: Bindings.slots(bindings),
      group: kernel.group,
      variables: variables,
      locals: %{},
      scalars: %{},
      prefix: [],
      calls: 0
    }
  end

  # The statements that store the result of an element-wise kernel.
  defp result(nil, _bindings, state), do: {[], nil, state}

  defp result(result, bindings, state) do
    {{type, _} = typed, state} = result |> expression(%{state | prefix: []}) |> defaulted()
    type = if type == :bool, do: :u8, else: type
    {tree, state} = coerce(typed, type, state)
    put = {:put, Bindings.slot(bindings, :result), tree}
    {Enum.reverse([put | state.prefix]), type, state}
  end

  defp typed(kernel, bindings, body, result, state) do
    dtype = fn name -> elem(state.kinds[name], 1) end
    inputs = for {:input, name} <- bindings, do: dtype.(name)

    outputs =
      Enum.flat_map(bindings, fn
        {:output, name} -> [dtype.(name)]
        :result -> [result]
        :report -> [:s32]
        _ -> []
      end)

    scalars = in_order(state.scalars)
    locals = state.locals |> in_order() |> Enum.map(&Map.fetch!(state.variables, &1))
    report = Bindings.slot(bindings, :report)
    shared = for {name, _, length} <- kernel.shared, do: {dtype.(name), length}
    group = if kernel.group, do: {Enum.product(kernel.group), shared}

    %{
      tree: {inputs, outputs, Enum.map(scalars, &elem(&1, 1)), locals, body, report, group},
      bindings: bindings,
      scalars: Enum.map(scalars, &elem(&1, 0)),
      dtype: result
    }
  end

  defp in_order(slots), do: slots |> Enum.sort_by(&elem(&1, 1)) |> Enum.map(&elem(&1, 0))

  ## Statements

  # The assignments of a called kernel are inserted before the statement that calls it.
  defp block(statements, %{prefix: outer} = state) do
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

  defp before(nil, _typed, _line, state), do: {nil, state}

  defp before(name, {dtype, _} = typed, line, state) do
    {_, state} = assign(name, typed, line, state)

    if state.variables[name] != dtype,
      do:
        type_error(
          line,
          "#{name} is of #{state.variables[name]} elsewhere, and the previous element is of #{dtype}"
        )

    {state.locals[name], state}
  end

  defp assign(name, typed, line, state) do
    {type, _} = elem(defaulted({typed, state}), 0)
    known = Map.get(state.variables, name)
    joined = if known, do: join(known, typed, line), else: type
    state = %{state | variables: Map.put(state.variables, name, joined)}
    state = %{state | locals: Map.put_new(state.locals, name, map_size(state.locals))}
    {tree, state} = coerce(typed, joined, state)
    {{:set, state.locals[name], tree}, state}
  end

  ## Expressions

  defp expression({:number, number}, state), do: {{:number, number}, state}
  defp expression({:bool, value}, state), do: {{:bool, {:bool, value}}, state}

  defp expression({:index, axis}, state) do
    {index, state} = Indices.index(axis, state)
    {{:s32, index}, state}
  end

  defp expression({:local, axis}, state), do: {{:s32, Indices.local(axis, state)}, state}

  defp expression({:group, axis}, state) do
    {group, state} = Indices.group(axis, state)
    {{:s32, group}, state}
  end

  defp expression({:len, name}, state) do
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
  defp expression({:shape, name, axis}, state) do
    case state.kinds[name] do
      {_, _} ->
        {length, state} = scalar({:shape, name, axis}, :s32, state)
        {{:s32, length}, state}

      _ ->
        type_error(0, "shape(#{name}, #{axis}) is of a buffer, and #{name} is a number")
    end
  end

  defp expression({:var, name}, state) do
    case state.kinds[name] do
      {:buffer, dtype} -> element_at_self(name, dtype, state)
      {:one, dtype} -> {{dtype, {:read, slot(name, state), {:const, :s32, 0}}}, state}
      kind when kind in [:int, :float] -> {{:argument, kind, name}, state}
      nil -> {variable(name, state), state}
    end
  end

  defp expression({:at, line, name, index}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = index(index, line, state)
    {{dtype, {:read, slot(name, state), index}}, state}
  end

  defp expression({:cast, dtype, value}, state) do
    {typed, state} = expression(value, state)
    {tree, state} = converted(typed, dtype, state)
    {{dtype, tree}, state}
  end

  defp expression({:bitcast, line, dtype, value}, state) do
    {{type, tree}, state} = value |> expression(state) |> defaulted()
    {{dtype, Types.bitcast(tree, type, dtype, line)}, state}
  end

  defp expression({:if, line, condition, then, other}, state) do
    {condition, state} = condition(condition, line, state)
    {then, state} = expression(then, state)
    {other, state} = expression(other, state)
    type = merged(then, other, line)
    {then, state} = coerce(then, type, state)
    {other, state} = coerce(other, type, state)
    {{type, chosen(condition, then, other)}, state}
  end

  defp expression({:inline, kernel, args}, state) do
    {trees, bind, state} = called(kernel, args, state)
    state = %{state | prefix: Enum.reverse(trees) ++ state.prefix}
    kernel.result |> bind.() |> expression(state)
  end

  defp expression({word}, state) when word in [:plane_lane, :plane_size],
    do: {{:s32, word}, state}

  defp expression({:plane, line, op, value}, state) do
    {type, tree, state} = word(value, "plane_#{op}", line, state)
    {{type, {:plane, op, tree}}, state}
  end

  defp expression({:plane_broadcast, line, value, lane}, state) do
    {type, tree, state} = word(value, "plane_broadcast", line, state)
    {{type, {:plane_broadcast, tree, lane}}, state}
  end

  defp expression({:bound, typed}, state), do: {typed, state}

  defp expression({:call, line, function, args}, state) do
    {typed, state} = Enum.map_reduce(args, state, &expression/2)

    case Functions.call(function, typed, line, state) do
      {{:kernel, kernel, args, type}, state} ->
        {typed, state} = expression({:inline, kernel, Enum.map(args, &{:bound, &1})}, state)
        {tree, state} = coerce(typed, type, state)
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

  # The element at the index of the invocation.
  defp element_at_self(name, dtype, %{group: nil} = state),
    do: {{dtype, {:element_at_self, slot(name, state)}}, state}

  defp element_at_self(name, dtype, state) do
    {index, state} = Indices.index(nil, state)
    {{dtype, {:read, slot(name, state), index}}, state}
  end

  # The value of an argument, computed once even if the called kernel uses it several times.
  defp once(_name, {kind, _} = number, state) when kind == :number, do: {{:bound, number}, state}
  defp once(_name, {:argument, _, _} = argument, state), do: {{:bound, argument}, state}

  defp once(_name, {_, tree} = typed, state)
       when not is_tuple(tree) or elem(tree, 0) in [:element_at_self, :local, :scalar, :const],
       do: {{:bound, typed}, state}

  defp once(name, typed, state) do
    {set, state} = assign(name, typed, 0, state)
    {{:var, name}, %{state | prefix: [set | state.prefix]}}
  end

  defp variable(name, state) do
    case {state.variables[name], state.locals[name]} do
      {type, slot} when type != nil and slot != nil -> {type, {:local, slot}}
      _ -> type_error(0, "#{shown(name)} has no value here: set it before the branch or loop")
    end
  end

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

  # A variable of a called kernel.
  defp shown({_, name}), do: shown(name)
  defp shown(name), do: name

  defp slot(name, state), do: Map.fetch!(state.slots, name)

  defp dtype_of(name, line, state) do
    case state.kinds[name] do
      {_, dtype} -> dtype
      _ -> type_error(line, "#{name} is a number: a buffer is needed to have elements")
    end
  end

  defp condition(condition, line, state) do
    case expression(condition, state) do
      {{:bool, tree}, state} -> {tree, state}
      _ -> type_error(line, "a condition is a comparison, such as x > 0, not a number")
    end
  end

  defp index(index, line, state, wanted \\ nil, what \\ "an index") do
    case expression(index, state) |> defaulted() do
      {{:bool, _}, _} ->
        type_error(line, "#{what} is an integer, not a comparison")

      {{type, _}, _} when floating?(type) ->
        type_error(line, "#{what} is an integer, not a float: use cast(x, :s32)")

      {{type, _} = typed, state} ->
        coerce(typed, wanted || type, state)
    end
  end
end
