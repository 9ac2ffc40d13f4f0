defmodule ExCubecl.Ops.Fourier.Tables do
  @moduledoc false
  # The roots of unity of a transform, as two tables that are calculated on the host with 64 bits: devices have no accurate sine.

  alias ExCubecl.{Buffer, Error}

  @least 9

  @doc """
  `{:ok, [low, high], shift}` for the buffer of a transform of length n: exp(-2 pi i e / n) is low[e mod 2^shift] * high[e div 2^shift]. Up to
  length 512 it is an element of `low`; above, both tables have about as many elements.
  """
  def roots(n, %{dtype: dtype, device: device}) do
    shift = shift(n, @least)
    size = Bitwise.bsl(1, shift)
    tables = [{min(size, n), 1}, {div(n - 1, size) + 1, size}]

    made =
      Error.map(tables, fn {count, step} ->
        Buffer.new(binary(count, step, n, dtype), [count, 2], dtype, device: device)
      end)

    with {:ok, tables} <- made, do: {:ok, tables, shift}
  end

  defp shift(n, shift) do
    if Bitwise.bsl(1, 2 * shift) >= n, do: shift, else: shift(n, shift + 1)
  end

  defp binary(count, step, n, :f32) do
    for e <- 0..(count - 1), into: <<>> do
      {re, im} = root(e * step, n)
      <<re::float-32-native, im::float-32-native>>
    end
  end

  defp binary(count, step, n, :f64) do
    for e <- 0..(count - 1), into: <<>> do
      {re, im} = root(e * step, n)
      <<re::float-64-native, im::float-64-native>>
    end
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
