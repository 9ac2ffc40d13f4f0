defmodule ExCubecl.Ops.Parts do
  @moduledoc false
  # Horizontal fusion: element-wise code of several shapes, none of which reads the results of another, as one launch. A part is the code of
  # `ExCubecl.Ops.Results` with its operands and its shape; no two parts have a name of an argument or of a variable in common.
  #
  # Each thread has elements of every part. On a GPU it has at most one of each, and the threads without one skip the part. A driver for CPUs executes both sides
  # of a branch: there, few threads loop over the elements, so that not many are without one.

  alias ExCubecl.{Buffer, Device, Error, Shape}
  alias ExCubecl.Ops.{Index, Inlined, Results, Strided}

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

  defp part({{code, operands, shape, targets}, at}, opts),
    do: Inlined.new(code, operands, shape, opts, {at, targets})

  defp launch([%{outputs: [{_, %{device: device}} | _]} | _] = parts) do
    threads = threads(Enum.map(parts, & &1.size), device)
    rounds = for part <- parts, do: div(part.size + threads - 1, threads)
    loops? = Enum.any?(rounds, &(&1 > 1))
    numbers = if loops?, do: [step: threads], else: []

    args =
      for {part, rounds} <- Enum.zip(parts, rounds) do
        last = if loops?, do: [{name(part, :last), rounds - 1}], else: []

        Inlined.arguments(part) ++ [{name(part, :size), part.size}] ++ last
      end

    outputs = Enum.flat_map(parts, & &1.outputs)
    args = Enum.concat(args) ++ numbers ++ outputs
    keys = Enum.map(parts, &Inlined.key/1)
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

  defp inside(part) do
    inside? = Index.call(:lt, Index.var(:element), Index.unsigned(Index.var(name(part, :size))))
    {:branch, 0, inside?, Inlined.statements(part), []}
  end

  defp name(%{at: at}, what), do: Index.name(:"part#{at}", what)
end
