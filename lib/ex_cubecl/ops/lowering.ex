defmodule ExCubecl.Ops.Lowering do
  @moduledoc false
  # Lowers an element-wise operation on strided operands to a kernel, and runs it. The operation is an element-wise kernel, whose expression is
  # applied to elements of the operands; operands are buffers, views (`ExCubecl.View`) and numbers, and are broadcast.
  #
  # An operand whose elements are contiguous in the order of the result is read at the index of the invocation, one of a single
  # element at index 0. If all are, the operation runs as it is. Any other operand is read through its strides (`ExCubecl.Ops.Index`): of a cheap operation
  # by `ExCubecl.Ops.Blocks`, else by one invocation for each element.

  alias ExCubecl.{Buffer, Device, Error, Kernel, Shape, View}
  alias ExCubecl.Buffer.{AllocOptions, Handle}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.{CallArguments, Compiler}
  alias ExCubecl.Ops.{Blocks, ComputeType, Index, Operands, Reads, Shapes, Strided}
  alias ExCubecl.View.{Bits, Copy, Strides}

  require Kernel

  @copy Kernel.kernel(fn x -> x end)

  @type operand :: Buffer.t() | View.t() | number | :nan | :infinity | :neg_infinity

  @doc """
  Applies `op` to the operands: `{:ok, buffer}`, or `:ok` with `:into`.

    * `:as` - the type to which each operand is cast before the operation
    * `:dtype` - the type to which the result is cast
    * `:into` - a buffer for the result, of its shape and type; it may be one of the operands, if that is contiguous
    * `:tag`, `:allocation` - as for `ExCubecl.Buffer.new/4`
  """
  @spec map(Kernel.t(), [operand], keyword) :: {:ok, Buffer.t()} | :ok | {:error, Error.t()}
  def map(op, operands, opts \\ []) do
    known = [:as, :dtype, :into | AllocOptions.options()]

    with {:ok, opts} <- Arguments.options(opts, known),
         {:ok, _} <- dtype(opts[:as]),
         {:ok, _} <- dtype(opts[:dtype]),
         {:ok, operands} <- Operands.views(operands),
         {:ok, wide} <- Error.map(operands, &widened/1),
         {:ok, stored?} <- stored?(opts[:dtype], operands) do
      if wide == operands and stored?,
        do: mapped(op, operands, opts),
        else: narrowed(op, operands, wide, opts)
    end
  end

  defp dtype(nil), do: {:ok, nil}
  defp dtype(dtype), do: Arguments.dtype(dtype)

  defp mapped(op, operands, opts) do
    with {:ok, shape} <- Shapes.broadcast(op.parsed.name, Operands.shapes(operands)),
         {:ok, reads} <- Operands.reads(names(op), operands, shape),
         {:ok, _} <- CallArguments.check(op.parsed, Enum.map(reads, &value/1)) do
      {casts, opts} = Keyword.split(opts, [:as, :dtype])

      if Keyword.has_key?(opts, :into),
        do: into(op, reads, shape, casts, opts[:into]),
        else: new(op, reads, shape, casts, opts)
    end
  end

  # The names of the operands in the kernel: those of the parameters, which errors show, unless one could be the name of another variable or argument.
  defp names(%{parsed: %{args: args}}) do
    if Enum.any?(args, &(&1 == :out or Index.variable?(&1))),
      do: for({_, at} <- Enum.with_index(args), do: :"operand#{at}"),
      else: args
  end

  ## Types that the kernels of the device do not have

  defp widened(%View{} = view), do: ComputeType.widened(view)
  defp widened(other), do: {:ok, other}

  # Whether a kernel can write a result of the type.
  defp stored?(nil, _operands), do: {:ok, true}

  defp stored?(dtype, operands) do
    case Enum.find(operands, &is_struct(&1, View)) do
      nil -> {:ok, true}
      view -> with {:ok, type} <- ComputeType.of(dtype, view.device), do: {:ok, type == dtype}
    end
  end

  # Calculates with wider types, and converts the result to the type that it would have.
  defp narrowed(op, operands, wide, opts) do
    %{device: device} = Enum.find(operands, &is_struct(&1, View))
    {into, opts} = Keyword.pop(opts, :into)

    with {:ok, dtype} <- result_type(op.parsed, Enum.map(operands, &kind(&1, opts[:as]))),
         dtype = opts[:dtype] || dtype,
         {:ok, stored} <- ComputeType.of(dtype, device),
         {:ok, as} <- calculated(opts[:as], device),
         {:ok, result} <-
           mapped(op, wide, [dtype: stored] ++ as ++ Keyword.drop(opts, [:as, :dtype])),
         {:ok, result} <- ComputeType.converted(result, dtype),
         do: if(into == nil, do: {:ok, result}, else: Buffer.copy(result, into))
  end

  defp calculated(nil, _device), do: {:ok, []}

  defp calculated(as, device),
    do: with({:ok, as} <- ComputeType.of(as, device), do: {:ok, [as: as]})

  defp kind(%View{dtype: dtype}, as), do: {:buffer, as || dtype}
  defp kind(number, _as), do: CallArguments.kind(number)

  defp value(read), do: read |> Operands.argument() |> elem(1)

  ## Results in new buffers

  defp new(op, reads, shape, casts, opts) do
    case blocks(op, reads, shape, casts) do
      {:ok, dtype} ->
        with {:ok, out} <- empty(reads, shape, dtype, opts),
             :ok <- Blocks.run(op, reads, {casts[:as], casts[:dtype]}, out),
             do: {:ok, out}

      :no ->
        by_element(op, reads, shape, casts, opts)
    end
  end

  # The type of the result of an operation that is lowered to blocks.
  defp blocks(op, reads, shape, casts) do
    with [_ | _] <- Reads.strided(reads),
         true <- Blocks.many?(shape),
         {:ok, dtype} <- type_of(op, reads, casts),
         true <- Blocks.fits?(op, reads, dtype) do
      {:ok, dtype}
    else
      _ -> :no
    end
  end

  defp empty(reads, shape, dtype, opts) do
    [{_, %{device: device}} | _] = Reads.strided(reads)
    Buffer.empty(shape, dtype, [device: device] ++ opts)
  end

  defp by_element(op, reads, shape, casts, opts) do
    {kernel, args} = element_wise(op, reads, shape, casts)
    # Numbers alone have no device: the launch reports them.
    buffers? = Enum.any?(reads, &(elem(&1, 1) != :number))
    Strided.run(kernel, args, if(buffers?, do: [shape: shape], else: []) ++ opts)
  end

  # The operation itself if no operand is strided and nothing is cast.
  defp element_wise(op, reads, shape, casts) do
    if casts == [] and Operands.strided(reads) == [] do
      {op, Enum.map(reads, &value/1)}
    else
      indexed = indexed(reads, shape)
      result = Operands.apply(op, expressions(reads, indexed), casts[:as], casts[:dtype])
      args = Enum.map(reads, &Operands.argument/1) ++ indexed.args
      Strided.kernel(op, {indexed.key, casts}, args, [], {indexed.statements, result})
    end
  end

  # The operands of strided reads, and the views of `targets`.
  defp indexed(reads, shape, targets \\ []) do
    indexed = Strided.indexed(Operands.strided(reads) ++ targets, shape)
    %{indexed | key: {indexed.key, Enum.map(reads, &elem(&1, 1))}}
  end

  defp expressions(reads, indexed), do: Enum.map(reads, &Operands.expression(&1, indexed.index))

  ## Results in given buffers

  # If the buffer of the result is an operand, the kernel binds it once, as its output.
  defp into(op, reads, shape, casts, into) do
    with {:ok, %{ref: ref} = buffer} <- Handle.local(into),
         true <- Enum.any?(reads, &match?({_, :flat, %{ref: ^ref}}, &1)),
         {:ok, dtype} <- type_of(op, reads, casts),
         true <- dtype == buffer.dtype and shape == buffer.shape do
      case blocks(op, reads, shape, casts) do
        {:ok, _dtype} -> Blocks.run(op, reads, {casts[:as], casts[:dtype]}, buffer)
        :no -> in_place(op, reads, shape, casts, buffer)
      end
    else
      _ -> beside(op, reads, shape, casts, into)
    end
  end

  # The launch reports what does not fit.
  defp beside(op, reads, shape, casts, into) do
    with {:ok, dtype} <- blocks(op, reads, shape, casts),
         {:ok, %{dtype: ^dtype, shape: ^shape} = buffer} <- Handle.local(into),
         do: Blocks.run(op, reads, {casts[:as], casts[:dtype]}, buffer),
         else: (_ -> by_element(op, reads, shape, casts, into: into))
  end

  defp in_place(op, reads, shape, casts, %{ref: ref} = into) do
    same? = &match?({_, :flat, %{ref: ^ref}}, &1)
    others = Enum.reject(reads, same?)
    indexed = indexed(others, shape)
    own = {:at, 0, :out, {:index, nil}}

    expressions =
      Enum.map(reads, &if(same?.(&1), do: own, else: Operands.expression(&1, indexed.index)))

    result = Operands.apply(op, expressions, casts[:as], casts[:dtype])
    statements = indexed.statements ++ [{:write, 0, :out, {:index, nil}, result}]
    args = Enum.map(others, &Operands.argument/1) ++ indexed.args ++ [out: into]
    key = {:in_place, Enum.map(reads, same?), indexed.key, casts}
    {kernel, args} = Strided.kernel(op, key, args, [:out], {statements, nil})
    Strided.run(kernel, args, [])
  end

  defp type_of(%{parsed: parsed} = op, reads, casts) do
    kinds =
      for {_name, mode, value} <- reads,
          do: if(mode == :number, do: CallArguments.kind(value), else: {:buffer, value.dtype})

    if casts == [] do
      result_type(parsed, kinds)
    else
      result = Reads.apply(op, Enum.map(parsed.args, &Index.var/1), casts[:as], casts[:dtype])
      result_type(%{parsed | statements: [], result: result}, kinds)
    end
  end

  defp result_type(parsed, kinds),
    do: Compiler.result_type(parsed, Enum.zip(parsed.args, kinds))

  @doc """
  Applies `op` to the operands and writes the elements through the strides of a view, to whose shape they are broadcast. No operand may
  share bytes with it, and no two elements of it may be the same. `casts` are the options `:as` and `:dtype` of `map/3`. With `replaces?` the caller knows
  that no element of the buffer is read before others write what this call does not: its new memory is not zeroed.
  """
  @spec write(Kernel.t(), [operand], View.t(), keyword, boolean) :: :ok | {:error, Error.t()}
  def write(op, operands, %View{shape: shape} = target, casts \\ [], replaces? \\ false) do
    replaces? = replaces? or Shape.size(shape) == Shape.size(target.buffer.shape)

    with {:ok, operands} <- Operands.views(operands),
         {:ok, reads} <- Operands.reads(names(op), operands, shape) do
      with true <- Blocks.many?(shape),
           {:ok, dtype} when dtype == target.dtype <- type_of(op, reads, casts),
           true <- Blocks.fits?(op, reads, dtype),
           result when result != :no <-
             Blocks.write(op, reads, {casts[:as], casts[:dtype]}, target, replaces?) do
        result
      else
        _ -> write_elements(op, reads, target, casts, replaces?)
      end
    end
  end

  defp write_elements(op, reads, %{shape: shape} = target, casts, replaces?) do
    indexed = indexed(reads, shape, out: target)
    result = Operands.apply(op, expressions(reads, indexed), casts[:as], casts[:dtype])
    statements = indexed.statements ++ [{:write, 0, :out, indexed.index.out, result}]
    args = Enum.map(reads, &Operands.argument/1) ++ indexed.args ++ [out: target.buffer]

    {kernel, args} =
      Strided.kernel(op, {:write, indexed.key, casts}, args, [:out], {statements, nil})

    Strided.run(kernel, args, size: Shape.size(shape), replaces: replaces?)
  end

  @doc "Copies an operand through the strides of a view, to whose shape it is broadcast. `replaces?` is as for `write/5`."
  @spec place(Buffer.t() | View.t(), View.t(), atom, boolean) :: :ok | {:error, Error.t()}
  def place(source, %View{shape: shape} = target, name, replaces? \\ false) do
    with {:ok, source} <- Operands.view(source),
         source = Strides.broadcast(source, shape),
         {:ok, known} <- Device.dtypes(target.device) do
      if source.dtype in known and target.dtype in known,
        do: placed(source, target, name, replaces?),
        else: placed_as_bits(source, target, name)
    end
  end

  defp placed(source, target, name, replaces? \\ false),
    do: write(Strided.named(@copy, name), [source], target, [], replaces?)

  defp placed_as_bits(source, target, name) do
    with {:ok, source} <- in_type(source, target.dtype, name) do
      case {Bits.of(source), Bits.of(target)} do
        {{:ok, source}, {:ok, target}} -> placed(source, target, name)
        {:none, :none} -> placed_wide(source, target, name)
        {{:error, error}, _} -> {:error, error}
        {_, error} -> error
      end
    end
  end

  defp in_type(%{dtype: dtype} = source, dtype, _name), do: {:ok, source}

  defp in_type(source, dtype, name),
    do: with({:ok, buffer} <- Copy.copy(source, name, dtype), do: {:ok, View.new(buffer)})

  # The kernels have no integers of this width: the whole buffer is replaced.
  defp placed_wide(source, target, name) do
    with {:ok, source} <- ComputeType.widened(source),
         :ok <- Buffer.ensure_allocated(target.buffer),
         {:ok, wide} <- ComputeType.widened(target),
         :ok <- placed(source, wide, name),
         {:ok, narrow} <- Buffer.convert(wide.buffer, target.dtype),
         do: Buffer.copy(narrow, target.buffer)
  end
end
