defmodule ExCubecl.Kernel.FloatFunctions.Format do
  @moduledoc false
  # The constants of the two types in which functions are calculated, and code that all functions use.

  alias ExCubecl.Kernel.FloatFunctions.Coefficients

  # ln2 and the first parts of pi / 2 are so short that their products with the integers of the reductions are exact.
  @f32 %{
    type: :f32,
    word: :u32,
    integer: :s32,
    bits: 32,
    mantissa: 23,
    bias: 127,
    sign: 0x8000_0000,
    magnitude: 0x7FFF_FFFF,
    infinity: 0x7F80_0000,
    nan: 0x7FC0_0000,
    upper: 0xFFFF_F000,
    # A number is rounded to an integer by the sum with this one, whose last bits then are the integer.
    rounder: 12_582_912.0,
    rounder_bits: 0x4B40_0000,
    # 2^23: the integers below it are the last bits of their sum with it.
    whole: 8_388_608.0,
    whole_bits: 0x4B00_0000,
    ln2: {0.693145751953125, 1.428606765330187e-06},
    half_pi: {1.5707963705062866, -4.371138828673793e-08},
    half_pi_parts: [
      1.5703125,
      0.0004837512969970703,
      7.549533620476723e-08,
      2.5633440682570896e-12
    ],
    # The first four multiples of pi / 4.
    quarters: [
      {0.7853981852531433, -2.1855694143368964e-08},
      {1.5707963705062866, -4.371138828673793e-08},
      {2.356194496154785, -5.962440319251527e-09},
      {3.1415927410125732, -8.742277657347586e-08}
    ],
    third: {0.3333333432674408, -9.934107758624577e-09},
    # The exponential function is 0 or infinite beyond.
    exp_bound: 104.0,
    # Below it, x and tanh x agree.
    tiny: 1.220703125e-4,
    # Up to it, pi / 2 in four parts is enough.
    reduction_bound: 3000.0
  }

  @f64 %{
    type: :f64,
    word: :u64,
    integer: :s64,
    bits: 64,
    mantissa: 52,
    bias: 1023,
    sign: 0x8000_0000_0000_0000,
    magnitude: 0x7FFF_FFFF_FFFF_FFFF,
    infinity: 0x7FF0_0000_0000_0000,
    nan: 0x7FF8_0000_0000_0000,
    upper: 0xFFFF_FFFF_F800_0000,
    rounder: 6_755_399_441_055_744.0,
    rounder_bits: 0x4338_0000_0000_0000,
    whole: 4_503_599_627_370_496.0,
    whole_bits: 0x4330_0000_0000_0000,
    ln2: {0.693147180559663, 2.8235290563031577e-13},
    half_pi: {1.5707963267948966, 6.123233995736766e-17},
    half_pi_parts: [
      1.5707963267341256,
      6.077100506303966e-11,
      2.0222662487111665e-21,
      8.4784276603689e-32
    ],
    quarters: [
      {0.7853981633974483, 3.061616997868383e-17},
      {1.5707963267948966, 6.123233995736766e-17},
      {2.356194490192345, 9.184850993605148e-17},
      {3.141592653589793, 1.2246467991473532e-16}
    ],
    third: {0.3333333333333333, 1.850371707708594e-17},
    exp_bound: 746.0,
    tiny: 3.725290298461914e-9,
    reduction_bound: 800_000.0
  }

  def all, do: [@f32, @f64]

  @doc "The bits of a positive number."
  def bits_of(%{type: :f32}, number) do
    <<bits::32>> = <<number::float-32>>
    bits
  end

  def bits_of(%{type: :f64}, number) do
    <<bits::64>> = <<number::float-64>>
    bits
  end

  @doc "The polynomial `name` of a variable."
  def polynomial(%{type: type}, name, variable) do
    type
    |> Coefficients.get(name)
    |> Enum.reverse()
    |> Enum.reduce(fn lower, sum ->
      quote(do: unquote(lower) + unquote(variable) * unquote(sum))
    end)
  end

  @doc "A variable, and beyond a bound the bound with its sign; NaN stays NaN."
  def limited(f, x, bound) do
    bits = bits_of(f, bound)

    quote do
      if magnitude(unquote(x)) - unquote(bits + 1) < unquote(f.infinity - bits),
        do: with_sign(unquote(number(f.type, bound)), unquote(x)),
        else: unquote(x)
    end
  end

  @doc "A number of a type, where no other operand has it."
  def number(type, number), do: quote(do: cast(unquote(number), unquote(type)))

  @doc "A value of the type by its bits."
  def of_bits(f, bits), do: quote(do: bitcast(unquote(number(f.word, bits)), unquote(f.type)))

  @doc "Functions that others use."
  def helpers(f) do
    [
      # The bits of the magnitude.
      magnitude: quote(do: fn x -> band(bitcast(x, unquote(f.word)), unquote(f.magnitude)) end),
      # A magnitude with the sign of x.
      with_sign:
        quote do
          fn value, x ->
            sign = band(bitcast(x, unquote(f.word)), unquote(f.sign))
            bitcast(bxor(bitcast(value, unquote(f.word)), sign), unquote(f.type))
          end
        end,
      # The leading half of the digits, whose products are exact.
      upper:
        quote do
          fn x ->
            bitcast(band(bitcast(x, unquote(f.word)), unquote(f.upper)), unquote(f.type))
          end
        end,
      # The rounding error of a sum, exactly.
      sum_error:
        quote do
          fn a, b, sum ->
            other = sum - a
            a - (sum - other) + (b - other)
          end
        end,
      # The rounding error of a product, exactly unless it underflows.
      product_error:
        quote do
          fn a, b, product ->
            a_high = upper(a)
            a_low = a - a_high
            b_high = upper(b)
            b_low = b - b_high
            a_high * b_high - product + a_high * b_low + a_low * b_high + a_low * b_low
          end
        end,
      # (a + b) / (c + d), where b and d are rounding errors of a and c.
      quotient:
        quote do
          fn a, b, c, d ->
            q = a / c
            p = q * c
            q + (a - p - product_error(q, c, p) + (b - q * d)) / c
          end
        end,
      # 2 to the power of an integer, within the range of normal numbers.
      power_of_two:
        quote do
          fn n -> bitcast(bsl(n + unquote(f.bias), unquote(f.mantissa)), unquote(f.type)) end
        end,
      # x times 2 to the power of an integer, in two steps: a result that underflows is rounded once.
      scaled:
        quote do
          fn x, n ->
            half = bsr(n, 1)
            x * power_of_two(half) * power_of_two(n - half)
          end
        end,
      # A small integer as a float.
      float_of:
        quote do
          fn n ->
            bitcast(n + unquote(f.rounder_bits), unquote(f.type)) - unquote(f.rounder)
          end
        end
    ]
  end
end
