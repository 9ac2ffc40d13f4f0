defmodule ExCubecl.Ops.WindowScatterTest do
  # Sources that are added to selected elements of windows, compared with plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [values: 2, view: 1]
  import ExCubecl.WindowReference

  alias ExCubecl.Ops

  setup do
    :rand.seed(:exsss, {5, 16, 2026})
    :ok
  end

  # -0.0 and 0.0 match each other in Elixir 1.14, so floats are compared by their bits.
  defp bits(list), do: Enum.map(list, &if(is_float(&1), do: <<&1::float>>, else: &1))

  # The number of the selected element: NaN compares with nothing.
  defp selected([first | _] = window, name) do
    {place, _} =
      window
      |> Enum.with_index()
      |> Enum.reduce({0, first}, fn {x, at}, {place, best} ->
        if :nan not in [x, best] and preferred?(name, order(x), order(best)),
          do: {at, x},
          else: {place, best}
      end)

    place
  end

  defp preferred?(:window_scatter_max, x, best), do: x >= best
  defp preferred?(:window_scatter_min, x, best), do: x <= best

  defp scattered(name, elements, axes, source, initial, as) do
    positions = Enum.to_list(0..(length(elements) - 1)//1)
    {_, windows} = windows(elements, axes, initial)
    {_, places} = windows(positions, axes, nil)

    sums =
      [windows, places, source]
      |> Enum.zip()
      |> Enum.reduce(%{}, fn {window, places, x}, sums ->
        at = Enum.at(places, selected(window, name))
        Map.put(sums, at, calculate(:add, x, Map.get(sums, at, initial), as))
      end)

    for at <- positions, do: Map.get(sums, at, initial)
  end

  test "random windows, types and sources, with NaN, infinities and ties" do
    for _ <- 1..12, dtype <- ExCubecl.DType.all() do
      {view, shape, elements} = view(dtype)
      axes = for axis <- axes(shape), do: %{axis | dilation: 1}
      name = Enum.random([:window_scatter_max, :window_scatter_min])
      first = Enum.random(0..3)
      initial = if dtype in [:f16, :bf16, :f32, :f64], do: first / 1, else: first
      window = Enum.map(axes, & &1.window)
      opts = [strides: Enum.map(axes, & &1.stride), padding: Enum.map(axes, & &1.padding)]

      case windows(elements, axes, initial) do
        :error ->
          found = apply(Ops, name, [view, view, initial, window, opts])
          refused(found, :invalid_argument, says: "#{name}: invalid window")

        {counts, _} ->
          source = ExCubecl.buffer!(values(dtype, Enum.product(counts)), counts, dtype)
          given = Enum.random([first, Buffer.full!([1], dtype, first)])
          assert {:ok, result} = apply(Ops, name, [view, source, given, window, opts])
          as = if dtype in [:f16, :bf16], do: :f32, else: dtype
          numbers = Buffer.to_flat_list!(source)
          expected = scattered(name, elements, axes, numbers, initial, as)
          assert {result.dtype, result.shape} == {dtype, shape}
          found = bits(Buffer.to_flat_list!(result))

          assert {name, view, axes, found} ==
                   {name, view, axes, bits(Enum.map(expected, &kept(&1, dtype)))}
      end
    end
  end

  test "the last of equal elements, padding, overlapping windows" do
    x = ExCubecl.buffer!([1, 1, 1, 1], [4], :f32)
    source = ExCubecl.buffer!([1, 2, 4], [3], :s32)
    sums = &Buffer.to_list!(Ops.window_scatter_max!(x, &1, &2, [2], &3))
    assert sums.(source, 0, []) == [0, 1, 2, 4]
    assert sums.(source, 0.5, []) == [0.5, 1.5, 2.5, 4.5]
    assert sums.(source, 7, strides: 2, padding: [{1, 1}]) == [7, 7, 9, 7]
    best = ExCubecl.buffer!([0, 5, 0, 0], [4], :u8)
    assert Buffer.to_list!(Ops.window_scatter_max!(best, source, 0, {2})) == [0, 3, 0, 4]
    rows = Buffer.iota!([40, 40], :s32)
    all = Buffer.full!([1, 1], :s32, 3)
    assert Buffer.item!(Ops.sum!(Ops.window_scatter_max!(rows, all, 0, [40, 40]))) == 3
  end

  test "wrong sources, windows and options are refused" do
    x = Buffer.iota!([4, 5], :f32)
    source = Buffer.iota!([3, 4], :f32)

    wrong =
      &refused(Ops.window_scatter_min(x, &1, &2, &3, &4), :invalid_argument,
        says: ["window_scatter_min: " | &5]
      )

    wrong.(x, 0, [2, 2], [], ["invalid source [4, 5]", "[3, 4]"])
    wrong.(Buffer.iota!([12], :f32), 0, [2, 2], [], ["invalid source [12]", "[3, 4]"])
    wrong.(source, 0, [2, 2], [strides: 0], ["invalid strides 0"])
    wrong.(source, 0, [5, 2], [], ["invalid window [5, 2]"])
    wrong.(source, 0, [2], [], ["invalid window [2]"])
    wrong.(source, 0, [2, 2], [padding: 1], ["invalid padding 1"])
    wrong.(source, :zero, [2, 2], [], ["invalid initial :zero"])
    wrong.(source, source, [2, 2], [], ["invalid initial"])
    refused(Ops.window_scatter_max(x, source, 0, [2, 2], window_dilations: 2), :invalid_argument)
    refused(Ops.window_scatter_max(x, 1, 0, [2, 2]), :invalid_argument)
    refused(Ops.window_scatter_max(:x, source, 0, [2, 2]), :invalid_argument)
    small = Buffer.iota!([2], :u8)

    refused(Ops.window_scatter_max(small, small, 256, [1]), :invalid_argument,
      says: "invalid initial 256"
    )
  end
end
