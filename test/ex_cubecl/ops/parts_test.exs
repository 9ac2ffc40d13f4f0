defmodule ExCubecl.Ops.PartsTest do
  use ExCubecl.Case, async: true

  alias ExCubecl.View
  alias ExCubecl.Ops.{Index, Layout, Parts, Results}

  # x * factor, and its difference from the index of the element.
  defp part(number, x, factor) do
    [x_name, factor_name, index] = for name <- ["x", "f", "i"], do: :"#{name}#{number}"
    product = {:product, number}

    statements = [
      Index.let(product, Index.call(:mul, Results.value(x_name), Results.value(factor_name)))
    ]

    results = [
      {Index.var(product), :f32},
      {Index.call(:sub, Results.value(index), Index.var(product)), :s32}
    ]

    args = [{x_name, :f32}, {factor_name, :f32}, {index, :f32}]
    code = Results.code(:test, args, statements, results)
    layout = %{offset: 0, shape: x.shape, strides: Layout.strides(x.shape)}
    {code, [View.new(x), factor, {:iota, layout}], x.shape, []}
  end

  # More elements than threads on a CPU device, and fewer.
  @shapes [[50, 70], [3], [1], [2, 2, 2], [2048], [2049]]

  test "several shapes in one launch" do
    inputs =
      for shape <- @shapes,
          n = Enum.product(shape),
          do: Buffer.new!(Enum.to_list(1..n), shape, :f32)

    parts = for {x, at} <- Enum.with_index(inputs), do: part(at, x, at + 2)
    {:ok, results} = Parts.run(parts, device: hd(inputs).device)

    for {[product, difference], {shape, at}} <- Enum.zip(results, Enum.with_index(@shapes)) do
      assert {product.shape, product.dtype, difference.dtype} == {shape, :f32, :s32}
      n = Enum.product(shape)
      assert Buffer.to_flat_list!(product) == for(x <- 1..n, do: x * (at + 2) * 1.0)
      assert Buffer.to_flat_list!(difference) == for(x <- 1..n, do: x - 1 - x * (at + 2))
    end
  end
end
