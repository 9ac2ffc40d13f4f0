defmodule ExCubecl.Kernel.Typer do
  @moduledoc false
  # From a parsed kernel and the kinds of its arguments to the typed tree that the native side takes.
  # Types mix as in Nx; a number adapts to what it meets. Number against number is folded here.
  #
  # A typed expression is `{type, tree}` with a dtype or `:bool`, `{:number, n}`, or `{:given, kind, name}`
  # for a number that comes with the call and takes its type where it is used.

  alias ExCubecl.DType

  @floats [:f16, :bf16, :f32, :f64]
  # Not in Vulkan's instruction set for 64 bits.
  @narrow ~w(exp log log1p sin cos tan tanh sinh cosh asin acos atan erf pow atan2)a
  @most_rounds 20

  defmodule Clash do
    @moduledoc false
    defexception [:line, :text]
    @impl true
    # What is about the whole kernel has no line.
    def message(%{line: 0, text: text}), do: text
    def message(%{line: line, text: text}), do: "line #{line}: #{text}"
  end

  @doc """
  The tree with the result's type and the order of buffers and numbers, or the clash.

  Kinds are `{:buffer, dtype}`, `{:one, dtype}` for a buffer of one element that stands for all, `:int`
  and `:float` for numbers. With `report?` the tree has one more output, which is told of indices outside of
  their buffers.
  """
  @spec type(map, %{atom => term}, boolean) :: {:ok, map} | {:error, Exception.t()}
  def type(kernel, kinds, report?) do
    shared = for {name, type, _} <- kernel.shared, into: %{}, do: {name, memory(type, kinds)}
    kernel = Map.put(kernel, :report?, report?)
    {:ok, settle(kernel, Map.merge(kinds, shared), %{}, @most_rounds)}
  rescue
    clash in Clash -> {:error, clash}
  end

  defp memory({:of, name}, kinds) do
    case kinds[name] do
      {_, dtype} -> {:shared, dtype}
      _ -> clash(0, "#{name} is a number: shared memory takes the type of a buffer")
    end
  end

  defp memory(dtype, _kinds), do: {:shared, dtype}

  # A variable has one type, which is known once nothing that is assigned to it changes it any more.
  defp settle(kernel, kinds, variables, rounds) do
    state = start(kernel, kinds, variables)
    {body, state} = block(kernel.statements, state)
    {body, result, state} = result(kernel, body, state)

    cond do
      state.variables == variables -> finish(kernel, body, result, state)
      rounds == 0 -> clash(0, "the types of its variables do not settle")
      true -> settle(kernel, kinds, state.variables, rounds - 1)
    end
  end

  defp start(kernel, kinds, variables) do
    outputs = kernel.outputs
    inputs = for name <- kernel.args, buffer?(kinds[name]), name not in outputs, do: name
    shared = for {name, _, _} <- kernel.shared, do: name
    report = if kernel.report?, do: [:report], else: []
    results = if outputs == [], do: [:result], else: outputs

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

  # What a called kernel sets comes before the statement that calls it.
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

    if op in [:band, :bor, :bxor] and dtype in @floats,
      do: clash(line, "bits are of integers, and #{name} is of #{dtype}")

    {slot, state} = before(before, {dtype, value}, line, state)
    {{:atomic, op, state.buffers[name], index, value, slot}, state}
  end

  defp statement({:barrier, _line}, state), do: {:barrier, state}

  defp before(nil, _typed, _line, state), do: {nil, state}

  defp before(name, {dtype, _} = typed, line, state) do
    {_, state} = assign(name, typed, line, state)

    if state.variables[name] != dtype,
      do:
        clash(
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

  # -1 behind the end, where there are threads only to fill the group.
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

  defp expression({:len, name}, state), do: {{:s32, {:len, state.buffers[name]}}, state}

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
    {tree, state} = coerce(typed, dtype, state)
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

  # The arguments become what the other kernel calls them; its variables are its own.
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
    call(function, typed, line, state)
  end

  defp chosen({:bool, true}, then, _other), do: then
  defp chosen({:bool, false}, _then, other), do: other
  defp chosen(condition, then, other), do: {:select, condition, then, other}

  defp own(name, dtype, %{group: nil} = state), do: {{dtype, {:own, slot(name, state)}}, state}

  defp own(name, dtype, state) do
    {{_, at}, state} = expression({:index, nil}, state)
    {{dtype, {:read, slot(name, state), at}}, state}
  end

  # Where a thread is along an axis, in a kernel whose groups have several.
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

  # What an argument is, calculated once, however often the called kernel names it.
  defp once(_name, {kind, _} = number, state) when kind == :number, do: {{:bound, number}, state}
  defp once(_name, {:given, _, _} = given, state), do: {{:bound, given}, state}

  defp once(_name, {_, tree} = typed, state)
       when not is_tuple(tree) or elem(tree, 0) in [:own, :local, :scalar, :const],
       do: {{:bound, typed}, state}

  defp once(name, typed, state) do
    {set, state} = assign(name, typed, 0, state)
    {{:var, name}, %{state | prefix: [set | state.prefix]}}
  end

  # A kernel's code in another: its arguments are bound, its variables get names that nobody else has.
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
      _ -> clash(0, "#{shown(name)} has no value here: set it before the branch or loop")
    end
  end

  # Of a variable of a called kernel.
  defp shown({_, name}), do: shown(name)
  defp shown(name), do: name

  defp slot(name, state), do: Map.fetch!(state.buffers, name)

  defp dtype_of(name, line, state) do
    case state.kinds[name] do
      {_, dtype} -> dtype
      _ -> clash(line, "#{name} is a number: a buffer is needed to have elements")
    end
  end

  defp condition(condition, line, state) do
    case expression(condition, state) do
      {{:bool, tree}, state} -> {tree, state}
      _ -> clash(line, "a condition is a comparison, such as x > 0, not a number")
    end
  end

  defp position(index, line, state, wanted \\ nil) do
    case expression(index, state) |> settled() do
      {{:bool, _}, _} ->
        clash(line, "an index is an integer, not a comparison")

      {{type, _}, _} when type in @floats ->
        clash(line, "an index is an integer, not a float: use cast(x, :s32)")

      {{type, _} = typed, state} ->
        coerce(typed, wanted || type, state)
    end
  end

  ## Functions

  @arithmetic ~w(add sub mul min max)a
  @comparisons ~w(eq ne lt le gt ge)a
  @bits ~w(band bor bxor shl shr)a
  @rounding ~w(round floor ceil trunc)a

  defp call(function, [{:number, a}, {:number, b}] = args, line, state) do
    case fold(function, a, b) do
      nil -> calculated(function, args, line, state)
      value -> {value, state}
    end
  end

  defp call(:neg, [{:number, n}], _line, state), do: {{:number, -n}, state}
  defp call(function, args, line, state), do: calculated(function, args, line, state)

  defp fold(:add, a, b), do: {:number, a + b}
  defp fold(:sub, a, b), do: {:number, a - b}
  defp fold(:mul, a, b), do: {:number, a * b}
  defp fold(:divide, a, b) when b != 0, do: {:number, a / b}
  defp fold(:min, a, b), do: {:number, min(a, b)}
  defp fold(:max, a, b), do: {:number, max(a, b)}
  defp fold(:div, a, b) when is_integer(a) and is_integer(b) and b != 0, do: {:number, div(a, b)}
  defp fold(:rem, a, b) when is_integer(a) and is_integer(b) and b != 0, do: {:number, rem(a, b)}

  defp fold(function, a, b) when function in [:eq, :ne, :lt, :le, :gt, :ge] do
    value =
      case function do
        :eq -> a == b
        :ne -> a != b
        :lt -> a < b
        :le -> a <= b
        :gt -> a > b
        :ge -> a >= b
      end

    {:bool, {:bool, value}}
  end

  defp fold(_, _, _), do: nil

  defp calculated(:divide, [a, b], line, state),
    do: binary(:div, a, b, floating(merged(a, b, line), line), state)

  defp calculated(function, [a, b], line, state) when function in @arithmetic,
    do: binary(function, a, b, number(merged(a, b, line), function, line), state)

  defp calculated(function, [a, b], line, state) when function in @comparisons do
    type = merged(a, b, line)
    type = if type == :bool, do: :u8, else: type
    {{_, tree}, state} = binary(function, a, b, type, state)
    {{:bool, tree}, state}
  end

  defp calculated(function, [a, b], line, state) when function in @bits or function == :div,
    do: binary(function, a, b, integer(merged(a, b, line), function, line), state)

  defp calculated(:rem, [a, b], line, state),
    do: binary(:rem, a, b, number(merged(a, b, line), :rem, line), state)

  defp calculated(function, [a, b], line, state) when function in [:pow, :atan2] do
    type = narrow(floating(merged(a, b, line), line), function, line)
    binary(function, a, b, type, state)
  end

  defp calculated(function, [a, b], line, state) when function in [:and, :or] do
    with {:bool, a} <- a, {:bool, b} <- b do
      {{:bool, {:binary, function, a, b}}, state}
    else
      _ -> clash(line, "#{function} joins comparisons, not numbers")
    end
  end

  defp calculated(:not, [{:bool, tree}], _line, state), do: {{:bool, {:unary, :not, tree}}, state}

  defp calculated(:not, _, line, _state),
    do: clash(line, "not is of a comparison, not of a number")

  defp calculated(function, [a], line, state) do
    {{type, tree} = typed, state} = settled({a, state})

    cond do
      type == :bool ->
        clash(line, "#{function} is of a number, not of a comparison")

      function == :neg ->
        negative(type, tree, state)

      function == :abs and unsigned?(type) ->
        {typed, state}

      function in @rounding and type not in @floats ->
        {typed, state}

      function == :abs ->
        {{type, {:unary, :abs, tree}}, state}

      function in [:bnot, :count_ones] ->
        {{integer(type, function, line), {:unary, function, tree}}, state}

      true ->
        of_float(function, typed, line, state)
    end
  end

  defp negative(type, tree, state) do
    if unsigned?(type),
      do: {{type, {:binary, :sub, {:const, type, 0}, tree}}, state},
      else: {{type, {:unary, :neg, tree}}, state}
  end

  defp of_float(function, {type, _} = typed, line, state) do
    type = narrow(floating(type, line), function, line)
    {tree, state} = coerce(typed, type, state)
    result = if function in [:nan?, :infinite?], do: :bool, else: type
    {{result, {:unary, function, tree}}, state}
  end

  defp binary(function, a, b, type, state) do
    {a, state} = coerce(a, type, state)
    {b, state} = coerce(b, type, state)
    {{type, {:binary, function, a, b}}, state}
  end

  defp floating(type, _line) when type in @floats, do: type

  defp floating(:bool, line),
    do: clash(line, "arithmetic is of numbers: use if c do 1 else 0 end")

  defp floating(_, _line), do: :f32

  defp number(:bool, function, line),
    do: clash(line, "#{function} is of numbers, not of comparisons: use if c do 1 else 0 end")

  defp number(type, _function, _line), do: type

  defp integer(type, function, line) when type in [:bool | @floats],
    do: clash(line, "#{function} is of integers, not of #{type}: use cast(x, :s32)")

  defp integer(type, _function, _line), do: type

  defp narrow(:f64, function, line) when function in @narrow,
    do: clash(line, "#{function} is not there for f64 on every device: use cast(x, :f32)")

  defp narrow(type, _function, _line), do: type

  defp unsigned?(type), do: type in [:u8, :u16, :u32, :u64]

  ## Types

  # A number that meets nothing with a type has the usual one.
  defp settled({{:number, n}, state}), do: settle_at({:number, n}, usual(n), state)
  defp settled({{:given, :int, _} = given, state}), do: settle_at(given, :s32, state)
  defp settled({{:given, :float, _} = given, state}), do: settle_at(given, :f32, state)
  defp settled({{_, _}, _} = typed), do: typed

  defp settle_at(typed, type, state) do
    {tree, state} = coerce(typed, type, state)
    {{type, tree}, state}
  end

  defp usual(n) when is_integer(n) and n in -2_147_483_648..2_147_483_647, do: :s32
  defp usual(n) when is_integer(n), do: :s64
  defp usual(_), do: :f32

  defp merged({:number, a}, {:number, b}, _line),
    do: if(is_float(a) or is_float(b), do: :f32, else: usual(max(abs(a), abs(b))))

  defp merged({:given, a, _}, {:given, b, _}, _line),
    do: if(:float in [a, b], do: :f32, else: :s32)

  defp merged({:given, :float, _}, {:number, _}, _line), do: :f32
  defp merged({:given, :int, _}, {:number, n}, _line), do: usual(n)

  defp merged({:number, _} = number, {:given, _, _} = given, line),
    do: merged(given, number, line)

  defp merged({:number, _} = number, {type, _}, line), do: join(type, number, line)
  defp merged({type, _}, other, line), do: join(type, other, line)
  defp merged(given, {type, _}, line), do: join(type, given, line)

  # The type of something that has one, once it has met something else.
  defp join(:bool, {:bool, _}, _line), do: :bool

  defp join(:bool, _, line),
    do: clash(line, "a comparison and a number do not mix: use if c do 1 else 0 end")

  defp join(type, {:number, n}, _line), do: with_number(type, is_float(n))
  defp join(type, {:given, kind, _}, _line), do: with_number(type, kind == :float)

  defp join(_type, {:bool, _}, line),
    do: clash(line, "a comparison and a number do not mix: use if c do 1 else 0 end")

  defp join(type, {other, _}, _line), do: mix(type, other)

  defp with_number(type, true) when type not in @floats, do: :f32
  defp with_number(type, _float?), do: type

  @doc "The type of two types together, as `Nx.Type.merge/2`."
  def mix(same, same), do: same

  def mix(a, b) do
    case {kind(a), kind(b)} do
      {:float, :float} -> mix_floats(a, b)
      {:float, _} -> a
      {_, :float} -> b
      {same, same} -> if DType.size(a) >= DType.size(b), do: a, else: b
      {:unsigned, :signed} -> signed(max(2 * DType.size(a), DType.size(b)))
      {:signed, :unsigned} -> signed(max(DType.size(a), 2 * DType.size(b)))
    end
  end

  defp mix_floats(a, b) do
    cond do
      :f64 in [a, b] -> :f64
      true -> :f32
    end
  end

  defp kind(type) when type in @floats, do: :float
  defp kind(type), do: if(unsigned?(type), do: :unsigned, else: :signed)

  defp signed(bytes), do: elem({:s8, :s16, :s32, :s64}, trunc(:math.log2(min(bytes, 8))))

  ## Coercion

  defp coerce({:number, n}, type, state), do: {constant(n, type), state}
  defp coerce({:given, _, name}, type, state), do: scalar(name, type, state)
  defp coerce({type, tree}, type, state), do: {tree, state}
  defp coerce({_, tree}, type, state), do: {{:cast, type, tree}, state}

  defp constant(n, type) when type in @floats, do: {:const, type, n}

  defp constant(n, type) do
    whole = if is_float(n), do: trunc(n), else: n
    {low, high} = range(type)

    if whole in low..high,
      do: {:const, type, whole},
      else: clash(0, "#{n} does not fit #{type}: use cast to a wider type")
  end

  defp range(type) do
    bits = 8 * DType.size(type)

    if unsigned?(type),
      do: {0, Integer.pow(2, bits) - 1},
      else: {-Integer.pow(2, bits - 1), Integer.pow(2, bits - 1) - 1}
  end

  defp scalar(name, type, state) do
    key = {name, type}
    state = %{state | scalars: Map.put_new(state.scalars, key, map_size(state.scalars))}
    {{:scalar, state.scalars[key]}, state}
  end

  @spec clash(integer, String.t()) :: no_return
  defp clash(line, text), do: raise(Clash, line: line, text: text)
end
