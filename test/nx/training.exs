defmodule ExCubecl.NxTrainingTest do
  # A small network, trained by gradient descent through Nx.Defn, on this backend and on Nx.BinaryBackend.
  use ExUnit.Case, async: false

  alias ExCubecl.Memory

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

  # Each step makes tensors of several times the size of the model, which are garbage after it.
  test "a model trains under a limit of 1.5 times the memory that a step needs" do
    {:ok, {runtime, _} = device} = ExCubecl.default_device()
    {:ok, %{id: id}} = ExCubecl.Device.open(device, as: {runtime, 1_720})

    on_exit(fn ->
      :ok = ExCubecl.Device.reset(id)
      :ok = ExCubecl.Device.remove(id)
    end)

    {mib, steps} = {10, 50}
    before = Memory.usage!(device: id)

    {need, _} = in_process(id, fn -> trained(mib, 1) end)
    assert need >= 3 * mib * 1_048_576
    :ok = Memory.set_limit(div(need * 3, 2), device: id)
    {peak, losses} = in_process(id, fn -> trained(mib, steps) end)
    assert peak <= div(need * 3, 2)
    assert List.last(losses) < hd(losses)
    :ok = Memory.set_limit(nil, device: id)
    assert eventually(fn -> live(id) == {before.live_bytes, before.live_buffers} end)
  end

  defp live(id) do
    usage = Memory.usage!(device: id)
    {usage.live_bytes, usage.live_buffers}
  end

  # The maximum of the memory in use while a process, whose tensors are garbage with it, runs a function, and its result.
  defp in_process(id, fun) do
    assert eventually(fn -> elem(live(id), 0) == 0 end)
    :ok = Memory.reset_peak(device: id)

    result =
      fn ->
        Nx.default_backend({ExCubecl.Backend, device: id, fallback: :raise})
        fun.()
      end
      |> Task.async()
      |> Task.await(:infinity)

    {Memory.usage!(device: id).peak_bytes, result}
  end

  defp eventually(check, tries \\ 6000),
    do: check.() or (tries > 0 and Process.sleep(10) == :ok and eventually(check, tries - 1))

  # Nearly all parameters are in the first layer: 64 * 4,032 floats for each MiB.
  defp trained(mib, steps) do
    [inputs, hidden, outputs] = [64 * mib, 4_032, 64]
    x = random({8, inputs}, 1)
    y = x |> Nx.slice([0, 0], [8, outputs]) |> Nx.multiply(0.5)
    w1 = Nx.multiply(random({inputs, hidden}, 2), 1 / inputs)
    w2 = Nx.multiply(random({hidden, outputs}, 3), 1 / hidden)
    params = {w1, Nx.broadcast(0.0, {hidden}), w2, Nx.broadcast(0.0, {outputs})}

    {losses, _} =
      Enum.map_reduce(1..steps, params, fn _, params -> Network.step(params, x, y) end)

    Enum.map(losses, &Nx.to_number/1)
  end

  defp random(shape, seed), do: Nx.sin(Nx.multiply(Nx.iota(shape, type: :f32), seed + 0.7))
end
