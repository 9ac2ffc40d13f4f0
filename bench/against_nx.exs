# Compares programs of Nx on ExCubecl.Backend, with and without its compiler, with the other backends that are loadable, on this machine: make bench-nx
#
#     ERL_LIBS=DIRECTORY mix run bench/against_nx.exs
#
# ERL_LIBS names directories of compiled applications: Nx, and Axon, Scholar and Bumblebee for the rows of models. Torchx, EMLX and EXLA are measured if they are among them.
# Those run on the CPU. EX_CUBECL_DEVICE selects the device of ExCubecl, NX_ROWS the rows whose names contain one of its words, separated by commas.
#
# Each time is the median of samples, one of each backend in turn, from the call to its result: all work is done, and one element of the result is read. Operands are where the
# backend has its tensors. The table is written to bench/results/nx.txt.

defmodule NxBench do
  alias Nx.Defn.Composite

  @results Path.expand("results/nx.txt", __DIR__)
  @samples 7

  # Nanoseconds: samples of shorter calls are of several of them, and longer calls are not repeated.
  @short 2_000_000
  @long 3_000_000_000

  ## Backends

  # The name, the backend, and the compiler of numerical definitions.
  defp columns do
    # Of Apple, if it is not told so.
    Application.put_env(:emlx, :default_device, :cpu)

    others =
      for {name, module, app} <- [
            {"Torchx", Torchx, :torchx},
            {"EMLX", EMLX, :emlx},
            {"EXLA", EXLA, :exla}
          ],
          Code.ensure_loaded?(module) and match?({:ok, _}, Application.ensure_all_started(app)),
          column <- other(name, module),
          do: column

    [
      {"ExCubecl", ExCubecl.Backend, Nx.Defn.Evaluator},
      {"ExCubecl, compiled", ExCubecl.Backend, ExCubecl},
      {"BinaryBackend", Nx.BinaryBackend, Nx.Defn.Evaluator}
    ] ++ others
  end

  defp other(name, module) do
    backend = Module.concat(module, Backend)
    eager = {name, backend, Nx.Defn.Evaluator}

    if function_exported?(module, :__jit__, 5),
      do: [eager, {name <> ", compiled", backend, module}],
      else: [eager]
  end

  ## Programs

  # The name, the operands, the function, and the least time of a call of Nx.BinaryBackend: `:minutes` if it is not measured.
  defp rows do
    f32 = &values/1

    operations = [
      {"add of two numbers", [Nx.tensor(1.5), Nx.tensor(2.5)], &Nx.add/2, :short},
      {"add, 1000", [f32.({1000}), f32.({1000})], &Nx.add/2, :short},
      {"add, 1 Mi", [f32.({1_048_576}), f32.({1_048_576})], &Nx.add/2, :short},
      {"product of matrices, 256", [f32.({256, 256}), f32.({256, 256})], &Nx.dot/2, :short},
      {"softmax of rows, 256 x 256", [f32.({256, 256})], &softmax/1, :short},
      {"sum, 1 Mi", [f32.({1_048_576})], &Nx.sum/1, :short},
      {"sort, 100000", [f32.({100_000})], &Nx.sort/1, :short},
      {"Nx.Random.normal, 1000", [Nx.Random.key(42)], &normal/1, :short}
    ]

    operations ++ perceptron() ++ clusters() ++ bert()
  end

  defp softmax(x) do
    exp = Nx.exp(Nx.subtract(x, Nx.reduce_max(x, axes: [1], keep_axes: true)))
    Nx.divide(exp, Nx.sum(exp, axes: [1], keep_axes: true))
  end

  defp normal(key), do: elem(Nx.Random.normal(key, shape: {1000}), 0)

  defp perceptron do
    if Code.ensure_loaded?(Axon) do
      model =
        call(Axon, :input, ["x", [shape: {nil, 784}]])
        |> then(&call(Axon, :dense, [&1, 128, [activation: :relu]]))
        |> then(&call(Axon, :dense, [&1, 10, [activation: :softmax]]))

      y = Nx.as_type(Nx.equal(Nx.remainder(Nx.iota({128, 1}), 10), Nx.iota({10})), :f32)
      batch = {values({128, 784}), y}
      options = [model, :categorical_cross_entropy, :adam, [seed: 1]]
      {init, step} = call(Axon.Loop, :train_step, options)
      state = Nx.Defn.jit(init, compiler: Nx.Defn.Evaluator).(batch, no_parameters())
      state = Nx.Defn.jit(step, compiler: Nx.Defn.Evaluator).(batch, state)
      [{"MLP 784-128-10, step of adam, batch 128", [batch, state], step, :long}]
    else
      []
    end
  end

  defp no_parameters,
    do: if(Code.ensure_loaded?(Axon.ModelState), do: call(Axon.ModelState, :empty, []), else: %{})

  defp clusters do
    if Code.ensure_loaded?(Scholar.Cluster.KMeans) do
      fit = fn x, key ->
        options = [num_clusters: 3, key: key, num_runs: 1, max_iterations: 5]
        call(Scholar.Cluster.KMeans, :fit, [x, options]).clusters
      end

      [
        {"KMeans.fit, 1000 x 2, 5 iterations", [values({1000, 2}), Nx.Random.key(42)], fit,
         :short}
      ]
    else
      []
    end
  end

  defp bert do
    if Code.ensure_loaded?(Bumblebee) do
      options = [architecture: :base, vocab_size: 1000, hidden_size: 256, num_blocks: 6]
      more = [num_attention_heads: 4, intermediate_size: 1024, max_positions: 128]
      spec = call(Bumblebee, :configure, [Bumblebee.Text.Bert, options ++ more])
      model = call(Bumblebee, :build_model, [spec])
      {init, predict} = call(Axon, :build, [model, [compiler: Nx.Defn.Evaluator]])
      ids = Nx.remainder(Nx.iota({1, 128}), 1000)
      inputs = %{"input_ids" => ids, "attention_mask" => Nx.broadcast(1, {1, 128})}
      parameters = init.(inputs, no_parameters())
      [{"BERT, 6 blocks of 256, 128 tokens", [parameters, inputs], predict, :minutes}]
    else
      []
    end
  end

  # The applications may be missing.
  defp call(module, name, args), do: apply(module, name, args)

  defp values(shape),
    do: shape |> Nx.iota(type: :f32) |> Nx.multiply(12.9898) |> Nx.add(1) |> Nx.sin()

  ## Measurements

  def run do
    for app <- [:nx, :ex_cubecl], do: {:ok, _} = Application.ensure_all_started(app)
    {:ok, device} = ExCubecl.Device.info(nil)
    Nx.global_default_backend(ExCubecl.Backend)
    words = String.split(System.get_env("NX_ROWS", ""), ",", trim: true)

    rows =
      for {name, args, fun, least} <- rows(),
          words == [] or Enum.any?(words, &String.contains?(name, &1)),
          do: {name, on_host(args), fun, least}

    columns = columns()
    lines = for row <- rows, do: [elem(row, 0) | measured(row, columns)]
    version = fn app -> "#{app} #{Application.spec(app, :vsn)}" end
    load = "/proc/loadavg" |> File.read() |> elem(1) |> to_string() |> String.trim()

    head =
      "device #{inspect(device.id)} #{device.name}; #{version.(:nx)}, Elixir #{System.version()}, " <>
        "#{System.schedulers_online()} schedulers; medians in ms; load at the end #{load}\n\n"

    names = for {name, _, _} <- columns, do: name
    table = Enum.map([["" | names] | lines], &line/1)
    IO.puts([head, table])
    File.mkdir_p!(Path.dirname(@results))
    File.write!(@results, [head, table])
  end

  defp on_host(value), do: copied(value, Nx.BinaryBackend)

  defp copied(list, backend) when is_list(list), do: Enum.map(list, &copied(&1, backend))

  defp copied(container, backend),
    do: Composite.traverse(container, &Nx.backend_copy(&1, backend))

  defp measured({name, args, fun, least}, columns) do
    IO.puts(:stderr, name)

    calls =
      for {_, backend, compiler} <- columns,
          do:
            if(least == :minutes and backend == Nx.BinaryBackend,
              do: :none,
              else: prepared(fun, args, backend, compiler)
            )

    samples =
      for _ <- 1..@samples,
          do: for({call, at} <- Enum.with_index(calls), do: {at, sample(call)})

    times = Enum.group_by(Enum.concat(samples), &elem(&1, 0), &elem(&1, 1))

    for {call, at} <- Enum.with_index(calls) do
      case call do
        {:call, _, _, _} ->
          times[at] |> Enum.sort() |> Enum.at(div(@samples, 2)) |> milliseconds()

        {:once, time} ->
          milliseconds(time)

        :none ->
          "-"

        :fails ->
          "fails"
      end
    end
  end

  # The call and how often a sample repeats it. The first calls compile.
  defp prepared(fun, args, backend, compiler) do
    in_process(backend, compiler, fn ->
      args = copied(args, backend)
      call = fn -> done(apply(runnable(fun, args, compiler), args), backend) end
      first = time(call, 1)

      # Of other backends, the first call may compile.
      if first > @long and backend == Nx.BinaryBackend do
        {:once, first}
      else
        function = runnable(fun, args, compiler)
        call = fn -> done(apply(function, args), backend) end
        time(call, 1)
        {:call, {backend, compiler}, call, max(1, div(@short, max(time(call, 1), 1)))}
      end
    end)
  rescue
    error ->
      IO.puts(:stderr, "#{inspect(backend)}, #{inspect(compiler)}: #{Exception.message(error)}")
      :fails
  end

  defp runnable(fun, _args, Nx.Defn.Evaluator), do: fun
  defp runnable(fun, args, compiler), do: Nx.Defn.compile(fun, args, compiler: compiler)

  defp in_process(backend, compiler, fun) do
    Nx.default_backend(backend)
    Nx.Defn.default_options(compiler: compiler)
    fun.()
  end

  defp sample({:call, {backend, compiler}, call, count}),
    do: in_process(backend, compiler, fn -> div(time(call, count), count) end)

  defp sample(_other), do: nil

  defp time(call, count) do
    :erlang.garbage_collect()
    started = System.monotonic_time(:nanosecond)
    for _ <- 1..count, do: call.()
    System.monotonic_time(:nanosecond) - started
  end

  # Work is done in order, except by EMLX, which calculates each tensor when it is read.
  defp done(result, backend) do
    tensors = Composite.flatten_list([result])
    tensors = if inspect(backend) == "EMLX.Backend", do: tensors, else: [List.last(tensors)]
    for tensor <- tensors, do: backend.to_binary(tensor, 1)
  end

  ## Text

  defp line([name | numbers]),
    do: [
      String.pad_trailing(name, 42),
      Enum.map(numbers, &String.pad_leading(to_string(&1), 20)),
      "\n"
    ]

  defp milliseconds(nanoseconds), do: :io_lib.format("~.4f", [nanoseconds / 1.0e6])
end

NxBench.run()
