defmodule ExCubecl.NxGuideTest do
  use ExUnit.Case, async: false

  alias ExCubecl.Nx.{Bits, Dot, ElementWise, FFT, Indexing, Layout, LinAlg}
  alias ExCubecl.Nx.{Order, Reduction, Scan, Types, Windows}

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
    "linear algebra" => LinAlg,
    "cumulative operations" => Scan
  }

  test "the guide lists the callbacks that run on the device" do
    guide = File.read!(@guide)

    for {group, module} <- @groups do
      [row] = Regex.run(~r/^\| #{group} \| `([^`]*)`/m, guide, capture: :all_but_first)
      names = Enum.map(module.names(), &Atom.to_string/1)
      assert {group, row |> String.split() |> Enum.sort()} == {group, Enum.sort(names)}
    end
  end

  test "the guide says how each type is stored" do
    guide = File.read!(@guide)

    rows =
      for [_, types, stored] <- Regex.scan(~r/^\| `([usfcb0-9_emn ]+)` \| ([^|]+) \|/m, guide),
          type <- String.split(types),
          into: %{},
          do: {type, stored}

    types = ExCubecl.DType.all() |> Enum.map(&Atom.to_string/1) |> Enum.sort()
    assert types == Enum.sort(for {type, "itself"} <- rows, do: type)
    assert rows["c64"] == "pairs of `f32` or `f64`"
    assert {Types.storage({:c, 64}), Types.storage({:c, 128})} == {{:f32, [2]}, {:f64, [2]}}
    assert {rows["f8"], Types.storage({:f, 8})} == {"bytes", {:u8, []}}
    assert {rows["u4"], Types.storage({:u, 4})} == {"host memory", nil}
  end

  for {section, module} <- [axon: Axon, serving: Nx.Serving, compile: Nx.Defn] do
    @tag skip:
           unless(Code.ensure_loaded?(module), do: "no compiled #{inspect(module)} is loadable")
    test "the code of the guide runs: #{section}" do
      [code, result] =
        Regex.run(~r/^```elixir #{unquote(section)}\n(.*?)\n#=> (.*?)\n```/ms, File.read!(@guide),
          capture: :all_but_first
        )

      {value, _} = Code.eval_string(code)
      assert inspect(value) == result
    end
  end
end
