defmodule ExCubecl.Random.Threefry do
  @moduledoc false
  # Threefry 2x32 with 20 rounds, on the host for keys, and as code for kernels. J. Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3.
  # Key schedule and order of the rotations are those of Nx.Random and of jax.random.

  import Bitwise

  @mask 0xFFFF_FFFF
  @parity 0x1BD1_1BDA
  @rotations {[13, 15, 26, 6], [17, 29, 16, 24]}

  @type word :: 0..0xFFFF_FFFF

  @doc "The hash of two words."
  @spec hash({word, word}, {word, word}) :: {word, word}
  def hash({k0, k1}, {x0, x1}) do
    keys = {k0, k1, bxor(bxor(k0, k1), @parity)}

    Enum.reduce(1..5, {add(x0, k0), add(x1, k1)}, fn group, words ->
      {x0, x1} = Enum.reduce(rotations(group), words, &round/2)
      {add(x0, elem(keys, rem(group, 3))), add(x1, elem(keys, rem(group + 1, 3)) + group)}
    end)
  end

  defp round(distance, {x0, x1}) do
    x0 = add(x0, x1)
    {x0, bxor(rotate(x1, distance), x0)}
  end

  defp rotate(x, distance), do: band(bsl(x, distance), @mask) ||| bsr(x, 32 - distance)
  defp add(a, b), do: band(a + b, @mask)

  @doc "The hashes of the counters 0 to `count - 1`, the first half of which are the first words, and the second half the second ones."
  @spec words({word, word}, non_neg_integer) :: [word]
  def words(key, count) do
    half = div(count, 2)
    pairs = for at <- 0..(half - 1)//1, do: hash(key, {at, half + at})
    Enum.map(pairs, &elem(&1, 0)) ++ Enum.map(pairs, &elem(&1, 1))
  end

  @doc "Keys that are independent of each other and of the key."
  @spec parts({word, word}, pos_integer) :: [{word, word}]
  def parts(key, count) do
    key |> words(2 * count) |> Enum.chunk_every(2) |> Enum.map(&List.to_tuple/1)
  end

  @doc "Lines of a kernel that set two variables of the type `:u32`, `a` and `b`, to their hash. The arguments `k0` and `k1` of the kernel are the key."
  @spec code(Macro.t(), Macro.t()) :: [Macro.t()]
  def code(a, b) do
    [k0, k1, k2] = for name <- [:k0, :k1, :k2], do: Macro.var(name, nil)
    keys = {quote(do: cast(unquote(k0), :u32)), quote(do: cast(unquote(k1), :u32)), k2}
    {key0, key1, _} = keys

    start =
      quote do
        unquote(k2) = bxor(bxor(unquote(key0), unquote(key1)), unquote(@parity))
        unquote(a) = unquote(a) + unquote(key0)
        unquote(b) = unquote(b) + unquote(key1)
      end

    groups =
      for group <- 1..5 do
        rounds = for distance <- rotations(group), do: round(a, b, distance)
        rounds ++ [inject(a, b, keys, group)]
      end

    Enum.flat_map([start | Enum.concat(groups)], fn {:__block__, _, lines} -> lines end)
  end

  defp round(a, b, distance) do
    quote do
      unquote(a) = unquote(a) + unquote(b)

      unquote(b) =
        bor(bsl(unquote(b), unquote(distance)), bsr(unquote(b), unquote(32 - distance)))

      unquote(b) = bxor(unquote(b), unquote(a))
    end
  end

  defp inject(a, b, keys, group) do
    [first, second] = for n <- [group, group + 1], do: elem(keys, rem(n, 3))

    quote do
      unquote(a) = unquote(a) + unquote(first)
      unquote(b) = unquote(b) + unquote(second) + unquote(group)
    end
  end

  defp rotations(group), do: elem(@rotations, rem(group + 1, 2))
end
