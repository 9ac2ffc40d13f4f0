defmodule ExCubecl.Kernel.Call do
  @moduledoc false
  # Prepares one call of a kernel: checks the arguments as far as Elixir can, compiles the kernel for their types, and
  # builds the arguments of the NIF.

  alias ExCubecl.{Buffer, DType, Error, Native, Shape, Telemetry}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.{Blame, Cache, Typer, Types, Uniformity}

  # Numbers that Elixir floats cannot represent.
  @special [:nan, :infinity, :neg_infinity]

  @doc "Everything that `ExCubecl.Kernel.run/3` or a batch needs to run the kernel."
  def prepare(%{parsed: parsed} = kernel, args, opts) do
    with {:ok, args} <- arguments(parsed, args),
         {:ok, shape} <- shape(parsed, args, opts),
         {:ok, kinds} <- kinds(parsed, args, shape),
         id = device(args),
         made = made(kernel, kinds, id, opts[:check] || false),
         args = Map.new(args),
         {:ok, made} <- Blame.tell(made, parsed, args),
         {:ok, outputs} <- outputs(parsed, made, args, shape, Keyword.fetch(opts, :into)) do
      numbers = numbers(made, args, shape, parsed.group)

      {:ok,
       %{
         parsed: parsed,
         into: opts[:into],
         device: id,
         names: parsed.outputs,
         made: made,
         inputs: refs(made.inputs, args),
         numbers: numbers,
         outputs: outputs,
         positions: positions(parsed.group, shape),
         shape: shape,
         args: args
       }}
    end
  end

  @doc "The tuple that the native side takes for a run."
  def step(%{made: made} = prepared),
    do: {made.ref, prepared.inputs, prepared.numbers, prepared.outputs, prepared.positions}

  @doc "The result of a run. An error about an argument names that argument."
  def told(result, %{parsed: parsed, args: args, made: made, into: into}),
    do: Blame.tell(result, parsed, args, made.scalars, into)

  @doc "Whether a term can be passed to a kernel as a number."
  def number?(term), do: is_number(term) or term in @special

  @doc "Total bytes of the buffers that a run writes into."
  def written(%{made: %{dtype: nil}, args: args, names: names}),
    do:
      Enum.sum(
        for name <- names, %{shape: s, dtype: d} = args[name], do: Shape.size(s) * DType.size(d)
      )

  def written(%{made: %{dtype: dtype}, shape: shape}), do: Shape.size(shape) * DType.size(dtype)

  ## Arguments

  defp arguments(%{args: names} = parsed, args) do
    with {:ok, args} <- same_number(parsed, args), do: each(Enum.zip(names, args), parsed, [])
  end

  defp same_number(%{args: names, name: kernel}, args) do
    if length(names) == length(args),
      do: {:ok, args},
      else:
        Error.new(:invalid_argument,
          argument: :args,
          kernel: kernel,
          names: names,
          given: length(args)
        )
  end

  defp each([], _parsed, done), do: {:ok, Enum.reverse(done)}

  defp each([{name, number} | rest], parsed, done) when is_number(number) or number in @special,
    do: each(rest, parsed, [{name, number} | done])

  defp each([{name, value} | rest], parsed, done) do
    case Handle.local(value) do
      {:ok, buffer} ->
        each(rest, parsed, [{name, buffer} | done])

      {:error, %{reason: :invalid_argument}} ->
        Blame.invalid(parsed, name, value, "a buffer or a number")

      {:error, error} ->
        {:error, %{error | details: Map.merge(error.details, Blame.argument(parsed, name))}}
    end
  end

  # The shape that the global positions iterate over.
  defp shape(%{outputs: []} = parsed, args, opts) do
    buffers = for {name, %Buffer{shape: shape}} <- args, do: {name, shape}

    cond do
      opts[:size] ->
        Arguments.invalid(:option, :size, "none: the result has the shape of the arguments")

      buffers == [] ->
        details = [argument: :args, kernel: parsed.name, value: Keyword.values(args)]
        Error.new(:invalid_argument, details)

      true ->
        common(buffers, parsed)
    end
  end

  defp shape(%{outputs: [first | _]} = parsed, args, opts) do
    case {opts[:size], args[first]} do
      {nil, %Buffer{shape: shape}} -> {:ok, shape}
      {size, %Buffer{}} -> size(size)
      {_, number} -> Blame.invalid(parsed, first, number, "a buffer: the kernel writes into it")
    end
  end

  defp size(number) when is_integer(number), do: size([number])

  defp size(size) do
    case Arguments.shape(size, :u8) do
      {:ok, shape, _count} when length(shape) in 1..3 -> {:ok, shape}
      _ -> Arguments.invalid(:size, size, "a number, or the lengths of two or three axes")
    end
  end

  defp common([{_, one} | _] = buffers, parsed) do
    case Enum.reject(buffers, fn {_, shape} -> Shape.size(shape) == 1 end) do
      [] ->
        {:ok, one}

      [{_, shape} = first | rest] ->
        case Enum.find(rest, fn {_, other} -> other != shape end) do
          nil -> {:ok, shape}
          {name, other} -> Blame.shapes(parsed, name, other, first)
        end
    end
  end

  defp kinds(parsed, args, shape) do
    kinds =
      for {name, value} <- args do
        case value do
          %Buffer{} ->
            {name, {if(one?(parsed, value, shape), do: :one, else: :buffer), value.dtype}}

          number when is_integer(number) ->
            {name, :int}

          _ ->
            {name, :float}
        end
      end

    case Enum.find(parsed.outputs, &(not is_struct(args[&1], Buffer))) do
      nil -> {:ok, kinds}
      name -> Blame.invalid(parsed, name, args[name], "a buffer: the kernel writes into it")
    end
  end

  # Whether a buffer of one element is broadcast.
  defp one?(%{outputs: []}, buffer, shape),
    do: Shape.size(buffer.shape) == 1 and Shape.size(shape) != 1

  defp one?(_parsed, _buffer, _shape), do: false

  # An element-wise kernel writes into a new buffer, or into the buffer given as `:into`.
  defp outputs(%{outputs: []}, _made, _args, _shape, :error), do: {:ok, []}

  defp outputs(%{outputs: []} = parsed, made, _args, shape, {:ok, into}) do
    case Handle.local(into) do
      {:ok, %{dtype: dtype}} when dtype != made.dtype ->
        details = %{expected: made.dtype, actual: dtype}
        Error.new(:type_mismatch, Map.merge(details, Blame.argument(parsed, :into)))

      {:ok, %{shape: ^shape, ref: ref}} ->
        {:ok, [ref]}

      {:ok, other} ->
        Blame.shapes(parsed, :into, other.shape, {nil, shape})

      error ->
        error
    end
  end

  defp outputs(%{outputs: names}, _made, args, _shape, :error), do: {:ok, refs(names, args)}

  defp outputs(_parsed, _made, _args, _shape, _into),
    do: Arguments.invalid(:option, :into, "none: the kernel writes into its arguments")

  ## Compiling

  @doc "The kernel for the kinds of its arguments on a device, typed and compiled."
  def made(%{parsed: parsed, key: key}, kinds, id, check) do
    Cache.fetch({key, kinds, check, id}, fn ->
      with :ok <- barriers(parsed, kinds),
           {:ok, typed} <- typed(parsed, kinds, check),
           {:ok, ref} <- Error.from_native(fn -> Native.kernel_new(typed.tree) end),
           {:ok, time} <- compiled(ref, parsed.name, id),
           do: {:ok, Map.merge(typed, %{ref: ref, name: parsed.name, time: time})}
    end)
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

  defp compiled(ref, name, id) do
    started = System.monotonic_time()

    with :ok <- Error.from_native(fn -> Native.kernel_compile(ref, id) end) do
      time = System.monotonic_time() - started
      metadata = %{device: id, kernel: name}
      if Telemetry.on?(), do: Telemetry.execute(:compile, %{duration: time}, metadata)
      {:ok, System.convert_time_unit(time, :native, :microsecond)}
    end
  end

  @doc "Compiles a kernel on a device. The arguments may be types instead of buffers."
  def warm(%{parsed: parsed} = kernel, args, id) do
    kinds = fn -> for {name, arg} <- Enum.zip(parsed.args, args), do: {name, like(arg)} end

    with {:ok, _} <- same_number(parsed, args),
         {:ok, kinds} <- known(parsed, kinds.()),
         {:ok, _} <- made(kernel, kinds, id, false),
         do: :ok
  end

  defp like(number) when is_integer(number), do: :int
  defp like(number) when is_float(number) or number in @special, do: :float
  defp like(%Buffer{dtype: dtype}), do: {:buffer, dtype}
  defp like(dtype), do: if(DType.valid?(dtype), do: {:buffer, dtype}, else: {:unknown, dtype})

  defp known(parsed, kinds) do
    case Enum.find(kinds, &match?({_, {:unknown, _}}, &1)) do
      nil -> {:ok, kinds}
      {name, {_, other}} -> Blame.invalid(parsed, name, other, "a type such as :f32, or a number")
    end
  end

  ## Arguments of the NIF

  defp refs(names, args), do: for(name <- names, do: args[name].ref)

  # The number of groups for a kernel with groups, else the number of threads.
  defp positions(nil, shape), do: Shape.size(shape)
  defp positions(group, shape), do: Shape.size(groups(group, shape))

  # Groups with one axis cover the flattened shape; groups with several cover the shape axis by axis.
  defp groups([threads, 1, 1], shape), do: [full(Shape.size(shape), threads), 1, 1]

  defp groups(threads, shape),
    do: for({threads, length} <- Enum.zip(threads, lengths(shape)), do: full(length, threads))

  defp full(length, threads), do: div(length + threads - 1, threads)

  # The lengths along x, y and z; all further axes are merged into z.
  defp lengths(shape) do
    case Enum.reverse(shape) do
      [x, y | rest] -> [x, y, Shape.size(rest)]
      [x] -> [x, 1, 1]
      [] -> [1, 1, 1]
    end
  end

  defp numbers(made, args, shape, group) do
    for name <- made.scalars do
      case name do
        {:dim, :all} -> Shape.size(shape)
        # Never zero: the kernel divides by it.
        {:dim, axis} -> max(along(axis, lengths(shape)), 1)
        {:groups, axis} -> max(along(axis, groups(group, shape)), 1)
        {:cast, name, dtype} -> Types.number_as(args[name], dtype)
        {:whole, name} -> Types.whole(args[name])
        name -> args[name]
      end
    end
  end

  defp along(axis, lengths), do: Enum.at(lengths, %{x: 0, y: 1, z: 2}[axis])
  # The device of the first buffer: every call has at least one.
  defp device(args) do
    {_, %{device: id}} = Enum.find(args, &is_struct(elem(&1, 1), Buffer))
    id
  end
end
