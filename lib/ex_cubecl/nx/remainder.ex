if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Remainder do
    @moduledoc false
    # The remainder of 64-bit floats, exact as `:math.fmod/2`: devices have one of 32 bits only. The significands are divided as integers, 11 bits of the
    # quotient at a time.

    alias ExCubecl.{Buffer, Error, Kernel, View}
    alias ExCubecl.Nx.Operand
    alias ExCubecl.Ops.{Lowering, Strided}

    require Kernel

    @remainder Strided.named(
                 Kernel.kernel(fn x, y ->
                   bits_x = band(bitcast(x, :u64), 0x7FFF_FFFF_FFFF_FFFF)
                   bits_y = band(bitcast(y, :u64), 0x7FFF_FFFF_FFFF_FFFF)
                   exponent_x = cast(bsr(bits_x, 52), :s32)
                   exponent_y = cast(bsr(bits_y, 52), :s32)
                   rest = band(bits_x, 0x000F_FFFF_FFFF_FFFF)
                   divisor = band(bits_y, 0x000F_FFFF_FFFF_FFFF)
                   # Numbers below the normal ones have the least exponent and no leading bit.
                   rest = if exponent_x > 0, do: bor(rest, 0x0010_0000_0000_0000), else: rest

                   divisor =
                     if exponent_y > 0, do: bor(divisor, 0x0010_0000_0000_0000), else: divisor

                   least = max(exponent_y, 1)
                   left = max(exponent_x, 1) - least
                   smaller = left < 0
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
                   magnitude = cast(rest, :f64) * scale * fraction
                   sign = band(bitcast(x, :u64), 0x8000_0000_0000_0000)
                   result = bitcast(bor(bitcast(magnitude, :u64), sign), :f64)

                   cond do
                     exponent_x == 2047 or bits_y == 0 or y != y -> x * y / (x * y)
                     smaller or exponent_y == 2047 -> x
                     true -> result
                   end
                 end),
                 :remainder
               )

    @doc "The remainders of two operands, of which at least one is a view; `:host` if the device does not calculate with 64 bits."
    @spec run([Operand.t()], map) :: {:ok, Buffer.t()} | {:error, Error.t()} | :host
    def run(operands, %{device: device} = config) do
      if Operand.computes?(device, :f64) and Operand.computes?(device, :u64),
        do: Lowering.map(@remainder, Enum.map(operands, &view(&1, config))),
        else: :host
    end

    defp view(%View{} = view, _config), do: Operand.cast(view, :f64)
    defp view(number, config), do: Operand.one(number, :f64, config)
  end
end
