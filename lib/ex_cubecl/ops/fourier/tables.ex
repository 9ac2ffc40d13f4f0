defmodule ExCubecl.Ops.Fourier.Tables do
  @moduledoc false
  # The roots of unity of a transform, as two tables that are calculated on the host with 64 bits: devices have no accurate sine.

  alias ExCubecl.{Buffer, Error}

  @least 512

  @doc """
  `{:ok, [low, high], shift}` for the buffer of a transform of length n: exp(-2 pi i e / n) is h + h * l, for l = low[e mod 2^shift], which is small, and
  h = high[e div 2^shift]. Up to length 512 it is an element of `high`; of more than 2^18, both tables have about as many elements.
  """
  def roots(n, %{dtype: dtype, device: device}) do
    shift = shift(n, 0)
    size = Bitwise.bsl(1, shift)
    low = for e <- 0..(size - 1), do: from_one(e, n)
    high = for e <- 0..div(n - 1, size), do: root(e * size, n)

    made =
      Error.map([low, high], fn roots ->
        Buffer.new(binary(roots, dtype), [length(roots), 2], dtype, device: device)
      end)

    with {:ok, tables} <- made, do: {:ok, tables, shift}
  end

  @doc """
  `{:ok, buffer}` with exp(pi i k^2 / n) at k and at m - k for k from 0 to n - 1, with zeros between, for the buffer of a transform.
  """
  def filter(n, m, %{dtype: dtype, device: device}) do
    half = for k <- 0..(n - 1), do: conjugate(root(rem(k * k, 2 * n), 2 * n))
    between = for _ <- 1..(m - 2 * n + 1)//1, do: {0.0, 0.0}
    numbers = half ++ between ++ Enum.reverse(tl(half))
    Buffer.new(binary(numbers, dtype), [1, m, 1, 2], dtype, device: device)
  end

  defp conjugate({re, im}), do: {re, -im}

  @doc "The complex numbers of both tables."
  @spec size(pos_integer) :: pos_integer
  def size(n) do
    size = Bitwise.bsl(1, shift(n, 0))
    size + div(n - 1, size) + 1
  end

  defp shift(n, shift) do
    size = Bitwise.bsl(1, shift)
    if size * max(size, @least) >= n, do: shift, else: shift(n, shift + 1)
  end

  defp binary(roots, :f32),
    do: for({re, im} <- roots, into: <<>>, do: <<re::float-32-native, im::float-32-native>>)

  defp binary(roots, :f64),
    do: for({re, im} <- roots, into: <<>>, do: <<re::float-64-native, im::float-64-native>>)

  # The difference from one of the root of a small angle.
  defp from_one(e, n) do
    half = :math.sin(:math.pi() * e / n)
    {-2.0 * half * half, -:math.sin(2 * :math.pi() * e / n)}
  end

  # Exact at multiples of a quarter, and without the rounding of large angles.
  defp root(e, n) do
    quarter = div(4 * e, n)
    angle = :math.pi() * (4 * e - quarter * n) / (2 * n)
    {c, s} = {:math.cos(angle), :math.sin(angle)}

    case quarter do
      0 -> {c, -s}
      1 -> {-s, -c}
      2 -> {-c, s}
      3 -> {s, c}
    end
  end
end
