defmodule ExCubecl.Kernel.Call do
  @moduledoc false
  # One call of a kernel: its arguments, checked as far as Elixir can, with the kernel that is compiled for their
  # types, and what the native side takes for it.

  alias ExCubecl.{Arguments, Buffer, DType, Error, Handle, Native, Shape, Telemetry}
  alias ExCubecl.Kernel.{Cache, Typer}

  @doc "Everything that a run needs: for `ExCubecl.Kernel.run/3`, and for batches."
  def prepare(%{parsed: parsed} = kernel, args, opts) do
    with {:ok, args} <- arguments(parsed.args, args),
         {:ok, shape} <- shape(parsed, args, opts),
         {:ok, kinds} <- kinds(parsed, args, shape),
         id = device(args),
         {:ok, made} <- made(kernel, kinds, id, opts[:check] || false),
         args = Map.new(args),
         {:ok, outputs} <- outputs(parsed, made, args, shape, Keyword.fetch(opts, :into)) do
      numbers = numbers(made, args, shape, parsed.group)

      {:ok,
       %{
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

  @doc "What the native side takes for a run."
  def step(%{made: made} = prepared),
    do: {made.ref, prepared.inputs, prepared.numbers, prepared.outputs, prepared.positions}

  @doc "Bytes of what a run writes into."
  def written(%{made: %{dtype: nil}, args: args, names: names}),
    do:
      Enum.sum(
        for name <- names, %{shape: s, dtype: d} = args[name], do: Shape.size(s) * DType.size(d)
      )

  def written(%{made: %{dtype: dtype}, shape: shape}), do: Shape.size(shape) * DType.size(dtype)

  ## Arguments

  defp arguments(names, args) do
    with {:ok, args} <- same_number(names, args), do: each(Enum.zip(names, args), [])
  end

  defp same_number(names, args) do
    if length(names) == length(args),
      do: {:ok, args},
      else: Arguments.invalid(:args, args, "#{length(names)}: #{Enum.join(names, ", ")}")
  end

  defp each([], done), do: {:ok, Enum.reverse(done)}

  defp each([{name, number} | rest], done) when is_number(number),
    do: each(rest, [{name, number} | done])

  defp each([{name, value} | rest], done) do
    case Handle.local(value) do
      {:ok, buffer} ->
        each(rest, [{name, buffer} | done])

      {:error, %{reason: :invalid_argument}} ->
        Arguments.invalid(name, value, "a buffer or a number")

      error ->
        error
    end
  end

  # What the positions run over.
  defp shape(%{outputs: []}, args, opts) do
    buffers = for {_, %Buffer{} = buffer} <- args, do: buffer

    cond do
      opts[:size] ->
        Arguments.invalid(:option, :size, "none: the result has the shape of the arguments")

      buffers == [] ->
        Arguments.invalid(:args, Keyword.values(args), "at least one buffer")

      true ->
        common(buffers)
    end
  end

  defp shape(%{outputs: [first | _]}, args, opts) do
    case {opts[:size], args[first]} do
      {nil, %Buffer{shape: shape}} -> {:ok, shape}
      {size, %Buffer{}} -> size(size)
      {_, number} -> Arguments.invalid(first, number, "a buffer: the kernel writes into it")
    end
  end

  defp size(number) when is_integer(number), do: size([number])

  defp size(size) do
    with {:ok, shape, _count} <- Arguments.shape(size, :u8) do
      if length(shape) in 1..3,
        do: {:ok, shape},
        else: Arguments.invalid(:size, size, "a number, or the lengths of two or three axes")
    end
  end

  defp common(buffers) do
    case Enum.reject(buffers, &(Shape.size(&1.shape) == 1)) do
      [] ->
        {:ok, hd(buffers).shape}

      [%{shape: shape} | rest] ->
        case Enum.find(rest, &(&1.shape != shape)) do
          nil -> {:ok, shape}
          other -> mismatch(shape, other)
        end
    end
  end

  defp mismatch(shape, other) do
    Error.new(:shape_mismatch,
      expected: Shape.size(shape),
      actual: Shape.size(other.shape),
      shape: shape
    )
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
      name -> Arguments.invalid(name, args[name], "a buffer: the kernel writes into it")
    end
  end

  # One element for all.
  defp one?(%{outputs: []}, buffer, shape),
    do: Shape.size(buffer.shape) == 1 and Shape.size(shape) != 1

  defp one?(_parsed, _buffer, _shape), do: false

  # An element-wise kernel writes into a new buffer, or into one that is there.
  defp outputs(%{outputs: []}, _made, _args, _shape, :error), do: {:ok, []}

  defp outputs(%{outputs: []}, made, _args, shape, {:ok, into}) do
    case Handle.local(into) do
      {:ok, %{dtype: dtype}} when dtype != made.dtype ->
        Error.new(:type_mismatch, expected: made.dtype, actual: dtype)

      {:ok, %{shape: ^shape, ref: ref}} ->
        {:ok, [ref]}

      {:ok, other} ->
        mismatch(shape, other)

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
      with {:ok, typed} <- typed(parsed, kinds, check),
           {:ok, ref} <- sound(typed.tree),
           {:ok, time} <- compiled(ref, parsed.name, id),
           do: {:ok, Map.merge(typed, %{ref: ref, name: parsed.name, time: time})}
    end)
  end

  defp typed(parsed, kinds, check) do
    with {:error, clash} <- Typer.type(parsed, Map.new(kinds), check),
         do: Error.new(:type_mismatch, kernel: parsed.name, text: Exception.message(clash))
  end

  # Of what the typer makes, only too much depth is refused.
  defp sound(tree) do
    with {:error, %{details: %{argument: :reference}}} <-
           Error.from_native(fn -> Native.kernel_new(tree) end) do
      reason = "it is nested deeper than 200 levels: use variables"
      Error.new(:invalid_argument, argument: :kernel, reason: reason)
    end
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

  @doc "Compiles a kernel for arguments that may be types instead of buffers, on a device."
  def warm(%{parsed: parsed} = kernel, args, id) do
    kinds = fn -> for {name, arg} <- Enum.zip(parsed.args, args), do: {name, like(arg)} end

    with {:ok, _} <- same_number(parsed.args, args),
         {:ok, kinds} <- known(kinds.()),
         {:ok, _} <- made(kernel, kinds, id, false),
         do: :ok
  end

  defp like(number) when is_integer(number), do: :int
  defp like(number) when is_float(number), do: :float
  defp like(%Buffer{dtype: dtype}), do: {:buffer, dtype}
  defp like(dtype), do: if(DType.valid?(dtype), do: {:buffer, dtype}, else: {:unknown, dtype})

  defp known(kinds) do
    case Enum.find(kinds, &match?({_, {:unknown, _}}, &1)) do
      nil -> {:ok, kinds}
      {name, {_, other}} -> Arguments.invalid(name, other, "a type such as :f32, or a number")
    end
  end

  ## What a run takes

  defp refs(names, args), do: for(name <- names, do: args[name].ref)

  # Of a kernel of groups, how many of them; else how many threads.
  defp positions(nil, shape), do: Shape.size(shape)
  defp positions(group, shape), do: Shape.size(groups(group, shape))

  # Groups of one axis go over all of the shape, others along its axes.
  defp groups([threads, 1, 1], shape), do: [full(Shape.size(shape), threads), 1, 1]

  defp groups(threads, shape),
    do: for({threads, length} <- Enum.zip(threads, lengths(shape)), do: full(length, threads))

  defp full(length, threads), do: div(length + threads - 1, threads)

  # Along x, y and z; what is left is along z.
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
        # Never zero: these divide.
        {:dim, axis} -> max(along(axis, lengths(shape)), 1)
        {:groups, axis} -> max(along(axis, groups(group, shape)), 1)
        name -> args[name]
      end
    end
  end

  defp along(axis, lengths), do: Enum.at(lengths, %{x: 0, y: 1, z: 2}[axis])
  # Of the first buffer: there is one in every call.
  defp device(args) do
    {_, %{device: id}} = Enum.find(args, &is_struct(elem(&1, 1), Buffer))
    id
  end
end
