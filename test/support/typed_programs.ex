defmodule ExCubecl.TypedPrograms do
  @moduledoc false
  # Random kernels over all types, as trees in which each expression has its type. A tree is turned into quoted
  # Elixir for `ExCubecl.Kernel`, and into Python code that `test/numpy/reference.py` evaluates.
  #
  # Only operations that IEEE 754 and two's complement define bit for bit: functions with an error of their own are
  # compared separately, in `ExCubecl.NumpyCases`.

  alias ExCubecl.DType

  @floats [:f16, :bf16, :f32, :f64]
  @length 16

  def count, do: @length
  def float?(type), do: type in @floats

  ## Trees

  @doc "A map with the arguments `{name, dtype}`, a body, and the type of the output."
  def element_wise(types, exact \\ true) do
    args = for name <- Enum.take([:a, :b, :c], :rand.uniform(3)), do: {name, Enum.random(types)}
    value = number(:rand.uniform(4), env(args, types, exact))
    %{args: args, lines: [], value: value, out: type(value), form: :element_wise}
  end

  @doc "A kernel with variables, branches and loops, which stores into an output of any type."
  def indexed(types, exact \\ true) do
    args = for name <- [:a, :b], do: {name, Enum.random(types)}
    env = env(args, types, exact)
    locals = for name <- [:s, :t], do: {name, Enum.random(types)}

    {starts, env} =
      Enum.map_reduce(locals, env, fn {name, type}, env ->
        value = {:cast, number(2, env), type}
        {{:let, name, value}, %{env | locals: [{name, type} | env.locals]}}
      end)

    lines = for _ <- 1..:rand.uniform(3), do: line(env, 2)
    value = number(2, env)
    %{args: args, lines: starts ++ lines, value: value, out: Enum.random(types), form: :indexed}
  end

  defp env(args, types, exact), do: %{args: args, locals: [], types: types, exact: exact}

  @doc "Whether the device divides and takes roots without an error: Vulkan allows GPUs one."
  def exact?(%{runtime: runtime, kind: kind}), do: runtime == :cuda or kind == :cpu

  defp line(env, depth) do
    {name, type} = Enum.random(env.locals)
    set = fn env -> {:let, name, {:cast, number(2, env), type}} end

    case :rand.uniform(if depth > 0, do: 4, else: 1) do
      1 ->
        set.(env)

      2 ->
        {:if, condition(1, env), [line(env, depth - 1)], []}

      3 ->
        {:if, condition(1, env), [line(env, depth - 1)], [line(env, depth - 1)]}

      4 ->
        {:for, :k, Enum.random([0, -2]), Enum.random([-3, 0, 3]),
         [line(counting(env), depth - 1)]}
    end
  end

  defp counting(env), do: %{env | args: Enum.uniq([{:k, :s32} | env.args])}

  def type({:arg, _, type}), do: type
  def type({:number, _, type}), do: type
  def type({:binary, _, _, _, type}), do: type
  def type({:unary, _, _, type}), do: type
  def type({:cast, _, type}), do: type
  def type({:select, _, _, _, type}), do: type

  @doc "The operands of a comparison, as they are compared: the values of integers, of which a common type may not have all."
  def compared(a, b) do
    type = mix(type(a), type(b))
    if float?(type), do: for(operand <- [a, b], do: {:cast, operand, type}), else: [a, b]
  end

  defp leaf(env) do
    {name, type} = Enum.random(env.args ++ env.locals)
    {:arg, name, type}
  end

  defp number(depth, env) when depth <= 0, do: leaf(env)

  defp number(depth, env) do
    a = number(depth - 1, env)

    case :rand.uniform(10) do
      n when n in 1..5 -> binary(a, depth, env)
      6 -> unary(a, env)
      7 -> {:cast, a, Enum.random(env.types)}
      n when n in 8..9 -> select(condition(depth - 1, env), a, second(a, depth, env))
      10 -> leaf(env)
    end
  end

  # A literal of the type of the first operand, or another expression, which may have another type.
  defp second(a, depth, env) do
    case :rand.uniform(4) do
      1 -> literal(type(a))
      _ -> fitting(number(depth - 1, env), a, env)
    end
  end

  # The merged type must be one that the device supports.
  defp fitting(b, a, env) do
    if mix(type(a), type(b)) in env.types, do: b, else: {:cast, b, type(a)}
  end

  defp binary(a, depth, env) do
    b = second(a, depth, env)
    mixed = mix(type(a), type(b))

    op =
      if float?(mixed),
        do: Enum.random([:+, :-, :*, :/, :+, :-, :*, :min, :max, :rem]),
        else: Enum.random([:+, :-, :*, :div, :rem, :min, :max, :band, :bor, :bxor, :bsl, :bsr])

    # `rem` on `f64` is not exact: it has the error of the quotient.
    op = if op == :rem and mixed == :f64, do: :+, else: op
    op = if op == :/ and not env.exact, do: :*, else: op
    {:binary, op, a, b, mixed}
  end

  defp unary(a, env) do
    op =
      if float?(type(a)),
        do: Enum.random([:-, :abs, :floor, :ceil, :trunc, :round, :sqrt]),
        else: Enum.random([:-, :abs, :bnot, :count_ones])

    op = if op == :sqrt and not env.exact, do: :abs, else: op
    {:unary, op, a, type(a)}
  end

  defp select(condition, a, b), do: {:select, condition, a, b, mix(type(a), type(b))}

  defp condition(depth, env) when depth > 0 and is_map(env) do
    case :rand.uniform(6) do
      1 -> {:join, Enum.random([:and, :or]), condition(depth - 1, env), condition(depth - 1, env)}
      2 -> {:not, condition(depth - 1, env)}
      _ -> comparison(depth, env)
    end
  end

  defp condition(depth, env), do: comparison(depth, env)

  defp comparison(depth, env) do
    a = number(depth - 1, env)
    {:compare, Enum.random([:<, :<=, :>, :>=, :==, :!=]), a, second(a, depth, env)}
  end

  defp literal(type) when type in @floats do
    {:number, Enum.random([0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 0.1, 1.0e-3, 100.0, 65_504.0, -2.5]),
     type}
  end

  defp literal(type) do
    {low, high} = range(type)

    number =
      case :rand.uniform(3) do
        1 -> Enum.random([low, low + 1, high, high - 1, div(high, 2)])
        2 -> Enum.random([0, 1, 2, 3, 7, 10, 100])
        3 -> Enum.random(low..high)
      end

    {:number, number, type}
  end

  def range(type) do
    bits = 8 * DType.size!(type)

    if unsigned?(type),
      do: {0, Integer.pow(2, bits) - 1},
      else: {-Integer.pow(2, bits - 1), Integer.pow(2, bits - 1) - 1}
  end

  def unsigned?(type), do: type in [:u8, :u16, :u32, :u64]

  # The merge rules of the guide.
  def mix(same, same), do: same

  def mix(a, b) when a in @floats and b in @floats,
    do: Enum.find([:f64, :f32, :f16], &(&1 in [a, b]))

  def mix(a, _) when a in @floats, do: a
  def mix(_, b) when b in @floats, do: b

  def mix(a, b) do
    {x, y} = {DType.size!(a), DType.size!(b)}

    case {unsigned?(a), unsigned?(b)} do
      {same, same} -> if x >= y, do: a, else: b
      {true, false} -> signed(max(2 * x, y))
      {false, true} -> signed(max(x, 2 * y))
    end
  end

  defp signed(2), do: :s16
  defp signed(4), do: :s32
  defp signed(_), do: :s64

  ## Elements

  @doc "Sixteen elements, half of them edge cases."
  def elements(type) do
    for _ <- 1..@length,
        into: <<>>,
        do: if(:rand.uniform(2) == 1, do: edge(type), else: any(type))
  end

  defp edge(type) when type in @floats do
    special = [:nan, :infinity, :neg_infinity, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -3.5]
    larger = [3.0, 10.0, 127.5, 255.0, 256.0, -129.0, 65_504.0, 65_520.0, 2_147_483_648.0, 3.0e10]
    tiny = [1.0e-7, 6.0e-8, 1.0e-40, -1.4e-45, 1.0e38, 3.4e38, 1.0e-310, 1.0e300, 9.3e18, 1.9e19]
    encoded(Enum.random(special ++ larger ++ tiny), type)
  end

  defp edge(type) do
    {low, high} = range(type)

    near =
      for n <- [low, low + 1, high, high - 1, 0, 1, 2, 3, 7, 100, -1, -2, -7],
          n in low..high,
          do: n

    encoded(Enum.random(near), type)
  end

  defp any(type) when type in @floats do
    case :rand.uniform(3) do
      1 -> :rand.bytes(DType.size!(type))
      2 -> encoded(Float.round(:rand.uniform() * 20 - 10, 2), type)
      3 -> encoded((:rand.uniform() - 0.5) * :math.pow(2, :rand.uniform(40) - 20), type)
    end
  end

  defp any(type) do
    {low, high} = range(type)
    width = :rand.uniform(8 * DType.size!(type))
    encoded(max(low, min(high, Enum.random(low..high) |> div(Integer.pow(2, width - 1)))), type)
  end

  defp encoded(value, type),
    do: ExCubecl.Conversion.binary([ExCubecl.Conversion.bits(value, type)], type)

  ## Elixir

  @doc "The names of the arguments, and the body of a kernel, quoted."
  def quoted(%{form: :element_wise} = program),
    do: {Keyword.keys(program.args), code(program.value, [])}

  def quoted(program) do
    read = Keyword.keys(program.args)
    lines = Enum.map(program.lines, &statement(&1, read))
    out = {{:., [], [Access, :get]}, [], [{:out, [], nil}, {:i, [], nil}]}
    start = {:=, [], [{:i, [], nil}, {:index, [], []}]}

    {read ++ [:out],
     {:__block__, [], [start | lines] ++ [{:=, [], [out, code(program.value, read)]}]}}
  end

  defp statement({:let, name, value}, read), do: {:=, [], [{name, [], nil}, code(value, read)]}

  defp statement({:if, condition, then, other}, read) do
    branches = if other == [], do: [], else: [else: block(other, read)]
    {:if, [], [code(condition, read), [{:do, block(then, read)} | branches]]}
  end

  defp statement({:for, name, from, to, lines}, read) do
    range = {:.., [], [from, to]}
    {:for, [], [{:<-, [], [{name, [], nil}, range]}, [do: block(lines, read)]]}
  end

  defp block(lines, read), do: {:__block__, [], Enum.map(lines, &statement(&1, read))}

  defp code({:arg, name, _}, read) do
    if name in read,
      do: {{:., [], [Access, :get]}, [], [{name, [], nil}, {:i, [], nil}]},
      else: {name, [], nil}
  end

  defp code({:number, n, _}, _), do: n
  defp code({:binary, op, a, b, _}, read), do: {op, [], [code(a, read), code(b, read)]}
  defp code({:unary, op, a, _}, read), do: {op, [], [code(a, read)]}
  defp code({:cast, a, type}, read), do: {:cast, [], [code(a, read), type]}

  defp code({:select, c, a, b, _}, read),
    do: {:if, [], [code(c, read), [do: code(a, read), else: code(b, read)]]}

  defp code({op, name, a, b}, read) when op in [:compare, :join],
    do: {name, [], [code(a, read), code(b, read)]}

  defp code({:not, a}, read), do: {:not, [], [code(a, read)]}

  ## Python

  @doc "Python code that leaves the result in `out`: it computes all elements at once, with a mask for each branch."
  def python(program) do
    # The first two lines give the variables their types; later lines may set them again.
    {first, rest} = Enum.split(program.lines, 2)
    text = for {:let, name, value} <- first, do: "#{name} = #{py(value)}\n"
    body = for line <- rest, do: py_line(line, "ALL", "")
    IO.iodata_to_binary([text, body, "out = ", py({:cast, program.value, program.out}), "\n"])
  end

  defp py_line({:let, name, value}, mask, indent),
    do: "#{indent}#{name} = np.where(#{mask}, #{py(value)}, #{name})\n"

  defp py_line({:if, condition, then, other}, mask, indent) do
    {yes, no} = {"y#{String.length(mask)}", "n#{String.length(mask)}"}
    {inner, outer} = {"(#{mask} & #{yes})", "(#{mask} & #{no})"}
    # The condition is evaluated before a branch changes a variable.
    [
      "#{indent}#{yes} = #{py(condition)}; #{no} = ~#{yes}\n",
      for(line <- then, do: py_line(line, inner, indent)),
      for(line <- other, do: py_line(line, outer, indent))
    ]
  end

  defp py_line({:for, name, from, to, lines}, mask, indent) do
    [
      "#{indent}for k_ in range(#{from}, #{to} + 1):\n",
      "#{indent}  #{name} = number(k_, 's32')\n",
      for(line <- lines, do: py_line(line, mask, indent <> "  "))
    ]
  end

  defp py({:arg, name, _}), do: "#{name}"
  defp py({:number, n, type}), do: "number(#{n}, '#{type}')"

  defp py({:binary, op, a, b, type}) do
    [a, b] = for operand <- [a, b], do: py({:cast, operand, type})
    "binary('#{op}', '#{type}', #{a}, #{b})"
  end

  defp py({:unary, op, a, type}), do: "unary('#{op}', '#{type}', #{py(a)})"

  defp py({:cast, a, type}) do
    if type(a) == type, do: py(a), else: "cast(#{py(a)}, '#{type(a)}', '#{type}')"
  end

  defp py({:select, c, a, b, type}),
    do: "np.where(#{py(c)}, #{py({:cast, a, type})}, #{py({:cast, b, type})})"

  defp py({:compare, op, a, b}) do
    [a, b] = for operand <- compared(a, b), do: py(operand)
    "compare('#{op}', #{a}, #{b})"
  end

  defp py({:join, :and, a, b}), do: "(#{py(a)} & #{py(b)})"
  defp py({:join, :or, a, b}), do: "(#{py(a)} | #{py(b)})"
  defp py({:not, a}), do: "(~#{py(a)})"
end
