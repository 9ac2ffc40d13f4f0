defmodule ExCubecl.Pool.SizeClass do
  @moduledoc false
  # The size classes of the shared pools, and the maximum number of buffers of each.

  alias ExCubecl.Error.Arguments

  @classes [
    {1_024, 100},
    {4_096, 100},
    {16_384, 50},
    {65_536, 50},
    {262_144, 20},
    {1_048_576, 20},
    {4_194_304, 20},
    {16_777_216, 20},
    {67_108_864, 15}
  ]
  @larger_max 15

  @doc "The smallest class of at least `bytes`, with its maximum; above the largest class, the size itself."
  def of(bytes) when is_integer(bytes) and bytes > 0 do
    with {:ok, bytes} <- Arguments.index(:bytes, bytes),
         {:ok, classes} <- classes(),
         {:ok, most} <- larger_max(),
         do: {:ok, Enum.find(classes, {bytes, most}, fn {size, _max} -> size >= bytes end)}
  end

  def of(other), do: Arguments.invalid(:bytes, other, "a positive integer")

  defp classes do
    classes = Application.get_env(:ex_cubecl, :size_classes, @classes)

    if is_list(classes) and not List.improper?(classes) and Enum.all?(classes, &class?/1),
      do: {:ok, Enum.sort(classes)},
      else: Arguments.invalid(:size_classes, classes, "a list of {bytes, max}, both positive")
  end

  defp larger_max,
    do: Arguments.positive(:larger_max, Application.get_env(:ex_cubecl, :larger_max, @larger_max))

  defp class?({bytes, max}),
    do: is_integer(bytes) and bytes > 0 and is_integer(max) and max > 0

  defp class?(_), do: false
end
