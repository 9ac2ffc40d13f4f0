defmodule ExCubecl.Ops.Fourier.Roots do
  @moduledoc false
  # Roots of unity, as pairs of floats.

  @type root :: {float, float}

  @doc "All roots exp(-2 pi i e / n). Those of e and n - e are conjugates."
  @spec all(pos_integer) :: [root]
  def all(n) do
    half = for e <- 0..div(n, 2), do: root(e, n)
    half ++ (half |> Enum.slice(1, div(n - 1, 2)) |> Enum.reverse() |> Enum.map(&conjugate/1))
  end

  @doc "exp(-2 pi i e / n), exact at multiples of a quarter of a turn, and without the rounding of large angles."
  @spec root(non_neg_integer, pos_integer) :: root
  def root(e, n) do
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

  @spec conjugate(root) :: root
  def conjugate({re, im}), do: {re, -im}

  @spec binary([root], :f32 | :f64) :: binary
  def binary(roots, :f32),
    do: for({re, im} <- roots, into: <<>>, do: <<re::float-32-native, im::float-32-native>>)

  def binary(roots, :f64),
    do: for({re, im} <- roots, into: <<>>, do: <<re::float-64-native, im::float-64-native>>)
end
