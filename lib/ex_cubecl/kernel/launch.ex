defmodule ExCubecl.Kernel.Launch do
  @moduledoc false
  # One launch of a kernel: the arguments of the NIF are prepared, and the launch is queued.

  alias ExCubecl.{Buffer, DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.{AllocOptions, Handle, Pressure, Temporaries}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.{Bindings, CallArguments, Compiler, ErrorContext, Grid, Types}
  alias ExCubecl.Native.Rehearsal
  alias ExCubecl.Telemetry.Counter

  @doc """
  Checks the arguments, compiles the kernel for their types if needed, and returns `{:ok, launch}`. `opts` are those of
  `ExCubecl.Kernel.run/3`, and two more: `:shape` is the shape of the result of an element-wise kernel whose arguments have other shapes; with
  `replaces: true` the caller knows that the launch writes every element of its outputs, whose new memory then is not zeroed before.
  """
  def prepare(%{parsed: parsed} = kernel, args, opts) do
    check = opts[:check] || false
    size = if opts[:shape], do: {:result, opts[:shape]}, else: opts[:size]

    with {:ok, args} <- CallArguments.check(parsed, args),
         {:ok, shape} <- CallArguments.shape(parsed, args, size),
         {:ok, kinds} <- CallArguments.kinds(parsed, args, shape),
         id = device(args),
         compiled = Compiler.compiled(kernel, kinds, id, check),
         {:ok, compiled} <- ErrorContext.add(compiled, parsed, args),
         :ok <- CallArguments.axes(parsed, args, compiled.scalars),
         {:ok, outputs} <- outputs(parsed, compiled, args, shape, opts) do
      {:ok,
       %{
         parsed: parsed,
         compiled: compiled,
         args: args,
         kinds: kinds,
         check: check,
         into: opts[:into],
         device: id,
         shape: shape,
         inputs: refs(compiled.inputs, args),
         numbers: numbers(compiled.scalars, args, parsed.group, shape),
         outputs: outputs,
         replaces: opts[:replaces] || false,
         grid: Grid.size(parsed.group, shape)
       }}
    end
  end

  # The device of the first buffer: every call has at least one.
  defp device([{_, %Buffer{device: id}} | _]), do: id
  defp device([_number | rest]), do: device(rest)

  # The buffers that the kernel writes into: its arguments, or for an element-wise kernel the one that is given as `:into`.
  defp outputs(parsed, compiled, args, shape, opts) do
    case {Keyword.fetch(opts, :into), compiled.outputs} do
      {:error, names} -> {:ok, refs(names, args)}
      {{:ok, into}, []} -> into(parsed, compiled.dtype, shape, Handle.local(into))
      _ -> Arguments.invalid(:option, :into, "none: the kernel writes into its arguments")
    end
  end

  defp into(parsed, expected, _shape, {:ok, %{dtype: dtype}}) when dtype != expected do
    details = %{expected: expected, actual: dtype}
    Error.new(:type_mismatch, Map.merge(details, ErrorContext.argument(parsed, :into)))
  end

  defp into(_parsed, _dtype, shape, {:ok, %{shape: shape, ref: ref}}), do: {:ok, [ref]}

  defp into(parsed, _dtype, shape, {:ok, other}),
    do: ErrorContext.shapes(parsed, :into, other.shape, {nil, shape})

  defp into(_parsed, _dtype, _shape, error), do: error

  defp refs(names, args), do: for(name <- names, do: args[name].ref)

  defp numbers(scalars, args, group, shape) do
    for scalar <- scalars do
      case scalar do
        {:cast, name, dtype} -> Types.number_as(args[name], dtype)
        {:whole, name} -> Types.whole(args[name])
        {:shape, name, axis} -> Enum.at(args[name].shape, axis)
        name when is_atom(name) -> args[name]
        of_grid -> Grid.scalar(of_grid, group, shape)
      end
    end
  end

  @doc "The tuple that the native side takes for a launch."
  def step(%{compiled: %{ref: ref}} = launch),
    do: {ref, launch.inputs, launch.numbers, launch.outputs, launch.grid, launch.replaces}

  @doc "The result of a launch. An error about an argument names that argument."
  def explain(result, %{compiled: %{scalars: scalars}} = launch),
    do: ErrorContext.add(result, launch.parsed, launch.args, scalars, launch.into)

  ## Running

  @doc "Queues a launch: `{:ok, buffer}` with the result of an element-wise kernel without `:into`, else `:ok`."
  def run(%{parsed: parsed, device: id, compiled: %{launches: counter}} = launch, opts) do
    bytes = bytes_written(launch)
    result = Telemetry.launch(bytes, id, parsed.name, counter, fn -> queued(launch, opts) end)
    explain(result, launch)
  end

  defp queued(launch, opts) do
    cond do
      launch.check -> run_checked(launch, opts)
      launch.outputs == [] -> run_into_new(launch, opts)
      true -> queue(launch)
    end
  end

  @doc "Queues several launches with one call."
  def run_all(launches) do
    started = System.monotonic_time()

    if Rehearsal.on?() do
      Enum.each(launches, &Rehearsal.launch(&1.outputs))
    else
      result = queue_all(launches, Enum.map(launches, &step/1))
      if result == :ok, do: launched(launches, System.monotonic_time() - started)
      result
    end
  end

  # All memory is allocated before the first launch, so that a call that failed can be made again.
  defp queue_all([], _steps), do: :ok

  defp queue_all([%{device: device} | _], steps),
    do: Pressure.create(device, 0, fn -> Native.kernel_run_all(steps) end)

  defp launched([], _duration), do: :ok

  defp launched([%{device: device} | _] = launches, duration) do
    Enum.each(launches, &Counter.add_to(&1.compiled.launches))

    if Telemetry.on?() do
      names = for %{parsed: %{name: name}} <- launches, do: name
      measurements = %{count: length(names), duration: duration}
      Telemetry.execute(:batch, measurements, %{device: device, kernels: names})
    end
  end

  # A launch allocates the memory of outputs that have none yet.
  defp queue(launch) do
    if Rehearsal.on?(),
      do: Rehearsal.launch(launch.outputs),
      else: Pressure.create(launch.device, 0, fn -> Native.kernel_run(step(launch)) end)
  end

  defp bytes_written(%{compiled: %{dtype: nil, outputs: names}, args: args}) do
    Enum.sum(
      for name <- names, %{shape: s, dtype: d} = args[name], do: Shape.size(s) * DType.size!(d)
    )
  end

  defp bytes_written(%{compiled: %{dtype: dtype}, shape: shape}),
    do: Shape.size(shape) * DType.size!(dtype)

  defp run_into_new(%{compiled: %{dtype: dtype}, shape: shape, device: id} = launch, opts) do
    bytes = bytes_written(launch)

    with {:ok, note} <- AllocOptions.from(Keyword.take(opts, AllocOptions.options())),
         {:ok, ref} <- map(launch, bytes, note) do
      Temporaries.made(ref, bytes)
      {:ok, %Buffer{ref: ref, dtype: dtype, shape: shape, device: id}}
    end
  end

  defp map(%{compiled: compiled, shape: shape, device: id} = launch, bytes, note) do
    if Rehearsal.on?() do
      Rehearsal.launch([])
      Rehearsal.new(id, compiled.dtype, shape, note)
    else
      Pressure.create(id, bytes, fn ->
        Native.kernel_map(compiled.ref, id, launch.inputs, launch.numbers, shape, note)
      end)
    end
  end

  ## Checked launches

  # Runs with one more output, a report, into which the kernel writes one of the indices that were out of bounds.
  defp run_checked(%{outputs: outputs, device: device} = launch, opts) do
    with {:ok, report} <- Buffer.zeros([4], :s32, device: device),
         {:ok, result} <- new_result(launch, opts),
         outputs = if(result, do: [result.ref], else: outputs) ++ [report.ref],
         :ok <- queue(%{launch | outputs: outputs}),
         {:ok, reported} <- Buffer.to_list(report) do
      case reported do
        [0 | _] -> if result, do: {:ok, result}, else: :ok
        [_, slot, index, position] -> out_of_bounds(launch, slot, index, position)
      end
    end
  end

  defp new_result(%{outputs: [], compiled: %{dtype: dtype}, shape: shape, device: device}, opts) do
    opts = [device: device] ++ Keyword.take(opts, AllocOptions.options())
    Buffer.empty(shape, dtype, opts)
  end

  defp new_result(_launch, _opts), do: {:ok, nil}

  defp out_of_bounds(%{parsed: parsed, args: args, kinds: kinds}, slot, index, position) do
    {role, name} = parsed |> Bindings.new(Map.new(kinds), true) |> Enum.at(slot)

    size =
      if role == :shared,
        do: parsed.shared |> List.keyfind(name, 0) |> elem(2),
        else: Shape.size(args[name].shape)

    details = [argument: name, index: index, position: position, size: size]
    Error.new(:out_of_bounds, [kernel: parsed.name] ++ details)
  end
end
