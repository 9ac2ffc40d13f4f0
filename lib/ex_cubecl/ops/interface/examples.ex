defmodule ExCubecl.Ops.Interface.Examples do
  @moduledoc false
  # The examples in the documentation of the element-wise operations: the elements of the first operand, the second operand, and the result. They are
  # numbers at which functions of floats are exact.

  @binary [
    add: {[1, 2, 3], 10, [11, 12, 13]},
    subtract: {[1, 2, 3], 10, [-9, -8, -7]},
    multiply: {[1, 2, 3], 10, [10, 20, 30]},
    divide: {[1, 2, 3], 2, [0.5, 1.0, 1.5]},
    quotient: {[7, -7], 2, [3, -3]},
    remainder: {[7, -7], 4, [3, -3]},
    pow: {[1.0, 2.0, 3.0], 2, [1.0, 4.0, 9.0]},
    integer_pow: {[1, 2, 3], 2, [1, 4, 9]},
    min: {[1, 5], 3, [1, 3]},
    max: {[1, 5], 3, [3, 5]},
    atan2: {[0.0], 1.0, [0.0]},
    equal: {[1, 2, 3], 2, [0, 1, 0]},
    not_equal: {[1, 2, 3], 2, [1, 0, 1]},
    less: {[1, 2, 3], 2, [1, 0, 0]},
    less_equal: {[1, 2, 3], 2, [1, 1, 0]},
    greater: {[1, 2, 3], 2, [0, 0, 1]},
    greater_equal: {[1, 2, 3], 2, [0, 1, 1]},
    logical_and: {[0, 1, 2], 1, [0, 1, 1]},
    logical_or: {[0, 1, 2], 0, [0, 1, 1]},
    logical_xor: {[0, 1, 2], 1, [1, 0, 0]},
    bitwise_and: {[12, 10], 6, [4, 2]},
    bitwise_or: {[12, 10], 6, [14, 14]},
    bitwise_xor: {[12, 10], 6, [10, 12]},
    left_shift: {[1, 3], 2, [4, 12]},
    right_shift: {[8, -8], 1, [4, -4]}
  ]

  @unary [
    negate: {[1, -2], [-1, 2]},
    abs: {[-3, 4], [3, 4]},
    sign: {[-3, 0, 4], [-1, 0, 1]},
    floor: {[1.5, -1.5], [1.0, -2.0]},
    ceil: {[1.5, -1.5], [2.0, -1.0]},
    round: {[1.2, 2.5, -2.5], [1.0, 3.0, -3.0]},
    exp: {[0.0], [1.0]},
    expm1: {[0.0], [0.0]},
    log: {[1.0], [0.0]},
    log1p: {[0.0], [0.0]},
    sqrt: {[4.0, 9.0], [2.0, 3.0]},
    rsqrt: {[4.0], [0.5]},
    cbrt: {[8.0, 27.0], [2.0, 3.0]},
    sin: {[0.0], [0.0]},
    cos: {[0.0], [1.0]},
    tan: {[0.0], [0.0]},
    asin: {[0.0], [0.0]},
    acos: {[1.0], [0.0]},
    atan: {[0.0], [0.0]},
    sinh: {[0.0], [0.0]},
    cosh: {[0.0], [1.0]},
    tanh: {[0.0], [0.0]},
    asinh: {[0.0], [0.0]},
    acosh: {[1.0], [0.0]},
    atanh: {[0.0], [0.0]},
    erf: {[0.0], [0.0]},
    erfc: {[0.0], [1.0]},
    erf_inv: {[0.0], [0.0]},
    sigmoid: {[0.0], [0.5]},
    gelu: {[0.0], [0.0]},
    relu: {[-1.0, 2.0], [0.0, 2.0]},
    logical_not: {[0, 2], [1, 0]},
    bitwise_not: {[0, 5], [-1, -6]},
    population_count: {[0, 7], [0, 3]},
    count_leading_zeros: {[1, 8], [31, 28]},
    is_nan: {[1.0, :nan], [0, 1]},
    is_infinity: {[1.0, :infinity], [0, 1]}
  ]

  @doc "The example of an operation, as two lines of IEx."
  @spec binary(atom) :: String.t()
  def binary(name) do
    {elements, other, result} = Keyword.fetch!(@binary, name)
    lines("#{name}!(#{buffer(elements)}, #{other})", result)
  end

  @doc "As `binary/1`."
  @spec unary(atom) :: String.t()
  def unary(name) do
    {elements, result} = Keyword.fetch!(@unary, name)
    lines("#{name}!(#{buffer(elements)})", result)
  end

  defp buffer(elements), do: "ExCubecl.buffer!(#{show(elements)})"

  defp lines(call, result),
    do: "    iex> ExCubecl.to_list!(ExCubecl.Ops.#{call})\n    #{show(result)}"

  defp show(elements), do: inspect(elements, charlists: :as_lists)
end
