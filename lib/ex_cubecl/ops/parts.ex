defmodule ExCubecl.Ops.Parts do
  @moduledoc false
  # Horizontal fusion: element-wise code of several shapes, none of which reads the results of another, as one launch. A part is the code of
  # `ExCubecl.Ops.Results` with its operands and its shape; no two parts have a name of an argument or of a variable in common.
  #
  # Each thread has elements of every part. On a GPU it has at most one of each, and the threads without one skip the part. A driver for CPUs executes both sides
  # of a branch: there, few threads loop over the elements, so that not many are without one.

  alias ExCubecl.{Buffer, Device, Error, Shape}
  alias ExCubecl.Ops.{Index, Operands, Results, Strided}

  @cpu_threads 2048

  @doc """
  Runs parts: `{:ok, buffers}` with a list of buffers for each part. `opts` are those of `ExCubecl.Buffer.empty/3`. The last element of a part are the targets of
  `ExCubecl.Ops.Results.run/5`, which no other part reads.
  """
  @spec run([{Results.code(), [Results.operand()], Shape.t(), [Buffer.t() | nil]}], keyword) ::
          {:ok, [[Buffer.t()]]} | {:error, Error.t()}
  def run(parts, opts) do
    with {:ok, parts} <- parts |> Enum.with_index() |> Error.map(&part(&1, opts)),
         :ok <- launch(parts),
         do: {:ok, for(part <- parts, do: Keyword.values(part.outputs))}
  end

  defp part({{code, operands, shape, targets}, at}, opts) do
    with {:ok, indices, reads} <- Results.operands(code, operands, shape),
         {:ok, outputs} <- Results.outputs(code, shape, opts, targets) do
      views = Operands.strided(reads) ++ indices
      indexed = Strided.indexed(views, shape, {Index.var(:element), {:part, at}})
      outputs = for {out, number} <- Enum.with_index(outputs), do: {:"out#{at}_#{number}", out}
      {own, others} = Results.own(reads, outputs)

      {:ok,
       %{
         at: at,
         code: code,
         own: own,
         reads: others,
         indices: Keyword.keys(indices),
         indexed: indexed,
         outputs: outputs,
         size: Shape.size(shape)
       }}
    end
  end

  defp launch([%{outputs: [{_, %{device: device}} | _]} | _] = parts) do
    threads = threads(Enum.map(parts, & &1.size), device)
    rounds = for part <- parts, do: div(part.size + threads - 1, threads)
    loops? = Enum.any?(rounds, &(&1 > 1))
    numbers = if loops?, do: [step: threads], else: []

    args =
      for {part, rounds} <- Enum.zip(parts, rounds) do
        last = if loops?, do: [{name(part, :last), rounds - 1}], else: []

        Enum.map(part.reads, &Operands.argument/1) ++
          part.indexed.args ++ [{name(part, :size), part.size}] ++ last
      end

    outputs = Enum.flat_map(parts, & &1.outputs)
    args = Enum.concat(args) ++ numbers ++ outputs
    keys = for part <- parts, do: {part.code.key, part.indexed.key, modes(part)}
    op = %{key: :parts, parsed: %{name: hd(parts).code.name}}
    statements = Enum.flat_map(parts, &statements(&1, loops?))

    {kernel, args} =
      Strided.kernel(op, {keys, loops?}, args, Keyword.keys(outputs), {statements, nil})

    Strided.run(kernel, args, size: threads, replaces: true)
  end

  defp threads(sizes, device) do
    most = Enum.max(sizes)
    if Device.cpu?(device), do: min(most, @cpu_threads), else: most
  end

  defp modes(part), do: {part.own, for({name, mode, _} <- part.reads, do: {name, mode})}

  ## Statements

  # Adjacent threads have adjacent elements.
  defp statements(part, false),
    do: [Index.let(:element, Index.unsigned({:index, nil})), inside(part)]

  defp statements(part, true) do
    before = Index.call(:mul, Index.unsigned(Index.var(:round)), Index.var(:step))
    element = Index.call(:add, Index.unsigned({:index, nil}), Index.unsigned(before))
    body = [Index.let(:element, element), inside(part)]
    [{:for, 0, :round, Index.number(0), Index.var(name(part, :last)), body}]
  end

  defp inside(%{code: code} = part) do
    inside? = Index.call(:lt, Index.var(:element), Index.unsigned(Index.var(name(part, :size))))
    own = for {name, out} <- part.own, into: %{}, do: {name, {:at, 0, out, Index.var(:element)}}
    expressions = for read <- part.reads, into: own, do: {elem(read, 0), expression(read, part)}
    indices = Map.take(part.indexed.index, part.indices)

    writes =
      for {{name, _}, {result, _}} <- Enum.zip(part.outputs, code.results),
          do: {:write, 0, name, Index.var(:element), result}

    reads = Results.reads(code.args, Map.merge(indices, expressions))
    {:branch, 0, inside?, part.indexed.statements ++ reads ++ code.statements ++ writes, []}
  end

  defp expression({name, :flat, _buffer}, _part), do: {:at, 0, name, Index.var(:element)}
  defp expression(read, part), do: Operands.expression(read, part.indexed.index)

  defp name(%{at: at}, what), do: Index.name(:"part#{at}", what)
end
