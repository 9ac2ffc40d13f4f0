# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Defn.Compiler) do
  defmodule ExCubecl.Compiler do
    @moduledoc """
    Compiles numerical definitions of Nx into programs of few kernels. `ExCubecl` is the `Nx.Defn.Compiler`:

        Nx.Defn.jit(fun, compiler: ExCubecl)
        Nx.Defn.global_default_options(compiler: ExCubecl)

    A program is a list of steps: kernels, callbacks of `ExCubecl.Backend`, loops and conditions. Results are tensors of `ExCubecl.Backend` and those that it calculates.
    Each intermediate value is freed after its last use. Programs are cached by the structure of their expression, so that a second definition of the same structure
    compiles nothing.

    ## Options

      * `:device` - the device, by default that of the default backend if that is `ExCubecl.Backend`, else `ExCubecl.default_device/0`
      * `:cache` - whether programs are kept for later calls, by default `true`
      * `:memory_limit` - the most bytes that the values of a program may need at a time, its arguments excepted. A program that needs more raises `ExCubecl.Error` with reason
        `:out_of_memory` before it starts; so does a program that needs more than the limit of its device leaves, see `ExCubecl.Memory.set_limit/2`
      * `:max_concurrency` - the number of partitions of an `Nx.Serving`, by default 1
      * `:hooks` - as for `Nx.Defn.jit/2`

    Another option is an `ExCubecl.Error` with reason `:invalid_argument`. The other options of `ExCubecl.Backend` are those of the default backend if that is
    `ExCubecl.Backend`.
    """

    alias ExCubecl.{Backend, Error, Telemetry}
    alias ExCubecl.Compiler.{Cache, Explanation, Limits, Program, Run, Scope}
    alias ExCubecl.Compiler.Graph.Conversion
    alias ExCubecl.Error.Arguments
    alias Nx.Defn.{Composite, Expr}
    alias Nx.Tensor, as: T

    @behaviour Nx.Defn.Compiler

    # Axon adds `:debug`, and Nx.Serving `:batch_keys`.
    @options [:device, :cache, :memory_limit, :max_concurrency, :hooks, :debug, :batch_keys]

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
      @impl true
      def __shard_jit__(_key, _mesh, _vars, _fun, _args_list, opts) do
        %{config: %{device: device}} = options(opts)
        Error.unwrap!(Error.new(:unsupported, operation: :shard_jit, device: device))
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
      {Backend, config |> Map.reject(fn {_, value} -> value == nil end) |> Keyword.new()}
    end

    @doc """
    Returns what the program of a function for tensors or templates does, without running it: an `ExCubecl.Compiler.Explanation` with its steps, the launches and bytes
    of each, the peak of the memory, and what falls back to the host.

    `opts` are those of the compiler.

        ExCubecl.Compiler.explain(&Nx.softmax/1, [Nx.template({128, 10}, :f32)])
    """
    @spec explain(fun, [term], keyword) :: Explanation.t()
    def explain(fun, args, opts \\ []) when is_function(fun) and is_list(args) do
      options = options(opts)
      result = Nx.Defn.debug_expr_apply(fun, args, hooks: options.hooks)
      {graph, _key, _captured} = Conversion.build(Composite.flatten_list([result]), options.hooks)
      scope = Scope.of(graph)
      Explanation.of(scope, Program.build(scope, options.config), options.config)
    end

    ## Options

    defp options(opts) do
      opts = Error.unwrap!(Arguments.options(opts, @options))
      Error.unwrap!(Arguments.positive(:max_concurrency, Keyword.get(opts, :max_concurrency, 1)))

      %{
        config: config(opts[:device], Nx.default_backend()),
        hooks: Keyword.get(opts, :hooks, %{}),
        cache?: cache(Keyword.get(opts, :cache, true)),
        limit: limit(opts[:memory_limit])
      }
    end

    defp config(device, {Backend, options}) do
      options = options |> Backend.config() |> Map.to_list()
      Backend.config(if device, do: Keyword.put(options, :device, device), else: options)
    end

    defp config(device, _other), do: Backend.config(if device, do: [device: device], else: [])

    defp cache(cache) when is_boolean(cache), do: cache
    defp cache(other), do: Error.unwrap!(Arguments.invalid(:cache, other, "true or false"))

    defp limit(nil), do: nil
    defp limit(bytes), do: Error.unwrap!(Arguments.index(:memory_limit, bytes))

    ## Programs

    # A function from arguments to the tensors of the result, and the result without them.
    defp compiled(result, options) do
      outputs = Composite.flatten_list([result])
      {program, captured} = program(outputs, options)
      captured = List.to_tuple(captured)
      %{config: config, limit: limit} = options

      call = fn arguments ->
        parameters = for argument <- arguments, do: parameter(argument.(), config)
        Limits.check(program, limit, config)
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
      told(:defn_compile, metadata, fn -> graph |> Scope.of() |> Program.build(config) end)
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
