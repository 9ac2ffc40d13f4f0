defmodule ExCubecl.Ops.Results do
  @moduledoc false
  # Element-wise code with any number of results, all of one shape, as one kernel: an element-wise kernel of one result, which other operations apply to elements
  # (`kernel/1`), or a launch that writes several (`run/4`).
  #
  # Code has arguments with their types: a number takes the type of its argument. Statements read the argument `name` as the variable `{:value, name}`. An operand is
  # a number, a view that broadcasts to the shape, `{:part, view}` for a view whose elements may be out of its buffer and are 0 there, or `{:iota, layout}`: the offset of
  # an element in a layout is its value.

  alias ExCubecl.{Buffer, DType, Error, Kernel, Shape, View}
  alias ExCubecl.Ops.{Index, Operands, Reads, Strided}
  alias ExCubecl.View.Strides

  @type code :: %{
          name: atom,
          key: term,
          args: [{atom, DType.t()}],
          statements: list,
          results: [{term, DType.t()}]
        }
  @type operand ::
          View.t() | {:part, View.t()} | number | :nan | :infinity | :neg_infinity | {:iota, map}

  @outputs for at <- 0..31, do: :"out#{at}"

  @doc "The variable with the value of an argument."
  def value(name), do: Index.var({:value, name})

  @doc "Code, with its key."
  @spec code(atom, [{atom, DType.t()}], list, [{term, DType.t()}]) :: code
  def code(name, args, statements, results) do
    key = :erlang.md5(:erlang.term_to_binary({args, statements, results}))
    %{name: name, key: key, args: args, statements: statements, results: results}
  end

  @doc "The element-wise kernel of code with one result."
  @spec kernel(code) :: Kernel.t()
  def kernel(%{results: [{result, dtype}], args: args} = code) do
    expressions = for {name, _} <- args, into: %{}, do: {name, Index.var(name)}

    parsed = %{
      name: code.name,
      args: Keyword.keys(args),
      outputs: [],
      statements: reads(code.args, expressions) ++ code.statements,
      result: {:cast, dtype, result},
      group: nil,
      shared: [],
      size: nil
    }

    %Kernel{parsed: parsed, key: {:code, code.key}}
  end

  @doc "The statements that read arguments, whose expressions are given by name."
  @spec reads([{atom, DType.t()}], map) :: list
  def reads(args, expressions) do
    for {name, dtype} <- args,
        do: Index.let({:value, name}, {:cast, dtype, Map.fetch!(expressions, name)})
  end

  @doc """
  Runs code: `{:ok, buffers}` with a new buffer for each result. `opts` are those of `ExCubecl.Buffer.empty/3`. `targets` has a buffer in place of the new one for
  some results, `nil` for the others: an operand of this type, which is read flat and nowhere else.
  """
  @spec run(code, [operand], Shape.t(), keyword, [Buffer.t() | nil]) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
  def run(code, operands, shape, opts, targets \\ []) do
    with {:ok, indices, reads} <- operands(code, operands, shape),
         {:ok, outputs} <- outputs(code, shape, opts, targets),
         :ok <- launch(code, reads, indices, Enum.zip(@outputs, outputs), shape),
         do: {:ok, outputs}
  end

  @doc "The buffers of the results of code, as for `run/5`."
  def outputs(code, shape, opts, targets),
    do: outputs(code.results, targets, &Buffer.empty(shape, elem(&1, 1), opts))

  @doc "A buffer for each result: its target, or what `new` makes of it."
  @spec outputs([result], [Buffer.t() | nil], (result -> {:ok, Buffer.t()} | {:error, Error.t()})) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
        when result: tuple
  def outputs(results, [], new), do: Error.map(results, new)

  def outputs(results, targets, new) do
    results
    |> Enum.zip(targets)
    |> Error.map(fn {result, target} -> if target, do: {:ok, target}, else: new.(result) end)
  end

  @doc "The layouts of the operands of code that are indices, by name, and the reads of the others."
  @spec operands(code, [operand], Shape.t()) ::
          {:ok, [{atom, map}], [Reads.read()]} | {:error, Error.t()}
  def operands(code, operands, shape) do
    {indices, given} =
      code.args
      |> Keyword.keys()
      |> Enum.zip(operands)
      |> Enum.split_with(&match?({_, {:iota, _}}, &1))

    {names, given} = Enum.unzip(given)

    indices = for {name, {:iota, layout}} <- indices, do: {name, Strides.broadcast(layout, shape)}
    with {:ok, reads} <- Operands.reads(names, given, shape), do: {:ok, indices, reads}
  end

  defp launch(code, reads, indices, outputs, shape) do
    indexed = Strided.indexed(Operands.strided(reads) ++ indices, shape)
    {own, others} = own(reads, outputs)

    expressions =
      for {name, _, _} = read <- others,
          into: Map.take(indexed.index, Keyword.keys(indices)),
          do: {name, Operands.expression(read, indexed.index)}

    replaced = for {name, out} <- own, into: expressions, do: {name, {:at, 0, out, {:index, nil}}}

    puts =
      for {{name, _}, {result, _}} <- Enum.zip(outputs, code.results), do: {:put, 0, name, result}

    args = Enum.map(others, &Operands.argument/1) ++ indexed.args ++ outputs
    key = {:results, indexed.key, own, for({name, mode, _} <- reads, do: {name, mode})}
    statements = indexed.statements ++ reads(code.args, replaced) ++ code.statements ++ puts
    op = %{key: code.key, parsed: %{name: code.name}}
    {kernel, args} = Strided.kernel(op, key, args, Keyword.keys(outputs), {statements, nil})
    Strided.run(kernel, args, size: Shape.size(shape), replaces: true)
  end

  @doc "The names of the reads of outputs with these outputs, and the other reads: a kernel has a buffer once."
  @spec own([Reads.read()], [{atom, Buffer.t()}]) :: {[{atom, atom}], [Reads.read()]}
  def own(reads, outputs) do
    names = for {name, %{ref: ref}} <- outputs, into: %{}, do: {ref, name}
    {own, others} = Enum.split_with(reads, &own?(&1, names))
    {for({name, :flat, %{ref: ref}} <- own, do: {name, names[ref]}), others}
  end

  defp own?({_, :flat, %{ref: ref}}, names), do: is_map_key(names, ref)
  defp own?(_read, _names), do: false
end
