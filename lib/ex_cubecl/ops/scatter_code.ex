defmodule ExCubecl.Ops.ScatterCode do
  @moduledoc false
  # The statements of the second kernel of `ExCubecl.Ops.WindowScatter`, in the intermediate form of `ExCubecl.Kernel.Parser`. Along an axis, the element at the
  # coordinate u of the padded axis is in the windows div(u, stride) - most + 1 to div(u, stride) at most, where `most` is the number of windows that can contain one
  # element. Window o has it at u - o * stride. The arithmetic is modulo 2^32: what would be negative is too large.

  alias ExCubecl.Ops.{Index, Initial}

  @doc "The name of an argument or variable of an axis."
  def name(what, axis), do: Index.name(what, axis)

  @doc "The arguments of an axis, with the strides of the windows and of the elements of a window."
  def scalars(%{padding: {low, _}} = axis, stride, element_stride) do
    [
      length: axis.n,
      low: low,
      stride: axis.stride,
      window: axis.window,
      windows: axis.count,
      most: div(axis.window + axis.stride - 1, axis.stride) - 1,
      along: stride,
      within: element_stride
    ]
  end

  @doc "The statements; `single` tells for each axis whether each element is a window."
  def statements(single, initial, as) do
    [
      Index.let(:acc, Initial.expression(initial, as)),
      Index.let(:rest, Index.unsigned({:index, nil})),
      Index.let(:window, Index.unsigned(Index.number(0))),
      Index.let(:element, Index.unsigned(Index.number(0)))
    ] ++
      Enum.flat_map((length(single) - 1)..0//-1, &coordinate/1) ++
      nested(Enum.with_index(single), {:window, :element}, as) ++
      [{:write, 0, :out, {:index, nil}, Index.var(:acc)}]
  end

  # The coordinate along an axis, from the last one on.
  defp coordinate(axis) do
    [quotient, u, length] = for what <- [:quotient, :u, :length], do: name(what, axis)
    divided = Index.call(:div, Index.var(:rest), Index.var(length))
    rest = Index.call(:mul, Index.var(quotient), Index.var(length))

    [
      Index.let(quotient, divided),
      Index.let(u, Index.call(:sub, Index.var(:rest), rest)),
      Index.let(:rest, Index.var(quotient))
    ]
  end

  defp nested([], {window, element}, as) do
    chosen = Index.unsigned({:at, 0, :places, Index.var(window)})
    same = {:call, 0, :eq, [chosen, Index.var(element)]}
    sum = Index.call(:add, {:cast, as, {:at, 0, :source, Index.var(window)}}, Index.var(:acc))
    [{:branch, 0, same, [Index.let(:acc, sum)], []}]
  end

  defp nested([{true, axis} | rest], {window, element}, as) do
    moved = name(:o, axis)

    [
      Index.let(moved, plus(window, Index.var(name(:u, axis)), name(:along, axis)))
      | nested(rest, {moved, element}, as)
    ]
  end

  defp nested([{false, axis} | rest], {window, element}, as) do
    [u, j, at, o, l] = for what <- [:u, :j, :at, :o, :l], do: name(what, axis)
    argument = &Index.var(name(&1, axis))
    padded = Index.call(:add, Index.var(u), Index.unsigned(argument.(:low)))
    last = Index.call(:div, padded, argument.(:stride))
    # From the first window on, which is `most` windows before the last one.
    first = Index.call(:sub, last, argument.(:most))
    number = Index.call(:add, first, Index.unsigned(Index.var(j)))
    inside = Index.call(:sub, padded, Index.call(:mul, Index.var(at), argument.(:stride)))

    exists =
      Index.call(
        :and,
        {:call, 0, :lt, [Index.var(at), argument.(:windows)]},
        {:call, 0, :lt, [Index.var(l), argument.(:window)]}
      )

    chosen = [
      Index.let(o, plus(window, Index.var(at), name(:along, axis))),
      Index.let(name(:e, axis), plus(element, Index.var(l), name(:within, axis)))
      | nested(rest, {o, name(:e, axis)}, as)
    ]

    body = [
      Index.let(at, number),
      Index.let(l, inside),
      {:branch, 0, exists, chosen, []}
    ]

    [{:for, 0, j, Index.number(0), argument.(:most), body}]
  end

  defp plus(sum, coordinate, stride),
    do: Index.call(:add, Index.var(sum), Index.call(:mul, coordinate, Index.var(stride)))
end
