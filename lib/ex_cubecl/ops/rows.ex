defmodule ExCubecl.Ops.Rows do
  @moduledoc false
  # Lowers operations on the rows along an axis, or along several, such as softmax, to one launch: reductions of each row, one after the other, each of which may use the
  # results of those before, and an element-wise operation on the elements and these results.
  #
  # A short row is the work of one invocation, a longer one that of a workgroup, whose threads combine their results in shared memory.
  # The rows of few long ones are left to `ExCubecl.Ops.Reduction`, which splits each row among many workgroups.
  #
  # Kernels name what they take by their arguments: `:x` and the other operands, numbers, and results of reductions.

  alias ExCubecl.{Buffer, Device, Kernel, Shape}

  alias ExCubecl.Ops.{
    Index,
    Layout,
    Lowering,
    Operands,
    Reduction,
    Results,
    Shapes,
    Strided,
    Target
  }

  # The threads of a row by its length. A driver for CPUs has a vector of 8 threads, and at each barrier switches between those of a workgroup: measured on
  # lavapipe for rows of 512 to 4,096 elements, one thread takes 0.9 of the time of 8 for softmax and 0.8 for layer_norm, and half of the time to compile; 8 threads
  # three quarters of that of 128. The sum of one thread has the error of as many additions: longer rows are divided among several.
  @threads [{32, 1}, {256, 32}, {1024, 128}, {:infinity, 256}]
  @cpu_threads [{1024, 1}, {65_536, 8}, {:infinity, 16}]
  @long 65_536
  @long_on_cpu 131_072

  @outputs for at <- 0..31, do: :"out#{at}"

  @typedoc """
  A reduction: `element` is applied to each element, `step` combines two accumulators, or one with an element. It starts with `first`, a
  number or the name of one that no element changes; `finish`, if it is not `nil`, is applied to its result, the argument `acc`.
  """
  @type reduction :: %{
          element: Kernel.t(),
          step: Kernel.t(),
          first: number | atom,
          finish: Kernel.t() | nil
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
      not one_launch?(n, rows, long(x.device)) -> in_launches(spec, operands, axis, into)
      true -> in_one(spec, operands, axis, into)
    end
  end

  @typedoc """
  What a launch does with each row. `args` are the operands with their types. Phases run one after the other:

    * `{:reduce, name, names, statements, element, {step, first}}` sets the variable `name` to the result of a reduction, of the type `acc`
    * `{:value, name, names, statements, expression}` sets a variable for the row

  `names` are the arguments that are read, as `ExCubecl.Ops.Results` reads them. Results are `{:element | :row, expression, dtype}`; `last` has the names and
  statements of those of elements.
  """
  @type code :: %{
          name: atom,
          key: term,
          acc: atom,
          args: [{atom, atom}],
          phases: [tuple],
          last: {[atom], list},
          results: [{:element | :row, term, atom}]
        }

  @doc "Whether rows of this length are worth one launch: few long ones are left to `ExCubecl.Ops.Reduction`."
  @spec one_launch?(non_neg_integer, non_neg_integer, pos_integer) :: boolean
  def one_launch?(n, rows, long \\ @long), do: n <= long or rows >= 64

  # Of one row of 131,072 elements, a launch takes a CPU less time than the five or six for its parts; of one of 262,144, as much.
  defp long(device), do: if(Device.cpu?(device), do: @long_on_cpu, else: @long)

  @doc """
  Runs code on the rows along axes, in ascending order, of operands that broadcast to a shape: `{:ok, buffers}` with a buffer for each result. `targets` has a buffer in place of the
  new one for some results of elements, `nil` for the others: an operand of this type, which is read only at the element that is written.
  """
  @spec run_code(code, [term], {Shape.t(), [non_neg_integer]}, keyword, [Buffer.t() | nil]) ::
          {:ok, [Buffer.t()]} | {:error, ExCubecl.Error.t()}
  def run_code(code, values, {shape, axes}, opts, targets \\ []) do
    results = for {level, expression, _} <- code.results, do: {level, expression}
    new = &output(&1, shape, axes, opts)

    with {:ok, outputs} <- Results.outputs(code.results, targets, new) do
      op = {code, Keyword.keys(code.args), for(%{ref: ref} <- targets, do: ref)}

      launch(op, values, {shape, axes}, outputs, fn names ->
        read = &Results.reads(Keyword.take(code.args, &1), names)

        phases =
          for phase <- code.phases do
            case phase do
              {:reduce, name, used, statements, element, rest} ->
                {:reduce, name, read.(used) ++ statements, element, rest}

              {:value, name, used, statements, expression} ->
                {:value, name, read.(used) ++ statements, expression}
            end
          end

        {used, statements} = code.last
        {phases, {read.(used) ++ statements, results}}
      end)
    end
  end

  defp output({:row, _, dtype}, shape, axes, opts),
    do: shape |> Shapes.kept(axes) |> Buffer.empty(dtype, opts)

  defp output({:element, _, dtype}, shape, _axes, opts), do: Buffer.empty(shape, dtype, opts)

  ## One launch

  defp in_one(spec, operands, axis, into) do
    {names, values} = Enum.unzip(operands)
    %{shape: shape, device: device} = operands[:x]
    code = %{name: spec.name, key: spec.result.key, acc: spec.acc}

    with {:ok, out} <- Target.new(into, shape, spec.dtype, device),
         {:ok, [out]} <-
           launch({code, names, []}, values, {shape, [axis]}, [out], &phases(spec, &1)),
         do: {:ok, out}
  end

  defp phases(spec, expressions) do
    names =
      for {name, expression} <- expressions, into: %{} do
        case expression do
          {:var, ^name} -> {name, expression}
          read -> {name, {:cast, spec.acc, read}}
        end
      end

    phases =
      Enum.flat_map(spec.reductions, fn {name, reduction} ->
        first = first(reduction.first, names)
        element = apply_to(reduction.element, names)
        reduce = {:reduce, name, [], element, {reduction.step, first}}
        [reduce | finished(name, reduction.finish, names)]
      end)

    {phases, {[], [{:element, apply_to(spec.result, names)}]}}
  end

  defp finished(_name, nil, _names), do: []

  defp finished(name, finish, names),
    do: [{:value, name, [], apply_to(finish, Map.put(names, :acc, Index.var(name)))}]

  # `phases` makes the phases and the results of the expressions of the operands. `replaced` are the references of buffers that are both read and written: a
  # kernel has them once, as outputs.
  defp launch({code, names, replaced}, values, {shape, axes}, outputs, phases) do
    n = axes |> Enum.map(&Enum.at(shape, &1)) |> Shape.size()
    rows = div(Shape.size(shape), n)

    with {:ok, reads} <- Operands.reads(names, values, shape, false) do
      threads = threads(n, hd(outputs).device)
      outs = Enum.zip(@outputs, outputs)
      {own, reads} = own(reads, outs, replaced)
      space = space(reads, shape, axes)
      args = Enum.map(reads, &Operands.argument/1) ++ space.args ++ [row_length: n] ++ outs
      modes = for {name, mode, _} <- reads, do: {name, mode}
      key = {:rows, code.acc, threads, modes, own, space.key}

      expressions =
        for {name, out} <- own,
            into: expressions(reads, space),
            do: {name, {:at, 0, out, index(:out, space)}}

      statements = statements(phases.(expressions), Keyword.keys(outs), space, threads)

      op = %{key: code.key, parsed: %{name: code.name}}
      {kernel, args} = Strided.kernel(op, key, args, Keyword.keys(outs), {statements, nil})

      kernel = grouped(kernel, code, threads)

      with :ok <- Strided.run(kernel, args, size: rows * threads, replaces: true),
           do: {:ok, outputs}
    end
  end

  defp own(reads, _outs, []), do: {[], reads}

  defp own(reads, outs, replaced) do
    names = for {name, %{ref: ref}} <- outs, ref in replaced, into: %{}, do: {ref, name}
    own? = &match?({_, :strided, %{buffer: %{ref: ref}}} when is_map_key(names, ref), &1)
    {own, others} = Enum.split_with(reads, own?)
    {for({name, _, view} <- own, do: {name, names[view.buffer.ref]}), others}
  end

  defp threads(n, device) do
    table = if Device.cpu?(device), do: @cpu_threads, else: @threads
    Enum.find_value(table, fn {most, threads} -> if n <= most, do: threads end)
  end

  defp grouped(kernel, _spec, 1), do: kernel

  defp grouped(%{parsed: parsed} = kernel, spec, threads) do
    shared = [{:partial, spec.acc, threads}]
    %{kernel | parsed: %{parsed | group: [threads, 1, 1], shared: shared}}
  end

  # The joined axes of the rows, and those along a row.
  defp space(reads, shape, axes) do
    # All results of elements have the same layout.
    views = Operands.strided(reads) ++ [out: %{offset: 0, strides: Layout.strides(shape)}]
    kept = Enum.to_list(0..(length(shape) - 1)//1) -- axes
    {lengths, strides, patterns, used} = joined(shape, views, kept)
    {along_lengths, along, along_patterns, along_used} = joined(shape, views, axes)

    args =
      for {{name, view}, strides, along} <- Enum.zip([views, strides, along]) do
        [{Index.name(name, :offset), view.offset}] ++
          Index.strides(name, strides, :kept) ++ Index.strides(name, along, :reduced)
      end

    %{
      args:
        Index.lengths(lengths, used, :kept) ++
          Index.lengths(along_lengths, along_used, :reduced) ++ Enum.concat(args),
      views: Enum.zip([Keyword.keys(views), patterns, along_patterns]),
      coordinates: Index.coordinates(:row, length(lengths), used, :kept),
      along: Index.coordinates(:r, length(along_lengths), along_used, :reduced),
      key: {length(lengths), patterns, length(along_lengths), along_patterns}
    }
  end

  defp joined(shape, views, axes) do
    at = fn list -> Enum.map(axes, &Enum.at(list, &1)) end
    {lengths, strides} = Layout.joined(at.(shape), for({_, view} <- views, do: at.(view.strides)))
    patterns = Enum.map(strides, &Index.pattern/1)
    {lengths, strides, patterns, Index.used(patterns)}
  end

  ## Statements

  defp statements({phases, {last, results}}, outputs, space, threads) do
    bases = for {name, pattern, _} <- space.views, do: base(name, pattern)
    results = Enum.zip(outputs, results)

    elements =
      for {out, {:element, expression}} <- results,
          do: {:write, 0, out, index(:out, space), expression}

    rows =
      for {out, {:row, expression}} <- results,
          do: {:write, 0, out, Index.var(:row), expression}

    start(threads) ++
      space.coordinates ++
      bases ++
      Enum.flat_map(phases, &phase(&1, space, threads)) ++
      if(elements == [], do: [], else: [loop(space, threads, last ++ elements)]) ++
      first_thread(rows, threads)
  end

  defp first_thread([], _threads), do: []
  defp first_thread(statements, 1), do: statements

  defp first_thread(statements, _threads),
    do: [{:branch, 0, Index.call(:eq, {:local, nil}, Index.number(0)), statements, []}]

  # An invocation has a row of its own, or a part of that of its workgroup.
  defp start(1), do: [Index.let(:row, Index.unsigned({:index, nil}))]
  defp start(_threads), do: [Index.let(:row, Index.unsigned({:group, nil}))]

  # The last iteration of a thread. Not a variable: a launch whose loops are not known to be short is checked and waited for (`cube/loop_limit.rs`).
  defp last(1), do: Index.call(:sub, Index.var(:row_length), Index.number(1))

  defp last(threads) do
    left = Index.call(:sub, Index.var(:row_length), {:local, nil})
    iterations = Index.call(:add, left, Index.number(threads - 1))
    Index.call(:sub, Index.call(:div, iterations, Index.number(threads)), Index.number(1))
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

  # The expressions of operands, by name.
  defp expressions(reads, space) do
    for {name, mode, _} = read <- reads, into: %{} do
      index = if mode == :strided, do: %{name => index(name, space)}, else: %{}
      {name, Operands.expression(read, index)}
    end
  end

  defp apply_to(kernel, names), do: {:inline, kernel.parsed, arguments(kernel, names)}

  defp arguments(%{parsed: %{args: args}}, names),
    do: for(name <- args, do: Map.get(names, name, Index.var(name)))

  defp phase({:value, name, statements, expression}, _space, _threads),
    do: statements ++ [Index.let(name, expression)]

  defp phase({:reduce, name, statements, element, {step, first}}, space, threads) do
    next = {:inline, step.parsed, [Index.var(name), element]}
    body = statements ++ [Index.let(name, next)]
    [Index.let(name, first), loop(space, threads, body)] ++ combined(name, step, threads)
  end

  # The accumulator has the type of the calculation.
  defp first(number, %{x: {:cast, acc, _}}) when is_number(number),
    do: {:cast, acc, Index.number(number)}

  defp first(name, %{x: {:cast, acc, _}}), do: {:cast, acc, Index.var(name)}

  defp loop(space, threads, body),
    do:
      {:for, 0, :j, Index.number(0), last(threads),
       [Index.let(:r, place(threads)) | space.along] ++ body}

  # The number of the element in the row. Adjacent threads have adjacent elements.
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

    with {:ok, acc} <-
           Reduction.run(whole, reduction.element, values(reduction.element, known), [axis], true),
         {:ok, result} <- finish(reduction.finish, acc, spec, known),
         do: reduced(rest, spec, known ++ [{name, result}], axis)
  end

  defp finish(nil, acc, _spec, _known), do: {:ok, acc}

  defp finish(kernel, acc, spec, known),
    do:
      kernel
      |> Strided.named(spec.name)
      |> Lowering.map(values(kernel, [acc: acc] ++ known), as: spec.acc)

  defp values(%{parsed: %{args: args}}, known), do: Enum.map(args, &Keyword.fetch!(known, &1))
end
