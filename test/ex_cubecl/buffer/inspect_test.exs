defmodule ExCubecl.InspectTest do
  # How IEx shows buffers.
  use ExCubecl.Case, async: false

  test "type, shape, device and at most ten elements" do
    {:ok, {runtime, index}} = Device.default()

    assert inspect(ExCubecl.buffer!([1.0, :nan], [1, 2], :f32)) ==
             "#ExCubecl.Buffer<f32[1][2] #{runtime}:#{index} [1.0, :nan]>"

    assert inspect(ExCubecl.buffer!(5, [], :u8)) == "#ExCubecl.Buffer<u8 #{runtime}:#{index} [5]>"
    assert inspect(Buffer.zeros!([11], :s8)) =~ "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...]>"
    assert inspect(ExCubecl.buffer!([], [0], :f32)) =~ "f32[0]"
  end

  test "a buffer without content says so" do
    assert inspect(Buffer.empty!([3], :f32)) =~ "not allocated"
  end

  test "it never fails, whatever somebody put into the struct" do
    buffer = Buffer.zeros!([1], :u8)

    for junk <- [
          %{buffer | ref: nil},
          %{buffer | ref: make_ref()},
          %{buffer | shape: 5},
          %{buffer | device: nil},
          %{buffer | dtype: %{}},
          %{buffer | dtype: [1]},
          %{buffer | shape: [[1]]}
        ],
        text = inspect(junk),
        do: assert(text =~ "ExCubecl.Buffer" and String.printable?(text))
  end
end
