defmodule ExCubecl.NxModelsTest do
  # Programs of Axon, Scholar and Bumblebee on this backend and on Nx.BinaryBackend: their results, and that nothing fell back to the host. With NX_COMPILER their
  # numerical definitions are compiled for this backend.
  use ExUnit.Case, async: false

  alias ExCubecl.Backend

  missing = fn module ->
    unless Code.ensure_loaded?(module), do: "no compiled #{inspect(module)} is loadable"
  end

  # The results of a function on both backends, and the operations that fell back.
  defp both(fun) do
    expected = Nx.with_default_backend(Nx.BinaryBackend, fun)
    before = Backend.fallbacks()
    Nx.default_backend(Backend)
    if System.get_env("NX_COMPILER"), do: Nx.Defn.default_options(compiler: ExCubecl)
    result = fun.()
    Nx.Defn.default_options([])

    fallbacks =
      for {{name, type, _} = key, n} <- Backend.fallbacks(),
          n != Map.get(before, key, 0),
          do: {name, type}

    {result, expected, Enum.sort(fallbacks)}
  end

  defp assert_close(ours, theirs, tolerance) do
    [ours, theirs] = for x <- [ours, theirs], do: Nx.backend_copy(x, Nx.BinaryBackend)

    close? =
      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        Nx.all_close(ours, theirs, rtol: tolerance, atol: tolerance)
      end)

    assert {ours.shape, Nx.to_number(close?)} == {theirs.shape, 1}, inspect({ours, theirs})
  end

  # Deterministic numbers from -1 to 1.
  defp numbers(shape, seed) do
    count = Tuple.product(shape)
    # Sines alone are the rows of a matrix of rank 2.
    list =
      for i <- 1..count do
        x = 43_758.5453 * :math.sin(seed + i * 12.9898)
        2 * (x - Float.floor(x)) - 1
      end

    list |> Nx.tensor(type: :f32) |> Nx.reshape(shape)
  end

  describe "Axon" do
    @describetag skip: missing.(Axon)
    @describetag timeout: 600_000

    test "layers and their gradients, with the options of Axon.build/2" do
      image = Axon.input("x", shape: {nil, 4, 4, 2})
      rows = Axon.input("x", shape: {nil, 3, 2})
      {lstm, _} = Axon.lstm(rows, 2)
      {gru, _} = Axon.gru(rows, 2)
      small = [kernel_size: 2]

      for {model, shape} <- [
            {image |> Axon.depthwise_conv(2, small) |> Axon.max_pool(small), {1, 4, 4, 2}},
            {Axon.conv_transpose(image, 2, small ++ [strides: 2]), {1, 4, 4, 2}},
            {Axon.separable_conv2d(image, 2, small), {1, 4, 4, 2}},
            {image |> Axon.batch_norm() |> Axon.global_avg_pool(), {1, 4, 4, 2}},
            {image |> Axon.group_norm(1) |> Axon.resize({3, 3}), {1, 4, 4, 2}},
            {lstm, {1, 3, 2}},
            {gru, {1, 3, 2}}
          ] do
        {result, expected, fallbacks} =
          both(fn ->
            {init, _} = Axon.build(model, seed: 7)
            {_, predict} = Axon.build(model, seed: 7, mode: :train)
            x = numbers(shape, 3)
            params = with %{data: data} <- init.(x, initial()), do: data
            weights = Nx.sin(Nx.iota(shape))

            loss = fn x, params ->
              out = predict.(params, x).prediction
              Nx.sum(Nx.multiply(out, Nx.cos(out)))
            end

            grad = fn x, params -> Nx.Defn.value_and_grad(x, &loss.(&1, params)) end
            {loss, grad} = Nx.Defn.jit(grad).(x, params)
            Nx.add(loss, Nx.multiply(grad, weights))
          end)

        assert_close(result, expected, 1.0e-4)
        assert fallbacks == []
      end
    end

    # Later versions of Axon have a struct for parameters.
    defp initial do
      if Code.ensure_loaded?(Axon.ModelState), do: apply(Axon.ModelState, :empty, []), else: %{}
    end

    test "the losses of a multilayer perceptron" do
      losses(
        fn -> Axon.input("x", shape: {nil, 10}) |> Axon.dense(16, activation: :relu) end,
        {16, 10},
        50
      )
    end

    test "the losses of a convolutional network" do
      model = fn ->
        Axon.input("x", shape: {nil, 8, 8, 2})
        |> Axon.conv(4, kernel_size: 3, activation: :relu)
        |> Axon.max_pool(kernel_size: 2)
        |> Axon.flatten()
      end

      losses(model, {4, 8, 8, 2}, 50)
    end

    defp losses(model, shape, steps) do
      {ours, theirs, fallbacks} = both(fn -> train(model.(), shape, steps) end)

      for {a, b} <- Enum.zip(ours, theirs), do: assert_in_delta(a / b, 1, 1.0e-4)
      assert List.last(theirs) < hd(theirs)
      assert fallbacks == []
    end

    defp train(model, shape, steps) do
      x = numbers(shape, 1)
      y = x |> Nx.reshape({elem(shape, 0), :auto}) |> Nx.sum(axes: [1], keep_axes: true)

      {init, step} =
        model |> Axon.dense(1) |> Axon.Loop.train_step(:mean_squared_error, :adam, seed: 1)

      state = init.({x, y}, %{})

      {losses, _} =
        Enum.map_reduce(1..steps, state, fn _, state ->
          state = step.({x, y}, state)
          {Nx.to_number(state.loss), state}
        end)

      losses
    end
  end

  describe "Scholar" do
    @describetag skip: missing.(Scholar.Cluster.KMeans)
    @describetag timeout: 600_000

    test "k-means" do
      {ours, theirs, fallbacks} =
        both(fn ->
          x = Nx.tensor([[1, 2], [2, 4], [1, 3], [2, 5]])
          model = Scholar.Cluster.KMeans.fit(x, num_clusters: 2, key: Nx.Random.key(42))
          {model.clusters, model.labels}
        end)

      for at <- 0..1, do: assert_close(elem(ours, at), elem(theirs, at), 1.0e-6)
      assert fallbacks == []
    end

    test "principal components" do
      {ours, theirs, fallbacks} =
        both(fn ->
          Scholar.Decomposition.PCA.fit(numbers({20, 4}, 1), num_components: 2).explained_variance
        end)

      assert_close(ours, theirs, 1.0e-4)
      assert fallbacks == []
    end

    # Nx.BinaryBackend has Nx's own singular values, of which the third digit is wrong: the coefficients are compared with those of the normal equations.
    test "linear regression" do
      {ours, _theirs, fallbacks} =
        both(fn ->
          Scholar.Linear.LinearRegression.fit(numbers({40, 3}, 1), numbers({40}, 2)).coefficients
        end)

      expected =
        Nx.with_default_backend(Nx.BinaryBackend, fn ->
          [x, y] =
            for {shape, seed} <- [{{40, 3}, 1}, {{40}, 2}] do
              x = Nx.as_type(numbers(shape, seed), :f64)
              Nx.subtract(x, Nx.mean(x, axes: [0], keep_axes: true))
            end

          turned = Nx.transpose(x)
          Nx.LinAlg.solve(Nx.dot(turned, x), Nx.dot(turned, y))
        end)

      assert_close(ours, expected, 1.0e-4)
      assert fallbacks == []
    end

    test "logistic regression" do
      {ours, theirs, fallbacks} =
        both(fn ->
          x = numbers({40, 3}, 1)
          y = Nx.greater(Nx.sum(x, axes: [1]), 0)
          # Scholar 0.4 has another name for it.
          Application.load(:scholar)
          old? = match?(~c"0.3" ++ _, Application.spec(:scholar, :vsn))
          options = [{if(old?, do: :iterations, else: :max_iterations), 5}, num_classes: 2]
          Scholar.Linear.LogisticRegression.fit(x, y, options).coefficients
        end)

      assert_close(ours, theirs, 1.0e-4)
      assert fallbacks == []
    end
  end

  describe "Bumblebee" do
    @describetag skip: missing.(Bumblebee)
    @describetag timeout: 600_000

    @text [vocab_size: 64, hidden_size: 32, num_blocks: 1, num_attention_heads: 4] ++
            [max_positions: 16, intermediate_size: 37]

    test "BERT",
      do: text(Bumblebee.Text.Bert, :base, @text)

    test "GPT-2", do: text(Bumblebee.Text.Gpt2, :base, @text)

    test "Llama",
      do: text(Bumblebee.Text.Llama, :base, @text)

    test "ViT" do
      image(Bumblebee.Vision.Vit, [3, 16, 16],
        image_size: 16,
        patch_size: 4,
        hidden_size: 32,
        num_blocks: 1,
        num_attention_heads: 4,
        intermediate_size: 37
      )
    end

    test "ResNet" do
      image(Bumblebee.Vision.ResNet, [3, 32, 32],
        embedding_size: 8,
        hidden_sizes: [8, 16],
        depths: [1, 1]
      )
    end

    defp text(module, architecture, options) do
      ids = for row <- 0..1, do: for(at <- 0..9, do: rem(at * 7 + row * 3, 64))
      mask = for row <- 0..1, do: for(at <- 0..9, do: if(at < 10 - row, do: 1, else: 0))

      run(module, architecture, options, fn ->
        %{"input_ids" => Nx.tensor(ids), "attention_mask" => Nx.tensor(mask)}
      end)
    end

    # Images have their channels last.
    defp image(module, [channels, height, width], options) do
      run(module, :base, options, fn ->
        %{"pixel_values" => numbers({1, height, width, channels}, 3)}
      end)
    end

    defp run(module, architecture, options, inputs) do
      spec = Bumblebee.configure(module, [architecture: architecture] ++ options)
      {init, predict} = spec |> Bumblebee.build_model() |> Axon.build()

      params =
        Nx.with_default_backend(Nx.BinaryBackend, fn ->
          init.(Map.new(inputs.(), fn {name, x} -> {name, Nx.to_template(x)} end), empty())
        end)

      {ours, theirs, fallbacks} =
        both(fn ->
          params = on_default_backend(params)
          output(predict.(params, inputs.()))
        end)

      assert_close(ours, theirs, 1.0e-4)
      assert fallbacks == []
    end

    # Axon 0.7 and later keep parameters in a struct.
    defp empty,
      do:
        if(Code.ensure_loaded?(Axon.ModelState), do: apply(Axon.ModelState, :empty, []), else: %{})

    defp on_default_backend(%Nx.Tensor{} = x), do: Nx.backend_copy(x)
    defp on_default_backend(%_{data: data} = state), do: %{state | data: on_default_backend(data)}

    defp on_default_backend(%{} = map),
      do: Map.new(map, fn {name, value} -> {name, on_default_backend(value)} end)

    defp output(%{hidden_state: x}), do: x
  end
end
