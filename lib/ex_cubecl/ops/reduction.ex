defmodule ExCubecl.Ops.Reduction do
  @moduledoc false
  # Lowers a reduction over any axes of strided operands to kernels. An element-wise kernel is applied to the elements first, in the same
  # kernel. Each invocation reduces a chunk of the reduced elements for one index of the kept axes; the results of the chunks are reduced the same way,
  # until one is left.

  alias ExCubecl.{Buffer, Device, Error, Kernel}
  alias ExCubecl.Ops.{Blocks, Cost, Epilogue, Index, Inlined, Lowering, Operands, ReductionSpace}
  alias ExCubecl.Ops.{ReductionVectors, Shapes, Strided, Target, Temporary}

  require Kernel

  @chunk 64
  # As many are one chunk: a second launch would take longer.
  @single 256
  # Elements for each iteration of the loop over a chunk, in a cheap reduction.
  @lanes 4
  @same Kernel.kernel(fn x -> x end)

  @typedoc """
  `name` is shown in errors and telemetry. `step` is a kernel of the accumulator and an element; `first` is the accumulator without elements, or
  `nil`: the first element. `operands` is the type to which the operands are cast, or `nil`, `as` that of the accumulator, `dtype` that of the
  result.

  With `again`, each chunk is reduced twice: `element` is applied to an element and the argument `found`, which is the result of `found` for the accumulator; the
  results are added, and `finish` of the sum and of `found` is the result. It must be that of the results of the chunks, too.

  With `divisor`, the last accumulator divided by it is the result.
  """
  @type spec :: %{
          optional(:again) => %{found: Kernel.t(), element: Kernel.t(), finish: Kernel.t()},
          optional(:divisor) => non_neg_integer,
          name: atom,
          first: number | nil,
          step: Kernel.t(),
          operands: atom,
          as: atom,
          dtype: atom
        }

  @doc "Reduces `op` of the operands over axes, which keep the length 1 if `keep?`. `into` is a buffer for the result, or an epilogue."
  @spec run(
          spec,
          Kernel.t(),
          [Lowering.operand()],
          [non_neg_integer],
          boolean,
          Target.into() | Epilogue.t()
        ) :: {:ok, Buffer.t()} | {:ok, [Buffer.t()]} | :ok | {:error, Error.t()}
  def run(spec, op \\ @same, operands, axes, keep?, into \\ nil) do
    with {:ok, space} <- ReductionSpace.new(spec.name, op, operands, axes, keep?) do
      cond do
        space.n == 0 and spec.first == nil -> no_elements(spec.name, operands)
        space.n == 0 -> Buffer.full(space.shape, spec.dtype, empty(spec), device: space.device)
        true -> chunks(spec, op, space, into)
      end
    end
    |> Epilogue.applied(into)
  end

  # The mean of no elements is 0 / 0, which is NaN.
  defp empty(%{divisor: 0}), do: :nan
  defp empty(%{first: first}), do: first

  defp no_elements(name, [%{shape: _} = operand | _]),
    do: Shapes.invalid(name, :buffer, operand, "one with elements along the axis")

  @doc """
  The index along the reduced axes, in row-major order, of the first element that `better` prefers to all others; see `run/5`. An element is the result of `op`, of
  the type `dtype`.
  """
  def index_of(name, better, {op, operands, dtype}, axes, keep?, into \\ nil) do
    with {:ok, space} <- ReductionSpace.new(name, op, operands, axes, keep?) do
      if space.n == 0,
        do: no_elements(name, operands),
        else: places(name, {better, op, dtype}, space, nil, into)
    end
  end

  # The chunks of `n` elements.
  defp count(n) when n <= @single, do: 1
  defp count(n), do: div(n + @chunk - 1, @chunk)

  ## Values

  defp chunks(spec, op, space, into) do
    chunks = count(space.n)

    # Only the last step rounds to the type of the result.
    if chunks == 1 do
      last(spec, op, space, into)
    else
      space = %{space | interleaved: if(interleaved?(spec, space), do: chunks)}
      shape = if space.interleaved, do: [space.count, chunks], else: [chunks, space.count]

      with {:ok, out} <- launch(undivided(spec), op, space, spec.as, shape: shape),
           rest = ReductionSpace.of_chunks(space, [out], [:x]),
           do: freed(chunks(%{spec | operands: nil}, @same, rest, into), out)
    end
  end

  # The kernel for the last chunks serves for the others, too, if it divides by 1 there.
  defp undivided(%{divisor: _, as: as, dtype: as} = spec), do: %{spec | divisor: 1}
  defp undivided(spec), do: Map.delete(spec, :divisor)

  defp last(spec, op, space, into) do
    case Epilogue.inlined(into, spec.dtype) do
      {:ok, inlined} ->
        with :ok <- launch(spec, op, space, {inlined, into}, size: space.count, replaces: true),
             do: {:ok, Keyword.values(inlined.outputs)}

      :none ->
        target = Target.option(into, space.shape, spec.dtype, space.device)
        launch(spec, op, space, spec.dtype, [shape: space.shape] ++ target)

      error ->
        error
    end
  end

  defp freed({:error, error}, _chunks), do: {:error, error}
  defp freed(result, chunks), do: with(:ok <- Temporary.free([chunks], []), do: result)

  # Along many adjacent elements, the elements of a chunk are as far apart as there are chunks, so that adjacent invocations read adjacent elements. Not for
  # indices of values, which depend on the order, and not where elements are reduced twice by a CPU, whose cache then has them: there the kernel is the same for the
  # elements and for the results of the chunks.
  defp interleaved?(spec, %{reduced: %{strides: strides}} = space) do
    [1] in strides and Blocks.many?([space.n]) and
      not (is_map_key(spec, :again) and Device.cpu?(space.device))
  end

  # Elements of the last chunk that do not exist are read, and not used. `result` is the type of the results, or an epilogue that writes them.
  defp launch(spec, op, space, result, opts) do
    cheap? = not is_map_key(spec, :again) and Cost.cheap?(op) and Cost.cheap?(spec.step)
    lanes = if cheap?, do: @lanes, else: 1
    element = Operands.apply(op, expressions(space, []), spec.operands, spec.as)

    {first, from} =
      case spec.first do
        nil -> {at_start(space, []) ++ [Index.let(:acc, element)], 1}
        number -> {[Index.let(:acc, {:cast, spec.as, Index.number(number)})], 0}
      end

    step = {:inline, spec.step.parsed, [Index.var(:acc), element]}
    next = Index.let(:acc, {:if, 0, exists(from), step, Index.var(:acc)})

    loop = loop(space, lanes, [], fn [] -> [next] end)
    {again, acc} = again(spec, element, space)
    {acc, numbers} = divided(spec, acc)
    statements = start(space) ++ first ++ [loop | again]
    op = Strided.named(op, spec.name)
    twice = for {_, kernel} <- Map.get(spec, :again, %{}), do: kernel.key
    key = {:reduce, spec.step.key, spec.first, spec.operands, spec.as, twice, numbers != []}

    case result do
      {inlined, epilogue} ->
        element = Index.let(:element, Index.unsigned({:index, nil}))
        last = Epilogue.statements(inlined, epilogue, {:cast, spec.dtype, acc})
        code = {statements ++ [element | last], nil}
        outputs = {numbers ++ Inlined.arguments(inlined), inlined.outputs}
        finish(op, {key, Inlined.key(inlined)}, space, lanes, code, outputs, opts)

      dtype ->
        code = {statements, {:cast, dtype, acc}}
        finish(op, {key, dtype}, space, lanes, code, {numbers, []}, opts)
    end
  end

  defp divided(%{divisor: divisor}, acc),
    do: {Index.call(:divide, acc, Index.var(:divisor_0)), [divisor_0: divisor]}

  defp divided(_spec, acc), do: {acc, []}

  # The statements of the second loop, and the result.
  defp again(%{again: again} = spec, element, space) do
    found = Index.var(:found)
    element = {:inline, again.element.parsed, [element, found]}
    sum = {:if, 0, exists(0), Index.call(:add, Index.var(:acc), element), Index.var(:acc)}

    statements = [
      Index.let(:found, {:inline, again.found.parsed, [Index.var(:acc)]}),
      Index.let(:acc, {:cast, spec.as, Index.number(0)}),
      loop(space, 1, [], fn [] -> [Index.let(:acc, sum)] end)
    ]

    {statements, {:inline, again.finish.parsed, [Index.var(:acc), found]}}
  end

  defp again(_spec, _element, _space), do: {[], Index.var(:acc)}

  ## Indices of values

  defp places(name, {better, _op, dtype} = choice, space, indices, into) do
    chunks = count(space.n)
    shape = if chunks == 1, do: space.shape, else: [chunks, space.count]

    with {:ok, values} <- Buffer.empty(shape, dtype, device: space.device),
         {:ok, out} <- Target.new(if(chunks == 1, do: into), shape, :s32, space.device),
         :ok <- launch_places(name, choice, space, indices, values, out, chunks),
         :ok <- Buffer.ensure_allocated(out) do
      rest =
        if chunks == 1 do
          {:ok, out}
        else
          space = ReductionSpace.of_chunks(space, [values, out], [:x, :y])
          places(name, {better, @same, dtype}, space, :y, into)
        end

      with {:ok, result} <- rest,
           :ok <- Temporary.free([values, out], [result]),
           do: {:ok, result}
    end
  end

  defp launch_places(name, {better, op, dtype}, space, indices, values, out, chunks) do
    lanes = if Cost.cheap?(op), do: @lanes, else: 1

    # The element, and the index of one that was chosen before.
    elements = fn variables ->
      expressions = expressions(space, variables)
      {own, rest} = Enum.split(expressions, length(op.parsed.args))
      [Operands.apply(op, own, nil, dtype) | rest]
    end

    at = fn rest -> if indices, do: hd(rest), else: {:cast, :s32, Index.var(:r)} end
    known = [Index.var(:value), Index.var(:acc), Index.var(:place)]
    preferred = {:inline, better.parsed, Enum.take(known, length(better.parsed.args))}

    # Without branches, of which a driver for CPUs executes both sides.
    next = fn variables ->
      [x | rest] = elements.(variables)
      chosen = &{:if, 0, Index.call(:ne, Index.var(:chosen), Index.number(0)), &1, Index.var(&2)}
      first? = Index.call(:and, exists(1), preferred)
      chosen? = {:if, 0, first?, Index.unsigned(Index.number(1)), Index.number(0)}

      [
        Index.let(:value, x),
        Index.let(:chosen, chosen?),
        Index.let(:acc, chosen.(Index.var(:value), :acc)),
        Index.let(:place, chosen.(at.(rest), :place))
      ]
    end

    vectors = if lanes == @lanes, do: ReductionVectors.names(space), else: []
    [x | rest] = elements.(first(vectors))

    statements =
      start(space) ++
        at_start(space, vectors) ++
        [Index.let(:value, x), Index.let(:acc, Index.var(:value)), Index.let(:place, at.(rest))] ++
        [
          loop(space, lanes, vectors, next),
          {:write, 0, :values, {:index, nil}, Index.var(:acc)},
          {:write, 0, :out, {:index, nil}, Index.var(:place)}
        ]

    key = {:places, better.key, dtype, indices, vectors}
    outputs = [values: values, out: out]
    op = Strided.named(op, name)

    finish(op, key, space, lanes, {statements, nil}, {[], outputs},
      size: chunks * space.count,
      replaces: true
    )
  end

  ## Statements

  # The first index of the chunk and of its kept axes: invocation i reduces chunk div(i, count) of the kept index rem(i, count), or chunk
  # rem(i, chunks) of the kept index div(i, chunks).
  defp start(%{kept: kept} = space) do
    [chunk, count] = if space.interleaved, do: [:rem, :chunks], else: [:div, :count]
    other = if space.interleaved, do: :div, else: :rem
    first = Index.call(chunk, Index.var(:i), Index.var(count))

    [
      Index.let(:i, Index.unsigned({:index, nil})),
      Index.let(:o, Index.call(other, Index.var(:i), Index.var(count))),
      Index.let(
        :start,
        if(space.interleaved, do: first, else: Index.call(:mul, first, Index.number(@chunk)))
      )
      | Index.coordinates(:o, length(kept.lengths), kept.used, :kept)
    ] ++
      for {{name, _}, pattern} <- Enum.zip(space.views, kept.patterns) do
        from = Index.unsigned(Index.var(Index.name(name, :offset)))
        Index.let(Index.name(name, :base), Index.offset(from, name, pattern, :kept))
      end
  end

  # The kernel does not access a buffer by elements too if it does by vectors.
  defp at_start(space, vectors) do
    [Index.let(:r, Index.var(:start)) | coordinates(space)] ++
      ReductionVectors.loads(vectors, index(space))
  end

  defp first(vectors), do: ReductionVectors.variables(vectors, 0)

  defp coordinates(%{reduced: %{lengths: lengths, used: used}}),
    do: Index.coordinates(:r, length(lengths), used, :reduced)

  # The number of iterations is an argument: a launch whose loops are not known to be short is checked and waited for (`cube/loop_limit.rs`).
  # `body` is a function of the variables that have elements of the lane.
  defp loop(space, lanes, vectors, body) do
    steps =
      Enum.flat_map(0..(lanes - 1), fn lane ->
        first = Index.call(:mul, Index.unsigned(Index.var(:group)), Index.number(lanes))
        at = Index.call(:add, first, Index.number(lane))
        at = if space.interleaved, do: Index.call(:mul, at, Index.var(:chunks)), else: at
        variables = ReductionVectors.variables(vectors, lane)
        loads = if lane == 0, do: ReductionVectors.loads(vectors, index(space)), else: []

        [Index.let(:r, Index.call(:add, Index.var(:start), at)) | coordinates(space)] ++
          loads ++ body.(variables)
      end)

    {:for, 0, :group, Index.number(0), Index.var(:last_group), steps}
  end

  # Whether the chunk has the element r, and has not begun with it.
  defp exists(0), do: Index.call(:lt, Index.var(:r), Index.unsigned(Index.var(:n)))

  defp exists(1),
    do: Index.call(:and, exists(0), Index.call(:ne, Index.var(:r), Index.var(:start)))

  # The operands at the index of the reduced axes: variables, or reads.
  defp expressions(space, variables) do
    index = index(space)

    for {name, _, _} = read <- space.reads do
      case variables[name] do
        nil -> Operands.expression(read, index)
        variable -> Index.var(variable)
      end
    end
  end

  defp index(space) do
    for {{name, _}, pattern} <- Enum.zip(space.views, space.reduced.patterns), into: %{} do
      {name, Index.offset(Index.var(Index.name(name, :base)), name, pattern, :reduced)}
    end
  end

  # `more` are arguments of the code besides those of the reduction.
  defp finish(op, key, space, lanes, code, {more, outputs}, opts) do
    %{kept: kept, reduced: reduced} = space
    most = if count(space.n) == 1, do: space.n, else: @chunk
    last_group = div(most + lanes - 1, lanes) - 1
    numbers = [n: space.n, count: max(space.count, 1), last_group: last_group]
    numbers = if space.interleaved, do: numbers ++ [chunks: space.interleaved], else: numbers

    args =
      Enum.map(space.reads, &Operands.argument/1) ++
        ReductionSpace.arguments(space) ++ numbers ++ more ++ outputs

    modes = for {name, mode, _} <- space.reads, do: {name, mode}
    key = {key, space.interleaved != nil}
    signature = {key, modes, length(kept.lengths), kept.patterns, length(reduced.lengths)}
    signature = {signature, reduced.patterns}

    {kernel, args} = Strided.kernel(op, signature, args, Keyword.keys(outputs), code)
    Strided.run(kernel, args, opts)
  end
end
