defmodule ExCubecl.Ops.ConvolutionTest do
  # Convolutions of random shapes and options, compared with plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1, position: 2, values: 2]
  import ExCubecl.WindowReference

  alias ExCubecl.{Ops, View}

  @floats [:f16, :bf16, :f32, :f64]

  setup do
    :rand.seed(:exsss, {4, 16, 2026})
    :ok
  end

  # -0.0 and 0.0 match each other in Elixir 1.14, so floats are compared by their bits.
  defp bits(list), do: Enum.map(list, &if(is_float(&1), do: <<&1::float>>, else: &1))
  defp flat(buffer), do: buffer |> Buffer.to_flat_list!() |> bits()

  # A random case in canonical order.
  defp sample do
    axes =
      for _ <- 1..Enum.random([1, 1, 2, 2, 3]),
          do: hd(axes([Enum.random(1..4)])) |> Map.put(:spread, Enum.random([1, 1, 2]))

    {feature, parts} = Enum.random([{1, 1}, {1, 1}, {2, 1}, {1, 2}, {3, 1}])
    depth = Enum.random([0, 1, 2, 2])
    own = Enum.random([1, 2])

    %{
      axes: axes,
      groups: {feature, parts},
      input: [parts * Enum.random([0, 1, 2]), feature * depth | Enum.map(axes, & &1.n)],
      kernel: [own * feature * parts, depth | Enum.map(axes, & &1.window)]
    }
  end

  # The elements of the result in canonical order, summed up one after the other in the type `as`.
  defp convolved(sample, x, k, as) do
    {feature, parts} = sample.groups
    [batch, _ | _] = sample.input
    [filters, depth | _] = sample.kernel
    along = Enum.map(sample.axes, &along/1)
    counts = Enum.map(along, &length/1)
    [x, k] = Enum.map([x, k], &List.to_tuple/1)
    shape = [div(batch, parts), filters | counts]

    elements =
      for [b, f | at] <- coordinates(shape) do
        group = div(f, div(filters, feature * parts))
        b = if parts > 1, do: group * div(batch, parts) + b, else: b
        first = if feature > 1, do: group * depth, else: 0
        windows = Enum.zip_with(along, at, &Enum.at/2)

        for c <- 0..(depth - 1)//1,
            w <- coordinates(Enum.map(sample.axes, & &1.window)),
            reduce: zero(as) do
          sum ->
            inside = Enum.zip_with(windows, w, &Enum.at/2)

            element =
              if nil in inside,
                do: zero(as),
                else: elem(x, position([b, first + c | inside], sample.input))

            other = elem(k, position([f, c | w], sample.kernel))
            calculate(:add, calculate(:multiply, element, other, as), sum, as)
        end
      end

    {shape, elements}
  end

  defp zero(as), do: if(as in @floats, do: 0.0, else: 0)

  # An operand whose axes are in another order, with the permutation that restores it.
  defp shuffled(buffer) do
    rank = length(buffer.shape)
    order = Enum.shuffle(0..(rank - 1))
    back = for axis <- 0..(rank - 1), do: Enum.find_index(order, &(&1 == axis))
    view = View.transpose!(buffer, axes: order)
    copy? = buffer.dtype in Device.info!(nil).dtypes and :rand.uniform(2) == 1
    {if(copy?, do: View.to_buffer!(view), else: view), back}
  end

  defp restored(list, permutation), do: Enum.map(permutation, &Enum.at(list, &1))

  defp types(same, same) when same in @floats,
    do: if(same in [:f16, :bf16], do: {:f32, same}, else: {same, same})

  defp types(:f16, :f32), do: {:f32, :f32}
  defp types(:u8, :f32), do: {:f32, :f32}
  defp types(:s32, :f32), do: {:f64, :f32}
  defp types(:u8, :u16), do: {:u64, :f32}
  defp types(_, _), do: {:s64, :f32}

  test "convolutions of random shapes, types and options" do
    pairs =
      for(type <- ExCubecl.DType.all(), type not in [:u8, :u16, :u32, :u64], do: {type, type}) ++
        [{:f16, :f32}, {:u8, :f32}, {:s32, :f32}, {:u8, :u16}, {:u8, :s8}]

    for _ <- 1..12, {one, other} <- pairs do
      %{axes: axes, groups: {feature, parts}} = sample = sample()
      x = ExCubecl.buffer!(values(one, Enum.product(sample.input)), sample.input, one)
      k = ExCubecl.buffer!(values(other, Enum.product(sample.kernel)), sample.kernel, other)
      {as, dtype} = types(one, other)
      {input, input_permutation} = shuffled(x)
      {kernel, kernel_permutation} = shuffled(k)
      output_permutation = Enum.shuffle(input_permutation)

      found =
        Ops.conv(input, kernel,
          strides: Enum.map(axes, & &1.stride),
          padding: Enum.map(axes, & &1.padding),
          input_dilation: Enum.map(axes, & &1.spread),
          kernel_dilation: Enum.map(axes, & &1.dilation),
          feature_group_size: feature,
          batch_group_size: parts,
          input_permutation: input_permutation,
          kernel_permutation: kernel_permutation,
          output_permutation: output_permutation
        )

      if Enum.any?(axes, &(along(&1) == :error)) do
        refused(found, :invalid_argument, says: "conv: invalid kernel")
      else
        elements = [x, k] |> Enum.map(&Buffer.to_flat_list!/1)
        {shape, expected} = apply(&convolved(sample, &1, &2, as), elements)
        assert {:ok, result} = found
        assert {result.dtype, restored(result.shape, output_permutation)} == {dtype, shape}
        tuple = result |> ExCubecl.to_flat_list!() |> bits() |> List.to_tuple()

        back =
          for axis <- 0..(length(shape) - 1),
              do: Enum.find_index(output_permutation, &(&1 == axis))

        list =
          for at <- coordinates(shape),
              do: elem(tuple, position(restored(at, back), result.shape))

        assert {sample, one, other, list} ==
                 {sample, one, other, bits(Enum.map(expected, &kept(&1, dtype)))}
      end
    end
  end

  test "padding of the same length, and options for all axes" do
    x = Buffer.reshape!(Buffer.iota!([50], :f32), [1, 2, 5, 5])
    k = Buffer.full!([3, 2, 3, 3], :f32, 1)
    assert Ops.conv!(x, k, padding: :same).shape == [1, 3, 5, 5]
    assert Ops.conv!(x, k, padding: :same, strides: 2).shape == [1, 3, 3, 3]
    assert Ops.conv!(x, k, kernel_dilation: 2).shape == [1, 3, 1, 1]
    assert Ops.conv!(x, k, input_dilation: 3).shape == [1, 3, 11, 11]
    assert flat(Ops.conv!(x, k, kernel_dilation: 2)) == bits(List.duplicate(9 * 49.0, 3))
    same = Ops.conv!(x, k, input_permutation: [0, 1, 2, 3], output_permutation: [3, 2, 1, 0])
    assert same.shape == [3, 3, 3, 1]
  end

  # Small integers, whose sums are exact in every type of floats but :bf16.
  defp integers(shape, type),
    do:
      Buffer.iota!(shape, :s32)
      |> Ops.multiply!(7)
      |> Ops.remainder!(5)
      |> Ops.subtract!(2)
      |> Buffer.convert!(type)

  test "large convolutions, which are products of matrices, have the elements of others" do
    for {input, kernel, opts} <- [
          {[2, 16, 20, 20], [16, 16, 3, 3], [padding: :same]},
          {[3, 9, 300], [8, 9, 9], [strides: 1, padding: [{7, 2}], kernel_dilation: 2]},
          {[2, 4, 7, 9, 10], [32, 4, 2, 3, 2],
           [strides: [1, 2, 1], padding: [{1, 1}, {-1, 2}, {0, 3}], input_dilation: [1, 1, 2]]},
          {[16, 20, 2, 20], [3, 3, 16, 16],
           [
             input_permutation: [2, 0, 1, 3],
             kernel_permutation: [3, 2, 0, 1],
             output_permutation: [3, 0, 2, 1]
           ]},
          # The matrix of all windows has more than 16 MiB.
          {[11, 4, 130, 130], [8, 4, 5, 5], []}
        ] do
      [x, k] = for shape <- [input, kernel], do: integers(shape, :f32)
      exact = for buffer <- [x, k], do: Buffer.convert!(buffer, :f64)
      found = Ops.conv!(x, k, opts)
      expected = apply(Ops, :conv!, exact ++ [opts])
      assert {found.dtype, found.shape} == {:f32, expected.shape}
      assert {input, Ops.all!(Ops.equal!(found, expected)) |> Buffer.item!()} == {input, 1}
    end

    # Output channels last, as Axon has them, with the kernel as its gradient has it, or a part of another.
    last = [
      input_permutation: [0, 3, 1, 2],
      kernel_permutation: [3, 2, 0, 1],
      output_permutation: [0, 3, 1, 2]
    ]

    for opts <- [last, last ++ [padding: :same, strides: [1, 2]]],
        change <- [
          & &1,
          &View.reverse!(&1, axes: [0, 1]),
          &View.slice!(&1, [0, 0, 0, 1], [3, 4, 8, 8])
        ] do
      [x, k] = for shape <- [[2, 40, 30, 8], [3, 4, 8, 16]], do: integers(shape, :f32)
      [exact_x, exact_k] = for buffer <- [x, k], do: Buffer.convert!(buffer, :f64)
      found = Ops.conv!(x, change.(k), opts)
      expected = Ops.conv!(exact_x, change.(exact_k), opts)
      assert {found.dtype, found.shape} == {:f32, expected.shape}
      assert Ops.all!(Ops.equal!(found, expected)) |> Buffer.item!() == 1
    end

    [x, k] = for shape <- [[2, 16, 20, 20], [16, 16, 3, 3]], do: integers(shape, :f16)
    wide = Ops.conv!(Buffer.convert!(x, :f32), Buffer.convert!(k, :f32))
    halves = Ops.conv!(View.reverse!(View.reverse!(x)), k)

    assert {halves.dtype, Buffer.read!(halves)} ==
             {:f16, Buffer.read!(Buffer.convert!(wide, :f16))}

    brain = Ops.conv!(Buffer.convert!(x, :bf16), k |> Buffer.convert!(:bf16))
    assert Buffer.read!(brain) == Buffer.read!(Buffer.convert!(wide, :bf16))
  end

  test "wrong shapes, groups and options are refused" do
    x = Buffer.full!([4, 4, 5, 5], :f32, 1)
    k = Buffer.full!([6, 4, 3, 3], :f32, 1)
    wrong = &refused(Ops.conv(x, &1, &2), &3, says: ["conv: " | List.wrap(&4)])
    narrow = Buffer.full!([6, 3, 3, 3], :f32, 1)
    wrong.(narrow, [], :shape_mismatch, ["[4, 4, 5, 5] has 4 channels", "[6, 3, 3, 3] takes 3"])
    wrong.(k, [feature_group_size: 2], :shape_mismatch, "takes 4 in each of 2 feature groups")
    wrong.(Buffer.full!([6, 4, 3], :f32, 1), [], :shape_mismatch, "as many axes")
    row = Buffer.full!([2, 2], :f32, 1)
    refused(Ops.conv(row, row), :invalid_argument, says: "conv: invalid shape [2, 2]")
    large = Buffer.full!([6, 4, 6, 3], :f32, 1)
    wrong.(large, [], :invalid_argument, ["invalid kernel [6, 3]", "6 along axis 0, which has 5"])
    wrong.(Buffer.full!([6, 4, 0, 3], :f32, 1), [], :invalid_argument, "invalid kernel [0, 3]")
    wrong.(k, [kernel_dilation: 3], :invalid_argument, "invalid kernel [3, 3]")
    wrong.(k, [feature_group_size: 4], :invalid_argument, "invalid feature_group_size 4")
    wrong.(k, [batch_group_size: 4], :invalid_argument, "invalid batch_group_size 4")
    wrong.(k, [batch_group_size: 3], :invalid_argument, "the batch of 4")
    both = [feature_group_size: 2, batch_group_size: 2]
    wrong.(k, both, :invalid_argument, "invalid batch_group_size 2: expected 1")

    for option <- [:feature_group_size, :batch_group_size],
        value <- [0, -1, 1.0, nil, [1]],
        do: wrong.(k, [{option, value}], :invalid_argument, "invalid #{option}")

    for option <- [:strides, :input_dilation, :kernel_dilation],
        value <- [0, -1, [1], [1, 0], [1, 1, 1], 1.5, nil, :one, [1 | 1]],
        do: wrong.(k, [{option, value}], :invalid_argument, "invalid #{option}")

    for option <- [:input_permutation, :kernel_permutation, :output_permutation],
        value <- [
          [0, 1, 2],
          [0, 1, 2, 2],
          [1, 2, 3, 4],
          [0, 1, 2, -1],
          [0.0, 1, 2, 3],
          1,
          [0 | 1]
        ],
        do: wrong.(k, [{option, value}], :invalid_argument, "invalid #{option}")

    for padding <- [:full, [{1, 1}], [{0, 0}, {1, 1.0}], [1, 1], nil],
        do: wrong.(k, [padding: padding], :invalid_argument, "invalid padding")

    wrong.(k, [padding: [{-5, -1}, {0, 0}]], :invalid_argument, "invalid kernel")
    refused(Ops.conv(x, k, stride: 1), :invalid_argument)
    refused(Ops.conv(x, :k), :invalid_argument)
    refused(Ops.conv(1, k), :invalid_argument)
  end
end
