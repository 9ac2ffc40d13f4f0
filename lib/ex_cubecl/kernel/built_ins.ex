defmodule ExCubecl.Kernel.BuiltIns do
  @moduledoc false
  # The built-in functions of the language of kernels.

  @unary %{
    -: :neg,
    not: :not,
    bnot: :bnot,
    "~~~": :bnot,
    abs: :abs,
    exp: :exp,
    expm1: :expm1,
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
    asinh: :asinh,
    acosh: :acosh,
    atanh: :atanh,
    sqrt: :sqrt,
    cbrt: :cbrt,
    rsqrt: :rsqrt,
    round: :round,
    floor: :floor,
    ceil: :ceil,
    trunc: :trunc,
    erf: :erf,
    erfc: :erfc,
    erf_inv: :erf_inv,
    sigmoid: :sigmoid,
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
    shape: [2],
    cast: [2],
    bitcast: [2],
    local: [0, 1],
    group: [0, 1],
    group_size: [0, 1],
    shared: [2],
    barrier: [0],
    while: [2, 3],
    plane_lane: [0],
    plane_size: [0],
    plane_sum: [1],
    plane_product: [1],
    plane_min: [1],
    plane_max: [1],
    plane_broadcast: [2],
    +: [1]
  ]

  @doc "The functions of one operand, by their names in the code."
  def unary, do: @unary

  @doc "The functions of two operands, by their names in the code."
  def binary, do: @binary

  # Functions that have another name in the code, which is a word if there is one.
  @written for {function, names} <-
                 Enum.group_by(Enum.concat(@unary, @binary), &elem(&1, 1), &elem(&1, 0)),
               function not in names,
               into: %{},
               do: {function, Enum.find(names, hd(names), &(Atom.to_string(&1) =~ ~r/^[a-z]/))}

  @doc """
  The name in the code of a function of one or two operands, for messages.

      iex> Enum.map([:add, :shl, :min], &ExCubecl.Kernel.BuiltIns.written/1)
      [:+, :bsl, :min]
  """
  @spec written(atom) :: atom
  def written(function), do: Map.get(@written, function, function)

  @doc "The names of the atomic operations."
  def atomics, do: @atomics

  @doc "The names of functions that are words, not operators."
  def names do
    names = Map.keys(@unary) ++ Map.keys(@binary) ++ @atomics ++ Keyword.keys(@words)
    names |> Enum.filter(&(Atom.to_string(&1) =~ ~r/^[a-z]/)) |> Enum.uniq()
  end

  @doc "The arities of a built-in function; `[]` for any other name."
  @spec arities(atom) :: [arity]
  def arities(name) do
    one = if is_map_key(@unary, name), do: [1], else: []
    two = if is_map_key(@binary, name) or name in @atomics, do: [2], else: []
    Enum.uniq(one ++ Keyword.get(@words, name, []) ++ two)
  end
end
