defmodule ExCubecl.KernelModel do
  @moduledoc false
  # Random programs in the language of kernels, and their expected results: an evaluation of the same quoted code in
  # Elixir, with 32-bit integers.

  import Bitwise

  @size 9

  ## Programs

  @doc "An element-wise expression of arguments a, b and c."
  def expression(depth), do: number(depth, [:a, :b, :c], [])

  @doc "The body of an indexed kernel that reads a and b and writes into out."
  def body(statements) do
    {lines, _} = Enum.map_reduce(1..statements, [], fn _, locals -> statement(3, locals) end)

    quote do
      i = index()
      s = 0
      unquote_splicing(lines)
      out[i] = s
    end
  end

  # The first operand contains a variable: operations on two constants are folded, with unlimited precision.
  defp number(depth, names, _buffers) when depth <= 0, do: leaf(names)

  defp number(depth, names, buffers) do
    one = fn -> number(depth - 1, names, buffers) end
    varying = fn -> varying(depth - 1, names, buffers) end

    case :rand.uniform(if buffers == [], do: 13, else: 15) do
      n when n in 1..4 -> call(Enum.random([:+, :-, :*]), [varying.(), one.()])
      5 -> call(Enum.random([:div, :rem]), [varying.(), one.()])
      6 -> call(Enum.random([:min, :max]), [varying.(), one.()])
      7 -> call(Enum.random([:band, :bor, :bxor]), [varying.(), one.()])
      8 -> call(Enum.random([:bsl, :bsr]), [varying.(), one.()])
      9 -> call(Enum.random([:abs, :-, :bnot, :count_ones]), [varying.()])
      n when n in 10..11 -> choice(condition(depth - 1, names, buffers), one.(), one.())
      n when n in 12..13 -> leaf(names)
      _ -> {{:., [], [Access, :get]}, [], [variable(Enum.random(buffers)), one.()]}
    end
  end

  defp varying(depth, names, buffers) do
    case number(depth, names, buffers) do
      literal when is_integer(literal) -> variable(Enum.random(names))
      other -> other
    end
  end

  defp condition(depth, names, _) when depth <= 0,
    do: call(Enum.random([:<, :<=, :==, :!=]), [leaf(names), leaf(names)])

  defp condition(depth, names, buffers) do
    one = fn -> condition(depth - 1, names, buffers) end

    case :rand.uniform(5) do
      1 ->
        call(Enum.random([:and, :or]), [one.(), one.()])

      2 ->
        call(:not, [one.()])

      _ ->
        call(
          Enum.random([:<, :>, :<=, :>=, :==, :!=]),
          for(_ <- 1..2, do: number(depth - 1, names, buffers))
        )
    end
  end

  defp choice(condition, then, other), do: {:if, [], [condition, [do: then, else: other]]}
  defp call(name, args), do: {name, [], args}
  defp variable(name), do: {name, [], nil}

  defp leaf(names) do
    case :rand.uniform(4) do
      1 -> Enum.random([0, 1, 2, 3, 7, 31, 255, 65_535, 2_147_483_647])
      _ -> variable(Enum.random(names))
    end
  end

  defp statement(depth, locals) do
    names = [:i, :s | locals]
    value = number(depth, names, [:a, :b])

    case :rand.uniform(if depth > 0, do: 7, else: 3) do
      1 ->
        {call(:=, [variable(:s), value]), locals}

      2 ->
        name = Enum.random([:t, :u])
        {call(:=, [variable(name), value]), Enum.uniq([name | locals])}

      3 ->
        {call(:=, [variable(:s), call(:+, [variable(:s), value])]), locals}

      4 ->
        {call(:if, [
           condition(1, names, [:a, :b]),
           [do: block(depth, locals), else: block(depth, locals)]
         ]), locals}

      5 ->
        {call(:if, [condition(1, names, [:a, :b]), [do: block(depth, locals)]]), locals}

      6 ->
        from = Enum.random([0, -2, variable(:i)])
        to = Enum.random([3, 5, call(:len, [variable(:a)])])
        range = call(:.., [from, to])
        # The counter of a loop is another variable than one of the same name outside.
        counter = Enum.random([:j, :t])
        body = block(depth, Enum.uniq([counter | locals]))
        {call(:for, [call(:<-, [variable(counter), range]), [do: body]]), locals}

      7 ->
        limit = Enum.random([0, 3, -1, variable(:i)])
        body = block(depth, locals)
        {call(:while, [condition(1, names, [:a, :b]), [limit: limit], [do: body]]), locals}
    end
  end

  defp block(depth, locals) do
    {lines, _} = Enum.map_reduce(1..2, locals, fn _, locals -> statement(depth - 2, locals) end)
    {:__block__, [], lines}
  end

  ## Evaluation

  @doc "The value of an expression; `env` has the numbers of the names."
  def value(quoted, env), do: eval(quoted, env) |> elem(0)

  @doc "The output of an indexed kernel. Each position reads and writes only its own element of it."
  def run(body, a, b) do
    for i <- 0..(@size - 1) do
      env = %{index: i, a: a, b: b, out: %{}, len: length(a)}
      {_, env} = eval(body, env)
      Map.fetch!(env.out, i)
    end
  end

  def size, do: @size

  defp eval({:__block__, _, lines}, env),
    do: Enum.reduce(lines, {nil, env}, fn line, {_, env} -> eval(line, env) end)

  defp eval(number, env) when is_integer(number), do: {number, env}
  defp eval({:index, _, []}, env), do: {env.index, env}
  defp eval({:len, _, _}, env), do: {env.len, env}

  defp eval({:=, _, [{{:., _, _}, _, [{:out, _, _}, index]}, value]}, env) do
    {index, _} = eval(index, env)
    {value, _} = eval(value, env)
    {value, put_in(env.out[index], value)}
  end

  defp eval({:=, _, [{name, _, _}, value]}, env) do
    {value, _} = eval(value, env)
    {value, Map.put(env, name, value)}
  end

  defp eval({{:., _, _}, _, [{name, _, _}, index]}, env) do
    {index, _} = eval(index, env)

    case env[name] do
      list when is_list(list) ->
        {if(index in 0..(length(list) - 1), do: Enum.at(list, index), else: 0), env}

      written ->
        {if(index == env.index, do: Map.get(written, index, 0), else: 0), env}
    end
  end

  defp eval({:if, _, [condition, branches]}, env) do
    {condition, _} = eval(condition, env)
    branch = if condition, do: branches[:do], else: branches[:else]
    if branch == nil, do: {nil, env}, else: eval(branch, env)
  end

  defp eval({:for, _, [{:<-, _, [{name, _, _}, {:.., _, [from, to]}]}, [do: body]]}, env) do
    {from, _} = eval(from, env)
    {to, _} = eval(to, env)

    after_loop =
      Enum.reduce(from..to//1, env, fn i, env ->
        body |> eval(Map.put(env, name, i)) |> elem(1)
      end)

    case env do
      %{^name => outside} -> {nil, Map.put(after_loop, name, outside)}
      _ -> {nil, Map.delete(after_loop, name)}
    end
  end

  defp eval({:while, _, [condition, [limit: limit], [do: body]]}, env) do
    {limit, _} = eval(limit, env)

    env =
      Enum.reduce_while(1..limit//1, env, fn _, env ->
        if elem(eval(condition, env), 0),
          do: {:cont, body |> eval(env) |> elem(1)},
          else: {:halt, env}
      end)

    {nil, env}
  end

  defp eval({name, _, context}, env) when is_atom(context), do: {Map.fetch!(env, name), env}

  defp eval({name, _, args}, env) do
    {apply_to(name, Enum.map(args, &elem(eval(&1, env), 0))), env}
  end

  defp apply_to(:+, [a, b]), do: wrap(a + b)
  defp apply_to(:-, [a, b]), do: wrap(a - b)
  defp apply_to(:*, [a, b]), do: wrap(a * b)
  defp apply_to(:div, [_, 0]), do: 0
  defp apply_to(:div, [a, b]), do: wrap(div(a, b))
  defp apply_to(:rem, [_, 0]), do: 0
  defp apply_to(:rem, [a, b]), do: rem(a, b)
  defp apply_to(:min, [a, b]), do: min(a, b)
  defp apply_to(:max, [a, b]), do: max(a, b)
  defp apply_to(:band, [a, b]), do: band(a, b)
  defp apply_to(:bor, [a, b]), do: bor(a, b)
  defp apply_to(:bxor, [a, b]), do: bxor(a, b)
  defp apply_to(:bsl, [a, b]), do: wrap(bsl(a, band(b, 31)))
  defp apply_to(:bsr, [a, b]), do: bsr(a, band(b, 31))
  defp apply_to(:bnot, [a]), do: bnot(a)
  defp apply_to(:-, [a]), do: wrap(-a)
  defp apply_to(:abs, [a]), do: wrap(abs(a))

  defp apply_to(:count_ones, [a]),
    do: (a &&& 0xFFFF_FFFF) |> Integer.digits(2) |> Enum.sum()

  defp apply_to(:<, [a, b]), do: a < b
  defp apply_to(:>, [a, b]), do: a > b
  defp apply_to(:<=, [a, b]), do: a <= b
  defp apply_to(:>=, [a, b]), do: a >= b
  defp apply_to(:==, [a, b]), do: a == b
  defp apply_to(:!=, [a, b]), do: a != b
  defp apply_to(:and, [a, b]), do: a and b
  defp apply_to(:or, [a, b]), do: a or b
  defp apply_to(:not, [a]), do: not a

  defp wrap(n) do
    <<wrapped::signed-32>> = <<n::32>>
    wrapped
  end
end
