defmodule ExCubecl.Kernel.Typer do
  @moduledoc false
  # Turns a parsed kernel and the kinds of its arguments into the typed tree that the native side takes.
  # Types merge as in Nx; a number takes the type of the other operand. Operations on two literals are folded here.
  #
  # A typed expression is `{type, tree}` with a dtype or `:bool`, `{:number, n}`, or `{:given, kind, name}`
  # for a number that is an argument of the call and takes its type where it is used.

  import ExCubecl.Kernel.Types

  alias ExCubecl.Kernel.{Functions, Types}

  @most_rounds 20

  @doc """
  The tree with the result's type and the order of buffers and numbers, or the type error.

  Kinds are `{:buffer, dtype}`, `{:one, dtype}` for a buffer of one element that stands for all, `:int`
  and `:float` for numbers. With `report?` the tree has one more output, into which the kernel writes indices that
  are out of bounds.
  """
  @spec type(map, %{atom => term}, boolean) :: {:ok, map} | {:error, Exception.t()}
  def type(kernel, kinds, report?) do
    shared = for {name, type, _} <- kernel.shared, into: %{}, do: {name, memory(type, kinds)}
    kernel = Map.put(kernel, :report?, report?)
    {:ok, settle(kernel, Map.merge(kinds, shared), %{}, @most_rounds)}
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
  defp settle(kernel, kinds, variables, rounds) do
    state = start(kernel, kinds, variables)
    {body, state} = block(kernel.statements, state)
    {body, result, state} = result(kernel, body, state)

    cond do
      state.variables == variables -> finish(kernel, body, result, state)
      rounds == 0 -> type_error(0, "the types of its variables do not settle")
      true -> settle(kernel, kinds, state.variables, rounds - 1)
    end
  end

  defp start(kernel, kinds, variables) do
    outputs = kernel.outputs
    inputs = for name <- kernel.args, buffer?(kinds[name]), name not in outputs, do: name
    shared = for {name, _, _} <- kernel.shared, do: name
    # Tuples, not atoms: an argument may be named result or report.
    report = if kernel.report?, do: [{:report}], else: []
    results = if outputs == [], do: [{:result}], else: outputs

    %{
      kinds: kinds,
      buffers: Map.new(Enum.with_index(inputs ++ results ++ report ++ shared)),
      group: kernel.group,
      inputs: inputs,
      outputs: outputs,
      variables: variables,
      locals: %{},
      scalars: %{},
      prefix: [],
      calls: 0
    }
  end

  defp buffer?({kind, _}) when kind in [:buffer, :one], do: true
  defp buffer?(_), do: false

  defp result(%{result: nil}, body, state), do: {body, nil, state}

  defp result(%{result: result}, body, state) do
    {{type, _} = typed, state} = result |> expression(%{state | prefix: []}) |> settled()
    type = if type == :bool, do: :u8, else: type
    {tree, state} = coerce(typed, type, state)
    put = {:put, length(state.inputs), tree}
    {body ++ Enum.reverse([put | state.prefix]), type, state}
  end

  defp finish(kernel, body, result, state) do
    types = for name <- state.inputs, do: elem(state.kinds[name], 1)

    outputs =
      if result, do: [result], else: for(name <- kernel.outputs, do: elem(state.kinds[name], 1))

    scalars = in_order(state.scalars)
    locals = state.locals |> in_order() |> Enum.map(&Map.fetch!(state.variables, &1))
    report = if kernel.report?, do: length(types) + length(outputs)
    outputs = if report, do: outputs ++ [:s32], else: outputs
    shared = for {name, _, length} <- kernel.shared, do: {elem(state.kinds[name], 1), length}
    group = if kernel.group, do: {Enum.product(kernel.group), shared}

    %{
      tree: {types, outputs, Enum.map(scalars, &elem(&1, 1)), locals, body, report, group},
      inputs: state.inputs,
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
    {index, state} = position(index, line, state)
    {typed, state} = expression(value, state)
    {value, state} = coerce(typed, dtype, state)
    {{:write, state.buffers[name], index, value}, state}
  end

  defp statement({:branch, line, condition, then, other}, state) do
    {condition, state} = condition(condition, line, state)
    {then, state} = block(then, state)
    {other, state} = block(other, state)
    {{:if, condition, then, other}, state}
  end

  defp statement({:for, line, name, from, to, body}, state) do
    {from, state} = position(from, line, state, :s32)
    {to, state} = position(to, line, state, :s32)
    {_, state} = assign(name, {:s32, :position}, line, state)
    {body, state} = block(body, state)
    {{:for, state.locals[name], from, to, body}, state}
  end

  defp statement({:atomic, line, op, name, index, value, before}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = position(index, line, state)
    {typed, state} = expression(value, state)
    {value, state} = coerce(typed, dtype, state)

    if op in [:band, :bor, :bxor] and floating?(dtype),
      do: type_error(line, "bits are of integers, and #{name} is of #{dtype}")

    {slot, state} = before(before, {dtype, value}, line, state)
    {{:atomic, op, state.buffers[name], index, value, slot}, state}
  end

  defp statement({:barrier, _line}, state), do: {:barrier, state}

  defp before(nil, _typed, _line, state), do: {nil, state}

  defp before(name, {dtype, _} = typed, line, state) do
    {_, state} = assign(name, typed, line, state)

    if state.variables[name] != dtype,
      do:
        type_error(
          line,
          "#{name} is of #{state.variables[name]} elsewhere: what was there is of #{dtype}"
        )

    {state.locals[name], state}
  end

  defp assign(name, typed, line, state) do
    {type, _} = elem(settled({typed, state}), 0)
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
  defp expression({:index, nil}, %{group: nil} = state), do: {{:s32, :position}, state}

  # -1 past the end: the last group has threads without an element, which only fill it.
  defp expression({:index, nil}, %{group: [threads, 1, 1]} = state) do
    {total, state} = scalar({:dim, :all}, :s32, state)
    at = {:binary, :add, {:binary, :mul, :group, int(threads)}, :member}
    {{:s32, {:select, {:binary, :lt, at, total}, at, int(-1)}}, state}
  end

  defp expression({:index, nil}, state) do
    {[x, y, z], state} = Enum.map_reduce([:x, :y, :z], state, &along/2)

    {[width, height, depth], state} =
      Enum.map_reduce([:x, :y, :z], state, &scalar({:dim, &1}, :s32, &2))

    inside = for {at, end_} <- [{x, width}, {y, height}, {z, depth}], do: {:binary, :lt, at, end_}
    inside = Enum.reduce(inside, &{:binary, :and, &2, &1})
    row = {:binary, :add, {:binary, :mul, z, height}, y}
    at = {:binary, :add, {:binary, :mul, row, width}, x}
    {{:s32, {:select, inside, at, int(-1)}}, state}
  end

  defp expression({:local, nil}, state), do: {{:s32, :member}, state}
  defp expression({:local, axis}, state), do: {{:s32, in_group(axis, state)}, state}
  defp expression({:group, nil}, state), do: {{:s32, :group}, state}

  defp expression({:group, axis}, state) do
    {group, state} = group(axis, state)
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

  defp expression({:index, axis}, %{group: [_, rows, planes]} = state) when rows * planes > 1 do
    {at, state} = along(axis, state)
    {{:s32, at}, state}
  end

  defp expression({:index, axis}, state) do
    {x, state} = scalar({:dim, :x}, :s32, state)
    {y, state} = scalar({:dim, :y}, :s32, state)
    {{_, position}, state} = expression({:index, nil}, state)
    {{:s32, unfolded(axis, position, x, y)}, state}
  end

  defp expression({:var, name}, state) do
    case state.kinds[name] do
      {:buffer, dtype} -> own(name, dtype, state)
      {:one, dtype} -> {{dtype, {:read, slot(name, state), {:const, :s32, 0}}}, state}
      kind when kind in [:int, :float] -> {{:given, kind, name}, state}
      nil -> {variable(name, state), state}
    end
  end

  defp expression({:at, line, name, index}, state) do
    dtype = dtype_of(name, line, state)
    {index, state} = position(index, line, state)
    {{dtype, {:read, slot(name, state), index}}, state}
  end

  defp expression({:cast, dtype, value}, state) do
    {typed, state} = expression(value, state)
    {tree, state} = converted(typed, dtype, state)
    {{dtype, tree}, state}
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

  # Binds the argument names of the called kernel to the caller's values; its variables get names of their own.
  defp expression({:inline, kernel, args}, state) do
    {typed, state} = Enum.map_reduce(args, state, &expression/2)
    state = %{state | calls: state.calls + 1}
    own = &{state.calls, &1}

    {bound, state} =
      Enum.map_reduce(Enum.zip(kernel.args, typed), state, fn {name, typed}, state ->
        {value, state} = once(own.(name), typed, state)
        {{name, value}, state}
      end)

    {trees, state} = kernel.statements |> renamed(Map.new(bound), own) |> block(state)
    state = %{state | prefix: Enum.reverse(trees) ++ state.prefix}
    kernel.result |> renamed(Map.new(bound), own) |> expression(state)
  end

  defp expression({:bound, typed}, state), do: {typed, state}

  defp expression({:call, line, function, args}, state) do
    {typed, state} = Enum.map_reduce(args, state, &expression/2)
    Functions.call(function, typed, line, state)
  end

  defp chosen({:bool, true}, then, _other), do: then
  defp chosen({:bool, false}, _then, other), do: other
  defp chosen(condition, then, other), do: {:select, condition, then, other}

  defp own(name, dtype, %{group: nil} = state), do: {{dtype, {:own, slot(name, state)}}, state}

  defp own(name, dtype, state) do
    {{_, at}, state} = expression({:index, nil}, state)
    {{dtype, {:read, slot(name, state), at}}, state}
  end

  # The global position of a thread along an axis, in a kernel whose groups have several axes.
  defp along(axis, state) do
    {group, state} = group(axis, state)
    first = {:binary, :mul, group, int(threads(axis, state))}
    {{:binary, :add, first, in_group(axis, state)}, state}
  end

  defp group(axis, state) do
    {x, state} = scalar({:groups, :x}, :s32, state)
    {y, state} = scalar({:groups, :y}, :s32, state)
    {unfolded(axis, :group, x, y), state}
  end

  defp in_group(axis, state),
    do: unfolded(axis, :member, int(threads(:x, state)), int(threads(:y, state)))

  defp unfolded(:x, at, x, _y), do: {:binary, :rem, at, x}
  defp unfolded(:y, at, x, y), do: {:binary, :rem, {:binary, :div, at, x}, y}
  defp unfolded(:z, at, x, y), do: {:binary, :div, {:binary, :div, at, x}, y}

  defp threads(axis, state), do: Enum.at(state.group, %{x: 0, y: 1, z: 2}[axis])
  defp int(number), do: {:const, :s32, number}

  # The value of an argument, computed once even if the called kernel uses it several times.
  defp once(_name, {kind, _} = number, state) when kind == :number, do: {{:bound, number}, state}
  defp once(_name, {:given, _, _} = given, state), do: {{:bound, given}, state}

  defp once(_name, {_, tree} = typed, state)
       when not is_tuple(tree) or elem(tree, 0) in [:own, :local, :scalar, :const],
       do: {{:bound, typed}, state}

  defp once(name, typed, state) do
    {set, state} = assign(name, typed, 0, state)
    {{:var, name}, %{state | prefix: [set | state.prefix]}}
  end

  # Rewrites the code of a called kernel for its caller: arguments become their bound values, variables get unique names.
  defp renamed({:var, name}, bound, own), do: Map.get(bound, name, {:var, own.(name)})
  defp renamed(list, bound, own) when is_list(list), do: Enum.map(list, &renamed(&1, bound, own))

  defp renamed({:inline, kernel, args}, bound, own),
    do: {:inline, kernel, renamed(args, bound, own)}

  defp renamed({:let, line, name, value}, bound, own),
    do: {:let, line, own.(name), renamed(value, bound, own)}

  defp renamed({:for, line, name, from, to, body}, bound, own) do
    [from, to, body] = renamed([from, to, body], bound, own)
    {:for, line, own.(name), from, to, body}
  end

  defp renamed(tuple, bound, own) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> renamed(bound, own) |> List.to_tuple()

  defp renamed(other, _bound, _own), do: other

  defp variable(name, state) do
    case {state.variables[name], state.locals[name]} do
      {type, slot} when type != nil and slot != nil -> {type, {:local, slot}}
      _ -> type_error(0, "#{shown(name)} has no value here: set it before the branch or loop")
    end
  end

  # A variable of a called kernel.
  defp shown({_, name}), do: shown(name)
  defp shown(name), do: name

  defp slot(name, state), do: Map.fetch!(state.buffers, name)

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

  defp position(index, line, state, wanted \\ nil) do
    case expression(index, state) |> settled() do
      {{:bool, _}, _} ->
        type_error(line, "an index is an integer, not a comparison")

      {{type, _}, _} when floating?(type) ->
        type_error(line, "an index is an integer, not a float: use cast(x, :s32)")

      {{type, _} = typed, state} ->
        coerce(typed, wanted || type, state)
    end
  end
end
