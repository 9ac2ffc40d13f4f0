defmodule ExCubecl.Ops.Shapes do
  @moduledoc false
  # Checks of shapes and axes. Each error names the operation.

  alias ExCubecl.{Error, Shape}
  alias ExCubecl.Error.Text
  alias ExCubecl.Ops.Layout

  @doc "Whether a number, which may be an integer of any size, is one that a float can hold."
  defguard is_finite(number)
           when is_number(number) and number >= -1.0e308 and number <= 1.0e308

  @doc "The shape to which all shapes broadcast, aligned at the last axis."
  def broadcast(_operation, []), do: {:ok, []}

  def broadcast(operation, [first | rest]) do
    Enum.reduce_while(rest, {:ok, first}, fn shape, {:ok, known} ->
      case pair(known, shape) do
        {:ok, both} -> {:cont, {:ok, both}}
        misfit -> {:halt, mismatch(operation, :broadcast, known, shape, misfit)}
      end
    end)
  end

  defp pair(same, same), do: {:ok, same}

  defp pair(a, b) do
    rank = max(length(a), length(b))
    pairs = Enum.zip(Layout.padded(a, rank, 1), Layout.padded(b, rank, 1))

    case misfit(pairs, fn a, b -> a == b or a == 1 or b == 1 end) do
      nil -> {:ok, Enum.map(pairs, fn {a, b} -> if a == 1, do: b, else: a end)}
      misfit -> misfit
    end
  end

  @doc "Checks that a shape broadcasts to another one."
  def broadcast_to(operation, from, to) when length(from) > length(to),
    do: mismatch(operation, :broadcast_to, from, to, %{axis: nil})

  def broadcast_to(operation, from, to) do
    pairs = Enum.zip(Layout.padded(from, length(to), 1), to)

    case misfit(pairs, fn from, to -> from == to or from == 1 end) do
      nil -> :ok
      misfit -> mismatch(operation, :broadcast_to, from, to, misfit)
    end
  end

  # The last axis whose lengths do not fit, and the lengths.
  defp misfit(pairs, fits?) do
    last = length(pairs) - 1

    Enum.find_value(last..0//-1, fn axis ->
      {a, b} = Enum.at(pairs, axis)
      if not fits?.(a, b), do: %{axis: axis, lengths: {a, b}}
    end)
  end

  @doc "The error for two shapes; `relation` is what they should do."
  def mismatch(operation, relation, shape, other, more \\ %{}) do
    sizes = %{expected: Shape.size(shape), actual: Shape.size(other)}
    details = %{operation: operation, relation: relation, shape: shape, other_shape: other}
    Error.new(:shape_mismatch, details |> Map.merge(sizes) |> Map.merge(more))
  end

  @doc "An error about an argument of an operation."
  def invalid(operation, argument, value, expected) do
    details = %{operation: operation, argument: argument, value: value, expected: expected}
    Error.new(:invalid_argument, details)
  end

  @doc "An axis, counted from 0."
  def axis(_operation, shape, axis)
      when is_integer(axis) and axis < length(shape) and axis >= -length(shape),
      do: {:ok, if(axis < 0, do: axis + length(shape), else: axis)}

  def axis(operation, shape, axis),
    do: invalid(operation, :axis, axis, "#{range(length(shape))} of shape #{Text.show(shape)}")

  defp range(0), do: "none: there is no axis"
  defp range(rank), do: "an axis from 0 to #{rank - 1}, or from -#{rank} to -1 at the end,"

  @doc "A list of different axes, counted from 0 and sorted; `nil` means all axes."
  def axes(_operation, shape, nil), do: {:ok, Enum.to_list(0..(length(shape) - 1)//1)}

  def axes(operation, shape, axes) do
    with {:ok, axes} <- list(operation, axes),
         {:ok, found} <- Error.map(axes, &axis(operation, shape, &1)) do
      if Enum.uniq(found) == found,
        do: {:ok, Enum.sort(found)},
        else: invalid(operation, :axes, axes, "each axis at most once")
    end
  end

  defp list(operation, axes) do
    if is_list(axes) and not List.improper?(axes),
      do: {:ok, axes},
      else: invalid(operation, :axes, axes, "a list of axes")
  end

  @doc "The axes of the options `axes:` or `axis:`, of which one at most is given."
  def axes_of(operation, shape, opts) do
    case {opts[:axis], opts[:axes]} do
      {nil, axis} when is_integer(axis) ->
        meant(list(operation, axis), "axes: [#{Text.show(axis)}]")

      {nil, axes} ->
        axes(operation, shape, axes)

      {[_ | _] = axes, nil} ->
        meant(axis(operation, shape, axes), "axes: #{Text.show(axes)}")

      {axis, nil} ->
        with {:ok, axis} <- axis(operation, shape, axis), do: {:ok, [axis]}

      {_, axes} ->
        invalid(operation, :axes, axes, "axis: or axes:, not both")
    end
  end

  defp meant({:error, error}, meant),
    do: {:error, %{error | details: Map.put(error.details, :meant, meant)}}

  @doc "The option `keep_axes:`."
  def keep_axes(operation, opts) do
    case Keyword.get(opts, :keep_axes, false) do
      keep? when is_boolean(keep?) -> {:ok, keep?}
      other -> invalid(operation, :keep_axes, other, "true or false")
    end
  end

  @doc "The shape in which axes have the length 1."
  def kept(shape, axes), do: Enum.reduce(axes, shape, &List.replace_at(&2, &1, 1))

  @doc "The type of indices in a result: `:s32`, or `:s64` by the option `dtype:`."
  def index_type(operation, opts) do
    case Keyword.get(opts, :dtype, :s32) do
      dtype when dtype in [:s32, :s64] -> {:ok, dtype}
      other -> invalid(operation, :dtype, other, ":s32 or :s64")
    end
  end

  @doc "A list with one integer for each axis, each of which passes `valid?`."
  def per_axis(operation, name, list, shape, valid?, expected) do
    if is_list(list) and not List.improper?(list) and length(list) == length(shape) and
         Enum.all?(list, &(is_integer(&1) and valid?.(&1))),
       do: {:ok, list},
       else:
         invalid(operation, name, list, each(list, "#{expected} for each axis of shape", shape))
  end

  @doc "What is expected for each axis, of a term that may be no list."
  def each(list, expected, shape),
    do: "#{if is_list(list), do: "", else: "a list with "}#{expected} #{Text.show(shape)}"

  @doc "Each axis of a shape once, in any order; `nil` means the reversed order."
  def permutation(operation, shape, axes, argument \\ :axes) do
    all = Enum.to_list(0..(length(shape) - 1)//1)
    axes = axes || Enum.reverse(all)

    if is_list(axes) and not List.improper?(axes) and Enum.sort(axes) === all,
      do: {:ok, axes},
      else: invalid(operation, argument, axes, "each of #{Text.show(all)} once")
  end
end
