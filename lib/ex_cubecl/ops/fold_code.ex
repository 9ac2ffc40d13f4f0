defmodule ExCubecl.Ops.FoldCode do
  @moduledoc false
  # The statements of the kernels of `ExCubecl.Ops.Fold`, in the intermediate form of `ExCubecl.Kernel.Parser`: the indices of the operands without
  # the folded axes, and one loop for each folded axis, which adds its part. Coordinates of bounds are calculated like indices.

  alias ExCubecl.Ops.{Index, Initial, Operands}

  # An index outside of every buffer, where a read gives 0.
  @outside 0xFFFF_FFFF

  @doc """
  The statements of one launch, without those that write the result. `patterns` tells for each operand and bound which strides are not 0; `part` is `:whole` for a single
  launch, `:first` or `:next` for one of several, `:empty` without elements. In an iteration of the last loop are `unroll` elements, and a further loop has the rest.
  """
  def statements(spec, code, patterns, {{kept, folded}, used}, {part, unroll}) do
    state = %{
      spec: spec,
      part: part,
      unroll: unroll,
      operands: code.operands,
      bounds: code.bounds,
      rank: folded,
      patterns: patterns,
      at: for({name, _} <- patterns, into: %{}, do: {name, Index.name(name, :base)}),
      outside: [],
      pending: Keyword.keys(code.bounds)
    }

    start(state, kept, used) ++
      first(state) ++
      if(part == :empty, do: [], else: level(state, 0))
  end

  # The index of each view without the folded axes.
  defp start(state, rank, used) do
    [
      Index.let(:i, Index.unsigned({:index, nil}))
      | Index.coordinates(:i, rank, used, :kept)
    ] ++
      for {name, pattern} <- state.patterns do
        from = Index.unsigned(Index.var(Index.name(name, :offset)))
        Index.let(state.at[name], Index.offset(from, name, pattern.kept, :kept))
      end
  end

  defp first(%{spec: %{select: _}} = state) do
    [
      Index.let(:acc, initial(state.spec)),
      Index.let(:place, {:cast, :s32, Index.number(0)}),
      Index.let(:at, {:cast, :s32, Index.number(0)})
    ]
  end

  defp first(%{spec: spec}) when not is_map_key(spec, :step), do: []

  defp first(%{part: :next} = state),
    do: [Index.let(:acc, {:cast, state.spec.as, {:at, 0, :out, {:index, nil}}})]

  defp first(state), do: [Index.let(:acc, initial(state.spec))]

  defp initial(spec), do: Initial.expression(spec.initial, spec.as)

  @doc "The statements that write the result to the output `out`."
  def result(%{select: _}), do: [{:write, 0, :out, {:index, nil}, Index.var(:place)}]
  def result(%{step: _}), do: [{:write, 0, :out, {:index, nil}, Index.var(:acc)}]
  def result(_copy), do: []

  # The statements within `level` loops, which know the coordinates along as many folded axes.
  defp level(state, level) do
    {checks, state} = checks(state, level)
    checks ++ if(level == state.rank, do: step(state), else: loops(state, level))
  end

  defp loops(%{unroll: unroll, rank: rank} = state, level)
       when unroll > 1 and level == rank - 1 do
    from = Index.var(Index.name(:from, level))
    first = Index.call(:mul, Index.var(:block), Index.number(unroll))
    first = Index.let(:first, Index.call(:add, from, first))

    blocks =
      for element <- 0..(unroll - 1),
          statement <-
            body(state, level, Index.call(:add, Index.var(:first), Index.number(element))),
          do: statement

    [
      {:for, 0, :block, Index.number(0), Index.var(:last_block), [first | blocks]},
      loop(state, level, Index.var(:behind_blocks))
    ]
  end

  defp loops(%{part: :whole} = state, level), do: [loop(state, level, Index.number(0))]
  defp loops(state, level), do: [loop(state, level, Index.var(Index.name(:from, level)))]

  defp loop(state, level, from) do
    counter = Index.name(:j, level)
    body = body(state, level, Index.var(counter))
    {:for, 0, counter, from, Index.var(Index.name(:last, level)), body}
  end

  # The statements for one coordinate along the axis of a loop.
  defp body(state, level, coordinate) do
    moved = for {name, %{folded: folded}} <- state.patterns, Enum.at(folded, level) == 1, do: name
    at = Map.merge(state.at, Map.new(moved, &{&1, Index.name(&1, level)}))

    moves =
      for name <- moved do
        along = Index.var(Index.stride(name, :reduced, level))
        distance = Index.call(:mul, Index.unsigned(coordinate), along)
        Index.let(at[name], Index.call(:add, Index.var(state.at[name]), distance))
      end

    moves ++ level(%{state | at: at}, level + 1)
  end

  # A coordinate is checked as soon as no loop within changes it.
  defp checks(state, level) do
    {known, pending} =
      Enum.split_with(state.pending, &(1 not in Enum.drop(state.patterns[&1].folded, level)))

    Enum.flat_map_reduce(known, %{state | pending: pending}, &check/2)
  end

  defp check(name, state) do
    at = Index.var(state.at[name])
    quotient = Index.name(name, :quotient)
    outside = {:call, 0, :ge, [at, Index.var(Index.name(name, :extent))]}

    {before, outside, state} =
      if state.bounds[name].dilation do
        by = Index.var(Index.name(name, :dilation))
        rest = Index.call(:sub, at, Index.call(:mul, Index.var(quotient), by))
        between = {:call, 0, :ne, [rest, Index.number(0)]}
        {moves, state} = move(state, name, quotient)
        divided = Index.let(quotient, Index.call(:div, at, by))
        {[divided | moves], Index.call(:or, outside, between), state}
      else
        {[], outside, state}
      end

    flag = Index.name(name, :outside)
    set = Index.let(flag, {:if, 0, outside, {:cast, :u32, Index.number(1)}, Index.number(0)})
    {before ++ [set], %{state | outside: [flag | state.outside]}}
  end

  # Adds the coordinate in a dilated operand to its index.
  defp move(state, name, quotient) do
    Enum.flat_map_reduce(padded(state), state, fn operand, state ->
      stride = Index.unsigned(Index.var(Index.name(name, :stride)))
      distance = Index.call(:mul, Index.var(quotient), stride)
      at = Index.name(operand, name)
      sum = Index.call(:add, Index.var(state.at[operand]), distance)
      {[Index.let(at, sum)], put_in(state.at[operand], at)}
    end)
  end

  defp padded(state), do: for({name, %{padded?: true}} <- state.operands, do: name)

  # The first element is selected, and each one that `select` prefers to the one selected before.
  defp step(%{spec: %{select: select}} = state) do
    first = {:call, 0, :eq, [Index.var(:at), Index.number(0)]}
    better = {:inline, select.parsed, [Index.var(:element), Index.var(:acc)]}
    set = [Index.let(:acc, Index.var(:element)), Index.let(:place, Index.var(:at))]

    [
      Index.let(:element, applied(state)),
      {:branch, 0, Index.call(:or, first, better), set, []},
      Index.let(:at, Index.call(:add, Index.var(:at), Index.number(1)))
    ]
  end

  defp step(%{spec: spec} = state) when not is_map_key(spec, :step),
    do: [{:write, 0, :out, Index.var(state.at.out), applied(state)}]

  defp step(%{spec: spec} = state) do
    next = {:inline, spec.step.parsed, [applied(state), Index.var(:acc)]}
    [Index.let(:acc, {:cast, spec.as, next})]
  end

  defp applied(%{spec: spec} = state) do
    elements = for {name, operand} <- state.operands, do: element(name, operand, state)
    Operands.apply(spec.op, elements, spec.as, spec.as)
  end

  defp element(name, operand, state) do
    at = Index.var(state.at[name])

    case {operand.padded?, state.outside, state.spec.padding} do
      {true, [_ | _], :zero} ->
        {:at, 0, name, {:if, 0, inside(state), at, Index.number(@outside)}}

      {true, [_ | _], :initial} ->
        element = {:cast, state.spec.as, {:at, 0, name, at}}
        {:if, 0, inside(state), element, initial(state.spec)}

      _ ->
        {:at, 0, name, at}
    end
  end

  defp inside(state) do
    flags = state.outside |> Enum.map(&Index.var/1) |> Enum.reduce(&Index.call(:bor, &1, &2))
    {:call, 0, :eq, [flags, Index.number(0)]}
  end
end
