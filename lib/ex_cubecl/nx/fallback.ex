if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Fallback do
    @moduledoc false
    # Runs callbacks of Nx.Backend on Nx.BinaryBackend: those of small tensors in host memory, and those that the device
    # cannot run. The latter are counted.

    alias ExCubecl.{Buffer, Error, Telemetry}
    alias ExCubecl.Native.Rehearsal
    alias ExCubecl.Nx.{ElementWise, LinAlg, Options, Reduction, Storage, Types}
    alias ExCubecl.Telemetry.Counter
    alias Nx.Tensor, as: T

    # Of other callbacks some call functions of Nx that make tensors, for which Nx uses the default backend.
    @direct ElementWise.names() ++
              Reduction.names() ++
              [:reshape, :squeeze, :broadcast, :transpose, :slice, :reverse] ++
              [:concatenate, :stack, :as_type, :iota, :eye]

    @doc "The result of a callback on the host, as tensors of the backend of `config`."
    # `out` describes the result; its data, if any, is that of another tensor. `made` makes tensors of the backend of binaries.
    def on_host(operation, args, config, made \\ &Storage.from_binary/3) do
      if Rehearsal.on?(),
        do: rehearsed(operation, args, config, made),
        else: calculated(operation, args, config, made)
    end

    defp calculated(operation, [out | args], config, made) when operation in @direct,
      do: Nx.BinaryBackend |> apply(operation, [out | host(args)]) |> back(config, made)

    defp calculated(operation, [out | args], config, made) do
      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        evaluated(fn -> operation |> result([out | host(args)]) |> back(config, made) end)
      end)
    end

    # Only what numbers may decide is calculated.
    defp rehearsed(operation, [out | _] = args, config, made) do
      tensors = tensors(args)

      if operation in @direct and Enum.all?(tensors, &Storage.on_host?/1) and
           Nx.size(out.shape) <= max(config.host_limit, 1) do
        calculated(operation, args, config, made)
      else
        for tensor <- tensors, not Storage.on_host?(tensor), do: Storage.buffer(tensor, config)
        blank(out, config)
      end
    rescue
      # The numbers are not those of a run.
      _error in [ArgumentError, ArithmeticError] -> blank(out, config)
    end

    @doc "Tensors of zeros where the results of the host are, in a rehearsal."
    def blank(outs, config) when is_tuple(outs),
      do: outs |> Tuple.to_list() |> Enum.map(&blank(&1, config)) |> List.to_tuple()

    def blank(%T{type: {_, bits}, shape: shape} = out, config) do
      count = Tuple.product(shape)

      case Types.storage(out.type) do
        {dtype, _} when count > config.host_limit ->
          options = Storage.buffer_options(config)
          %{ref: ref} = buffer = Buffer.zeros!(Storage.shape(out), dtype, options)
          # The code that makes it may leave handles of it.
          Rehearsal.handle(ref)
          Storage.put(out, buffer, config)

        _ ->
          Storage.put(out, <<0::size(count * bits)>>, config)
      end
    rescue
      # More than a buffer can have.
      Error -> Storage.put(out, {:fill, <<0::size(bits)>>}, config)
    end

    @default_options {Nx.Defn, :default_compiler}

    # Some functions of Nx are numerical definitions, which the default compiler would run on its own backend: possibly this one.
    defp evaluated(fun) do
      options = Process.get(@default_options)
      Nx.Defn.default_options(compiler: Nx.Defn.Evaluator)

      try do
        fun.()
      after
        if options,
          do: Nx.Defn.default_options(options),
          else: Process.delete(@default_options)
      end
    end

    # Nx itself has the optional callbacks that Nx.BinaryBackend has not.
    defp result(operation, args) do
      {module, args} =
        cond do
          function_exported?(Nx.BinaryBackend, operation, length(args)) ->
            {Nx.BinaryBackend, args}

          operation in LinAlg.names() ->
            {Nx.LinAlg, tl(args)}

          true ->
            {Nx, tl(args)}
        end

      apply(module, operation, args)
    end

    @doc "As `on_host/3`, for tensors that are all binaries in host memory."
    def of_binaries(operation, out, tensors, config) do
      tensors =
        for %{data: data} = x <- tensors, do: %{x | data: %Nx.BinaryBackend{state: data.state}}

      Nx.BinaryBackend
      |> apply(operation, [out | tensors])
      |> back(config, &Storage.from_binary/3)
    end

    @doc "As `on_host/3`, for a callback that the device cannot run: counts it, or raises with `fallback: :raise`."
    def run(operation, args, config) do
      unless Rehearsal.on?(), do: told(operation, type(tensors(args), args), config)
      on_host(operation, args, config)
    end

    defp told(operation, type, config) do
      if config.fallback == :raise, do: refuse(operation, type, config)
      count(operation, type, config.device)
    end

    defp refuse(operation, type, %{device: device}) do
      details = [operation: operation, type: Nx.Type.to_string(type), device: device]
      Error.unwrap!(Error.new(:unsupported, details))
    end

    @doc "The tensors among the arguments of a callback, the first one excepted: it describes the result."
    def tensors([_out | args]), do: Enum.flat_map(args, &tensors_in/1)

    defp tensors_in(%T{} = tensor), do: [tensor]
    defp tensors_in(list) when is_list(list), do: Enum.flat_map(list, &tensors_in/1)
    defp tensors_in({_key, value}), do: tensors_in(value)
    defp tensors_in(_other), do: []

    defp type([%T{type: type} | _], _args), do: type
    defp type([], [%T{type: type} | _]), do: type

    defp host(%T{} = tensor), do: Storage.to_host(tensor)
    defp host(list) when is_list(list), do: Enum.map(list, &host/1)
    defp host({key, value}), do: {host(key), host(value)}
    defp host(other), do: other

    defp back(%T{data: %Nx.BinaryBackend{state: binary}} = tensor, config, made),
      do: made.(tensor, binary, config)

    defp back(tuple, config, made) when is_tuple(tuple),
      do: tuple |> Tuple.to_list() |> Enum.map(&back(&1, config, made)) |> List.to_tuple()

    defp back(other, _config, _made), do: other

    ## Counts

    defp count(operation, type, device) do
      Counter.add(:fallback, {operation, type, device})

      if Telemetry.on?() do
        metadata = %{operation: operation, type: type, device: device}
        Telemetry.execute(:fallback, %{count: 1}, metadata)
      end
    end

    @doc "How often each operation ran on the host, by operation, type and device."
    def counts, do: Counter.all(:fallback)

    @doc "The configuration of the first tensor of the backend."
    def config(tensors), do: Enum.find_value(tensors, &config_of/1)

    defp config_of(%T{data: %{config: %Options{} = config}}), do: config
    defp config_of(_tensor), do: nil
  end
end
