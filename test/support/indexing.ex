defmodule ExCubecl.Indexing do
  @moduledoc false
  # A plain reference of reads and writes at index vectors, and random arguments for them.

  import ExCubecl.Strided, only: [coordinates: 1, position: 2]

  alias ExCubecl.Buffer

  @integers [:u8, :s8, :u16, :s16, :u32, :s32, :u64, :s64]

  @doc "Random integers of a random type in a buffer; some are not in `0..length - 1`, if `outside?`."
  def indices(shape, length, outside?) do
    dtype = Enum.random(@integers)
    numbers = for _ <- 1..Enum.product(shape)//1, do: index(dtype, length, outside?)
    {ExCubecl.buffer!(numbers, shape, dtype), numbers}
  end

  defp index(dtype, length, outside?) do
    if length == 0 or (outside? and :rand.uniform(6) == 1),
      do: Enum.random(outside(dtype, length)),
      else: :rand.uniform(length) - 1
  end

  defp outside(dtype, length) do
    bits = 8 * ExCubecl.DType.size!(dtype)

    if dtype in [:u8, :u16, :u32, :u64],
      do: [length, Integer.pow(2, bits) - 1],
      else: [length, -1, -Integer.pow(2, bits - 1), Integer.pow(2, bits - 1) - 1]
  end

  @doc "Random axes of a shape, in any order."
  def axes(shape) do
    all = Enum.to_list(0..(length(shape) - 1)//1)
    all |> Enum.shuffle() |> Enum.take(Enum.random(0..length(shape)))
  end

  @doc "Index vectors for some axes: a buffer, and the vectors."
  def vectors(batch, shape, axes, outside?) do
    dtype = Enum.random(@integers)

    vectors =
      for _ <- 1..Enum.product(batch)//1,
          do: for(axis <- axes, do: index(dtype, Enum.at(shape, axis), outside?))

    {ExCubecl.buffer!(List.flatten(vectors), batch ++ [length(axes)], dtype), vectors}
  end

  @doc """
  For each index vector and each element of the slices, in order: the position of the element in the tensor, or `nil` out of bounds.
  """
  def positions(vectors, shape, axes) do
    rest = Enum.to_list(0..(length(shape) - 1)//1) -- axes
    slice = coordinates(Enum.map(rest, &Enum.at(shape, &1)))

    for vector <- vectors, within <- slice do
      found = Map.new(Enum.zip(axes, vector) ++ Enum.zip(rest, within))
      at = for axis <- 0..(length(shape) - 1)//1, do: found[axis]
      inside? = Enum.all?(Enum.zip(at, shape), fn {at, length} -> at in 0..(length - 1)//1 end)
      if inside?, do: position(at, shape)
    end
  end

  @doc "The elements of a buffer, each as a binary."
  def elements(buffer) do
    size = ExCubecl.DType.size!(buffer.dtype)
    for <<element::binary-size(size) <- Buffer.read!(buffer)>>, do: element
  end
end
