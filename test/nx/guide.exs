defmodule ExCubecl.NxGuideTest do
  use ExUnit.Case, async: true

  alias ExCubecl.Nx.{Bits, Dot, ElementWise, FFT, Indexing, Layout, LinAlg}
  alias ExCubecl.Nx.{Order, Reduction, Windows}

  @guide Path.expand("../../guides/nx.md", __DIR__)

  @groups %{
    "element by element" => ElementWise,
    "bits" => Bits,
    "reductions" => Reduction,
    "order" => Order,
    "products" => Dot,
    "convolutions and windows" => Windows,
    "layout and types" => Layout,
    "indices" => Indexing,
    "Fourier transforms" => FFT,
    "linear algebra" => LinAlg
  }

  test "the guide lists the callbacks that run on the device" do
    guide = File.read!(@guide)

    for {group, module} <- @groups do
      [row] = Regex.run(~r/^\| #{group} \| `([^`]*)`/m, guide, capture: :all_but_first)
      names = Enum.map(module.names(), &Atom.to_string/1)
      assert {group, row |> String.split() |> Enum.sort()} == {group, Enum.sort(names)}
    end
  end
end
