defmodule ExCubecl.HiddenTypesTest do
  # Devices that lack types: lavapipe has them all but bf16, and claims not to, in a VM of its own.
  use ExCubecl.Case, async: false

  @moduletag timeout: 300_000

  # Runs a script that prints a term, on a device without these types.
  defp without(types, script) do
    env = [{"EX_CUBECL_TEST_HIDDEN_DTYPES", Enum.join(types, ",")}]

    script = """
    alias ExCubecl.{Buffer, Device, Ops}
    IO.inspect({:result, (fn -> #{script} end).()}, limit: :infinity, charlists: :as_lists, width: 10_000)
    """

    {out, errors, status} = in_own_vm(script, env)
    assert {status, errors} == {0, ""}
    [line] = Regex.run(~r/{:result, .*}/, out)
    {{:result, result}, _} = Code.eval_string(line)
    result
  end

  @narrow [:s8, :u8, :s16, :u16]
  @wide [:s64, :u64, :f64]

  test "the device does not name a hidden type" do
    {:ok, %{dtypes: all}} = Device.info(Device.default!())
    dtypes = without([:f64, :u8], "Device.info!(Device.default!()).dtypes")
    assert Enum.sort(dtypes) == Enum.sort(all -- [:f64, :u8])
  end

  test "every type is stored, converted, viewed and moved" do
    types = @narrow ++ @wide ++ [:f16]

    results =
      without(types, """
      for dtype <- #{inspect(types)} do
        x = ExCubecl.buffer!([[1, 2, 3], [4, 5, 6]], [2, 3], dtype)
        list = &Enum.map(ExCubecl.to_flat_list!(&1), fn n -> trunc(n) end)

        moved = [
          Ops.transpose!(x),
          Ops.reverse!(x, axis: 1),
          Ops.slice!(x, [0, 1], [2, 2]),
          Ops.concatenate!([x, x], axis: 1),
          Ops.broadcast_to!(x, [2, 2, 3])
        ]

        kept = [Buffer.convert!(x, :f32), Buffer.view!(x, 3, [3]), Buffer.duplicate!(x)]
        {Enum.map(kept, list), Enum.map(moved, list)}
      end
      """)

    moved = [
      [1, 4, 2, 5, 3, 6],
      [3, 2, 1, 6, 5, 4],
      [2, 3, 5, 6],
      [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6],
      [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]
    ]

    all = [1, 2, 3, 4, 5, 6]
    for result <- results, do: assert(result == {[all, [4, 5, 6], all], moved})
  end

  test "element-wise operations of narrow types calculate with wider ones" do
    types = @narrow ++ [:f16]

    assert without(types, """
           for dtype <- #{inspect(types)} do
             x = ExCubecl.buffer!([1, 2, 100], [3], dtype)
             into = ExCubecl.buffer!([0, 0, 0], [3], dtype)
             :ok = Ops.multiply(x, x, into: into)
             sum = Ops.add!(x, x)
             less = Ops.less!(x, 2)
             list = &Enum.map(ExCubecl.to_list!(&1), fn n -> trunc(n) end)
             {ExCubecl.dtype!(sum), list.(sum), list.(into), list.(less), ExCubecl.dtype!(less)}
           end
           """) == [
             {"s8", [2, 4, -56], [1, 4, 16], [1, 0, 0], "u8"},
             {"u8", [2, 4, 200], [1, 4, 16], [1, 0, 0], "u8"},
             {"s16", [2, 4, 200], [1, 4, 10_000], [1, 0, 0], "u8"},
             {"u16", [2, 4, 200], [1, 4, 10_000], [1, 0, 0], "u8"},
             {"f16", [2, 4, 200], [1, 4, 10_000], [1, 0, 0], "u8"}
           ]
  end

  test "what cannot be calculated names the operation, the type and the device" do
    messages =
      without([:f64, :s64], """
      for dtype <- [:f64, :s64] do
        x = ExCubecl.buffer!([1, 2], [2], dtype)
        {:error, %{reason: reason} = error} = Ops.add(x, 1)
        {reason, Exception.message(error)}
      end
      """)

    {runtime, index} = Device.default!()

    for {{reason, message}, dtype} <- Enum.zip(messages, ["f64", "s64"]) do
      assert reason == :unsupported_dtype
      for part <- ["add", dtype, "#{runtime}:#{index}"], do: assert(message =~ part)
    end
  end

  test "sums use the widest type that there is" do
    assert without([:s64, :u64], """
           for dtype <- [:s32, :u32, :f32] do
             sum = Ops.sum!(ExCubecl.buffer!([1, 2, 3], [3], dtype))
             {ExCubecl.dtype!(sum), trunc(ExCubecl.item!(sum))}
           end
           """) == [{"s32", 6}, {"u32", 6}, {"f32", 6}]
  end
end
