defmodule ExCubecl.Ops.ElementWise do
  @moduledoc false
  # The element-wise operations: their kernels, and what their documentation says.

  alias ExCubecl.{Buffer, DType, Kernel, View}
  alias ExCubecl.Kernel.{Definition, Types}
  alias ExCubecl.Ops.{Functions, Lowering, Strided}

  require Kernel
  require Types

  @arithmetic [
    add: {Kernel.kernel(fn a, b -> a + b end), "the sums"},
    subtract: {Kernel.kernel(fn a, b -> a - b end), "the differences"},
    multiply: {Kernel.kernel(fn a, b -> a * b end), "the products"},
    divide: {Kernel.kernel(fn a, b -> a / b end), "the quotients, floats"},
    quotient:
      {Kernel.kernel(fn a, b -> div(a, b) end),
       "the quotients of integers, truncated toward zero, and 0 for a division by 0"},
    remainder:
      {Kernel.kernel(fn a, b -> rem(a, b) end), "the remainders, with the sign of the first"},
    pow:
      {Kernel.kernel(fn a, b -> a ** b end),
       "the powers: of integers, integers as those of `integer_pow/3`, else floats"},
    atan2: {Kernel.kernel(fn a, b -> atan2(a, b) end), "the angles"},
    min: {Kernel.kernel(fn a, b -> min(a, b) end), "the smaller elements"},
    max: {Kernel.kernel(fn a, b -> max(a, b) end), "the larger elements"},
    bitwise_and: {Kernel.kernel(fn a, b -> band(a, b) end), "the bits that are set in both"},
    bitwise_or: {Kernel.kernel(fn a, b -> bor(a, b) end), "the bits that are set in one or both"},
    bitwise_xor: {Kernel.kernel(fn a, b -> bxor(a, b) end), "the bits that are set in one only"}
  ]

  @comparisons [
    equal: {Kernel.kernel(fn a, b -> a == b end), "they are equal"},
    not_equal: {Kernel.kernel(fn a, b -> a != b end), "they differ"},
    less: {Kernel.kernel(fn a, b -> a < b end), "the first is less"},
    less_equal: {Kernel.kernel(fn a, b -> a <= b end), "the first is not greater"},
    greater: {Kernel.kernel(fn a, b -> a > b end), "the first is greater"},
    greater_equal: {Kernel.kernel(fn a, b -> a >= b end), "the first is not less"},
    logical_and: {Kernel.kernel(fn a, b -> a != 0 and b != 0 end), "both are not 0"},
    logical_or: {Kernel.kernel(fn a, b -> a != 0 or b != 0 end), "one is not 0 or both are not"},
    logical_xor: {Kernel.kernel(fn a, b -> a != 0 != (b != 0) end), "exactly one is not 0"}
  ]

  # The last operand of shifts is the number of bits of the type.
  @left Kernel.kernel(fn a, b, bits ->
          back = 0 - b

          cond do
            b >= bits -> a - a
            b >= 0 -> bsl(a, b)
            back >= bits or back < 0 -> bsr(bsr(a, bits - 1), 1)
            true -> bsr(a, back)
          end
        end)

  @right Kernel.kernel(fn a, b, bits ->
           back = 0 - b

           cond do
             b >= bits -> bsr(bsr(a, bits - 1), 1)
             b >= 0 -> bsr(a, b)
             back >= bits or back < 0 -> a - a
             true -> bsl(a, back)
           end
         end)

  # By a number of bits that the type has.
  @within %{
    left_shift: Kernel.kernel(fn a, b -> bsl(a, b) end),
    right_shift: Kernel.kernel(fn a, b -> bsr(a, b) end)
  }

  # By squaring, one bit of the exponent at a time.
  @integer_pow Kernel.kernel(fn a, b ->
                 power = bor(band(a, 0), 1)
                 base = a
                 exponent = b

                 for _j <- 0..63 do
                   if exponent > 0 do
                     if band(exponent, 1) == 1, do: power = power * base
                     base = base * base
                     exponent = bsr(exponent, 1)
                   end
                 end

                 if b < 0, do: power - power, else: power
               end)

  # Operations that are calculated in the merged type of their operands.
  @integers [
    integer_pow: {@integer_pow, "the powers of integers, and 0 for a negative exponent"},
    left_shift:
      {@left,
       "the first shifted left: 0 from a distance of all bits on; a negative distance shifts right"},
    right_shift:
      {@right,
       "the first shifted right, signed integers with their sign; a negative distance shifts left"}
  ]

  # The function of the language rounds halves to even. There is no negative zero, as Nx rounds to integers.
  @round %{
    float:
      Kernel.kernel(fn x ->
        whole = trunc(x)
        rest = x - whole
        away = if rest >= 0.5, do: 1.0, else: if(rest <= -0.5, do: -1.0, else: 0.0)
        if abs(x) < 0.5, do: 0.0, else: whole + away
      end),
    integer: Kernel.kernel(fn x -> round(x) end)
  }

  @sign %{
    float: Kernel.kernel(fn x -> if x > 0, do: 1, else: if(x < 0, do: -1, else: x) end),
    signed: Kernel.kernel(fn x -> min(max(x, -1), 1) end),
    unsigned: Kernel.kernel(fn x -> min(x, 1) end)
  }

  # Each step sets the bits below the first one that is set. `spare` is the number of bits by which the word is wider than the type.
  leading_zeros =
    for {bits, word} <- [{32, :u32}, {64, :u64}], into: %{} do
      steps =
        for n <- [1, 2, 4, 8, 16, 32],
            n < bits,
            do: quote(do: u = bor(u, bsr(u, unquote(n))))

      code =
        quote do
          Kernel.kernel(fn x, spare ->
            u = cast(x, unquote(word))
            unquote_splicing(steps)
            max(unquote(bits) - cast(count_ones(u), :s32) - spare, 0)
          end)
        end

      {bits, code |> Code.eval_quoted([], __ENV__) |> elem(0)}
    end

  @leading_zeros leading_zeros

  @simple [
    negate: {Kernel.kernel(fn x -> -x end), "each element negated"},
    abs: {Kernel.kernel(fn x -> abs(x) end), "the magnitude of each element"},
    floor: {Kernel.kernel(fn x -> floor(x) end), "each element rounded down"},
    ceil: {Kernel.kernel(fn x -> ceil(x) end), "each element rounded up"},
    round: {@round, "each element rounded, halves away from zero; no result is -0.0"},
    relu: {Kernel.kernel(fn x -> max(x, 0) end), "each element, and 0 for a negative one"},
    sign: {@sign, "-1, 0 or 1, the sign of each element; NaN stays NaN"},
    logical_not: {Kernel.kernel(fn x -> x == 0 end), "1 where an element is 0, else 0 (`:u8`)"},
    is_nan: {Kernel.kernel(fn x -> nan?(x) end), "1 where an element is NaN, else 0 (`:u8`)"},
    is_infinity:
      {Kernel.kernel(fn x -> infinite?(x) end), "1 where an element is infinite, else 0 (`:u8`)"},
    bitwise_not: {Kernel.kernel(fn x -> bnot(x) end), "each integer with its bits inverted"},
    population_count:
      {Kernel.kernel(fn x -> count_ones(x) end),
       "the number of bits that are set in each integer"},
    count_leading_zeros:
      {@leading_zeros, "the number of bits above the highest bit that is set in each integer"}
  ]

  @ternary [
    select: {Kernel.kernel(fn pred, a, b -> if pred != 0, do: a, else: b end), ""},
    clip: {Kernel.kernel(fn x, low, high -> min(max(x, low), high) end), ""}
  ]

  comparisons =
    for {name, {kernel, what}} <- @comparisons,
        do: {name, {kernel, "1 where #{what}, else 0 (`:u8`)"}}

  functions =
    for {name, kernel} <- Functions.all(), do: {name, {kernel, "`#{name}` of each element"}}

  @binary @arithmetic ++ comparisons ++ @integers
  @unary @simple ++ functions

  named = fn
    %Kernel{} = kernel, name ->
      Definition.named(kernel, name)

    kernels, name ->
      Map.new(kernels, fn {key, kernel} -> {key, Definition.named(kernel, name)} end)
  end

  @kernels Map.new(@unary ++ @binary ++ @ternary, fn {name, {kernel, _}} ->
             {name, named.(kernel, name)}
           end)

  @doc "The operations with one operand, and what they return."
  def unary, do: unquote(for {name, {_, what}} <- @unary, do: {name, what})

  @doc "The operations with two operands, and what they return."
  def binary, do: unquote(for {name, {_, what}} <- @binary, do: {name, what})

  @doc "Applies an operation; `opts` are those of `ExCubecl.Ops.Lowering.map/3`."
  def apply(name, operands, opts \\ []) do
    {kernel, more, casts} = kernel(name, operands)

    # Other terms than options are left to the checks of the lowering.
    if Keyword.keyword?(opts),
      do: Lowering.map(kernel, operands ++ more, wanted(casts, opts)),
      else: Lowering.map(kernel, operands, opts)
  end

  # The type of the result that the caller asks for replaces that of the operation.
  defp wanted(casts, opts) do
    casts = if Keyword.has_key?(opts, :dtype), do: Keyword.delete(casts, :dtype), else: casts
    casts ++ opts
  end

  @doc """
  The kernel of an operation for operands of these types: `{kernel, numbers, casts}` with the numbers that follow the operands, and the options `:as` and `:dtype` of
  `ExCubecl.Ops.Lowering.map/3`.
  """
  @spec kernel(atom, [Lowering.operand()]) :: {Kernel.t(), [integer], keyword}
  def kernel(:count_leading_zeros, [x]) do
    case types([x]) do
      [type] when not Types.floating?(type) ->
        word = if bits(type) == 64, do: 64, else: 32
        {@kernels.count_leading_zeros[word], [word - bits(type)], [dtype: type]}

      # The error of a type or a term that the operation does not take.
      _ ->
        {Strided.named(@kernels.bitwise_not, :count_leading_zeros), [], []}
    end
  end

  def kernel(name, [_, _] = operands) when name in [:integer_pow, :left_shift, :right_shift] do
    # A float would be truncated.
    case if(Enum.any?(operands, &is_float/1), do: [], else: types(operands)) do
      [_ | _] = types ->
        type = Enum.reduce(types, &Types.mix/2)
        {kernel, more} = in_integers(name, List.last(operands), bits(type))
        {kernel, more, [as: type]}

      [] ->
        {Strided.named(@kernels.bitwise_and, name), [], []}
    end
  end

  def kernel(:pow, [_, _] = operands) do
    integers? =
      not Enum.any?(operands, &(is_float(&1) or is_atom(&1))) and
        not Enum.any?(types(operands), &Types.floating?/1)

    if integers?, do: kernel(:integer_pow, operands), else: {@kernels.pow, [], []}
  end

  def kernel(:sign, [x]) do
    class =
      case types([x]) do
        [type] when type in [:s8, :s16, :s32, :s64] -> :signed
        [type] when type in [:u8, :u16, :u32, :u64] -> :unsigned
        _ -> :float
      end

    {@kernels.sign[class], [], []}
  end

  def kernel(:round, [x]) do
    class = if Enum.all?(types([x]), &Types.floating?/1), do: :float, else: :integer
    {@kernels.round[class], [], []}
  end

  # A rounded argument of erfc has a much larger error in its result.
  def kernel(:gelu, [x]) do
    casts =
      for type when type in [:f16, :bf16] <- types([x]), cast <- [as: :f32, dtype: type], do: cast

    {@kernels.gelu, [], casts}
  end

  def kernel(name, _operands), do: {@kernels[name], [], []}

  defp in_integers(:integer_pow, _exponent, _bits), do: {@kernels.integer_pow, []}

  defp in_integers(name, distance, bits)
       when is_integer(distance) and distance >= 0 and distance < bits,
       do: {Strided.named(@within[name], name), []}

  defp in_integers(name, _distance, bits), do: {@kernels[name], [bits]}

  defp types(operands) do
    Enum.flat_map(operands, fn
      %Buffer{dtype: dtype} -> if DType.valid?(dtype), do: [dtype], else: []
      %View{dtype: dtype} -> if DType.valid?(dtype), do: [dtype], else: []
      _number -> []
    end)
  end

  defp bits(type), do: 8 * DType.size!(type)
end
