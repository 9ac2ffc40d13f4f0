defmodule ExCubecl.Kernel.FloatFunctions.Remainder do
  @moduledoc false
  # rem of 64-bit floats, exact as `:math.fmod/2`. The significands are divided as integers, 11 bits of the quotient at a time. The drivers' own is
  # `x - y * trunc(x / y)`, whose error is that of the quotient. That of 32-bit floats is in `lower/remainder.rs`.

  import ExCubecl.Kernel.FloatFunctions.Format

  def all(%{type: :f32}), do: []

  def all(%{type: :f64} = f) do
    [
      rem:
        quote do
          fn x, y ->
            bits_x = magnitude(x)
            bits_y = magnitude(y)
            exponent_x = cast(bsr(bits_x, 52), :s32)
            exponent_y = cast(bsr(bits_y, 52), :s32)
            rest = band(bits_x, 0x000F_FFFF_FFFF_FFFF)
            divisor = band(bits_y, 0x000F_FFFF_FFFF_FFFF)
            # Numbers below the normal ones have the least exponent and no leading bit.
            rest = if exponent_x > 0, do: bor(rest, 0x0010_0000_0000_0000), else: rest
            divisor = if exponent_y > 0, do: bor(divisor, 0x0010_0000_0000_0000), else: divisor
            least = max(exponent_y, 1)
            left = max(exponent_x, 1) - least
            smaller? = left < 0
            rest = rem(rest, divisor)

            while left > 0, limit: 200 do
              bits = min(left, 11)
              rest = rem(bsl(rest, cast(bits, :u64)), divisor)
              left = left - bits
            end

            # 2 ** (least - 1075), whose exponent a normal number may not have, as a product.
            high = max(least - 1075, -1000)
            low = least - 1075 - high
            scale = bitcast(bsl(cast(high + 1023, :u64), 52), :f64)
            fraction = bitcast(bsl(cast(low + 1023, :u64), 52), :f64)
            size = cast(rest, :f64) * scale * fraction

            cond do
              exponent_x == 2047 or bits_y == 0 or bits_y > unquote(f.infinity) ->
                unquote(of_bits(f, f.nan))

              smaller? or exponent_y == 2047 ->
                x

              true ->
                with_sign(size, x)
            end
          end
        end
    ]
  end
end
