defmodule ExCubecl.Ops.Fourier.Butterfly do
  @moduledoc false
  # Generates, when the library is compiled, the statements of a discrete Fourier transform of a few complex variables.
  #
  # A complex value is `{re, im}`, two quoted expressions without side effects.

  @doc "The statements, and the values of the transform in natural order. `prefix` makes the names of the variables unique."
  def transform([value], _prefix), do: {[], [value]}

  def transform(values, prefix) do
    n = length(values)
    # By four where possible: that has the fewest roundings.
    factor = if rem(n, 4) == 0 and n > 4, do: 4, else: Enum.find(2..n, &(rem(n, &1) == 0))
    if factor == n, do: prime(values, prefix), else: composite(values, factor, prefix)
  end

  # Cooley and Tukey: transforms of every factor-th value, then transforms across them.
  defp composite(values, factor, prefix) do
    n = length(values)
    m = div(n, factor)

    {inner, parts} =
      0..(factor - 1)
      |> Enum.map(fn s ->
        values |> Enum.drop(s) |> Enum.take_every(factor) |> transform("#{prefix}#{s}a")
      end)
      |> Enum.unzip()

    {outer, columns} =
      0..(m - 1)
      |> Enum.map(fn k ->
        {turns, turned} =
          parts
          |> Enum.with_index()
          |> Enum.map(fn {part, s} -> turned(Enum.at(part, k), s * k, n, "#{prefix}#{k}t#{s}") end)
          |> Enum.unzip()

        {statements, results} = transform(turned, "#{prefix}#{k}b")
        {Enum.concat(turns) ++ statements, results}
      end)
      |> Enum.unzip()

    {Enum.concat(inner ++ outer), columns |> Enum.zip_with(& &1) |> Enum.concat()}
  end

  # The product with exp(-2 pi i e / n).
  defp turned(value, 0, _n, _name), do: {[], value}
  defp turned({re, im}, e, n, _name) when 4 * e == n, do: {[], {im, quote(do: -unquote(re))}}

  # An odd multiple of an eighth has one rounding less than others.
  defp turned({re, im}, e, n, name) when (8 * e) in [n, 3 * n] do
    c = :math.sqrt(0.5)
    {sum, difference} = {sum(re, im), difference(im, re)}

    if 8 * e == n,
      do:
        let(
          name,
          quote(do: unquote(sum) * unquote(c)),
          quote(do: unquote(difference) * unquote(c))
        ),
      else:
        let(
          name,
          quote(do: unquote(difference) * unquote(c)),
          quote(do: unquote(sum) * unquote(-c))
        )
  end

  defp turned({re, im}, e, n, name) do
    {c, s} = {:math.cos(2 * :math.pi() * e / n), :math.sin(2 * :math.pi() * e / n)}

    let(
      name,
      quote(do: unquote(re) * unquote(c) + unquote(im) * unquote(s)),
      quote(do: unquote(im) * unquote(c) - unquote(re) * unquote(s))
    )
  end

  defp prime([{a, b}, {c, d}], prefix) do
    {one, plus} = let("#{prefix}p", sum(a, c), sum(b, d))
    {other, minus} = let("#{prefix}m", difference(a, c), difference(b, d))
    {one ++ other, [plus, minus]}
  end

  # An odd prime: the values j and n - j have conjugate factors, so that their sums and differences are multiplied by cosines and sines.
  defp prime([{re, im} | rest], prefix) do
    n = length(rest) + 1
    half = div(n, 2)

    {pairs, both} =
      rest
      |> Enum.take(half)
      |> Enum.zip(Enum.reverse(rest))
      |> Enum.with_index(1)
      |> Enum.map(fn {{a, b}, j} ->
        {statements, [sum, difference]} = prime([a, b], "#{prefix}#{j}")
        {statements, {sum, difference}}
      end)
      |> Enum.unzip()

    all = Enum.reduce(both, {re, im}, fn {sum, _}, total -> added(total, sum) end)
    {first, zeroth} = let("#{prefix}z", elem(all, 0), elem(all, 1))

    {statements, results} =
      1..half
      |> Enum.map(fn k ->
        {even, odd} = sums(both, {re, im}, k, n)
        {one, {re, im}} = let("#{prefix}e#{k}", elem(even, 0), elem(even, 1))
        {other, {a, b}} = let("#{prefix}o#{k}", elem(odd, 0), elem(odd, 1))
        # The sum of the differences is multiplied by -i for k, and by i for n - k.
        {up, low} = let("#{prefix}u#{k}", sum(re, b), difference(im, a))
        {down, high} = let("#{prefix}d#{k}", difference(re, b), sum(im, a))
        {one ++ other ++ up ++ down, {low, high}}
      end)
      |> Enum.unzip()

    {lows, highs} = Enum.unzip(results)

    {Enum.concat(pairs) ++ first ++ Enum.concat(statements),
     [zeroth | lows] ++ Enum.reverse(highs)}
  end

  defp sums(both, first, k, n) do
    both
    |> Enum.with_index(1)
    |> Enum.reduce({first, nil}, fn {{sum, difference}, j}, {even, odd} ->
      angle = 2 * :math.pi() * rem(j * k, n) / n
      even = added(even, scaled(sum, :math.cos(angle)))
      sine = scaled(difference, :math.sin(angle))
      {even, if(odd, do: added(odd, sine), else: sine)}
    end)
  end

  defp added({a, b}, {c, d}), do: {sum(a, c), sum(b, d)}
  defp sum(a, b), do: quote(do: unquote(a) + unquote(b))
  defp difference(a, b), do: quote(do: unquote(a) - unquote(b))

  defp scaled({a, b}, factor),
    do: {quote(do: unquote(a) * unquote(factor)), quote(do: unquote(b) * unquote(factor))}

  defp let(name, re, im) do
    [a, b] = for part <- ["r", "i"], do: {:"#{name}#{part}", [], nil}
    {[quote(do: unquote(a) = unquote(re)), quote(do: unquote(b) = unquote(im))], {a, b}}
  end
end
