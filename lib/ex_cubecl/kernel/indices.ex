defmodule ExCubecl.Kernel.Indices do
  @moduledoc false
  # The typed trees of `index`, `local` and `group`. The native side has only linear indices: of the thread in the launch
  # (`:global_id`), of the thread in its workgroup (`:local_id`), and of the workgroup (`:group_id`). The lengths of the axes are scalars
  # that each launch computes.

  import ExCubecl.Kernel.Types, only: [scalar: 3]

  @doc "The index of the invocation, linear for `nil`, or along an axis."
  def index(nil, %{group: nil} = state), do: {:global_id, state}

  # -1 past the end: the last group has threads without an element, which only fill it.
  def index(nil, %{group: [threads, 1, 1]} = state) do
    {total, state} = scalar({:dim, :all}, :s32, state)
    at = {:binary, :add, {:binary, :mul, :group_id, int(threads)}, :local_id}
    {{:select, {:binary, :lt, at, total}, at, int(-1)}, state}
  end

  def index(nil, state) do
    {[x, y, z], state} = Enum.map_reduce([:x, :y, :z], state, &along/2)

    {[width, height, depth], state} =
      Enum.map_reduce([:x, :y, :z], state, &scalar({:dim, &1}, :s32, &2))

    inside = for {at, end_} <- [{x, width}, {y, height}, {z, depth}], do: {:binary, :lt, at, end_}
    inside = Enum.reduce(inside, &{:binary, :and, &2, &1})
    row = {:binary, :add, {:binary, :mul, z, height}, y}
    at = {:binary, :add, {:binary, :mul, row, width}, x}
    {{:select, inside, at, int(-1)}, state}
  end

  def index(axis, %{group: [_, rows, planes]} = state) when rows * planes > 1,
    do: along(axis, state)

  def index(axis, state) do
    {x, state} = scalar({:dim, :x}, :s32, state)
    {y, state} = scalar({:dim, :y}, :s32, state)
    {index, state} = index(nil, state)
    {unfolded(axis, index, x, y), state}
  end

  @doc "The index of the thread in its workgroup."
  def local(nil, _state), do: :local_id

  def local(axis, state),
    do: unfolded(axis, :local_id, int(threads(:x, state)), int(threads(:y, state)))

  @doc "The index of the workgroup."
  def group(nil, state), do: {:group_id, state}

  def group(axis, state) do
    {x, state} = scalar({:groups, :x}, :s32, state)
    {y, state} = scalar({:groups, :y}, :s32, state)
    {unfolded(axis, :group_id, x, y), state}
  end

  # The index of the invocation along an axis, in a kernel whose workgroups have several axes.
  defp along(axis, state) do
    {group, state} = group(axis, state)
    first = {:binary, :mul, group, int(threads(axis, state))}
    {{:binary, :add, first, local(axis, state)}, state}
  end

  # The index along an axis of a linear index, for these lengths along x and y.
  defp unfolded(:x, at, x, _y), do: {:binary, :rem, at, x}
  defp unfolded(:y, at, x, y), do: {:binary, :rem, {:binary, :div, at, x}, y}
  defp unfolded(:z, at, x, y), do: {:binary, :div, {:binary, :div, at, x}, y}

  defp threads(axis, state), do: Enum.at(state.group, %{x: 0, y: 1, z: 2}[axis])
  defp int(number), do: {:const, :s32, number}
end
