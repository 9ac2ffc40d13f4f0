defmodule ExCubecl.Junk do
  @moduledoc false
  # Invalid arguments, drawn from the process's random numbers. Integers are either small or larger than the memory
  # of any device, so that no draw is a real request for gigabytes.

  @doc "A term of any kind."
  def term(depth \\ 3)

  def term(depth) do
    kinds = ~w(integer float atom binary bitstring other device options)a
    kinds = if depth > 0, do: kinds ++ ~w(list improper tuple map shape data)a, else: kinds
    draw(Enum.random(kinds), depth)
  end

  defp draw(:integer, _) do
    power = Enum.random([31, 32, 40, 53, 62, 63, 64, 65, 70, 200])
    near = Integer.pow(2, power) + Enum.random(-1..1)
    # 2^31 and 2^32 elements are more than the devices of the tests can allocate.
    Enum.random([0, 1, 2, 3, 4, -1, -2, near, -near])
  end

  defp draw(:float, _), do: Enum.random([0.0, -0.0, 1.0, 2.5, -1.0e308, 5.0e-324, 1.0e39])

  defp draw(:atom, _) do
    Enum.random(
      ~w(nan infinity neg_infinity f32 u8 s64 f8 nil true false NaN inf vulkan ok error)a ++
        [:"", :"a b", ExCubecl, ExCubecl.Buffer]
    )
  end

  defp draw(:binary, _) do
    Enum.random([
      "",
      "x",
      "f32",
      "vulkan:0",
      "cuda:",
      <<255>>,
      <<0::96>>,
      <<1::32>>,
      :binary.copy("a", 300)
    ])
  end

  defp draw(:bitstring, _), do: Enum.random([<<1::1>>, <<1::3>>, <<0::95>>, <<"abc", 1::7>>])

  defp draw(:other, _) do
    Enum.random([
      self(),
      make_ref(),
      &is_atom/1,
      fn -> :x end,
      hd(:erlang.ports()),
      1..3,
      MapSet.new([1]),
      ~D[2020-01-01],
      %ExCubecl.Error{reason: :driver, details: %{}},
      %ArgumentError{}
    ])
  end

  defp draw(:device, depth),
    do:
      Enum.random([
        {:vulkan, Enum.random([0, 1, -1, 99])},
        {:opencl, 0},
        {term(0), term(depth - 1)}
      ])

  defp draw(:options, depth),
    do: for(_ <- 1..2, do: {Enum.random(~w(device lazy offset other)a), term(depth - 2)})

  defp draw(:list, depth), do: for(_ <- 1..Enum.random(1..4), do: term(depth - 1))

  defp draw(:improper, depth), do: [term(depth - 1), term(0) | Enum.random([1, :x, "x", {}, 2.0])]
  defp draw(:tuple, depth), do: List.to_tuple(draw(:list, depth))
  defp draw(:map, depth), do: Map.new(1..2, fn _ -> {term(0), term(depth - 1)} end)
  defp draw(:shape, _), do: for(_ <- 1..Enum.random(1..3), do: Enum.random([0, 1, 2, 3]))

  defp draw(:data, 1),
    do: for(_ <- 1..Enum.random(1..3), do: Enum.random([0, 1, 2.5, :nan, nil, -300]))

  defp draw(:data, depth), do: for(_ <- 1..Enum.random(1..3), do: draw(:data, depth - 1))
end
