defmodule ExCubecl.Ops.WindowsTest do
  # Windows, and folds with a function, on random shapes, compared with plain Elixir.
  use ExCubecl.Case, async: true

  import ExCubecl.Refusal
  import ExCubecl.Strided, only: [coordinates: 1, shape: 0, values: 2, view: 1]
  import ExCubecl.WindowReference

  alias ExCubecl.{Kernel, Ops, View}

  require Kernel

  @types ExCubecl.DType.all()

  setup do
    :rand.seed(:exsss, {3, 16, 2026})
    :ok
  end

  # -0.0 and 0.0 match each other in Elixir 1.14, so floats are compared by their bits.
  defp bits(list), do: Enum.map(list, &if(is_float(&1), do: <<&1::float>>, else: &1))
  defp flat(buffer), do: buffer |> Buffer.to_flat_list!() |> bits()

  defp options(axes) do
    [
      strides: Enum.map(axes, & &1.stride),
      window_dilations: Enum.map(axes, & &1.dilation),
      padding: Enum.map(axes, & &1.padding)
    ]
  end

  defp lengths(axes), do: Enum.map(axes, & &1.window)

  # A random buffer or view, with its elements.
  defp random(dtype) do
    {view, shape, elements} = view(dtype)
    # A device can copy strided elements of the types only with which it calculates.
    buffer? = dtype in Device.info!(nil).dtypes and :rand.uniform(2) == 1
    {if(buffer?, do: View.to_buffer!(view), else: view), elements, axes(shape)}
  end

  defp limit(:min, dtype) when dtype in [:f16, :bf16, :f32, :f64], do: :infinity
  defp limit(:max, dtype) when dtype in [:f16, :bf16, :f32, :f64], do: :neg_infinity
  defp limit(:min, dtype), do: kept(:infinity, dtype)
  defp limit(:max, dtype), do: kept(:neg_infinity, dtype)

  test "sums, products, minima and maxima of windows, in every type" do
    for _ <- 1..12, dtype <- @types do
      {x, elements, axes} = random(dtype)
      {name, op} = Enum.random(sum: :add, product: :multiply, min: :min, max: :max)
      first = %{sum: 0, product: 1}[name] || limit(name, dtype)
      found = apply(Ops, :"window_#{name}", [x, lengths(axes), options(axes)])

      case windows(elements, axes, first) do
        :error ->
          refused(found, :invalid_argument, says: "window_#{name}: invalid window")

        {shape, windows} ->
          # Sums and products of 16-bit floats are rounded once.
          as = if dtype in [:f16, :bf16], do: :f32, else: dtype
          fold = fn window -> Enum.reduce(window, kept(first, as), &calculate(op, &1, &2, as)) end
          expected = Enum.map(windows, &(&1 |> fold.() |> kept(dtype)))
          assert {:ok, buffer} = found
          assert {buffer.dtype, buffer.shape} == {dtype, shape}

          assert {name, dtype, x.shape, axes, flat(buffer)} ==
                   {name, dtype, x.shape, axes, bits(expected)}
      end
    end
  end

  test "means of windows are floats, and their sums do not overflow" do
    x = ExCubecl.buffer!([250, 252, 254, 1], [2, 2], :u8)
    assert ExCubecl.to_list!(Ops.window_mean!(x, [1, 2])) == [[251.0], [127.5]]
    large = Buffer.full!([40], :f16, 60_000)
    assert ExCubecl.to_list!(Ops.window_mean!(large, {20}, strides: 20)) == [6.0e4, 6.0e4]
    assert Ops.window_mean!(large, [2]).dtype == :f16
    assert ExCubecl.to_list!(Ops.window_mean!(Buffer.full!([2], :bf16, 3), [2])) == [3.0]
    padded = Ops.window_mean!(Buffer.full!([3], :f32, 3), [3], padding: :same)
    assert ExCubecl.to_list!(padded) == [2.0, 3.0, 2.0]
  end

  @difference Kernel.kernel(fn x, acc -> x - acc end)

  test "a function over windows: order of arguments and elements, and the padding" do
    for _ <- 1..60 do
      dtype = Enum.random([:s32, :u8, :s64, :f32])
      {x, elements, axes} = random(dtype)
      elements = if dtype == :f32, do: Enum.map(elements, fn _ -> 0.5 end), else: elements
      x = if dtype == :f32, do: Buffer.full!(x.shape, :f32, 0.5), else: x
      first = Enum.random(0..9)
      initial = Enum.random([first, Buffer.full!([1, 1], dtype, first)])
      found = Ops.window_reduce(x, initial, lengths(axes), @difference, options(axes))

      case windows(elements, axes, first) do
        :error ->
          refused(found, :invalid_argument, says: "window_reduce: invalid window")

        {shape, windows} ->
          fold = fn window -> Enum.reduce(window, first, &kept(&1 - &2, dtype)) end
          assert {:ok, %{dtype: ^dtype, shape: ^shape} = buffer} = found
          assert flat(buffer) == bits(Enum.map(windows, &kept(fold.(&1), dtype)))
      end
    end
  end

  test "a function over any axes, one element after the other" do
    digits = Kernel.kernel(fn x, acc -> acc * 31 + x end)

    for _ <- 1..60 do
      shape = shape()
      x = ExCubecl.buffer!(values(:s32, Enum.product(shape)), shape, :s32)
      axes = for axis <- 0..(length(shape) - 1)//1, :rand.uniform(2) == 1, do: axis
      others = Enum.to_list(0..(length(shape) - 1)//1) -- axes
      pick = fn at -> Enum.map(others, &Enum.at(at, &1)) end
      elements = Enum.zip(coordinates(shape), Buffer.to_flat_list!(x))
      groups = Enum.group_by(elements, &pick.(elem(&1, 0)), &elem(&1, 1))
      fold = &Enum.reduce(&1, 7, fn x, acc -> kept(acc * 31 + x, :s32) end)
      result = Ops.reduce!(x, 7, digits, axes: Enum.shuffle(axes))
      assert result.shape == pick.(shape)
      expected = for at <- coordinates(pick.(shape)), do: fold.(Map.get(groups, at, []))
      assert flat(result) == expected
      wide = Ops.reduce!(x, 7, digits, axes: axes, keep_axes: true)
      assert {length(wide.shape), flat(wide)} == {length(shape), expected}
    end
  end

  test "types of a fold with a function" do
    sum = Kernel.kernel(fn x, acc -> x + acc end)
    x = ExCubecl.buffer!([100, 100, 100], [3], :u8)
    result = fn args -> apply(Ops, :reduce!, [x | args]) end
    assert {:u8, 44} == typed(result.([0, sum]))
    assert {:f32, 300.5} == typed(result.([0.5, sum]))
    assert {:s32, 300} == typed(result.([Buffer.full!([], :s32, 0), sum]))
    assert {:f32, :nan} == typed(result.([:nan, sum]))
    assert {:bf16, 6.0} == typed(Ops.reduce!(Buffer.full!([3], :bf16, 2), 0, sum))
    greater = Kernel.kernel(fn x, acc -> if x > acc, do: 1, else: 0 end)
    assert {:u8, 1} == typed(result.([0, greater]))
    assert {:u8, 0} == typed(Ops.reduce!(x, 0, {ExCubecl.Ops.WindowsTest.Kernels, :last}))
  end

  defp typed(buffer), do: {buffer.dtype, Buffer.item!(buffer)}

  defmodule Kernels do
    use ExCubecl.Kernel
    defkernel(last(x, acc), do: if(x > 200, do: x, else: acc))
    defkernel(read(x, acc), do: x[0] + acc)
  end

  test "long folds, which no driver stops" do
    x = Buffer.iota!([70_000], :s32)
    digits = Kernel.kernel(fn x, acc -> acc * 31 + x end)
    expected = Enum.reduce(0..69_999, 1, fn x, acc -> kept(acc * 31 + x, :s32) end)
    assert Buffer.item!(Ops.reduce!(x, 1, digits)) == expected
    rows = Buffer.reshape!(x, [2, 35_000])
    three = x |> Buffer.view!(0, [69_999]) |> Buffer.reshape!([23_333, 3])

    for {matrix, m, n} <- [{rows, 2, 35_000}, {three, 23_333, 3}] do
      turned = for j <- 0..(n - 1), i <- 0..(m - 1), do: i * n + j
      expected = Enum.reduce(turned, 1, fn x, acc -> kept(acc * 31 + x, :s32) end)
      columns = View.transpose!(View.of!(matrix))
      assert Buffer.item!(Ops.reduce!(columns, 1, digits)) == expected
    end

    assert flat(Ops.window_sum!(rows, [2, 35_000])) == [kept(35_000 * 69_999, :s32)]
    halves = Buffer.full!([20_000], :f16, 0.5)
    assert Buffer.to_list!(Ops.window_sum!(halves, [20_000])) == [10_000.0]
  end

  # Coordinates have 32 bits: more elements would be taken for others, and a window of as many would fill the memory with its parts.
  test "padded axes and windows of more than 2^31 - 1 elements are refused" do
    x = ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32)
    far = 0x1_0000_0000

    for {window, opts} <- [
          {[1], [padding: [{0, far}], strides: far]},
          {[2], [padding: [{far, 0}], window_dilations: far]},
          {[far], [padding: [{far, 0}]]},
          {[far], [padding: :same]}
        ],
        do:
          refused(Ops.window_sum(x, window, opts), :invalid_argument, says: "window_sum: invalid")

    image = Buffer.reshape!(x, [1, 1, 3])
    opts = [input_dilation: far, strides: far]
    refused(Ops.conv(image, Buffer.view!(image, 0, [1, 1, 1]), opts), :invalid_argument)
    square = Buffer.reshape!(Buffer.view!(x, 0, [1]), [1, 1])
    padding = [{0x7FFF_FFF0, 0}, {0x7FFF_FFF0, 0}]
    refused(Ops.window_sum(square, [0x1_0000, 0x1_0000], padding: padding), :invalid_argument)
  end

  test "wrong windows, options and functions are refused" do
    x = Buffer.iota!([4, 5], :f32)
    error = &refused(&1, :invalid_argument, says: &2)
    error.(Ops.window_sum(x, [5, 1]), ["window_sum: invalid window [5, 1]", "[4, 5]", "axis 0"])
    error.(Ops.window_max(x, [1, 3], window_dilations: 3), "window_max: invalid window [1, 3]")
    error.(Ops.window_max(x, [1, 1], padding: [{0, 0}, {-3, -3}]), "window_max: invalid window")

    for window <- [[2], [2, 0], [2, -1], [2, 2, 2], {2, 2.0}, 2, nil, [2 | 2]],
        do: error.(Ops.window_min(x, window), "window_min: invalid window")

    for value <- [0, -1, [1], [1, 0], 1.5, nil, [1 | 1], :one],
        option <- [:strides, :window_dilations],
        do:
          error.(
            Ops.window_product(x, [1, 1], [{option, value}]),
            "window_product: invalid #{option}"
          )

    for padding <- [:full, 1, [{1, 1}], [{1, 1}, {1, 0.5}], [{0, 0} | 1], [1, 1], nil],
        do: error.(Ops.window_mean(x, [1, 1], padding: padding), "window_mean: invalid padding")

    error.(Ops.window_sum(x, [1, 1], stride: 1), "invalid option :stride")
    error.(Ops.window_sum(:x, [1, 1]), "")

    for kernel <- [
          :sum,
          &+/2,
          Kernel.kernel(fn x -> x end),
          Kernel.kernel(fn x, out -> out[index()] = x[0] end),
          Kernel.kernel(fn x, acc -> x + acc + len(x) end),
          {Kernels, :read},
          {Kernels, :none},
          {Enum, :sum}
        ] do
      error.(Ops.reduce(x, 0, kernel), "")
      error.(Ops.window_reduce(x, 0, [1, 1], kernel), "")
    end

    error.(Ops.reduce(x, :zero, @difference), "reduce: invalid initial")
    error.(Ops.reduce(x, x, @difference), "reduce: invalid initial")
    error.(Ops.reduce(x, 0, @difference, axis: 2), "reduce: invalid axis 2")
    error.(Ops.reduce(x, 0, @difference, keep_axes: 1), "reduce: invalid keep_axes")
    small = Buffer.iota!([3], :u8)
    error.(Ops.reduce(small, 256, @difference), "reduce: invalid initial 256")
    error.(Ops.window_reduce(small, 0.5, [1], @difference), "window_reduce: invalid initial 0.5")

    error.(
      Ops.window_reduce(small, Buffer.full!([], :s32, 1), [1], @difference),
      "invalid initial"
    )

    comparison = Kernel.kernel(fn x, acc -> x and acc end)
    refused(Ops.reduce(x, 0, comparison), :type_mismatch, says: "kernel reduce")
  end
end
