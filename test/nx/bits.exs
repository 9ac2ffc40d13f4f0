defmodule ExCubecl.NxBitsTest do
  use ExUnit.Case, async: false

  alias ExCubecl.{Backend, Buffer}

  test "bitcast is a view on the device" do
    Nx.default_backend({Backend, host_limit: 0})
    x = Nx.tensor([[1.0, -0.0], [2.5, -3.0]], type: :f32)
    before = Backend.fallbacks()
    bits = Nx.bitcast(x, :u32)
    assert Backend.fallbacks() == before
    assert Nx.to_flat_list(bits) == [0x3F800000, 0x80000000, 0x40200000, 0xC0400000]
    assert Buffer.same_storage?(bits.data.state.buffer, x.data.state.buffer)
    assert Nx.to_binary(Nx.bitcast(bits, :f32)) == Nx.to_binary(x)
    constant = Nx.broadcast(Nx.tensor(1.0, type: :f64), {3})

    assert Nx.to_flat_list(Nx.bitcast(constant, :s64)) ==
             [1, 1, 1] |> Enum.map(&(&1 * 0x3FF0000000000000))
  end
end
