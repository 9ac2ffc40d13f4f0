defmodule ExCubecl.CompatTest do
  # The calls of the Hex package of this name.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.Compat

  defp f32(list), do: ExCubecl.buffer!(list, [length(list)], :f32)

  test "the named kernels of the Hex package, on the device" do
    [a, b, out] = [f32([1.0, -2.0, 3.0]), f32([4.0, 5.0, 6.0]), f32([0.0, 0.0, 0.0])]

    for {name, inputs, expected} <- [
          {"elementwise_add", [a, b], [5.0, 3.0, 9.0]},
          {"elementwise_sub", [a, b], [-3.0, -7.0, -3.0]},
          {"elementwise_mul", [a, b], [4.0, -10.0, 18.0]},
          {"elementwise_div", [a, b], [0.25, -0.4, 0.5]},
          {"relu", [a], [1.0, 0.0, 3.0]},
          {"sigmoid", [a], [0.731, 0.119, 0.953]},
          {"tanh", [a], [0.762, -0.964, 0.995]}
        ] do
      assert {:ok, id} = ExCubecl.run_kernel(name, inputs, out)
      assert is_integer(id)
      seen = Enum.map(ExCubecl.to_list!(out), &Float.round(&1, 3))
      assert {name, seen} == {name, Enum.map(expected, &Float.round(&1, 3))}
    end

    {:ok, names} = ExCubecl.kernels()
    assert length(names) == 7

    refused(ExCubecl.run_kernel("matmul", [a, b], out), :invalid_argument, says: "elementwise_add")

    refused(ExCubecl.run_kernel("relu", [a, b], out), :invalid_argument)
    refused(ExCubecl.run_kernel("relu", a, out), :invalid_argument)
    refused(ExCubecl.run_kernel("relu", [a], out, %{alpha: 1}), :invalid_argument)
    refused(ExCubecl.run_kernel("relu", [a], :out), :invalid_argument)
    refused(ExCubecl.run_kernel("relu", [a], a), :overlap)
    refused(ExCubecl.run_kernel("relu", [a], f32([1.0])), :shape_mismatch)
  end

  test "ExCubecl has the same calls" do
    assert Compat.kernels() == ExCubecl.kernels()
    assert Compat.device_count!() == ExCubecl.device_count!()
    assert Compat.device_info!() == ExCubecl.device_info!()
    assert Compat.memory_info!().total == ExCubecl.memory_info!().total
    out = f32([0.0])
    assert is_integer(Compat.run_kernel!("relu", [f32([1.5])], out))
    assert ExCubecl.to_list!(out) == [1.5]
    assert is_integer(ExCubecl.run_kernel!("tanh", [f32([0.0])], out, %{}))
    assert ExCubecl.to_list!(out) == [0.0]
  end
end
