defmodule ExCubecl.Ops.EpilogueTest do
  use ExUnit.Case, async: true

  alias ExCubecl.{Buffer, Device, Kernel, View}
  alias ExCubecl.Ops.{Convolution, Dot, Epilogue, Index, Reduction, Results, Windows}

  require Kernel

  @add Kernel.kernel(fn acc, x -> acc + x end)
  @same Kernel.kernel(fn x -> x end)

  # The result plus a bias, and whether that is positive.
  defp epilogue(bias, shape, dtype) do
    sum = Index.call(:add, Results.value(:product), Results.value(:bias))

    positive =
      {:if, 0, Index.call(:gt, Index.var(:sum), Index.number(0)), Index.number(1),
       Index.number(0)}

    code =
      Results.code(
        :epilogue,
        [product: dtype, bias: :f32],
        [Index.let(:sum, {:cast, :f32, sum})],
        [{positive, :u32}, {Index.var(:sum), :f32}]
      )

    %Epilogue{code: code, operands: [:given, bias], shape: shape, opts: [device: bias.device]}
  end

  defp random(shape) do
    numbers = for _ <- 1..Enum.product(shape), do: :rand.normal()
    View.new(Buffer.new!(numbers, shape, :f32))
  end

  defp bytes(buffers),
    do: for(buffer <- buffers, do: {buffer.shape, buffer.dtype, Buffer.read!(buffer)})

  # `operation` takes the argument `into`.
  defp assert_same(shape, dtype \\ :f32, operation) do
    bias = random(Enum.take(shape, -1))
    epilogue = epilogue(bias, shape, dtype)
    assert {:ok, [_, _] = fused} = operation.(epilogue)
    assert {:ok, apart} = Epilogue.applied(operation.(nil), epilogue)
    assert bytes(fused) == bytes(apart)
  end

  test "of products in one launch, in several, of vectors, without a sum, and by the library" do
    for {rows, inner, columns} <- [
          {130, 20, 70},
          {5, 9, 6},
          {2, 5000, 3},
          {1, 600, 300},
          {1, 8, 9000},
          {7, 1, 9},
          {256, 256, 260}
        ] do
      [left, right] = [random([rows, inner]), random([inner, columns])]
      assert_same([rows, columns], &Dot.run(left, right, [], nil, &1))
      assert_same([rows, columns], &Dot.matmul(left, right, &1))
    end
  end

  test "the product is rounded to its type before" do
    [left, right] = [random([9, 40]), random([40, 5])]

    {:ok, types} = Device.dtypes(left.device)

    # A device that does not calculate with the type has no kernel of it to compare with.
    for dtype <- [:f16, :f64],
        dtype in types,
        do: assert_same([9, 5], dtype, &Dot.run(left, right, [], dtype, &1))
  end

  test "of convolutions by windows and as a product, in one launch and in several, and of windows" do
    last = [input_permutation: [0, 3, 1, 2], output_permutation: [0, 3, 1, 2]]

    for {x, k, shape, opts} <- [
          {[2, 3, 9], [4, 3, 3], [2, 4, 7], []},
          {[1, 17_000, 2], [2, 17_000, 1], [1, 2, 2], []},
          {[2, 16, 24, 24], [16, 16, 3, 3], [2, 16, 22, 22], []},
          {[2, 24, 24, 16], [16, 16, 3, 3], [2, 22, 22, 16], last}
        ] do
      [x, k] = [random(x), random(k)]
      assert_same(shape, &Convolution.run(x, k, opts, &1))
    end

    x = random([3, 8])
    assert_same([3, 6], &Windows.run(:window_max, x, [1, 3], [], &1))
  end

  test "of reductions in one launch and in several" do
    for n <- [30, 700] do
      x = random([n, 40])
      spec = %{name: :sum, first: 0, step: @add, operands: nil, as: :f32, dtype: :f32}
      assert_same([40], &Reduction.run(spec, @same, [x], [0], false, &1))
    end
  end
end
