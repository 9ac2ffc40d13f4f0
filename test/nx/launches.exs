defmodule ExCubecl.NxLaunchesTest do
  # How many kernels compiled programs launch, at most.
  use ExUnit.Case, async: false

  @moduletag timeout: 600_000

  missing = fn module ->
    unless Code.ensure_loaded?(module), do: "no compiled #{inspect(module)} is loadable"
  end

  defmodule Loops do
    import Nx.Defn

    defn count(n) do
      {_, sum, _} = while({i = 0, sum = 0, n}, i < n, do: {i + 1, sum + i, n})
      sum
    end
  end

  setup do
    Nx.default_backend(ExCubecl.Backend)
    :ok
  end

  # The launches of a call whose kernels are compiled.
  defp launches(fun) do
    fun.()
    :ok = :telemetry.attach("launches", [:ex_cubecl, :launch], &__MODULE__.launched/4, self())
    fun.()
    :telemetry.detach("launches")
    received([])
  end

  def launched(_event, _measurements, meta, test), do: send(test, {:launch, meta.kernel})

  defp received(kernels) do
    receive do
      {:launch, kernel} -> received([kernel | kernels])
    after
      0 -> Enum.reverse(kernels)
    end
  end

  defp assert_at_most(limit, fun) do
    kernels = launches(fun)
    assert kernels != [] and length(kernels) <= limit, inspect(Enum.frequencies(kernels))
  end

  # The sum has a launch. Its result is on the device, the numbers of the loop are on the host.
  test "a loop over integers" do
    x = Nx.iota({1000}, type: :s32)

    counted = fn x ->
      n = Nx.remainder(Nx.sum(x), 47)
      ExCubecl.NxLaunchesTest.Loops.count(n)
    end

    compiled = Nx.Defn.jit(counted, compiler: ExCubecl)
    assert Nx.to_number(compiled.(x)) == Enum.sum(0..30)
    assert_at_most(3, fn -> compiled.(x) end)
  end

  test "indices in host memory are compared there: no launch looks for those out of bounds" do
    x = Nx.iota({40, 5}, type: :f32)
    indices = Nx.tensor([[3], [39]])
    assert length(launches(fn -> Nx.take(x, Nx.tensor([3, 7])) end)) == 1
    assert length(launches(fn -> Nx.gather(x, indices) end)) == 1

    assert length(
             launches(fn -> Nx.take_along_axis(x, Nx.remainder(Nx.iota({40, 1}), 5), axis: 1) end)
           ) ==
             1

    checked = length(launches(fn -> Nx.indexed_put(x, Nx.iota({40, 1}), x) end))
    assert length(launches(fn -> Nx.indexed_put(x, indices, Nx.iota({2, 5})) end)) <= checked
    large = Nx.remainder(Nx.iota({100}), 40)
    assert length(launches(fn -> Nx.take(x, large) end)) == 2
  end

  defmodule Small do
    import Nx.Defn

    defn dominant(a) do
      {v, _, _} =
        while {v = Nx.broadcast(1.0, {Nx.axis_size(a, 0)}), a, i = 0}, i < 20 do
          w = Nx.dot(a, v)
          {w / Nx.LinAlg.norm(w), a, i + 1}
        end

      Nx.sum(v * Nx.dot(a, v)) + Nx.reduce_max(Nx.tanh(v))
    end
  end

  test "programs of small tensors in host memory run there, as by the backend" do
    a = Nx.add(Nx.iota({8, 8}), Nx.eye(8))
    compiled = Nx.Defn.jit(&Small.dominant/1, compiler: ExCubecl)
    assert launches(fn -> compiled.(a) end) == []
    assert Nx.to_number(compiled.(a)) == Nx.to_number(Small.dominant(a))
    on_device = Nx.backend_copy(a, {ExCubecl.Backend, host_limit: 0})
    assert launches(fn -> compiled.(on_device) end) != []
    assert_in_delta Nx.to_number(compiled.(on_device)), Nx.to_number(compiled.(a)), 1.0e-3
  end

  test "normal numbers" do
    normal = Nx.Defn.jit(&Nx.Random.normal(&1, shape: {1000}), compiler: ExCubecl)
    key = Nx.Random.key(1)
    assert_at_most(2, fn -> normal.(key) end)
  end

  test "a softmax between element-wise operations" do
    softmax = fn x ->
      e = Nx.exp(Nx.subtract(Nx.multiply(x, 2), Nx.reduce_max(x, axes: [1], keep_axes: true)))
      Nx.add(Nx.divide(e, Nx.sum(e, axes: [1], keep_axes: true)), 1)
    end

    compiled = Nx.Defn.jit(softmax, compiler: ExCubecl)
    x = Nx.iota({64, 50}, type: :f32)
    assert_at_most(1, fn -> compiled.(x) end)
  end

  describe "training steps" do
    @describetag skip: missing.(Axon)

    test "a perceptron with adam" do
      model =
        Axon.input("x", shape: {nil, 784})
        |> Axon.dense(128, activation: :relu)
        |> Axon.dense(10, activation: :softmax)

      assert_at_most(13, training(model, values({128, 784}), :adam))
    end

    test "a network of convolutions" do
      model =
        Axon.input("x", shape: {nil, 28, 28, 1})
        |> Axon.conv(8, kernel_size: 3, activation: :relu)
        |> Axon.max_pool(kernel_size: 2)
        |> Axon.conv(16, kernel_size: 3, activation: :relu)
        |> Axon.avg_pool(kernel_size: 2)
        |> Axon.flatten()
        |> Axon.dense(32, activation: :relu)
        |> Axon.dense(10, activation: :softmax)

      assert_at_most(36, training(model, values({16, 28, 28, 1}), :sgd))
    end

    defp training(model, x, optimizer) do
      labels = x |> Nx.axis_size(0) |> then(&Nx.iota({&1, 1})) |> Nx.remainder(10)
      y = Nx.as_type(Nx.equal(labels, Nx.iota({10})), :f32)
      {init, step} = Axon.Loop.train_step(model, :categorical_cross_entropy, optimizer, seed: 1)
      step = Nx.Defn.jit(step, compiler: ExCubecl)
      # The state of later steps is on the device.
      state = step.({x, y}, Nx.Defn.jit(init, compiler: Nx.Defn.Evaluator).({x, y}, %{}))
      fn -> step.({x, y}, state) end
    end

    defp values(shape),
      do: Nx.iota(shape, type: :f32) |> Nx.multiply(12.9898) |> Nx.add(1) |> Nx.sin()
  end

  describe "models" do
    @describetag skip: missing.(Bumblebee)

    test "BERT of 12 blocks" do
      options = [num_blocks: 12, num_attention_heads: 4]
      inputs = Map.put(inputs(), "attention_mask", Nx.broadcast(1, {1, 32}))
      assert_at_most(150, model(Bumblebee.Text.Bert, options, inputs))
    end

    test "Llama of 2 blocks" do
      options = [num_blocks: 2, num_attention_heads: 4, num_key_value_heads: 4]
      assert_at_most(33, model(Bumblebee.Text.Llama, options, inputs()))
    end

    defp inputs, do: %{"input_ids" => Nx.remainder(Nx.iota({1, 32}), 50)}

    defp model(module, options, inputs) do
      sizes = [vocab_size: 100, hidden_size: 64, intermediate_size: 128, max_positions: 64]
      model = module |> struct([architecture: :base] ++ sizes ++ options) |> module.model()
      {init, predict} = Axon.build(model, compiler: Nx.Defn.Evaluator)
      parameters = init.(inputs, %{})
      compiled = Nx.Defn.jit(predict, compiler: ExCubecl)
      fn -> compiled.(parameters, inputs) end
    end
  end
end
