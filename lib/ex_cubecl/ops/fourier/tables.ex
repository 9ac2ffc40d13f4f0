defmodule ExCubecl.Ops.Fourier.Tables do
  @moduledoc false
  # The roots of unity of a transform, as one table or two that are calculated on the host with 64 bits: devices have no accurate sine.

  alias ExCubecl.{Buffer, DType, Error}
  alias ExCubecl.Ops.Fourier.Roots

  @least 512

  # The roots of the powers of two up to this one are made when the library is compiled.
  @long 4096
  @whole for dtype <- [:f32, :f64], into: %{}, do: {dtype, Roots.binary(Roots.all(@long), dtype)}

  @doc """
  `{:ok, [low, high], shift}` for the buffer of a transform of length n: exp(-2 pi i e / n) is h + h * l, for l = low[e mod 2^shift], which is small, and
  h = high[e div 2^shift]. Up to length 512 it is an element of `high`; of more than 2^18, both tables have about as many elements.
  """
  def roots(n, %{dtype: dtype, device: device}) do
    shift = shift(n, 0)
    size = Bitwise.bsl(1, shift)
    low = for e <- 0..(size - 1), do: from_one(e, n)
    high = for e <- 0..div(n - 1, size), do: Roots.root(e * size, n)

    made =
      Error.map([low, high], fn roots ->
        Buffer.new(Roots.binary(roots, dtype), [length(roots), 2], dtype, device: device)
      end)

    with {:ok, tables} <- made, do: {:ok, tables, shift}
  end

  @doc "`{:ok, table}` with all roots exp(-2 pi i e / n), for a short transform of length n."
  def all(n, %{dtype: dtype, device: device}),
    do: Buffer.new(whole(n, dtype), [n, 2], dtype, device: device)

  defp whole(@long, dtype), do: @whole[dtype]

  # Every so many roots of a table that is there.
  defp whole(n, dtype) when rem(@long, n) == 0 do
    size = 2 * DType.size!(dtype)
    between = (div(@long, n) - 1) * size

    for <<root::binary-size(size), _::binary-size(between) <- @whole[dtype]>>,
      into: <<>>,
      do: root
  end

  defp whole(n, dtype), do: n |> Roots.all() |> Roots.binary(dtype)

  @doc """
  `{:ok, buffer}` with exp(pi i k^2 / n) at k and at m - k for k from 0 to n - 1, with zeros between, for the buffer of a transform.
  """
  def filter(n, m, %{dtype: dtype, device: device}) do
    half = for k <- 0..(n - 1), do: Roots.conjugate(Roots.root(rem(k * k, 2 * n), 2 * n))
    between = for _ <- 1..(m - 2 * n + 1)//1, do: {0.0, 0.0}
    numbers = half ++ between ++ Enum.reverse(tl(half))
    Buffer.new(Roots.binary(numbers, dtype), [1, m, 1, 2], dtype, device: device)
  end

  defp shift(n, shift) do
    size = Bitwise.bsl(1, shift)
    if size * max(size, @least) >= n, do: shift, else: shift(n, shift + 1)
  end

  # The difference from one of the root of a small angle.
  defp from_one(e, n) do
    half = :math.sin(:math.pi() * e / n)
    {-2.0 * half * half, -:math.sin(2 * :math.pi() * e / n)}
  end
end
