defmodule ExCubecl.Kernel.MixedSigns do
  @moduledoc false
  # Comparisons of a signed integer and one of `:u64`, of which no integer type has all values: a negative number is less than all others.

  alias ExCubecl.Kernel.Parser

  codes = [
    eq: quote(do: s >= 0 and cast(s, :u64) == u),
    ne: quote(do: s < 0 or cast(s, :u64) != u),
    lt: quote(do: s < 0 or cast(s, :u64) < u),
    le: quote(do: s < 0 or cast(s, :u64) <= u),
    gt: quote(do: s >= 0 and cast(s, :u64) > u),
    ge: quote(do: s >= 0 and cast(s, :u64) >= u)
  ]

  @kernels Map.new(codes, fn {name, body} ->
             args = [quote(do: s), quote(do: u)]
             {name, Parser.parse(name, args, body, [], __ENV__, fn _, _, _ -> nil end)}
           end)

  # The comparison with its operands exchanged.
  @exchanged %{eq: :eq, ne: :ne, lt: :gt, le: :ge, gt: :lt, ge: :le}

  @signed [:s8, :s16, :s32, :s64]

  @doc "The kernel of a comparison of two typed expressions, and its arguments; `nil` if their common type has the values of both."
  def comparison(function, {s, _} = a, {:u64, _} = b) when s in @signed,
    do: {kernels()[function], [a, b]}

  def comparison(function, {:u64, _} = a, {s, _} = b) when s in @signed,
    do: {kernels()[@exchanged[function]], [b, a]}

  def comparison(_function, _a, _b), do: nil

  defp kernels, do: unquote(Macro.escape(@kernels))
end
