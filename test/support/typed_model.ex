defmodule ExCubecl.TypedModel do
  @moduledoc false
  # Evaluates the trees of `ExCubecl.TypedPrograms`, element by element, in plain Elixir, by the rules of the guide
  # on kernels. Floats are Elixir numbers, or `:nan`, `:infinity` and `:neg_infinity`; floats of fewer than 64 bits
  # are computed with 64 bits and rounded, which for one operation is the same as rounding once.

  import Bitwise

  alias ExCubecl.{Conversion, DType, TypedPrograms}

  @doc "The bits that a program leaves in its output, for inputs as lists of bits."
  def run(program, inputs) do
    names = Keyword.keys(program.args)
    types = Keyword.values(program.args)

    for elements <- Enum.zip_with(inputs, & &1) do
      env =
        for {{name, type}, bits} <- Enum.zip(Enum.zip(names, types), elements),
            into: %{},
            do: {name, Conversion.value(bits, type)}

      env = Enum.reduce(program.lines, env, &line/2)
      {:cast, program.value, program.out} |> value(env) |> Conversion.bits(program.out)
    end
  end

  defp line({:let, name, tree}, env), do: Map.put(env, name, value(tree, env))

  defp line({:if, condition, then, other}, env),
    do: Enum.reduce(if(holds?(condition, env), do: then, else: other), env, &line/2)

  defp line({:for, name, from, to, lines}, env) do
    Enum.reduce(from..to//1, env, fn k, env ->
      Enum.reduce(lines, Map.put(env, name, k), &line/2)
    end)
  end

  defp value({:arg, name, _}, env), do: Map.fetch!(env, name)
  defp value({:number, n, type}, _), do: rounded(n, type)

  defp value({:cast, tree, type}, env),
    do: tree |> value(env) |> Conversion.bits(type) |> Conversion.value(type)

  defp value({:select, c, a, b, type}, env),
    do: value({:cast, if(holds?(c, env), do: a, else: b), type}, env)

  defp value({:unary, op, tree, type}, env), do: unary(op, value(tree, env), type)

  defp value({:binary, op, a, b, type}, env) do
    [a, b] = for tree <- [a, b], do: value({:cast, tree, type}, env)

    cond do
      op in [:min, :max] -> extreme(op, a, b)
      TypedPrograms.float?(type) -> rounded(float(op, a, b), type)
      true -> rounded(integer(op, a, b, 8 * DType.size!(type)), type)
    end
  end

  defp rounded(value, type) do
    value = if TypedPrograms.float?(type) and is_integer(value), do: value / 1, else: value
    value |> Conversion.bits(type) |> Conversion.value(type)
  end

  ## Conditions

  defp holds?({:join, :and, a, b}, env), do: holds?(a, env) and holds?(b, env)
  defp holds?({:join, :or, a, b}, env), do: holds?(a, env) or holds?(b, env)
  defp holds?({:not, a}, env), do: not holds?(a, env)

  defp holds?({:compare, op, a, b}, env) do
    [a, b] = for tree <- TypedPrograms.compared(a, b), do: value(tree, env)
    compared(op, a, b)
  end

  defp compared(:!=, a, b), do: not compared(:==, a, b)
  defp compared(_, a, b) when a == :nan or b == :nan, do: false
  defp compared(op, a, b), do: apply(Kernel, op, [place(a), place(b)])

  # The order of infinities and numbers.
  defp place(:infinity), do: {1, 0}
  defp place(:neg_infinity), do: {-1, 0}
  defp place(number), do: {0, number + 0}

  defp extreme(_, :nan, _), do: :nan
  defp extreme(_, _, :nan), do: :nan
  defp extreme(:min, a, b), do: if(place(a) <= place(b), do: a, else: b)
  defp extreme(:max, a, b), do: if(place(a) >= place(b), do: a, else: b)

  ## Integers, whose low bits stay

  defp integer(:+, a, b, _), do: a + b
  defp integer(:-, a, b, _), do: a - b
  defp integer(:*, a, b, _), do: a * b
  defp integer(op, _, 0, _) when op in [:div, :rem], do: 0
  defp integer(:div, a, b, _), do: div(a, b)
  defp integer(:rem, a, b, _), do: rem(a, b)
  defp integer(:band, a, b, _), do: band(a, b)
  defp integer(:bor, a, b, _), do: bor(a, b)
  defp integer(:bxor, a, b, _), do: bxor(a, b)
  defp integer(:bsl, a, b, width), do: bsl(a, band(b, width - 1))
  defp integer(:bsr, a, b, width), do: bsr(a, band(b, width - 1))

  defp unary(:count_ones, a, type),
    do: band(a, Integer.pow(2, 8 * DType.size!(type)) - 1) |> Integer.digits(2) |> Enum.sum()

  defp unary(:bnot, a, type), do: rounded(bnot(a), type)
  defp unary(:-, a, type) when is_integer(a), do: rounded(-a, type)
  defp unary(:abs, a, type) when is_integer(a), do: rounded(abs(a), type)

  ## Floats

  defp unary(_, :nan, _), do: :nan
  defp unary(:-, a, _), do: negative(a)
  defp unary(:abs, a, _), do: if(minus?(a), do: negative(a), else: a)
  defp unary(:sqrt, :infinity, _), do: :infinity
  defp unary(:sqrt, :neg_infinity, _), do: :nan
  defp unary(:sqrt, a, _) when a < 0, do: :nan
  defp unary(:sqrt, a, _) when a == 0, do: a
  defp unary(:sqrt, a, type), do: rounded(:math.sqrt(a), type)
  defp unary(_, a, _) when is_atom(a), do: a
  defp unary(_, a, _) when abs(a) >= 4_503_599_627_370_496, do: a
  defp unary(op, a, _), do: like(whole(op, a) / 1, a)

  defp whole(:floor, a), do: floor(a)
  defp whole(:ceil, a), do: ceil(a)
  defp whole(:trunc, a), do: trunc(a)

  # Rounds to nearest, ties to even.
  defp whole(:round, a) do
    below = floor(a)
    rest = a - below
    if rest > 0.5 or (rest == 0.5 and rem(below, 2) != 0), do: below + 1, else: below
  end

  # A zero result has the sign of the operand.
  defp like(number, a) when number == 0, do: zero(minus?(a))
  defp like(number, _), do: number

  # Built from bits, because some compilers take both zeros for the same literal.
  defp zero(minus) do
    <<zero::float>> = <<if(minus, do: 1, else: 0)::1, 0::63>>
    zero
  end

  defp negative(:infinity), do: :neg_infinity
  defp negative(:neg_infinity), do: :infinity
  defp negative(a), do: a * -1.0

  defp minus?(:neg_infinity), do: true
  defp minus?(:infinity), do: false
  defp minus?(a), do: match?(<<1::1, _::63>>, <<a::float>>)

  defp infinite(minus), do: if(minus, do: :neg_infinity, else: :infinity)

  defp float(_, a, b) when a == :nan or b == :nan, do: :nan
  defp float(:-, a, b), do: float(:+, a, negative(b))
  defp float(:+, a, b) when is_atom(a) and is_atom(b), do: if(a == b, do: a, else: :nan)
  defp float(:+, a, _) when is_atom(a), do: a
  defp float(:+, _, b) when is_atom(b), do: b
  defp float(:*, a, b) when is_atom(a) and is_number(b) and b == 0, do: :nan
  defp float(:*, a, b) when is_atom(b) and is_number(a) and a == 0, do: :nan
  defp float(:*, a, b) when is_atom(a) or is_atom(b), do: infinite(minus?(a) != minus?(b))
  defp float(:/, a, b) when is_atom(a) and is_atom(b), do: :nan
  defp float(:/, a, b) when is_atom(a), do: infinite(minus?(a) != minus?(b))
  defp float(:/, a, b) when is_atom(b), do: zero(minus?(a) != minus?(b))
  defp float(:/, a, b) when a == 0 and b == 0, do: :nan
  defp float(:/, a, b) when b == 0, do: infinite(minus?(a) != minus?(b))
  defp float(:rem, a, _) when is_atom(a), do: :nan
  defp float(:rem, a, b) when is_atom(b), do: a
  defp float(:rem, _, b) when b == 0, do: :nan
  defp float(:rem, a, b), do: like(:math.fmod(a, b), a)

  defp float(op, a, b) do
    apply(:erlang, op, [a, b])
  rescue
    # The result is out of range for an Elixir float.
    ArithmeticError -> infinite(if op == :+, do: minus?(a), else: minus?(a) != minus?(b))
  end
end
