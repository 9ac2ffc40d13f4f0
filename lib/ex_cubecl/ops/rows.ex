defmodule ExCubecl.Ops.Rows do
  @moduledoc false
  # Lowers operations on the rows along an axis, such as softmax, to one launch: reductions of each row, one after the other, each of which may use the
  # results of those before, and an element-wise operation on the elements and these results.
  #
  # A short row is the work of one invocation, a longer one that of a workgroup, whose threads combine their results in shared memory.
  # The rows of few long ones are left to `ExCubecl.Ops.Reduction`, which splits each row among many workgroups.
  #
  # Kernels name what they take by their arguments: `:x` and the other operands, numbers, and results of reductions.

  alias ExCubecl.{Buffer, Kernel, Shape, View}
  alias ExCubecl.Ops.{Index, Layout, Lowering, Operands, Reduction, Strided, Target}

  @short 32
  @threads [{256, 32}, {1024, 128}, {:infinity, 256}]
  @long 65_536

  @typedoc """
  A reduction: `element` is applied to each element, `step` combines two accumulators, or one with an element. It starts with `first`, a
  number or the name of one that no element changes; `finish` is applied to its result, the argument `acc`.
  """
  @type reduction :: %{
          element: Kernel.t(),
          step: Kernel.t(),
          first: number | atom,
          finish: Kernel.t()
        }

  @type spec :: %{
          name: atom,
          reductions: [{atom, reduction}],
          result: Kernel.t(),
          acc: atom,
          dtype: atom
        }

  @doc """
  Applies a spec to the rows of `operands[:x]` along an axis. The other operands are numbers and views that broadcast to its shape. The device computes their types, and calculates with
  `spec.acc`.
  """
  @spec run(spec, keyword, non_neg_integer, Target.into()) ::
          {:ok, Buffer.t()} | :ok | {:error, ExCubecl.Error.t()}
  def run(spec, operands, axis, into \\ nil) do
    %{shape: shape} = x = operands[:x]
    n = Enum.at(shape, axis)
    rows = div(Shape.size(shape), max(n, 1))

    cond do
      Shape.size(shape) == 0 -> Buffer.empty(shape, spec.dtype, device: x.device, lazy: false)
      n > @long and rows < 64 -> in_launches(spec, operands, axis, into)
      true -> in_one(spec, operands, axis, {rows, n}, into)
    end
  end

  ## One launch

  defp in_one(spec, operands, axis, {rows, n}, into) do
    {names, values} = Enum.unzip(operands)
    %{shape: shape, device: device} = operands[:x]

    with {:ok, reads} <- Operands.reads(names, values, shape, false),
         {:ok, out} <- Target.new(into, shape, spec.dtype, device) do
      threads = threads(n)
      space = space(reads, out, axis)
      args = Enum.map(reads, &Operands.argument/1) ++ space.args ++ [row_length: n, out: out]
      modes = for {name, mode, _} <- reads, do: {name, mode}
      key = {:rows, spec.acc, threads, modes, space.key}
      statements = statements(spec, reads, space, threads)
      op = Strided.named(spec.result, spec.name)
      {kernel, args} = Strided.kernel(op, key, args, [:out], {statements, nil})

      with :ok <- Strided.run(grouped(kernel, spec, threads), args, size: rows * threads),
           :ok <- Buffer.ensure_allocated(out),
           do: {:ok, out}
    end
  end

  defp threads(n) when n <= @short, do: 1

  defp threads(n),
    do: Enum.find_value(@threads, fn {most, threads} -> if n <= most, do: threads end)

  defp grouped(kernel, _spec, 1), do: kernel

  defp grouped(%{parsed: parsed} = kernel, spec, threads) do
    shared = [{:partial, spec.acc, threads}]
    %{kernel | parsed: %{parsed | group: [threads, 1, 1], shared: shared}}
  end

  # The joined axes of the rows, and the strides along a row.
  defp space(reads, out, axis) do
    views = Operands.strided(reads) ++ [out: View.new(out)]
    strides = for {_, view} <- views, do: List.delete_at(view.strides, axis)
    {lengths, strides} = Layout.joined(List.delete_at(out.shape, axis), strides)
    patterns = Enum.map(strides, &Index.pattern/1)
    used = Index.used(patterns)
    along = for {_, view} <- views, do: [Enum.at(view.strides, axis)]
    along_patterns = Enum.map(along, &Index.pattern/1)

    args =
      for {{name, view}, strides, along} <- Enum.zip([views, strides, along]) do
        [{Index.name(name, :offset), view.offset}] ++
          Index.strides(name, strides, :kept) ++ Index.strides(name, along, :reduced)
      end

    %{
      args: Index.lengths(lengths, used, :kept) ++ Enum.concat(args),
      views: Enum.zip([Keyword.keys(views), patterns, along_patterns]),
      coordinates: Index.coordinates(:row, length(lengths), used, :kept),
      key: {length(lengths), patterns, along_patterns}
    }
  end

  ## Statements

  defp statements(spec, reads, space, threads) do
    names = env(reads, space, spec.acc)
    reductions = Enum.flat_map(spec.reductions, &reduction(&1, names, threads))
    bases = for {name, pattern, _} <- space.views, do: base(name, pattern)
    write = {:write, 0, :out, index(:out, space), apply_to(spec.result, names)}
    start(threads) ++ space.coordinates ++ bases ++ reductions ++ [loop(threads, [write])]
  end

  # An invocation has a row of its own, or a part of that of its workgroup.
  defp start(1) do
    [
      Index.let(:row, Index.unsigned({:index, nil})),
      Index.let(:last, Index.call(:sub, Index.var(:row_length), Index.number(1)))
    ]
  end

  defp start(threads) do
    left = Index.call(:sub, Index.var(:row_length), {:local, nil})

    rounds =
      Index.call(:div, Index.call(:add, left, Index.number(threads - 1)), Index.number(threads))

    [
      Index.let(:row, Index.unsigned({:group, nil})),
      Index.let(:last, Index.call(:sub, rounds, Index.number(1)))
    ]
  end

  defp base(name, pattern) do
    from = Index.unsigned(Index.var(Index.name(name, :offset)))
    Index.let(Index.name(name, :base), Index.offset(from, name, pattern, :kept))
  end

  # The index of the element `:k` of the row in a view.
  defp index(name, space) do
    {_, _, along} = List.keyfind(space.views, name, 0)
    Index.offset(Index.var(Index.name(name, :base)), name, along, :reduced)
  end

  # The expressions of operands, by name. The results of reductions are variables.
  defp env(reads, space, acc) do
    for {name, mode, _} = read <- reads, into: %{} do
      index = if mode == :strided, do: %{name => index(name, space)}, else: %{}
      expression = Operands.expression(read, index)
      {name, if(mode == :number, do: expression, else: {:cast, acc, expression})}
    end
  end

  defp apply_to(kernel, names), do: {:inline, kernel.parsed, arguments(kernel, names)}

  defp arguments(%{parsed: %{args: args}}, names),
    do: for(name <- args, do: Map.get(names, name, Index.var(name)))

  defp reduction({name, reduction}, names, threads) do
    element = apply_to(reduction.element, names)
    next = {:inline, reduction.step.parsed, [Index.var(name), element]}
    result = apply_to(reduction.finish, Map.put(names, :acc, Index.var(name)))

    [Index.let(name, first(reduction.first, names)), loop(threads, [Index.let(name, next)])] ++
      combined(name, reduction.step, threads) ++ [Index.let(name, result)]
  end

  # The accumulator has the type of the calculation.
  defp first(number, %{x: {:cast, acc, _}}) when is_number(number),
    do: {:cast, acc, Index.number(number)}

  defp first(name, %{x: {:cast, acc, _}}), do: {:cast, acc, Index.var(name)}

  defp loop(threads, body),
    do:
      {:for, 0, :j, Index.number(0), Index.var(:last),
       [Index.let(:r, place(threads)) | Index.coordinates(:r, 1, [0], :reduced)] ++ body}

  # The coordinate along the row. Adjacent threads have adjacent elements.
  defp place(1), do: Index.unsigned(Index.var(:j))

  defp place(threads) do
    start = Index.call(:mul, Index.var(:j), Index.number(threads))
    Index.unsigned(Index.call(:add, start, {:local, nil}))
  end

  # In each step, the first half of the threads adds the results of the second half.
  defp combined(_name, _step, 1), do: []

  defp combined(name, step, threads) do
    local = {:local, nil}

    halves =
      threads
      |> Stream.iterate(&div(&1, 2))
      |> Enum.take_while(&(&1 > 1))
      |> Enum.map(&div(&1, 2))

    steps =
      for half <- halves do
        other = {:at, 0, :partial, Index.call(:add, local, Index.number(half))}
        both = {:inline, step.parsed, [{:at, 0, :partial, local}, other]}
        first? = Index.call(:lt, local, Index.number(half))
        [{:branch, 0, first?, [{:write, 0, :partial, local, both}], []}, {:barrier, 0}]
      end

    [{:write, 0, :partial, local, Index.var(name)}, {:barrier, 0}] ++
      Enum.concat(steps) ++
      [Index.let(name, {:at, 0, :partial, Index.number(0)}), {:barrier, 0}]
  end

  ## Several launches

  defp in_launches(spec, operands, axis, into) do
    with {:ok, known} <- reduced(spec.reductions, spec, operands, axis) do
      op = Strided.named(spec.result, spec.name)
      target = Target.option(into, operands[:x].shape, spec.dtype, operands[:x].device)
      Lowering.map(op, values(spec.result, known), [as: spec.acc, dtype: spec.dtype] ++ target)
    end
  end

  defp reduced([], _spec, known, _axis), do: {:ok, known}

  defp reduced([{name, reduction} | rest], spec, known, axis) do
    first = if is_number(reduction.first), do: reduction.first
    whole = %{name: spec.name, first: first, step: reduction.step}
    whole = Map.merge(whole, %{operands: spec.acc, as: spec.acc, dtype: spec.acc})
    finish = Strided.named(reduction.finish, spec.name)

    with {:ok, acc} <-
           Reduction.run(whole, reduction.element, values(reduction.element, known), [axis], true),
         {:ok, result} <- Lowering.map(finish, values(finish, [acc: acc] ++ known), as: spec.acc),
         do: reduced(rest, spec, known ++ [{name, result}], axis)
  end

  defp values(%{parsed: %{args: args}}, known), do: Enum.map(args, &Keyword.fetch!(known, &1))
end
