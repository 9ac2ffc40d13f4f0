defmodule ExCubecl.Strided do
  @moduledoc false
  # Random views, each with a reference: a shape and a function from coordinates to the position in the buffer.

  alias ExCubecl.{Buffer, Conversion, View}
  alias ExCubecl.View.Strides

  @doc "All coordinates of a shape, in row-major order."
  def coordinates([]), do: [[]]

  def coordinates([length | rest]) do
    inner = coordinates(rest)
    for at <- 0..(length - 1)//1, more <- inner, do: [at | more]
  end

  @doc "A random shape of rank 0 to 6 with few elements; some axes have the length 0 or 1."
  def shape(rank \\ nil) do
    rank = rank || Enum.random(0..6)
    for _ <- 1..rank//1, do: Enum.random([0, 1, 1, 2, 2, 2, 3, 3, 4])
  end

  @doc "A random view with its reference, of the type, and its elements."
  def view(dtype, shape \\ shape()) do
    buffer = ExCubecl.buffer!(values(dtype, Enum.product(shape)), shape, dtype)
    reference = %{shape: shape, at: &position(&1, shape)}

    {view, reference} =
      Enum.reduce(1..Enum.random(0..3)//1, {View.new(buffer), reference}, fn _, both ->
        change(Enum.random([:transpose, :slice, :reverse, :new_axis]), both)
      end)

    flat = buffer |> Buffer.to_flat_list!() |> List.to_tuple()

    {view, reference.shape,
     for(at <- coordinates(reference.shape), do: elem(flat, reference.at.(at)))}
  end

  @doc "The position of coordinates in row-major order."
  def position(coordinates, shape) do
    Enum.zip(coordinates, shape) |> Enum.reduce(0, fn {at, length}, sum -> sum * length + at end)
  end

  defp change(:transpose, {view, %{shape: shape, at: at}}) do
    axes = Enum.shuffle(Enum.to_list(0..(length(shape) - 1)//1))

    back = fn to ->
      for axis <- 0..(length(shape) - 1)//1, do: Enum.at(to, Enum.find_index(axes, &(&1 == axis)))
    end

    {Strides.transpose(view, axes),
     %{shape: Enum.map(axes, &Enum.at(shape, &1)), at: &at.(back.(&1))}}
  end

  defp change(:slice, {view, %{shape: shape, at: at}}) do
    parts =
      for length <- shape do
        start = Enum.random(0..length)
        step = Enum.random(1..3)
        {start, Enum.random(0..div(length - start + step - 1, step)), step}
      end

    [starts, lengths, steps] = for n <- 0..2, do: Enum.map(parts, &elem(&1, n))

    move = fn to ->
      for {to, start, step} <- Enum.zip([to, starts, steps]), do: start + to * step
    end

    {Strides.slice(view, starts, lengths, steps), %{shape: lengths, at: &at.(move.(&1))}}
  end

  defp change(:reverse, {view, %{shape: shape, at: at}}) do
    axes = for axis <- 0..(length(shape) - 1)//1, :rand.uniform(2) == 1, do: axis

    turn = fn to ->
      for {to, axis} <- Enum.with_index(to),
          do: if(axis in axes, do: Enum.at(shape, axis) - 1 - to, else: to)
    end

    {Strides.reverse(view, axes), %{shape: shape, at: &at.(turn.(&1))}}
  end

  defp change(:new_axis, {view, %{shape: shape, at: at}}) do
    new = Enum.random(0..length(shape))

    {Strides.new_axis(view, new),
     %{shape: List.insert_at(shape, new, 1), at: &at.(List.delete_at(&1, new))}}
  end

  @doc "Random elements of a type, as a binary: small numbers, limits, and for floats NaN, infinities and both zeros."
  def values(dtype, count) do
    special =
      if dtype in [:f16, :bf16, :f32, :f64],
        do: [:nan, :infinity, :neg_infinity, 0.0, -0.0],
        else: limits(dtype)

    numbers =
      for _ <- 1..count//1 do
        if :rand.uniform(5) == 1, do: Enum.random(special), else: small(dtype)
      end

    numbers |> Enum.map(&Conversion.bits(&1, dtype)) |> Conversion.binary(dtype)
  end

  defp small(dtype) when dtype in [:f16, :bf16, :f32, :f64], do: Enum.random(-8..8) / 2
  defp small(dtype) when dtype in [:u8, :u16, :u32, :u64], do: Enum.random(0..9)
  defp small(_signed), do: Enum.random(-9..9)

  defp limits(dtype) do
    bits = 8 * ExCubecl.DType.size!(dtype)

    if dtype in [:u8, :u16, :u32, :u64],
      do: [0, Integer.pow(2, bits) - 1],
      else: [-Integer.pow(2, bits - 1), Integer.pow(2, bits - 1) - 1]
  end
end
