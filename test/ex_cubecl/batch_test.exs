defmodule ExCubecl.BatchTest do
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.{Batch, Kernel}

  require Kernel

  @next Kernel.kernel(fn x, out -> out[index()] = x[index()] + 1 end)
  @scaled Kernel.kernel(fn a, x -> a * x end)

  defp s32(list), do: ExCubecl.buffer!(list, [length(list)], :s32)

  test "steps run in order, each on the results of the previous ones" do
    [a, b] = [s32([0, 0]), Buffer.empty!([2], :s32)]

    batch =
      Enum.reduce(1..50, Batch.new(), fn _, batch ->
        batch |> Batch.run(@next, [:a, :b]) |> Batch.run(@next, [:b, :a])
      end)

    assert Batch.submit(batch, a: a, b: b) == :ok
    assert {ExCubecl.to_list!(a), ExCubecl.to_list!(b)} == {[100, 100], [99, 99]}
    # The same batch with other buffers.
    assert Batch.submit(batch, a: s32([5]), b: c = s32([0])) == :ok
    assert ExCubecl.to_list!(c) == [104]
  end

  test "copies, fills and element-wise kernels" do
    [x, y] = [s32([1, 2, 3]), s32([0, 0, 0])]
    z = Buffer.empty!([3], :s32)

    batch =
      Batch.new()
      |> Batch.copy(x, y)
      |> Batch.fill(:x, :value)
      |> Batch.run(@scaled, [10, y], into: :z)

    assert Batch.submit(batch, x: x, value: 7, z: z) == :ok
    assert Enum.map([x, y, z], &ExCubecl.to_list!/1) == [[7, 7, 7], [1, 2, 3], [10, 20, 30]]
    assert Batch.submit(Batch.new()) == :ok
  end

  test "if a step cannot run, no step runs" do
    x = s32([1, 2])
    batch = Batch.new() |> Batch.fill(x, 9)
    lazy = Buffer.empty!([2], :s32)

    for {more, reason} <- [
          {&Batch.run(&1, @next, [:unknown, x]), :invalid_argument},
          {&Batch.run(&1, @next, [x, x]), :overlap},
          {&Batch.run(&1, @next, [x]), :invalid_argument},
          {&Batch.run(&1, :kernel, [x]), :invalid_argument},
          {&Batch.run(&1, @next, :x), :invalid_argument},
          {&Batch.run(&1, @scaled, [1, x]), :invalid_argument},
          {&Batch.run(&1, @scaled, [1, x], into: s32([1])), :shape_mismatch},
          {&Batch.run(&1, @scaled, [1, x], into: Buffer.empty!([2], :f32)), :type_mismatch},
          {&Batch.run(&1, @next, [x, lazy], into: lazy), :invalid_argument},
          {&Batch.run(&1, @next, [x, lazy], often: 1), :invalid_argument},
          {&Batch.run(&1, @next, [lazy, Buffer.empty!([2], :s32)]), :not_allocated}
        ] do
      refused(Batch.submit(more.(batch)), reason)
      assert ExCubecl.to_list!(x) == [1, 2]
    end

    refused(Batch.submit(:batch), :invalid_argument)

    for record <- [&Batch.run(&1, @next, [x, x]), &Batch.copy(&1, x, x), &Batch.fill(&1, x, 1)],
        junk <- [:batch, nil, [batch]],
        do:
          refused(Batch.submit(record.(junk)), :invalid_argument,
            says: "expected an %ExCubecl.Batch{}"
          )

    for steps <- [nil, [1 | 2], [:junk]],
        do: refused(Batch.submit(%{batch | steps: steps}), :invalid_argument)

    refused(Batch.submit(batch, :names), :invalid_argument)
    refused(Kernel.run(@next, [x, lazy], into: lazy), :invalid_argument)
    refused(Kernel.run(@scaled, [1, x], into: x), :overlap)
    assert Kernel.run(@scaled, [3, x], into: lazy) == :ok
    assert ExCubecl.to_list!(lazy) == [3, 6]
  end
end
