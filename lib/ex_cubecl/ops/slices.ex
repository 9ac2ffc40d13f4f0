defmodule ExCubecl.Ops.Slices do
  @moduledoc false
  # Checks the arguments of operations on parts of axes.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Error.Text
  alias ExCubecl.Ops.Shapes

  @doc """
  The starts of a slice, the numbers of elements that it keeps of each axis, and its steps. A start is an integer, or a buffer of one integer, which is clamped such that the slice is inside.
  """
  def checked(name, shape, starts, lengths, steps) do
    with {:ok, lengths} <-
           Shapes.per_axis(name, :lengths, lengths, shape, &(&1 >= 0), "a length"),
         steps = steps || Enum.map(shape, fn _ -> 1 end),
         {:ok, steps} <- Shapes.per_axis(name, :strides, steps, shape, &(&1 > 0), "a step"),
         {:ok, starts} <- starts(name, starts, shape, lengths),
         {:ok, starts} <-
           Shapes.per_axis(name, :starts, starts, shape, &(&1 >= 0), "a start from 0 on"),
         :ok <- inside(name, [shape, starts, lengths]) do
      counts = for {length, step} <- Enum.zip(lengths, steps), do: div(length + step - 1, step)
      {:ok, starts, counts, steps}
    end
  end

  defp starts(_name, starts, shape, lengths)
       when is_list(starts) and length(starts) == length(shape) do
    [starts, shape, lengths]
    |> Enum.zip()
    |> Error.map(fn
      {%Buffer{} = buffer, axis, length} ->
        with {:ok, start} <- Buffer.item(buffer), do: clamped(start, max(axis - length, 0))

      {start, _, _} ->
        {:ok, start}
    end)
  end

  defp starts(name, starts, shape, _lengths),
    do:
      Shapes.invalid(name, :starts, starts, "a start for each axis of shape #{Text.show(shape)}")

  defp clamped(start, most) when is_integer(start), do: {:ok, start |> max(0) |> min(most)}
  # `per_axis/6` reports it.
  defp clamped(start, _most), do: {:ok, start}

  defp inside(name, lists) do
    case Enum.find_index(Enum.zip(lists), fn {n, start, length} -> start + length > n end) do
      nil ->
        :ok

      axis ->
        [n, start, length] = Enum.map(lists, &Enum.at(&1, axis))

        Error.new(:out_of_bounds,
          operation: name,
          axis: axis,
          offset: start,
          count: length,
          size: n
        )
    end
  end

  @doc "Checks that two shapes have as many axes."
  def ranks(_name, shape, other) when length(shape) == length(other), do: :ok
  def ranks(name, shape, other), do: Shapes.mismatch(name, :ranks, shape, other)

  @doc """
  For each axis of a padded shape: its length, and which `count` elements from `first` on are kept, `step` apart from `start` on.
  """
  def padding(name, shape, config) do
    valid? = fn
      {low, high, interior} when is_integer(low) and is_integer(high) and is_integer(interior) ->
        interior >= 0

      _ ->
        false
    end

    if is_list(config) and not List.improper?(config) and length(config) == length(shape) and
         Enum.all?(config, valid?),
       do: shape |> Enum.zip(config) |> Error.map(&padded(name, &1)),
       else:
         Shapes.invalid(
           name,
           :padding,
           config,
           Shapes.each(config, "{low, high, interior} for each axis of shape", shape) <>
             ", interior from 0 on"
         )
  end

  defp padded(name, {n, {low, high, interior} = config}) do
    step = interior + 1
    length = n + max(n - 1, 0) * interior + low + high
    first = div(max(-low, 0) + interior, step)
    last = min(n - 1, Integer.floor_div(length - 1 - low, step))

    if length < 0 do
      Shapes.invalid(name, :padding, config, "to remove at most the #{n - low - high} elements")
    else
      count = max(last - first + 1, 0)
      {:ok, %{length: length, first: first, count: count, start: low + first * step, step: step}}
    end
  end

  @doc "The lengths of the parts of an axis: a list of lengths, or a number of equal parts."
  def parts(_name, n, parts) when is_integer(parts) and parts > 0 and rem(n, parts) == 0,
    do: {:ok, List.duplicate(div(n, parts), parts)}

  def parts(name, n, parts) do
    if is_list(parts) and not List.improper?(parts) and
         Enum.all?(parts, &(is_integer(&1) and &1 >= 0)) and Enum.sum(parts) == n,
       do: {:ok, parts},
       else:
         Shapes.invalid(
           name,
           :parts,
           parts,
           "lengths whose sum is #{n}, or a number that divides #{n}"
         )
  end
end
