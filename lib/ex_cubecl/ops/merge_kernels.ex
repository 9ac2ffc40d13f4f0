defmodule ExCubecl.Ops.MergeKernels do
  @moduledoc false
  # The kernels of `ExCubecl.Ops.MergeSort`. A kernel of its own for each order, with and without the places of the elements.

  alias ExCubecl.Kernel

  require Kernel

  @tile 8

  @doc "The number of elements that one invocation of `tile/2` sorts."
  def tile, do: @tile

  # Whether `y`, which is behind `x`, goes before it. NaN is the greatest float, and equal to itself.
  orders = [
    {{:asc, false}, quote(do: y < x)},
    {{:desc, false}, quote(do: y > x)},
    {{:asc, true}, quote(do: not (x <= y or nan?(y)))},
    {{:desc, true}, quote(do: not (y <= x or nan?(x)))}
  ]

  before = fn order, y, x ->
    Macro.postwalk(order, fn
      {:y, _, context} when is_atom(context) -> y
      {:x, _, context} when is_atom(context) -> x
      other -> other
    end)
  end

  kernel = fn args, body ->
    code = {:fn, [], [{:->, [], [args, body]}]}
    quoted = quote(do: Kernel.kernel(unquote(code)))
    quoted |> Code.eval_quoted([], __ENV__) |> elem(0)
  end

  variable = fn letter, number -> Macro.var(:"#{letter}#{number}", __MODULE__) end
  last = @tile - 1
  pairs = for i <- 0..last, j <- 0..last, i < j, do: {i, j}
  reads = for k <- 0..last, do: quote(do: unquote(variable.("x", k)) = x[base + unquote(k)])

  # Each comparison of two elements moves one of them back by one place.
  ranks =
    for k <- 0..last do
      from = for {^k, j} <- pairs, do: variable.("c", "#{k}_#{j}")
      to = for {i, ^k} <- pairs, do: variable.("c", "#{i}_#{k}")
      rank = Enum.reduce(from, k, &quote(do: unquote(&2) + unquote(&1)))
      Enum.reduce(to, rank, &quote(do: unquote(&2) - unquote(&1)))
    end

  # A line of `n` elements becomes `tiles` sorted runs of `keep` elements each, together `m`.
  tile = fn order, places? ->
    comparisons =
      for {i, j} <- pairs do
        swapped = before.(order, variable.("x", j), variable.("x", i))

        quote do
          unquote(variable.("c", "#{i}_#{j}")) =
            if unquote(j) < left and unquote(swapped), do: cast(1, :s32), else: 0
        end
      end

    writes =
      for {rank, k} <- Enum.with_index(ranks) do
        place = if places?, do: [quote(do: places[at + rank] = first + unquote(k))], else: []

        quote do
          rank = unquote(rank)

          if unquote(k) < left and rank < keep do
            out[at + rank] = unquote(variable.("x", k))
            unquote_splicing(place)
          end
        end
      end

    body =
      quote do
        i = index()
        line = div(i, tiles)
        first = (i - line * tiles) * unquote(@tile)
        base = line * n + first
        left = n - first
        at = line * m + (i - line * tiles) * keep
        unquote_splicing(reads)
        unquote_splicing(comparisons)
        unquote_splicing(writes)
      end

    outputs = if places?, do: [:out, :places], else: [:out]

    kernel.(
      Enum.map([:x, :n, :keep, :m, :tiles] ++ outputs, &Macro.var(&1, __MODULE__)),
      body
    )
  end

  # Tiles of `width` elements of lines of `n` become sorted runs of `keep` elements each, `m` in a line: an invocation counts the elements that go before its
  # own. This loop takes longer than `tile/2`, but is compiled in a third of the time.
  rank = fn order, places? ->
    places = if places?, do: [quote(do: places[to] = cast(at, :s32))], else: []

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
        rank = place - place

        for step <- 0..(width - 1) do
          j = cast(step, :u32)
          other = x[first + j]
          ahead = j < place
          ahead_value = if ahead, do: other, else: value
          behind_value = if ahead, do: value, else: other
          swapped = unquote(before.(order, quote(do: behind_value), quote(do: ahead_value)))
          apart = if ahead, do: not swapped, else: swapped
          if j < left and apart, do: rank = rank + 1
        end

        if rank < keep do
          to = line * m + tile * keep + rank
          out[to] = value
          unquote_splicing(places)
        end
      end

    outputs = if places?, do: [:out, :places], else: [:out]

    kernel.(
      Enum.map([:x, :n, :width, :keep, :m] ++ outputs, &Macro.var(&1, __MODULE__)),
      body
    )
  end

  # Runs of `run` elements are merged in `pairs`, of whose results `keep` elements each are written, together `m`. An invocation writes `chunk`
  # of them: a binary search finds how many of the elements before these are from the first run.
  merge = fn order, places? ->
    right = &before.(order, &1, &2)

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
        unquote_splicing(if places?, do: [quote(do: p1 = at[i]), quote(do: p2 = at[j])], else: [])
        first = line * m + (p - line * pairs) * keep + d
        stop = line * m + min((p - line * pairs) * keep + keep, m)

        for s <- 0..(chunk - 1) do
          to = first + cast(s, :u32)
          right = j < finish and (i >= middle or unquote(right.(quote(do: x2), quote(do: x1))))

          if to < stop do
            out[to] = if right, do: x2, else: x1

            unquote_splicing(
              if places?, do: [quote(do: places[to] = if(right, do: p2, else: p1))], else: []
            )
          end

          j = if right, do: j + 1, else: j
          i = if right, do: i, else: i + 1
          next = x[if(right, do: j, else: i)]
          x1 = if right, do: x1, else: next
          x2 = if right, do: next, else: x2

          unquote_splicing(
            if places? do
              [
                quote(do: place = at[if(right, do: j, else: i)]),
                quote(do: p1 = if(right, do: p1, else: place)),
                quote(do: p2 = if(right, do: place, else: p2))
              ]
            else
              []
            end
          )
        end
      end

    [inputs, outputs] = if places?, do: [[:x, :at], [:out, :places]], else: [[:x], [:out]]
    numbers = [:n, :run, :keep, :m, :pairs, :parts, :chunk, :steps]
    kernel.(Enum.map(inputs ++ numbers ++ outputs, &Macro.var(&1, __MODULE__)), body)
  end

  @tiles for {key, order} <- orders,
             places? <- [false, true],
             into: %{},
             do: {{key, places?}, tile.(order, places?)}
  @merges for {key, order} <- orders,
              places? <- [false, true],
              into: %{},
              do: {{key, places?}, merge.(order, places?)}

  @ranks for {key, order} <- orders,
             places? <- [false, true],
             into: %{},
             do: {{key, places?}, rank.(order, places?)}

  def tile(order, places?), do: @tiles[{order, places?}]
  def rank(order, places?), do: @ranks[{order, places?}]
  def merge(order, places?), do: @merges[{order, places?}]
end
