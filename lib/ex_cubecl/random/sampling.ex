defmodule ExCubecl.Random.Sampling do
  @moduledoc false
  # Shuffles and samples: indices are drawn on the device, and elements are read at them.

  alias ExCubecl.{Buffer, Device, Kernel, Shape, View}
  alias ExCubecl.Ops.{Gathering, Lowering, Operands, Scan, Shapes, Sorting, Strided}
  alias ExCubecl.Random.{Draw, Threefry}
  alias ExCubecl.View.{Copy, Strides}

  require Kernel

  @least_normal %{f32: 2 ** -126, f64: 2 ** -1022}

  # The place of the first number that exceeds a part of the last one, or 0.
  @search Kernel.kernel(fn cumulative, draw, n, places ->
            limit = cumulative[n - 1] * (1 - draw[index()])
            low = 0
            high = n

            for _j <- 0..31 do
              if low < high do
                middle = div(low + high, 2)

                if cumulative[middle] <= limit,
                  do: low = middle + 1,
                  else: high = middle
              end
            end

            places[index()] = if low == n, do: 0, else: low
          end)

  @rank Kernel.kernel(fn draw, weight -> log(-log(draw)) - log(weight) end)

  ## Shuffles

  def shuffle(key, x, opts) do
    name = :shuffle

    with {:ok, x} <- Operands.view(x),
         {:ok, axis} <- Shapes.axis(name, x.shape, Keyword.get(opts, :axis, 0)),
         {:ok, independent?} <-
           boolean(name, :independent, Keyword.get(opts, :independent, false)) do
      if independent?,
        do: sort_by_words(key, x, axis, rounds(Shape.size(x.shape))),
        else: permute(key, x, axis)
    end
  end

  # The elements of a vector are moved in each round, as their numbers would be. The kernels that sort the words move elements of types that the device computes.
  defp permute(key, %{shape: [n]} = x, 0) when n > 1 do
    with {:ok, dtypes} <- Device.dtypes(x.device) do
      if x.dtype in dtypes,
        do: move_by_words(key, x, rounds(n)),
        else: take_by_words(key, x, rounds(n))
    end
  end

  defp permute(key, x, axis) do
    n = Enum.at(x.shape, axis)

    with {:ok, {order, key}} <- order(key, n, x.device),
         {:ok, result} <- Gathering.take(x, order, axis: axis),
         do: {:ok, {result, key}}
  end

  defp move_by_words(key, x, 0), do: {:ok, {x, key}}

  defp move_by_words(key, %{shape: [n]} = x, rounds) do
    [next, own] = Threefry.parts(key, 2)

    with {:ok, x} <- Operands.contiguous(x, :shuffle),
         {:ok, words} <- Draw.words(own, [n], x.device),
         {:ok, moved} <- Sorting.moved(words, x),
         do: move_by_words(next, moved, rounds - 1)
  end

  defp take_by_words(key, x, 0), do: {:ok, {x, key}}

  defp take_by_words(key, %{shape: [n]} = x, rounds) do
    [next, own] = Threefry.parts(key, 2)

    with {:ok, words} <- Draw.words(own, [n], x.device),
         {:ok, order} <- Sorting.argsort(words, axis: 0),
         {:ok, taken} <- Gathering.take(x, order, axis: 0),
         do: take_by_words(next, taken, rounds - 1)
  end

  # The numbers below n, shuffled. The order of the first round is the one of these numbers, too.
  defp order(key, n, device) do
    case rounds(n) do
      0 ->
        with {:ok, numbers} <- Buffer.iota([n], :s32, device: device), do: {:ok, {numbers, key}}

      rounds ->
        [next, own] = Threefry.parts(key, 2)

        with {:ok, words} <- Draw.words(own, [n], device),
             {:ok, order} <- Sorting.argsort(words, axis: 0),
             do: sort_by_words(next, View.new(order), 0, rounds - 1)
    end
  end

  # Each round sorts by random words.
  defp sort_by_words(key, x, _axis, 0),
    do: with({:ok, copy} <- View.to_buffer(x), do: {:ok, {copy, key}})

  defp sort_by_words(key, x, axis, rounds) do
    [next, own] = Threefry.parts(key, 2)

    with {:ok, words} <- Draw.words(own, x.shape, x.device),
         {:ok, order} <- Sorting.argsort(words, axis: axis),
         {:ok, result} <- Gathering.take_along_axis(x, order, axis: axis) do
      if rounds == 1,
        do: {:ok, {result, next}},
        else: sort_by_words(next, View.new(result), axis, rounds - 1)
    end
  end

  # Equal words would keep their order: with more elements, there are more rounds. Nx calculates their number in :f32.
  defp rounds(n) when n <= 1, do: 0

  defp rounds(n),
    do: ceil(single(single(3 * single(:math.log(n))) / single(:math.log(0xFFFFFFFF))))

  defp single(number) do
    <<rounded::float-32>> = <<number::float-32>>
    rounded
  end

  ## Samples

  def choice(key, x, opts) do
    name = :choice

    with {:ok, x} <- Operands.view(x),
         {:ok, x, axis} <- along(name, x, opts[:axis]),
         n = Enum.at(x.shape, axis),
         {:ok, replace?} <- boolean(name, :replace, Keyword.get(opts, :replace, true)),
         {:ok, samples} <- samples(name, Keyword.get(opts, :samples, 1), n, replace?),
         {:ok, weights} <- weights(name, opts[:probabilities], n) do
      chosen(key, x, axis, n, samples, replace?, weights)
    end
  end

  # Without an axis, the elements in row-major order.
  defp along(_name, x, nil) do
    with {:ok, buffer} <- Operands.contiguous(x, :choice),
         {:ok, flat} <- Buffer.reshape(buffer, [Shape.size(x.shape)]),
         do: {:ok, View.new(flat), 0}
  end

  defp along(name, x, axis),
    do: with({:ok, axis} <- Shapes.axis(name, x.shape, axis), do: {:ok, x, axis})

  defp samples(name, samples, n, replace?) do
    cond do
      not is_integer(samples) or samples < 1 ->
        Shapes.invalid(name, :samples, samples, "a positive integer")

      n == 0 ->
        Shapes.invalid(name, :buffer, n, "one with elements along the axis")

      samples > n and not replace? ->
        Shapes.invalid(
          name,
          :samples,
          samples,
          "at most the #{n} elements along the axis without replacement"
        )

      true ->
        {:ok, samples}
    end
  end

  defp weights(_name, nil, _n), do: {:ok, nil}

  defp weights(name, weights, n) do
    with {:ok, weights} <- Operands.contiguous(weights, name) do
      cond do
        weights.shape != [n] -> Shapes.mismatch(name, :probabilities, weights.shape, [n])
        weights.dtype in [:f32, :f64] -> {:ok, weights}
        weights.dtype in [:f16, :bf16] -> Buffer.convert(weights, :f32)
        true -> Shapes.invalid(name, :probabilities, weights, "floats")
      end
    end
  end

  defp chosen(key, x, axis, _n, samples, false, nil) do
    with {:ok, {shuffled, next}} <- permute(key, x, axis),
         {:ok, result} <- first(shuffled, axis, samples),
         do: {:ok, {result, next}}
  end

  defp chosen(key, x, axis, n, samples, replace?, weights) do
    [next, own] = Threefry.parts(key, 2)

    with {:ok, places} <- places(own, n, samples, replace?, weights, x.device),
         {:ok, result} <- Gathering.take(x, places, axis: axis),
         do: {:ok, {result, next}}
  end

  defp places(key, n, samples, true, nil, device),
    do: Draw.integers(key, [samples], 0..(n - 1), dtype: :u32, device: device)

  # The first cumulative probability that exceeds a random part of their sum.
  defp places(key, n, samples, true, %{dtype: dtype, device: device} = weights, _device) do
    with {:ok, cumulative} <- Scan.run(:sum, weights, []),
         {:ok, draw} <- Draw.uniform(key, [samples], dtype: dtype, device: device),
         {:ok, places} <- Buffer.empty([samples], :s32, device: device),
         :ok <- Strided.run(Strided.named(@search, :choice), [cumulative, draw, n, places], []),
         do: {:ok, places}
  end

  # The order of random numbers of Gumbel's distribution, moved by the logarithms of the probabilities.
  defp places(key, n, samples, false, %{dtype: dtype, device: device} = weights, _device) do
    draw = [low: @least_normal[dtype], dtype: dtype, device: device]

    with {:ok, draw} <- Draw.uniform(key, [n], draw),
         {:ok, ranks} <- Lowering.map(Strided.named(@rank, :choice), [draw, weights]),
         {:ok, order} <- Sorting.argsort(ranks, axis: 0),
         do: first(order, 0, samples)
  end

  # The first elements along an axis.
  defp first(%{shape: shape} = buffer, axis, count) do
    ones = Enum.map(shape, fn _ -> 1 end)
    starts = Enum.map(shape, fn _ -> 0 end)
    lengths = List.replace_at(shape, axis, count)
    buffer |> View.new() |> Strides.slice(starts, lengths, ones) |> Copy.contiguous(:choice)
  end

  defp boolean(_name, _option, value) when is_boolean(value), do: {:ok, value}
  defp boolean(name, option, value), do: Shapes.invalid(name, option, value, "true or false")
end
