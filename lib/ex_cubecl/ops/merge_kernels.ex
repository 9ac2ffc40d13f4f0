defmodule ExCubecl.Ops.MergeKernels do
  @moduledoc false
  # The kernels of `ExCubecl.Ops.MergeSort`. A kernel of its own for each order: the direction, and whether the elements are `:integers`, floats `:f32` or narrower, `:f64`,
  # or `:floats` on a device without integers of their width.

  alias ExCubecl.Kernel

  require Kernel

  @tile 8

  @doc "The number of elements that one invocation of `tile/2` sorts."
  def tile, do: @tile

  # The types of the keys of floats, the number of their bits, and the key of infinity.
  floats = %{f32: {:s32, 32, 0x7F80_0000}, f64: {:s64, 64, 0x7FF0_0000_0000_0000}}

  orders =
    for direction <- [:asc, :desc],
        class <- [:integers, :f32, :f64, :floats],
        do: {direction, class}

  # Lines that set `name` to a number that sorts as the element `x` does: of a float an integer, that of its bits, inverted if it is negative. Both zeros have the
  # key 0, NaN has the one above that of infinity. Each comparison of floats would make such integers of both of them.
  key = fn class, name, x ->
    [to, signed, sign, size] =
      for part <- ["", "_signed", "_sign", "_size"], do: Macro.var(:"#{name}#{part}", nil)

    case floats[class] do
      nil ->
        [quote(do: unquote(to) = unquote(x))]

      {integer, bits, infinity} ->
        {:__block__, _, lines} =
          quote do
            unquote(signed) = bitcast(cast(unquote(x), unquote(class)), unquote(integer))
            unquote(sign) = bsr(unquote(signed), unquote(bits - 1))
            unquote(size) = band(unquote(signed), unquote(Integer.pow(2, bits - 1) - 1))

            unquote(to) =
              if unquote(size) > unquote(infinity),
                do: unquote(infinity + 1),
                else: bxor(unquote(size), unquote(sign)) - unquote(sign)
          end

        lines
    end
  end

  # Whether the element `y` goes before `x`. NaN is the greatest float, and equal to itself.
  by_value = fn
    {:asc, :integers}, y, x -> quote(do: unquote(y) < unquote(x))
    {:desc, :integers}, y, x -> quote(do: unquote(y) > unquote(x))
    {:asc, _floats}, y, x -> quote(do: not (unquote(x) <= unquote(y) or nan?(unquote(y))))
    {:desc, _floats}, y, x -> quote(do: not (unquote(y) <= unquote(x) or nan?(unquote(x))))
  end

  # The same for their keys.
  by_key = fn {direction, class}, y, x ->
    class = if is_map_key(floats, class), do: :integers, else: class
    by_value.({direction, class}, y, x)
  end

  kernel = fn args, body ->
    code = {:fn, [], [{:->, [], [Enum.map(args, &Macro.var(&1, __MODULE__)), body]}]}
    quoted = quote(do: Kernel.kernel(unquote(code)))
    quoted |> Code.eval_quoted([], __ENV__) |> elem(0)
  end

  variable = fn letter, number -> Macro.var(:"#{letter}#{number}", nil) end
  last = @tile - 1
  pairs = for i <- 0..last, j <- 0..last, i < j, do: {i, j}

  # A line of `n` elements becomes `tiles` sorted runs of `keep` elements each, together `m`. What is written with an element, see `rank`.
  tile = fn {_, class} = order, moved ->
    reads =
      for k <- 0..last do
        x = variable.("x", k)

        quote do
          unquote(x) = x[base + unquote(k)]
          unquote_splicing(key.(class, :"key#{k}", x))
        end
      end

    # Four bits for the rank of each element, the lowest for the first one. Each comparison of two elements moves one of them back by one place.
    start = Enum.sum(for k <- 0..last, do: k * Integer.pow(16, k))

    comparisons =
      for {i, j} <- pairs do
        swapped = by_key.(order, variable.("key", j), variable.("key", i))
        moved = Integer.pow(16, i) - Integer.pow(16, j)

        quote do
          ranks =
            if unquote(j) < left and unquote(swapped), do: ranks + unquote(moved), else: ranks
        end
      end

    beside =
      case moved do
        :alone -> []
        :places -> [quote(do: places[at + rank] = first + k)]
        :others -> [quote(do: places[at + rank] = others[base + k])]
      end

    body =
      quote do
        i = index()
        line = div(i, tiles)
        first = (i - line * tiles) * unquote(@tile)
        base = line * n + first
        left = n - first
        at = line * m + (i - line * tiles) * keep
        unquote_splicing(for {:__block__, _, lines} <- reads, line <- lines, do: line)
        ranks = cast(unquote(start), :s32)
        unquote_splicing(comparisons)

        for k <- 0..(width - 1) do
          rank = band(bsr(ranks, 4 * k), 15)

          if k < left and rank < keep do
            out[at + rank] = x[base + k]
            unquote_splicing(beside)
          end
        end
      end

    inputs = if moved == :others, do: [:x, :others], else: [:x]
    outputs = if moved == :alone, do: [:out], else: [:out, :places]
    kernel.(inputs ++ [:n, :width, :keep, :m, :tiles] ++ outputs, body)
  end

  # Tiles of `width` elements of lines of `n` become sorted runs of `keep` elements each, `m` in a line: an invocation counts the elements that go before its
  # own. With the element, it writes nothing, its place in the line, or an element of another buffer. This loop takes longer than `tile/2`, but is compiled faster.
  rank = fn order, moved ->
    place =
      case moved do
        :alone -> []
        :places -> [quote(do: places[to] = cast(at, :s32))]
        :others -> [quote(do: places[to] = others[i])]
      end

    [own, other] = [variable.("key", ""), variable.("other", "_key")]
    ahead = by_key.(order, other, own)
    behind = by_key.(order, own, other)

    body =
      quote do
        i = cast(index(), :u32)
        line = div(i, n)
        at = i - line * n
        tile = div(at, width)
        place = at - tile * width
        first = i - place
        left = n - tile * width
        value = x[i]
        unquote_splicing(key.(elem(order, 1), :key, quote(do: value)))
        rank = place - place

        for step <- 0..(width - 1) do
          j = cast(step, :u32)
          other = x[first + j]
          unquote_splicing(key.(elem(order, 1), :other_key, quote(do: other)))
          apart = if j < place, do: not unquote(behind), else: unquote(ahead)
          rank = if j < left and apart, do: rank + 1, else: rank
        end

        if rank < keep do
          to = line * m + tile * keep + rank
          out[to] = value
          unquote_splicing(place)
        end
      end

    inputs = if moved == :others, do: [:x, :others], else: [:x]
    outputs = if moved == :alone, do: [:out], else: [:out, :places]
    kernel.(inputs ++ [:n, :width, :keep, :m] ++ outputs, body)
  end

  # Runs of `run` elements are merged in `pairs`, of whose results `keep` elements each are written, together `m`. An invocation writes `chunk`
  # of them: a binary search finds how many of the elements before these are from the first run.
  merge = fn order, places? ->
    right = &by_value.(order, &1, &2)
    both = fn lines -> if places?, do: lines, else: [] end

    body =
      quote do
        t = cast(index(), :u32)
        p = div(t, parts)
        d = (t - p * parts) * chunk
        line = div(p, pairs)

        # The product of an argument and a number alone would be signed, and with it this one have 64 bits.
        from = (p - line * pairs) * run * 2
        a = min(run, n - from)
        b = min(run, n - from - a)
        start = line * n + from
        middle = start + a
        finish = middle + b
        low = if d > b, do: d - b, else: 0
        high = min(d, a)

        for _ <- 1..steps do
          half = bsr(low + high, 1)
          lower = unquote(right.(quote(do: x[middle + d - 1 - half]), quote(do: x[start + half])))
          open = low < high
          low = if open and not lower, do: half + 1, else: low
          high = if open and lower, do: half, else: high
        end

        i = start + low
        j = middle + d - low
        x1 = x[i]
        x2 = x[j]
        unquote_splicing(both.([quote(do: p1 = at[i]), quote(do: p2 = at[j])]))
        first = line * m + (p - line * pairs) * keep + d
        stop = line * m + min((p - line * pairs) * keep + keep, m)

        for s <- 0..(chunk - 1) do
          to = first + cast(s, :u32)
          right = j < finish and (i >= middle or unquote(right.(quote(do: x2), quote(do: x1))))

          if to < stop do
            out[to] = if right, do: x2, else: x1
            unquote_splicing(both.([quote(do: places[to] = if(right, do: p2, else: p1))]))
          end

          j = if right, do: j + 1, else: j
          i = if right, do: i, else: i + 1
          next = x[if(right, do: j, else: i)]
          x1 = if right, do: x1, else: next
          x2 = if right, do: next, else: x2

          unquote_splicing(
            both.([
              quote(do: place = at[if(right, do: j, else: i)]),
              quote(do: p1 = if(right, do: p1, else: place)),
              quote(do: p2 = if(right, do: place, else: p2))
            ])
          )
        end
      end

    [inputs, outputs] = if places?, do: [[:x, :at], [:out, :places]], else: [[:x], [:out]]
    kernel.(inputs ++ [:n, :run, :keep, :m, :pairs, :parts, :chunk, :steps] ++ outputs, body)
  end

  @tiles for order <- orders,
             moved <- [:alone, :places, :others],
             into: %{},
             do: {{order, moved}, tile.(order, moved)}
  @ranks for order <- orders,
             moved <- [:alone, :places, :others],
             into: %{},
             do: {{order, moved}, rank.(order, moved)}
  @merges for order <- orders,
              places? <- [false, true],
              into: %{},
              do: {{order, places?}, merge.(order, places?)}

  def tile(order, moved), do: @tiles[{order, moved}]
  def rank(order, moved), do: @ranks[{order, moved}]
  def merge(order, places?), do: @merges[{order, places?}]
end
