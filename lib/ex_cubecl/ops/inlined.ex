defmodule ExCubecl.Ops.Inlined do
  @moduledoc false
  # Element-wise code of `ExCubecl.Ops.Results` as a part of a kernel that does more: its arguments, its outputs, and its statements for the element whose number, in
  # row-major order, is the variable `:element`. Several codes in one kernel have numbers, and no name of an argument or of a variable in common.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Ops.{Index, Operands, Results, Strided}

  @type t :: %{
          at: non_neg_integer,
          code: Results.code(),
          own: [{atom, atom}],
          reads: list,
          indices: [atom],
          indexed: Strided.indexed(),
          outputs: [{atom, Buffer.t()}],
          size: non_neg_integer
        }

  @doc """
  Code with its operands for a shape, and with new buffers for its results. `opts` are those of `ExCubecl.Buffer.empty/3`. An operand `:given` is a value that
  the kernel has: `statements/2` takes its expression. `targets` are those of `ExCubecl.Ops.Results.run/5`.
  """
  @spec new(
          Results.code(),
          [Results.operand() | :given],
          Shape.t(),
          keyword,
          {non_neg_integer, [Buffer.t() | nil]}
        ) :: {:ok, t} | {:error, Error.t()}
  def new(code, operands, shape, opts, {at, targets}) do
    {args, read} =
      code.args |> Enum.zip(operands) |> Enum.reject(&(elem(&1, 1) == :given)) |> Enum.unzip()

    with {:ok, indices, reads} <- Results.operands(%{code | args: args}, read, shape),
         {:ok, outputs} <- Results.outputs(code, shape, opts, targets) do
      views = Operands.strided(reads) ++ indices
      outputs = for {out, number} <- Enum.with_index(outputs), do: {:"out#{at}_#{number}", out}
      {own, others} = Results.own(reads, outputs)

      {:ok,
       %{
         at: at,
         code: code,
         own: own,
         reads: others,
         indices: Keyword.keys(indices),
         indexed: Strided.indexed(views, shape, {Index.var(:element), {:part, at}}),
         outputs: outputs,
         size: Shape.size(shape)
       }}
    end
  end

  @doc "The arguments of a launch, without the outputs."
  @spec arguments(t) :: keyword
  def arguments(inlined),
    do: Enum.map(inlined.reads, &Operands.argument/1) ++ inlined.indexed.args

  @doc "What the statements depend on."
  @spec key(t) :: term
  def key(inlined) do
    modes = for {name, mode, _} <- inlined.reads, do: {name, mode}
    {inlined.code.key, inlined.indexed.key, inlined.own, modes}
  end

  @doc "The statements that write an element of each output. `given` has expressions by the names of the arguments that the kernel has."
  @spec statements(t, %{atom => term}) :: list
  def statements(%{code: code} = inlined, given \\ %{}) do
    own =
      for {name, out} <- inlined.own, into: given, do: {name, {:at, 0, out, Index.var(:element)}}

    expressions =
      for read <- inlined.reads, into: own, do: {elem(read, 0), expression(read, inlined)}

    indices = Map.take(inlined.indexed.index, inlined.indices)

    writes =
      for {{name, _}, {result, _}} <- Enum.zip(inlined.outputs, code.results),
          do: {:write, 0, name, Index.var(:element), result}

    reads = Results.reads(code.args, Map.merge(indices, expressions))
    inlined.indexed.statements ++ reads ++ code.statements ++ writes
  end

  defp expression({name, :flat, _buffer}, _inlined), do: {:at, 0, name, Index.var(:element)}
  defp expression(read, inlined), do: Operands.expression(read, inlined.indexed.index)
end
