defmodule ExCubecl.NxTrainingTest do
  # A small network, trained by gradient descent through Nx.Defn, on this backend and on Nx.BinaryBackend.
  use ExUnit.Case, async: false

  defmodule Network do
    import Nx.Defn

    defn(predict({w1, b1, w2, b2}, x),
      do: x |> Nx.dot(w1) |> Nx.add(b1) |> Nx.tanh() |> Nx.dot(w2) |> Nx.add(b2)
    )

    defn(loss(params, x, y), do: Nx.mean(Nx.pow(predict(params, x) - y, 2)))

    defn step({w1, b1, w2, b2} = params, x, y) do
      {loss, {d1, e1, d2, e2}} = value_and_grad(params, &loss(&1, x, y))
      rate = 0.05
      {loss, {w1 - rate * d1, b1 - rate * e1, w2 - rate * d2, b2 - rate * e2}}
    end
  end

  # Deterministic numbers from -1 to 1.
  defp numbers(shape, seed) do
    count = Tuple.product(shape)
    list = for i <- 1..count, do: :math.sin(seed + i * 12.9898)
    Nx.reshape(Nx.tensor(list, type: :f32), shape)
  end

  defp losses(steps) do
    x = numbers({32, 10}, 1)
    y = Nx.sum(Nx.multiply(x, x), axes: [1], keep_axes: true)
    params = {numbers({10, 16}, 2), numbers({16}, 3), numbers({16, 1}, 4), numbers({1}, 5)}

    {losses, _} =
      Enum.map_reduce(1..steps, params, fn _, params -> Network.step(params, x, y) end)

    Enum.map(losses, &Nx.to_number/1)
  end

  test "the losses are those of Nx.BinaryBackend" do
    Nx.default_backend(Nx.BinaryBackend)
    expected = losses(50)

    for limit <- [0, 64] do
      Nx.default_backend({ExCubecl.Backend, host_limit: limit, fallback: :raise})

      for {ours, theirs} <- Enum.zip(losses(50), expected),
          do: assert_in_delta(ours / theirs, 1, 1.0e-4)
    end

    assert List.last(expected) < hd(expected) / 5
  end
end
