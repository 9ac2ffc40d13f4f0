defmodule ExCubecl.ViewTest do
  # Views through the public functions, compared with the elements at the same coordinates of a list.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [view: 1, view: 2]

  alias ExCubecl.{Kernel, Ops, View}

  require Kernel

  setup do
    :rand.seed(:exsss, {16, 1, 2026})
    :ok
  end

  defp elements(view), do: ExCubecl.to_flat_list!(view)
  defp ints(shape), do: Buffer.iota!(shape, :s32)

  test "each function agrees with the operation that copies" do
    x = ints([2, 3, 4])

    for {view, copy} <- [
          {View.transpose!(x), Ops.transpose!(x)},
          {View.transpose!(x, axes: [1, 0, 2]), Ops.transpose!(x, axes: [1, 0, 2])},
          {View.reverse!(x, axis: -1), Ops.reverse!(x, axis: 2)},
          {View.slice!(x, [1, 0, 1], [1, 3, 3], strides: [1, 2, 2]),
           Ops.slice!(x, [1, 0, 1], [1, 3, 3], strides: [1, 2, 2])},
          {View.broadcast!(View.slice!(x, [0, 0, 0], [2, 1, 4]), [5, 2, 3, 4]),
           Ops.broadcast_to!(Ops.slice!(x, [0, 0, 0], [2, 1, 4]), [5, 2, 3, 4])},
          {View.reshape!(x, {6, 4}), Buffer.reshape!(x, [6, 4])}
        ] do
      assert View.shape!(view) == copy.shape
      assert elements(view) == elements(copy)
      assert ExCubecl.shape!(view) == copy.shape
      assert {ExCubecl.dtype!(view), ExCubecl.size!(view)} == {"s32", ExCubecl.size!(copy)}
      assert ExCubecl.read!(view) == ExCubecl.read!(copy)
      assert ExCubecl.to_list!(view) == ExCubecl.to_list!(copy)
    end

    assert ExCubecl.item!(View.slice!(x, [1, 2, 3], [1, 1, 1])) == 23
  end

  test "a view costs no memory, and later writes are visible" do
    x = ints([100, 100])
    before = settled()
    view = x |> View.transpose!() |> View.reverse!() |> View.broadcast!([1000, 100, 100])
    assert live() == before
    Buffer.fill!(x, 7)
    assert ExCubecl.item!(View.slice!(view, [9, 9, 9], [1, 1, 1])) == 7
    refute View.contiguous?(view)
    assert View.contiguous?(View.slice!(x, [3, 0], [5, 100]))
  end

  test "axes of length 1, and shapes" do
    x = ints([1, 3, 1, 2])
    assert View.squeeze!(x).shape == [3, 2]
    assert View.squeeze!(x, axes: [-2]).shape == [1, 3, 2]
    assert View.squeeze!(x, axes: []).shape == [1, 3, 1, 2]
    assert View.new_axis!(x, 4).shape == [1, 3, 1, 2, 1]
    refused(View.squeeze(x, axis: 1), :invalid_argument, says: "squeeze: invalid axis 1")
    refused(View.new_axis(x, 5), :invalid_argument, says: "new_axis: invalid axis 5")
    wide = ints(List.duplicate(1, 64))
    refused(View.new_axis(wide, 0), :invalid_shape)
    assert View.squeeze!(wide).shape == []
  end

  test "every operation takes a view" do
    for _ <- 1..20 do
      {view, [m, n], _} = view(:s32, [Enum.random(1..4), Enum.random(1..4)]) |> matrix()
      copy = View.to_buffer!(view)
      first = ExCubecl.buffer!([0], [1], :s32)

      for run <- [
            &Ops.add!(&1, &1),
            &Ops.negate!/1,
            &Ops.select!(&1, &1, 3),
            &Ops.clip!(&1, 0, 3),
            &Ops.count_leading_zeros!/1,
            &Ops.integer_pow!(&1, 2),
            &Ops.sum!(&1, axis: 0),
            &Ops.all!/1,
            &Ops.mean!/1,
            &Ops.variance!(&1, axis: 1),
            &Ops.argmax!(&1, axis: 1),
            &Ops.cumulative_sum!(&1, axis: 0),
            &Ops.cumulative_max!(&1, axis: 1, reverse: true),
            &Ops.transpose!/1,
            &Ops.reverse!/1,
            &Ops.slice!(&1, [0, 0], [1, 1]),
            &Ops.put_slice!(&1, [0, 0], &1),
            &Ops.pad!(&1, 7, [{1, 0, 1}, {0, 2, 0}]),
            &Ops.tile!(&1, [2, 2]),
            &Ops.broadcast_to!(&1, [2, m, n]),
            &Ops.concatenate!([&1, &1], axis: 1),
            &Ops.stack!([&1, &1], axis: 2),
            &hd(Ops.split!(&1, [m])),
            &Ops.gather!(&1, first),
            &Ops.take!(&1, first, axis: 1),
            &Ops.take_along_axis!(&1, View.broadcast!(View.new_axis!(first, 0), [1, n])),
            &Ops.matmul!(&1, View.transpose!(&1))
          ] do
        result = run.(view)
        expected = run.(copy)
        assert {run, result.shape} == {run, expected.shape}
        assert {run, elements(result)} == {run, elements(expected)}
      end
    end
  end

  # Random views may have more axes, or none.
  defp matrix({view, shape, elements}) do
    if length(shape) == 2 and 0 not in shape,
      do: {view, shape, elements},
      else: matrix(view(:s32, [Enum.random(1..4), Enum.random(1..4)]))
  end

  test "random views are copied, and reshaped if strides can express it" do
    for _ <- 1..60 do
      {view, shape, _} = view(:s32)
      assert elements(View.to_buffer!(view)) == elements(Ops.add!(view, 0))
      count = Enum.product(shape)

      case View.reshape(view, [count]) do
        {:ok, flat} ->
          assert elements(flat) == elements(view)

        {:error, error} ->
          assert {error.reason, View.contiguous?(view)} == {:invalid_argument, false}
      end

      refused(View.reshape(view, [count + 1]), :shape_mismatch)
    end
  end

  test "bad arguments" do
    x = ints([2, 3])
    refused(View.of(1), :invalid_argument)

    refused(View.broadcast(x, [3, 3]), :shape_mismatch,
      says: "broadcast: shape [2, 3] does not broadcast to [3, 3]"
    )

    refused(View.broadcast(x, [3]), :shape_mismatch, says: "broadcast")
    refused(View.broadcast(x, [-1, 3]), :invalid_shape)
    refused(View.transpose(x, axes: [0, 0]), :invalid_argument, says: "transpose: invalid axes")
    refused(View.transpose(x, axes: [0 | 1]), :invalid_argument, says: "transpose: invalid axes")
    refused(View.transpose(x, axis: 1), :invalid_argument)
    refused(View.slice(x, [0, 2], [1, 2]), :out_of_bounds, says: "slice: a range of 2 from 2 on")
    refused(View.slice(x, [0, 0], [1, 2], strides: [1, 0]), :invalid_argument, says: "slice")
    refused(View.reverse(x, axis: 2), :invalid_argument, says: "reverse: invalid axis 2")
    refused(View.reshape(x, [7]), :shape_mismatch)
    assert_raise Error, fn -> View.contiguous?(nil) end
    view = View.transpose!(x)
    refused(Buffer.read(view), :invalid_argument)
    refused(Kernel.run(Kernel.kernel(fn x -> x end), [view]), :invalid_argument)
    refused(Ops.add(x, view, into: x), :shape_mismatch, says: "add")
    refused(Ops.add(x, x, into: view), :invalid_argument)
    lazy = View.transpose!(Buffer.empty!([2, 3], :s32))
    refused(View.to_buffer(lazy), :not_allocated)
  end

  test "a struct that was built by hand is refused" do
    view = View.transpose!(ints([2, 3]))

    for change <- [
          %{offset: 1},
          %{offset: -1},
          %{offset: nil},
          %{shape: [4, 2]},
          %{shape: [3 | 2]},
          %{shape: [3, -2]},
          %{strides: [1]},
          %{strides: [1 | 3]},
          %{strides: [2, 3]},
          %{strides: :none},
          %{dtype: :f32},
          %{device: {:vulkan, 77}},
          %{buffer: nil}
        ],
        call <- [
          &View.to_buffer/1,
          &Ops.sum/1,
          &Ops.add(&1, 1),
          &ExCubecl.read/1,
          &Ops.matmul(&1, &1)
        ] do
      assert {:error, %Error{reason: :invalid_argument}} = call.(Map.merge(view, change))
      assert inspect(Map.merge(view, change)) =~ "ExCubecl.View"
    end

    for change <- [%{dtype: [1]}, %{offset: [1]}, %{shape: [[1], [2]]}],
        do: assert(String.printable?(inspect(Map.merge(view, change))))
  end

  test "inspect prints type, shape and strides" do
    assert inspect(View.transpose!(ints([100, 101]))) =~
             ~r/\A#ExCubecl.View<s32\[101\]\[100\] \w+:\d+ offset 0, strides \[1, 101\]>\z/
  end
end
