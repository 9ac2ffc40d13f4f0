defmodule ExCubecl.Ops.WindowAxes do
  @moduledoc false
  # The axes of windows and convolutions: checks of their options, the lengths of the results, and the coordinates of the elements of a window.
  #
  # Of an axis with `n` elements, dilated by `spread`, and padded by `low` and `high`, window number o consists of the elements at the coordinates
  # o * stride + w * dilation - low.

  alias ExCubecl.Error
  alias ExCubecl.Error.Text
  alias ExCubecl.Ops.Shapes

  @most 0x7FFF_FFFF

  @type t :: %{
          n: non_neg_integer,
          window: pos_integer,
          stride: pos_integer,
          dilation: pos_integer,
          spread: pos_integer,
          padding: {integer, integer},
          count: non_neg_integer
        }

  @doc """
  The axes of windows of the lengths `window` over a shape. `opts` has a number for all axes, or a list, in `:strides`, in the option
  that `names` has as `:dilations`, and in the one that it has as `:spreads`, if any; and `:padding`. Errors call the lengths `names[:window]`.
  """
  @spec checked(atom, [non_neg_integer], term, keyword, keyword) ::
          {:ok, [t]} | {:error, Error.t()}
  def checked(name, shape, window, opts, names) do
    with {:ok, window} <- lengths(name, names[:window], shape, window),
         {:ok, strides} <- steps(name, :strides, opts, shape),
         {:ok, dilations} <- steps(name, names[:dilations], opts, shape),
         {:ok, spreads} <- steps(name, names[:spreads], opts, shape),
         axes = Enum.zip([shape, window, strides, dilations, spreads]),
         :ok <- few(name, names[:window], window),
         {:ok, padding} <- padding(name, axes, Keyword.get(opts, :padding, :valid), shape) do
      axes
      |> Enum.zip(padding)
      |> Enum.with_index()
      |> Error.map(&axis(name, &1, shape, {names[:window], window}))
    end
  end

  defp lengths(name, argument, shape, window) when is_tuple(window),
    do: lengths(name, argument, shape, Tuple.to_list(window))

  defp lengths(name, argument, shape, window),
    do: Shapes.per_axis(name, argument, window, shape, &(&1 > 0), "a length from 1 on")

  # Indices and coordinates are calculated with 32 bits.
  defp few(name, argument, window) do
    if Enum.product(window) <= @most,
      do: :ok,
      else: Shapes.invalid(name, argument, window, "a window of at most #{@most} elements")
  end

  defp steps(_name, nil, _opts, shape), do: {:ok, Enum.map(shape, fn _ -> 1 end)}

  defp steps(name, option, opts, shape) do
    value = Keyword.get(opts, option, 1)
    list = if is_integer(value), do: Enum.map(shape, fn _ -> value end), else: value

    with {:error, _} <-
           Shapes.per_axis(name, option, list, shape, &(&1 > 0), "a number from 1 on") do
      expected = "a number from 1 on, or one for each axis of shape #{Text.show(shape)}"
      Shapes.invalid(name, option, value, expected)
    end
  end

  defp padding(_name, axes, :valid, _shape), do: {:ok, Enum.map(axes, fn _ -> {0, 0} end)}

  defp padding(_name, axes, :same, _shape) do
    {:ok,
     for {_n, window, _stride, dilation, _spread} <- axes do
       whole = (window - 1) * dilation
       {div(whole, 2), whole - div(whole, 2)}
     end}
  end

  defp padding(name, axes, padding, shape) do
    pair? = &match?({low, high} when is_integer(low) and is_integer(high), &1)

    if is_list(padding) and not List.improper?(padding) and length(padding) == length(axes) and
         Enum.all?(padding, pair?),
       do: {:ok, padding},
       else:
         Shapes.invalid(
           name,
           :padding,
           padding,
           ":valid, :same, or {low, high} for each axis of shape #{Text.show(shape)}"
         )
  end

  defp axis(name, {{{n, window, stride, dilation, spread}, {low, high}}, at}, shape, lengths) do
    axis = %{n: n, window: window, stride: stride, dilation: dilation, spread: spread}
    axis = Map.put(axis, :padding, {low, high})
    padded = max(n - 1, 0) * spread + min(n, 1) + low + high
    extent = (window - 1) * dilation + 1

    cond do
      padded > @most -> too_many(name, {low, high}, at, padded)
      # There are no windows along an axis without elements, as in a batch of size 0.
      padded == 0 and extent == 1 -> {:ok, Map.put(axis, :count, 0)}
      extent <= padded -> {:ok, Map.put(axis, :count, div(padded - extent, stride) + 1)}
      true -> too_long(name, lengths, shape, {at, extent, padded})
    end
  end

  defp too_many(name, padding, axis, padded) do
    expected =
      "at most #{@most} elements along axis #{axis}, with padding and dilation: they are #{padded}"

    Shapes.invalid(name, :padding, padding, expected)
  end

  defp too_long(name, {argument, lengths}, shape, {axis, extent, padded}) do
    expected =
      "one that is at most as long as the padded axes of shape #{Text.show(shape)}: " <>
        "it extends over #{extent} along axis #{axis}, which has #{padded} with its padding"

    Shapes.invalid(name, argument, lengths, expected)
  end

  @doc "The number of windows along each axis."
  def counts(axes), do: Enum.map(axes, & &1.count)

  @doc """
  The axes as parts of a space of `ExCubecl.Ops.Fold`: the offset, the strides along the windows and within them of an operand with
  these strides, and the bounds. `before` is the number of axes of the space, kept and folded, before these.
  """
  def space(axes, strides, {kept, folded} \\ {0, 0}) do
    parts = for {axis, stride} <- Enum.zip(axes, strides), do: part(axis, stride)
    rank = length(axes)

    bounds =
      for {axis, stride, at} <- Enum.zip([axes, strides, 0..(rank - 1)//1]), outside?(axis) do
        unit = fn before, value ->
          List.duplicate(0, before + at) ++ [value] ++ List.duplicate(0, rank - at - 1)
        end

        {:"p#{at}", bound(axis, stride, unit.(kept, axis.stride), unit.(folded, axis.dilation))}
      end

    {offsets, along, within} = unzip3(parts)
    {Enum.sum(offsets), along, within, bounds}
  end

  defp unzip3(parts),
    do:
      {for({a, _, _} <- parts, do: a), for({_, b, _} <- parts, do: b),
       for({_, _, c} <- parts, do: c)}

  # A dilated coordinate is no affine function of the window: the bound adds it to the index.
  defp part(%{spread: spread}, _stride) when spread > 1, do: {0, 0, 0}

  defp part(%{padding: {low, _}} = axis, stride),
    do: {-low * stride, axis.stride * stride, axis.dilation * stride}

  defp bound(%{padding: {low, _}} = axis, stride, kept, folded) do
    dilated? = axis.spread > 1

    %{
      offset: -low,
      kept: kept,
      folded: folded,
      extent: max(axis.n - 1, 0) * axis.spread + min(axis.n, 1),
      dilation: if(dilated?, do: axis.spread),
      stride: if(dilated?, do: stride)
    }
  end

  # Whether an element of a window may be in the padding. This depends on the options only: all shapes have the same kernel.
  defp outside?(%{spread: spread, padding: {low, high}}), do: spread > 1 or low > 0 or high > 0
end
