defmodule ExCubecl.WindowReference do
  @moduledoc false
  # Windows, and arithmetic with NaN and infinities, in plain Elixir: each axis is padded element by element, and its windows are searched.

  alias ExCubecl.{Conversion, Strided}

  @floats [:f16, :bf16, :f32, :f64]

  @doc "A random window for a shape, with options: a list of maps, one for each axis."
  def axes(shape) do
    for n <- shape do
      %{
        n: n,
        window: Enum.random([1, 1, 2, 2, 3]),
        stride: Enum.random([1, 1, 2, 3]),
        dilation: Enum.random([1, 1, 2]),
        padding: {Enum.random([0, 0, 0, 1, 2, -1]), Enum.random([0, 0, 0, 1, 2, -1])}
      }
    end
  end

  @doc "The elements of each window along an axis, as indices of the axis or `nil` for padding; `:error` if the axis is too short."
  def along(
        %{n: n, window: window, stride: stride, dilation: dilation, padding: {low, high}} = axis
      ) do
    spread = Map.get(axis, :spread, 1)
    dilated = Enum.intersperse(Enum.to_list(0..(n - 1)//1), List.duplicate(nil, spread - 1))
    padded = dilated |> List.flatten() |> padded(low, high)

    starts =
      for at <- 0..(length(padded || []) - 1)//1,
          rem(at, stride) == 0 and at + (window - 1) * dilation < length(padded),
          do: at

    if starts == [] and {padded, window} != {[], 1},
      do: :error,
      else:
        for(at <- starts, do: for(w <- 0..(window - 1), do: Enum.at(padded, at + w * dilation)))
  end

  # Padding after the end exists before elements are removed at the start, and the other way round.
  defp padded(list, low, high) do
    whole = List.duplicate(nil, max(low, 0)) ++ list ++ List.duplicate(nil, max(high, 0))
    length = length(whole) + min(low, 0) + min(high, 0)
    if length >= 0, do: Enum.slice(whole, max(-low, 0), length)
  end

  @doc """
  The shape of the result and the elements of each window, in row-major order, or `:error`. `elements` is the list of the elements of the shape.
  """
  def windows(elements, axes, padding) do
    along = Enum.map(axes, &along/1)

    if :error in along do
      :error
    else
      flat = List.to_tuple(elements)
      shape = Enum.map(axes, & &1.n)
      element = &if(nil in &1, do: padding, else: elem(flat, Strided.position(&1, shape)))

      {Enum.map(along, &length/1),
       for(choice <- product(along), do: for(at <- product(choice), do: element.(at)))}
    end
  end

  defp product([]), do: [[]]
  defp product([list | rest]), do: for(x <- list, more <- product(rest), do: [x | more])

  @doc "A number as its type keeps it."
  def kept(number, dtype), do: number |> Conversion.bits(dtype) |> Conversion.value(dtype)

  @doc "The sum, product, minimum or maximum of two numbers of a type, rounded to it."
  def calculate(op, a, b, dtype) when op in [:min, :max], do: extreme(op, a, b, dtype)
  def calculate(op, a, b, dtype), do: op |> exact(a, b, dtype in @floats) |> kept(dtype)

  defp exact(_op, a, b, true) when :nan in [a, b], do: :nan
  defp exact(:add, a, b, true) when is_atom(a) and is_atom(b), do: if(a == b, do: a, else: :nan)
  defp exact(:add, a, _b, true) when is_atom(a), do: a
  defp exact(:add, _a, b, true) when is_atom(b), do: b

  defp exact(:multiply, a, b, true) when is_atom(a) or is_atom(b) do
    case sign(a) * sign(b) do
      0 -> :nan
      1 -> :infinity
      -1 -> :neg_infinity
    end
  end

  defp exact(:add, a, b, _float?), do: a + b
  defp exact(:multiply, a, b, _float?), do: a * b

  defp sign(:infinity), do: 1
  defp sign(:neg_infinity), do: -1
  defp sign(number) when number > 0, do: 1
  defp sign(number) when number < 0, do: -1
  defp sign(_zero), do: 0

  defp extreme(_op, a, b, _dtype) when :nan in [a, b], do: :nan
  defp extreme(:min, a, b, _dtype), do: if(order(b) < order(a), do: b, else: a)
  defp extreme(:max, a, b, _dtype), do: if(order(b) > order(a), do: b, else: a)

  @doc "A key by which numbers and infinities are ordered."
  def order(:neg_infinity), do: {0, 0}
  def order(:infinity), do: {2, 0}
  def order(number), do: {1, number}
end
