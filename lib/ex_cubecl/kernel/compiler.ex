defmodule ExCubecl.Kernel.Compiler do
  @moduledoc false
  # Types a kernel for the kinds of its arguments, and compiles it for a device, once: the cache keeps what a launch needs.

  alias ExCubecl.{Buffer, DType, Error, Native, Telemetry}
  alias ExCubecl.Kernel.{Bindings, Cache, CallArguments, ErrorContext, Typer, Uniformity}
  alias ExCubecl.Native.{Rehearsal, Waiting}

  @doc """
  The kernel for the kinds of its arguments on a device: its native reference, the names of its inputs and outputs, its scalars
  in the order of the native side, and the type of its result. With `check` it has one more output, which reports an index out of bounds.
  """
  def compiled(%{parsed: parsed, key: key}, kinds, id, check) do
    if Rehearsal.on?(),
      do: Rehearsal.once({key, kinds}, fn -> rehearsed(parsed, kinds) end),
      else: fetched(parsed, key, kinds, id, check)
  end

  # What a launch needs, but nothing to launch.
  defp rehearsed(parsed, kinds) do
    with :ok <- barriers(parsed, kinds),
         {:ok, typed} <- typed(parsed, kinds, false),
         do: {:ok, Map.merge(shape(typed), %{ref: nil, launches: nil})}
  end

  defp fetched(parsed, key, kinds, id, check) do
    Cache.fetch({key, kinds, check, id}, fn ->
      with :ok <- barriers(parsed, kinds),
           {:ok, typed} <- typed(parsed, kinds, check),
           {:ok, ref} <- Error.from_native(fn -> Native.kernel_new(typed.tree) end),
           {:ok, time} <- compile(ref, parsed.name, id),
           do: {:ok, entry(typed, ref, parsed.name, time, id)}
    end)
  end

  @doc "The type of the result of an element-wise kernel for the kinds of its arguments, or the error of a launch."
  @spec result_type(map, [{atom, term}]) :: {:ok, DType.t()} | {:error, Error.t()}
  def result_type(parsed, kinds),
    do: with({:ok, %{dtype: dtype}} <- typed(parsed, kinds, false), do: {:ok, dtype})

  # Without the tree: a hit copies the entry out of the table.
  defp entry(typed, ref, name, time, id) do
    Map.merge(shape(typed), %{
      ref: ref,
      name: name,
      time: time,
      launches: Telemetry.launches(id, name)
    })
  end

  defp shape(%{bindings: bindings} = typed) do
    %{
      inputs: Bindings.inputs(bindings),
      outputs: Bindings.outputs(bindings),
      scalars: typed.scalars,
      dtype: typed.dtype
    }
  end

  defp typed(parsed, kinds, check) do
    with {:error, %{line: line, text: text}} <- Typer.type(parsed, Map.new(kinds), check),
         do: type_error(parsed, line, text)
  end

  # A buffer where a number was expected may decide whether a thread reaches a barrier.
  defp barriers(parsed, kinds) do
    buffers = for {name, {_, _dtype}} <- kinds, do: name

    with {:error, line} <- Uniformity.check(parsed, buffers),
         do: type_error(parsed, line, Uniformity.text())
  end

  # An error about the whole kernel, or in a kernel of this library, has no line.
  defp type_error(parsed, line, text) do
    details = %{kernel: parsed.name, text: text}
    Error.new(:type_mismatch, if(line == 0, do: details, else: Map.put(details, :line, line)))
  end

  defp compile(ref, name, id) do
    started = System.monotonic_time()

    text = ["compiling kernel ", Atom.to_string(name), " on"]
    call = fn -> Error.from_native(fn -> Native.kernel_compile(ref, id) end) end

    with :ok <- Waiting.show(text, id, call) do
      time = System.monotonic_time() - started
      metadata = %{device: id, kernel: name}
      if Telemetry.on?(), do: Telemetry.execute(:compile, %{duration: time}, metadata)
      {:ok, System.convert_time_unit(time, :native, :microsecond)}
    end
  end

  @doc "Compiles a kernel on a device. The arguments may be types instead of buffers."
  def warm(%{parsed: parsed} = kernel, args, id) do
    with {:ok, args} <- CallArguments.named(parsed, args),
         {:ok, kinds} <- kinds(args, parsed, []),
         {:ok, _} <- compiled(kernel, kinds, id, false),
         do: :ok
  end

  defp kinds([], _parsed, done), do: {:ok, Enum.reverse(done)}

  defp kinds([{name, value} | rest], parsed, done) do
    if kind = kind(value),
      do: kinds(rest, parsed, [{name, kind} | done]),
      else: ErrorContext.invalid(parsed, name, value, "a type such as :f32, or a number")
  end

  defp kind(%Buffer{dtype: dtype}), do: {:buffer, dtype}

  defp kind(value) do
    cond do
      CallArguments.number?(value) -> CallArguments.kind(value)
      DType.valid?(value) -> {:buffer, value}
      true -> nil
    end
  end
end
