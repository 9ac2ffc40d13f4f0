defmodule ExCubecl.NxLaunchesTest do
  # How many kernels compiled programs launch, at most.
  use ExUnit.Case, async: false

  @moduletag timeout: 600_000

  missing = fn module ->
    unless Code.ensure_loaded?(module), do: "no compiled #{inspect(module)} is loadable"
  end

  setup_all do
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

  test "normal numbers" do
    normal = Nx.Defn.jit(&Nx.Random.normal(&1, shape: {1000}), compiler: ExCubecl)
    key = Nx.Random.key(1)
    assert_at_most(16, fn -> normal.(key) end)
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

  describe "models" do
    @describetag skip: missing.(Bumblebee)

    test "BERT of 12 blocks" do
      options = [num_blocks: 12, num_attention_heads: 4]
      inputs = Map.put(inputs(), "attention_mask", Nx.broadcast(1, {1, 32}))
      assert_at_most(240, model(Bumblebee.Text.Bert, options, inputs))
    end

    test "Llama of 2 blocks" do
      options = [num_blocks: 2, num_attention_heads: 4, num_key_value_heads: 4]
      assert_at_most(60, model(Bumblebee.Text.Llama, options, inputs()))
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
