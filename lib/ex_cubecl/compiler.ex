# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Defn.Compiler) do
  defmodule ExCubecl.Compiler do
    @moduledoc """
    Compiles numerical definitions of Nx into programs of few kernels. `ExCubecl` is the `Nx.Defn.Compiler`:

        Nx.Defn.jit(fun, compiler: ExCubecl)
        Nx.Defn.global_default_options(compiler: ExCubecl)

    A program is a list of steps: kernels, callbacks of `ExCubecl.Backend`, loops and conditions. Results are tensors of `ExCubecl.Backend` and those that it calculates.
    Each intermediate value is freed after its last use, or an element-wise result replaces it in its memory; the body of a loop gives up the state of the round before.
    Arguments are never written: Nx 0.7 to 0.13 have no option by which a caller gives them up. Programs are cached by the structure of their expression, so that a second definition of the same structure
    compiles nothing.

    ## Options

      * `:device` - the device, by default that of the default backend if that is `ExCubecl.Backend`, else `ExCubecl.default_device/0`
      * `:cache` - whether programs are kept for later calls, by default `true`
      * `:memory_limit` - the most bytes that the values of a program may need at a time, its arguments excepted. A program that needs more raises `ExCubecl.Error` with reason
        `:out_of_memory` before it starts; so does a program that needs more than the limit of its device leaves, see `ExCubecl.Memory.set_limit/2`
      * `:max_concurrency` - the number of partitions of an `Nx.Serving`, by default 1
      * `:hooks` - as for `Nx.Defn.jit/2`
      * `:input_shardings`, `:devices` - for `Nx.Defn.shard_jit/3`, see below

    Another option is an `ExCubecl.Error` with reason `:invalid_argument`. The other options of `ExCubecl.Backend` are those of the default backend if that is
    `ExCubecl.Backend`.

    ## Shards

    With Nx 0.11 or later `Nx.Defn.shard_jit/3` runs a definition of whole tensors on shards of them, one list of arguments for each device of an `Nx.Mesh`, numbered along the last axis
    of the mesh first:

        mesh = %Nx.Mesh{name: "mesh", shape: {2}}
        fun = Nx.Defn.shard_jit(&Nx.multiply(&1, 2), mesh, compiler: ExCubecl, input_shardings: [%{0 => [0]}])
        [first, second] = fun.([[Nx.tensor([1, 2])], [Nx.tensor([3, 4])]])

      * `:input_shardings` - for each tensor of the arguments a map from its axes, by index or name, to the list of the axes of the mesh that divide it. An axis that is not in the
        map is whole in each shard
      * `:devices` - the device of each shard. By default all are on `:device`, without it on the adapters of `ExCubecl.Device.adapters/0` in turns

    The result is a list with the results of each shard. Where these are shards of the results, as for batches of a model, each device calculates its own, from its own
    arguments. Otherwise the results of each shard are the whole results: the first device calculates them from the arguments of all, and the others get copies.
    """

    alias ExCubecl.{Backend, Telemetry}
    alias ExCubecl.Compiler.{Cache, Explanation, Limits, Program, Rehearsal, Run, Scope}
    alias ExCubecl.Compiler.Graph.Conversion
    alias ExCubecl.Error.{Arguments, Operation}
    alias ExCubecl.Nx.Options
    alias Nx.Defn.{Composite, Expr}
    alias Nx.Tensor, as: T

    @behaviour Nx.Defn.Compiler

    @options [:device, :cache, :memory_limit, :max_concurrency, :hooks]

    # `Axon.build/2` passes its options on, Nx.Serving adds `:batch_keys`, and Nx.Defn.Evaluator has `:garbage_collect`.
    @of_others [:debug, :mode, :seed, :raise_on_none, :print_values, :global_layer_options] ++
                 [:batch_keys, :garbage_collect]

    @impl true
    def __jit__(key, vars, fun, args_list, opts),
      do: __compile__(key, vars, fun, opts).(args_list)

    @impl true
    def __compile__(_key, vars, fun, opts) do
      options = options(opts)
      {call, output} = compiled(fun.(vars), options)
      fn [arguments] -> [call.(arguments) |> placed(output)] end
    end

    if {:__stream__, 7} in Nx.Defn.Compiler.behaviour_info(:callbacks) do
      @impl true
      def __stream__(_key, input, acc, vars, fun, [args], opts) do
        options = options(opts)
        rest = Enum.drop(args, Composite.count(input) + Composite.count(acc))
        {call, output} = compiled(fun.(vars), options)

        run = fn input_args, acc ->
          acc_args = for value <- Composite.flatten_list([acc]), do: fn -> value end
          call.(input_args ++ acc_args ++ rest) |> placed(output)
        end

        [Nx.Defn.Stream.start_link(input, acc, run)]
      end
    end

    if {:__shard_jit__, 6} in Nx.Defn.Compiler.behaviour_info(:callbacks) do
      alias ExCubecl.Compiler.Sharding, warn: false
      alias ExCubecl.Compiler.Sharding.Propagation, warn: false

      @impl true
      def __shard_jit__(_key, mesh, vars, fun, args_list, opts) do
        {own, opts} = Keyword.split(opts, [:input_shardings, :devices])
        options = options(opts)
        templates = Composite.flatten_list(vars)
        sharding = Sharding.new(mesh, templates, own[:input_shardings])
        inputs = Sharding.inputs(sharding, args_list, templates)

        configs =
          for device <- Sharding.devices(sharding, own[:devices], opts[:device]),
              do: config(device, Nx.default_backend())

        whole = fun.(Sharding.whole(sharding, vars))
        sharded(sharding, shard(fun, vars), whole, Enum.zip(configs, inputs), options)
      end

      # Each device calculates its shards of the results, or the first one the whole results for all of them.
      defp sharded(sharding, shard, whole, shards, options) do
        if shard != nil and local?(sharding, shard, whole, options) do
          for {config, tensors} <- shards, do: on(config, shard, tensors, options)
        else
          [{first, _} | others] = shards
          tensors = Sharding.gathered(sharding, Enum.map(shards, &elem(&1, 1)), first)
          result = on(first, whole, tensors, options)

          [
            result
            | for({config, _} <- others, do: Nx.backend_copy(result, {Backend, config: config}))
          ]
        end
      end

      # A definition that fits whole tensors may not fit shards.
      defp shard(fun, vars) do
        fun.(vars)
      rescue
        _ -> nil
      end

      defp local?(%{divisions: divisions, mesh: mesh}, shard, whole, %{hooks: hooks}) do
        [{shard, _, captured}, {whole, _, same}] =
          for result <- [shard, whole],
              do: Conversion.build(Composite.flatten_list([result]), hooks)

        captured == same and Propagation.local?(shard, whole, divisions, mesh)
      end

      defp on(config, result, tensors, options) do
        {call, output} = compiled(result, %{options | config: config})
        tensors |> Enum.map(&fn -> &1 end) |> call.() |> placed(output)
      end
    end

    @impl true
    def __partitions_options__(opts) do
      options(opts)
      List.duplicate(opts, Keyword.get(opts, :max_concurrency, 1))
    end

    @impl true
    def __to_backend__(opts) do
      %{config: config} = options(opts)
      {Backend, Options.given(config)}
    end

    @doc """
    Returns what the program of a function for tensors or templates does, without running it: an `ExCubecl.Compiler.Explanation` with its steps, the launches and bytes
    of each, the peak of the memory, and what falls back to the host.

    `opts` are those of the compiler. Arguments of other kinds raise `ExCubecl.Error` with reason `:invalid_argument`.

        ExCubecl.Compiler.explain(&Nx.softmax/1, [Nx.template({128, 10}, :f32)])
    """
    @spec explain(fun, [term], keyword) :: Explanation.t()
    def explain(fun, args, opts \\ []) do
      unless is_list(args) and not List.improper?(args),
        do: invalid(:args, args, "the list of the arguments of the function")

      unless is_function(fun, length(args)),
        do: invalid(:fun, fun, "a function of #{length(args)} arguments")

      options = options(opts)
      result = Nx.Defn.debug_expr_apply(fun, args, hooks: options.hooks)
      {graph, _key, captured} = Conversion.build(Composite.flatten_list([result]), options.hooks)
      scope = Scope.of(graph)
      program = Program.build(scope, options.config)

      arguments =
        args |> Enum.reject(&is_function/1) |> Enum.flat_map(&rehearsed(&1, options.config))

      Explanation.of(scope, program, options.config, {arguments, captured})
    end

    # Arguments as they are for a run: those of other backends are copied, templates are on the device unless they are small.
    defp rehearsed(argument, config) do
      {_, functions} =
        Nx.LazyContainer.traverse(argument, [], fn template, function, functions ->
          {template, [{template, function} | functions]}
        end)

      for {template, function} <- Enum.reverse(functions) do
        case function.() do
          %T{data: %Nx.TemplateBackend{}} ->
            Rehearsal.argument(%{template | data: nil}, config)

          %T{data: %backend{}, shape: shape} = tensor
          when backend == Backend or tuple_size(shape) == 0 ->
            parameter(tensor, config)

          _large ->
            Rehearsal.argument(%{template | data: nil}, config)
        end
      end
    end

    defp invalid(argument, value, expected),
      do: Operation.unwrap!(Arguments.invalid(argument, value, expected), :explain, [])

    ## Options

    defp options(opts) do
      opts = option!(opts |> Keyword.drop(@of_others) |> Arguments.options(@options))
      option!(Arguments.positive(:max_concurrency, Keyword.get(opts, :max_concurrency, 1)))

      %{
        config: config(opts[:device], Nx.default_backend()),
        hooks: Keyword.get(opts, :hooks, %{}),
        cache?: cache(Keyword.get(opts, :cache, true)),
        limit: limit(opts[:memory_limit])
      }
    end

    defp config(device, {Backend, options}) do
      options = options |> Backend.config() |> Options.given()
      Backend.config(if device, do: Keyword.put(options, :device, device), else: options)
    end

    defp config(device, _other), do: Backend.config(if device, do: [device: device], else: [])

    defp cache(cache) when is_boolean(cache), do: cache
    defp cache(other), do: option!(Arguments.invalid(:cache, other, "true or false"))

    defp limit(nil), do: nil
    defp limit(bytes), do: option!(Arguments.index(:memory_limit, bytes))

    defp option!(result), do: Operation.unwrap!(result, __MODULE__, [])

    ## Programs

    # A function from arguments to the tensors of the result, and the result without them.
    defp compiled(result, options) do
      outputs = Composite.flatten_list([result])
      {program, captured} = program(outputs, options)
      %{config: config, limit: limit} = options
      needed = %{peak: program.peak + Run.copied(captured, config)}
      captured = List.to_tuple(captured)

      call = fn arguments ->
        parameters = for argument <- arguments, do: parameter(argument.(), config)
        Limits.check(needed, limit, config)
        run(program, List.to_tuple(parameters), captured, config)
      end

      {call, Composite.traverse(result, &%{&1 | data: nil})}
    end

    @doc false
    # The program of the tensors of an expression, from the cache if it has one of this structure, and what they captured.
    def program(outputs, %{config: config, hooks: hooks, cache?: cache?}) do
      {graph, key, captured} = Conversion.build(outputs, hooks)
      build = fn -> {:ok, built(graph, config)} end

      {:ok, program} = if cache?, do: Cache.fetch({key, config}, build), else: build.()

      {program, captured}
    end

    defp built(graph, config) do
      metadata = %{device: config.device, nodes: map_size(graph.nodes)}

      told(:defn_compile, metadata, fn ->
        program = graph |> Scope.of() |> Program.build(config)
        %{program | peak: Rehearsal.peak(program, Map.values(graph.nodes), config)}
      end)
    end

    defp run(program, parameters, captured, config) do
      metadata = %{device: config.device, steps: length(program.steps)}
      told(:defn_run, metadata, fn -> Run.run(program, parameters, captured, config) end)
    end

    defp told(event, metadata, call) do
      if Telemetry.on?() do
        started = System.monotonic_time()
        result = call.()
        Telemetry.execute(event, %{duration: System.monotonic_time() - started}, metadata)
        result
      else
        call.()
      end
    end

    ## Arguments and results

    defp parameter(%T{data: %Expr{}} = tensor, _config) do
      raise ArgumentError,
            "cannot pass a tensor expression as argument to defn, got: #{inspect(tensor)}"
    end

    # A template has no elements: it is an argument of which only the shape is taken, as in the initialization of Axon's models.
    defp parameter(%T{data: %Nx.TemplateBackend{}} = template, _config), do: template
    defp parameter(%T{} = tensor, config), do: tensor |> Nx.devectorize() |> Run.input(config)

    # The results in their container, with its names and vectorized axes.
    defp placed(results, output) do
      {container, []} =
        Composite.traverse(output, results, fn out, [result | rest] ->
          {%{out | data: result.data}, rest}
        end)

      container
    end
  end
end
