defmodule ExCubecl.Data.Png.Filter do
  @moduledoc false
  # Undoes the filters of the rows of PNG: each byte is a difference from a prediction, which is made of the bytes at its left, above it, and at the left above it.

  import Bitwise, only: [band: 2]

  @doc "The bytes of a row; `pixel` is the number of bytes of a pixel, and `prior` the row above."
  @spec undo(0..4, pos_integer, binary, binary) :: binary
  def undo(0, _pixel, row, _prior), do: row

  for pixel <- [1, 2, 3, 4, 6, 8] do
    zeros = List.duplicate(0, pixel)

    def undo(filter, unquote(pixel), row, prior),
      do: pixels(filter, row, prior, {unquote_splicing(zeros)}, {unquote_splicing(zeros)}, <<>>)
  end

  # The bytes of one pixel are variables: x of the row, a at the left, b above, c at the left above.
  for pixel <- [1, 2, 3, 4, 6, 8] do
    [x, a, b, c, y] =
      for name <- ~w(x a b c y), do: for(n <- 1..pixel, do: Macro.var(:"#{name}#{n}", __MODULE__))

    sums =
      for {y, x, a, b, c} <- Enum.zip([y, x, a, b, c]) do
        quote do
          unquote(y) =
            band(unquote(x) + predicted(var!(filter), unquote(a), unquote(b), unquote(c)), 255)
        end
      end

    defp pixels(
           var!(filter),
           <<unquote_splicing(x), rest::binary>>,
           <<unquote_splicing(b), above::binary>>,
           {unquote_splicing(a)},
           {unquote_splicing(c)},
           done
         ) do
      unquote_splicing(sums)
      done = <<done::binary, unquote_splicing(y)>>
      pixels(var!(filter), rest, above, {unquote_splicing(y)}, {unquote_splicing(b)}, done)
    end
  end

  defp pixels(_filter, <<>>, <<>>, _left, _corner, done), do: done

  defp predicted(1, a, _b, _c), do: a
  defp predicted(2, _a, b, _c), do: b
  defp predicted(3, a, b, _c), do: div(a + b, 2)

  defp predicted(4, a, b, c) do
    {pa, pb, pc} = {abs(b - c), abs(a - c), abs(a + b - c - c)}

    cond do
      pa <= pb and pa <= pc -> a
      pb <= pc -> b
      true -> c
    end
  end
end
