defmodule ExCubecl.NumpyData do
  @moduledoc false
  # Random shapes, elements and strided views for the comparisons with NumPy.

  alias ExCubecl.{Conversion, DType, TypedPrograms, View}

  @doc "A shape of rank 0 to 6, in which axes of length 0 are rare, or with `false` do not exist."
  def shape(empty? \\ true) do
    lengths = if empty? and :rand.uniform(8) == 1, do: [0, 1, 2, 3], else: [1, 1, 2, 2, 3, 4, 5]
    for _ <- 1..Enum.random(0..6)//1, do: Enum.random(lengths)
  end

  @doc "The axes of a shape."
  def axes(shape), do: Enum.to_list(0..(length(shape) - 1)//1)

  @doc "Two shapes that broadcast."
  def broadcasting do
    shape = shape()
    one = for n <- shape, do: Enum.random([n, n, 1])
    two = for {n, m} <- Enum.zip(shape, one), do: if(m == n, do: Enum.random([n, n, 1]), else: n)
    two = Enum.drop(two, Enum.random([0, 0, length(shape), Enum.random(0..length(shape))]))
    if :rand.uniform(2) == 1, do: {one, two}, else: {two, one}
  end

  @doc """
  A tensor of a shape: a buffer, or half of the time a view with steps, reversed and exchanged axes and strides of 0, and the Python code of its array.
  Elements are `:any` of the type, `:tame` numbers that can be added, with a special one now and then, `:small` ones that can be multiplied, or `:moderate` ones.
  """
  def tensor(name, type, shape, kind \\ :any) do
    {value, data, python} =
      if :rand.uniform(2) == 1,
        do: plain(name, type, shape, kind),
        else: view(name, type, shape, kind)

    %{name: name, value: value, data: data, python: python}
  end

  defp plain(name, type, shape, kind) do
    {data, buffer} = input(name, type, shape, elements(kind, type, Enum.product(shape)))
    {buffer, data, "#{name}"}
  end

  defp view(name, type, shape, kind) do
    axes = Enum.shuffle(axes(shape))

    parts =
      for axis <- axes do
        n = Enum.at(shape, axis)

        {start, step, rest} =
          {Enum.random([0, 0, 1]), Enum.random([1, 1, 2]), Enum.random([0, 0, 1])}

        repeated? = n > 0 and :rand.uniform(6) == 1
        kept = if repeated?, do: 1, else: n
        span = max((kept - 1) * step + 1, 0)

        %{
          n: n,
          start: start,
          step: step,
          span: span,
          length: start + span + rest,
          reversed?: :rand.uniform(3) == 1
        }
      end

    base = Enum.map(parts, & &1.length)
    {data, buffer} = input(name, type, base, elements(kind, type, Enum.product(base)))
    order = for axis <- axes(shape), do: Enum.find_index(axes, &(&1 == axis))
    reversed = for {part, at} <- Enum.with_index(parts), part.reversed?, do: at

    value =
      buffer
      |> View.slice!(Enum.map(parts, & &1.start), Enum.map(parts, & &1.span),
        strides: Enum.map(parts, & &1.step)
      )
      |> then(&if reversed == [], do: &1, else: View.reverse!(&1, axes: reversed))
      |> View.transpose!(axes: order)
      |> View.broadcast!(shape)

    slices = Enum.map_join(parts, ", ", &"#{&1.start}:#{&1.start + &1.span}:#{&1.step}")
    sliced = if parts == [], do: "#{name}", else: "#{name}[#{slices}]"
    flipped = "np.flip(#{sliced}, (#{Enum.map_join(reversed, &"#{&1}, ")}))"
    python = "np.broadcast_to(np.transpose(#{flipped}, #{tuple(order)}), #{tuple(shape)})"
    {value, data, python}
  end

  defp tuple(list), do: "(" <> Enum.map_join(list, &"#{&1}, ") <> ")"

  @doc "A buffer with the bytes, and what `ExCubecl.NumpyCases` writes about it."
  def input(name, type, shape, bytes),
    do: {{name, type, shape, bytes}, ExCubecl.buffer!(bytes, shape, type)}

  defp elements(:any, type, count), do: repeated(type, count * DType.size!(type))
  defp elements(kind, type, count), do: numbers(kind, type, count)

  @doc "So many bytes of elements, half of them edge cases."
  def repeated(type, needed) do
    Stream.repeatedly(fn -> TypedPrograms.elements(type) end)
    |> Enum.take(div(needed, 16 * DType.size!(type)) + 1)
    |> IO.iodata_to_binary()
    |> binary_part(0, needed)
  end

  defp numbers(kind, type, count) do
    special =
      if kind != :small and TypedPrograms.float?(type) and :rand.uniform(4) == 1,
        do: Enum.random(0..max(count - 1, 0))

    for at <- 0..(count - 1)//1, into: <<>> do
      value =
        if at == special,
          do: Enum.random([:nan, :infinity, :neg_infinity, -0.0]),
          else: number(kind, type)

      Conversion.binary([Conversion.bits(value, type)], type)
    end
  end

  defp number(:small, type),
    do: if(TypedPrograms.float?(type), do: 0.5 + :rand.uniform(), else: Enum.random(0..3))

  defp number(:moderate, type) when type in [:u8, :u16, :u32, :u64], do: Enum.random(0..20)

  defp number(:moderate, type),
    do:
      if(TypedPrograms.float?(type),
        do:
          Enum.random([
            0.0,
            -0.0,
            1.0e-6,
            1.0,
            -1.0,
            1.5 - 3 * :rand.uniform(),
            :rand.uniform() * 20 - 10
          ]),
        else: Enum.random(-20..20)
      )

  defp number(:tame, type),
    do: if(TypedPrograms.float?(type), do: :rand.uniform() * 20 - 10, else: Enum.random(0..100))
end
