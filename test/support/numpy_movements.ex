defmodule ExCubecl.NumpyMovements do
  @moduledoc false
  # Operations that move elements, for `ExCubecl.NumpyOperations`: inputs, arguments, and Python code.

  alias ExCubecl.NumpyData, as: Data

  def moved(:slice, x, shape, _type) do
    lengths = Enum.map(shape, &Enum.random(0..&1))
    starts = for {n, length} <- Enum.zip(shape, lengths), do: Enum.random(0..(n - length))
    steps = Enum.map(shape, fn _ -> Enum.random(1..3) end)

    slices =
      for {s, l, p} <- Enum.zip([starts, lengths, steps]), do: "slice(#{s}, #{s + l}, #{p})"

    {[x], [x.value, starts, lengths, [strides: steps]],
     "x[(#{Enum.map_join(slices, &"#{&1}, ")})]"}
  end

  def moved(:put_slice, x, shape, type) do
    lengths = Enum.map(shape, &Enum.random(0..&1))
    starts = for {n, length} <- Enum.zip(shape, lengths), do: Enum.random(0..(n - length))
    y = Data.tensor(:y, type, lengths)
    python = "put_slice(x, #{inspect(starts, charlists: :as_lists)}, y)"
    {[x, y], [x.value, starts, y.value], python}
  end

  def moved(:pad, x, shape, _type) do
    config =
      for n <- shape,
          do:
            {Enum.random(-min(n, 1)..2), Enum.random(0..2),
             if(n > 0, do: Enum.random(0..2), else: 0)}

    text = Enum.map_join(config, fn {low, high, inner} -> "(#{low}, #{high}, #{inner}), " end)
    {[x], [x.value, 3, config], "padded(x, 3, (#{text}))"}
  end

  def moved(:reverse, x, shape, _type) do
    axes = Enum.take_random(Data.axes(shape), 2)

    if axes == [],
      do: {[x], [x.value], "np.flip(x)"},
      else: {[x], [x.value, [axes: axes]], "np.flip(x, #{tuple(axes)})"}
  end

  def moved(:transpose, x, shape, _type) do
    axes = Enum.shuffle(Data.axes(shape))
    {[x], [x.value, [axes: axes]], "np.transpose(x, #{tuple(axes)})"}
  end

  def moved(:broadcast_to, x, shape, _type) do
    wide = [2 | Enum.map(shape, &if(&1 == 1, do: Enum.random(0..3), else: &1))]
    {[x], [x.value, wide], "np.broadcast_to(x, #{tuple(wide)})"}
  end

  def moved(:tile, x, shape, _type) do
    counts = for _ <- 1..Enum.random(1..(length(shape) + 1)), do: Enum.random([0, 1, 1, 2, 3])
    {[x], [x.value, counts], "np.tile(x, #{tuple(counts)})"}
  end

  def moved(:concatenate, _x, shape, type) do
    shape = [Enum.random(0..3) | Enum.take(shape, 5)]
    axis = Enum.random(Data.axes(shape))
    x = Data.tensor(:x, type, shape)
    y = Data.tensor(:y, type, List.replace_at(shape, axis, Enum.random(0..4)))
    {[x, y], [[x.value, y.value], [axis: axis]], "np.concatenate([x, y], #{axis})"}
  end

  def moved(:stack, _x, shape, type) do
    axis = Enum.random(0..length(shape))
    [x, y] = for name <- [:x, :y], do: Data.tensor(name, type, shape)
    {[x, y], [[x.value, y.value], [axis: axis]], "np.stack([x, y], #{axis})"}
  end

  def moved(:split, _x, shape, type) do
    shape = [Enum.random(1..4) | Enum.take(shape, 5)]
    axis = Enum.random(Data.axes(shape))
    n = Enum.at(shape, axis)
    first = Enum.random(0..n)
    x = Data.tensor(:x, type, shape)
    {[x], [x.value, [first, n - first], [axis: axis]], "np.split(x, [#{first}], #{axis})[0]"}
  end

  ## At indices

  def indexed(:one_hot, type) do
    at = indices(:at, Enum.take(Data.shape(), 4), 6)

    python =
      "as_type((np.asarray(at)[..., None] == np.arange(5)).astype(np.uint8), 'u8', '#{type}')"

    {[at], [at.value, 5, [dtype: type]], python}
  end

  def indexed(name, type) when name in [:gather, :take, :take_along_axis] do
    shape = [Enum.random(1..5) | Enum.take(Data.shape(), 3)]
    axis = Enum.random(Data.axes(shape))
    n = Enum.at(shape, axis)
    x = Data.tensor(:x, type, shape)

    lengths =
      case name do
        :gather -> [Enum.random(0..4)]
        :take -> Enum.take(Data.shape(), 2)
        :take_along_axis -> List.replace_at(shape, axis, Enum.random(0..4))
      end

    python =
      if name == :take_along_axis,
        do: "np.take_along_axis(x, at, #{axis})",
        else: "np.take(x, at, axis=#{axis})"

    if n == 0 do
      indexed(name, type)
    else
      at = indices(:at, lengths, n)
      {[x, at], [x.value, at.value, [axis: axis]], python}
    end
  end

  def indexed(name, type) do
    shape = for _ <- 1..Enum.random(1..4), do: Enum.random(1..4)
    depth = Enum.random(1..length(shape))
    count = Enum.random(0..5)
    x = Data.tensor(:x, type, shape, :tame)
    {addressed, rest} = Enum.split(shape, depth)
    list = for _ <- 1..count//1, n <- addressed, do: Enum.random(0..(n - 1))
    bytes = for n <- list, into: <<>>, do: <<n::32-signed-native>>
    {data, buffer} = Data.input(:at, :s32, [count, depth], bytes)
    at = %{name: :at, value: buffer, data: data, python: "at"}
    y = Data.tensor(:y, type, [count | rest], :tame)

    case name do
      :gather_nd -> {[x, at], [x.value, at.value], "x[tuple(at.T)]"}
      _ -> {[x, at, y], [x.value, at.value, y.value], "scattered('#{name}', '#{type}', x, at, y)"}
    end
  end

  defp indices(name, shape, n) do
    type = Enum.random([:s32, :u32, :s64, :u8, :s16])
    size = 8 * ExCubecl.DType.size!(type)

    bytes =
      for _ <- 1..Enum.product(shape)//1,
          into: <<>>,
          do: <<Enum.random(0..(n - 1))::size(size)-native>>

    {data, buffer} = Data.input(name, type, shape, bytes)
    %{name: name, value: buffer, data: data, python: "#{name}"}
  end

  defp tuple(list), do: "(" <> Enum.map_join(list, &"#{&1}, ") <> ")"
end
