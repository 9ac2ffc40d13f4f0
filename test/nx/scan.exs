defmodule ExCubecl.NxScanTest do
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  setup do
    Nx.default_backend({Backend, host_limit: 0, fallback: :raise})
    :ok
  end

  @funs [
    cumulative_sum: &Nx.cumulative_sum/2,
    cumulative_product: &Nx.cumulative_product/2,
    cumulative_min: &Nx.cumulative_min/2,
    cumulative_max: &Nx.cumulative_max/2
  ]

  defp host(tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)

  defp same(what, tensor, fun) do
    ours = host(fun.(tensor))
    theirs = Nx.with_default_backend(Nx.BinaryBackend, fn -> fun.(host(tensor)) end)

    assert {what, ours.type, ours.shape, ours.names} ==
             {what, theirs.type, theirs.shape, theirs.names}

    assert {what, Nx.to_flat_list(ours)} == {what, Nx.to_flat_list(theirs)}
  end

  # Products of 14 numbers up to 2, and sums of 100 up to 2, which all types have, or which wrap around.
  test "the results of Nx" do
    for type <- [:s8, :u8, :s32, :s64, :f32, :f64, :bf16, :f16],
        {name, fun} <- @funs,
        opts <- [[axis: 1], [axis: 0, reverse: true]] do
      columns = if name == :cumulative_product, do: 14, else: 100
      numbers = for i <- 1..(3 * columns), do: rem(i * i, 3)

      x =
        numbers
        |> Nx.tensor(type: type, names: [:all])
        |> Nx.reshape({3, columns}, names: [:x, :y])

      x = if name == :cumulative_product, do: Nx.max(x, Nx.tensor(1, type: type)), else: x
      same({name, type, opts}, x, &fun.(&1, opts))
      same({name, type, opts, :view}, Nx.transpose(x), &fun.(&1, opts))
    end
  end

  test "infinities and NaN" do
    for list <- [[1.0, :nan, 3.0, :infinity], [:neg_infinity, 2.0, :infinity, 1.0]],
        {name, fun} <- @funs,
        do: same({name, list}, Nx.tensor(list), &fun.(&1, []))
  end

  test "complex numbers" do
    x = Nx.tensor(for i <- 1..6, do: Complex.new(i, -i)) |> Nx.reshape({2, 3})

    for opts <- [[axis: 0], [axis: 1, reverse: true]],
        do: same(opts, x, &Nx.cumulative_sum(&1, opts))
  end

  test "vectorized tensors, and compiled programs" do
    x = Nx.iota({3, 200}, type: :f32)
    rows = Nx.cumulative_sum(x, axis: 1)
    assert Nx.to_binary(Nx.cumulative_sum(Nx.vectorize(x, :x))) == Nx.to_binary(rows)
    sums = Nx.Defn.jit(&Nx.multiply(Nx.cumulative_sum(&1, axis: 1), 1), compiler: ExCubecl)
    assert Nx.to_binary(sums.(x)) == Nx.to_binary(rows)
  end
end
