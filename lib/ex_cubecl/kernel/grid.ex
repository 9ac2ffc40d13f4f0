defmodule ExCubecl.Kernel.Grid do
  @moduledoc false
  # The invocations of a launch, or the workgroups that cover them, and the scalars that depend on them. `shape` has the lengths of the
  # axes of the invocations, the last one along x; `group` has the threads of a workgroup along x, y and z, or is `nil`.

  alias ExCubecl.Shape

  @doc "The number of workgroups of a kernel with workgroups, else of invocations."
  def size(nil, shape), do: Shape.size(shape)
  def size(group, shape), do: Shape.size(groups(group, shape))

  @doc "A scalar that the typer requests: the number of invocations, or the length of an axis in invocations or in workgroups."
  def scalar({:dim, :all}, _group, shape), do: Shape.size(shape)
  # Never zero: the kernel divides by it.
  def scalar({:dim, axis}, _group, shape), do: max(along(axis, lengths(shape)), 1)
  def scalar({:groups, axis}, group, shape), do: max(along(axis, groups(group, shape)), 1)

  # Workgroups with one axis cover the flattened shape; those with several cover the shape axis by axis.
  defp groups([threads, 1, 1], shape), do: [ceil_div(Shape.size(shape), threads), 1, 1]

  defp groups(threads, shape) do
    for {threads, length} <- Enum.zip(threads, lengths(shape)), do: ceil_div(length, threads)
  end

  defp ceil_div(length, threads), do: div(length + threads - 1, threads)

  # The lengths along x, y and z; all further axes are merged into z.
  defp lengths(shape) do
    case Enum.reverse(shape) do
      [x, y | rest] -> [x, y, Shape.size(rest)]
      [x] -> [x, 1, 1]
      [] -> [1, 1, 1]
    end
  end

  defp along(:x, [x, _y, _z]), do: x
  defp along(:y, [_x, y, _z]), do: y
  defp along(:z, [_x, _y, z]), do: z
end
