if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Rehearsal do
    @moduledoc false
    # What the steps of a program launch and need, without running it: the steps are those of `ExCubecl.Compiler.Run`, in an `ExCubecl.Native.Rehearsal`. What a run decides by
    # numbers is done both ways: each branch of a condition, and some rounds of a loop. Functions of the caller are not called: they are taken to keep what they get.
    #
    # Each step has `launches`, of one run of it, in which a nested program is run once; `at_least` and `at_most`, which differ where they depend on numbers; the
    # most bytes that are `live` during it; and the same of the steps of nested programs in `inner`, a list for each program.

    alias ExCubecl.{Backend, Buffer, Error, View}
    alias ExCubecl.Buffer.Temporaries
    alias ExCubecl.Compiler.{Graph, Program, Run}
    alias ExCubecl.Native.Rehearsal
    alias ExCubecl.Nx.{Fallback, Storage, Types}
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    # The most rounds of a loop. The first state is that of the caller, and the memory of the second is the first one that a round gives up.
    @rounds 4

    @type step :: %{
            launches: non_neg_integer,
            at_least: non_neg_integer,
            at_most: non_neg_integer | :infinity,
            live: non_neg_integer,
            inner: [[step]]
          }

    @doc "The steps of a program, and the most bytes that it needs besides its arguments, given as tensors."
    @spec run(Program.t(), tuple, tuple, map) :: {[step], non_neg_integer}
    def run(%Program{} = program, parameters, captured, config) do
      Rehearsal.run(fn ->
        Temporaries.run(fn ->
          Rehearsal.put(Map.put(Rehearsal.state(), :kept, []))
          state = Run.state(parameters, captured, config)
          copied = Rehearsal.state()
          {values, memo, steps} = steps(program.steps, Run.no_values(), %{}, state)
          Run.exported(program.outputs, MapSet.new(), values)
          release(memo, state)
          %{peak: peak, held: held} = Rehearsal.state()
          # Which small buffers wait for a garbage collection depends on the branches that run.
          waiting = if Enum.any?(steps, &(&1.inner != [])), do: Rehearsal.small(), else: held
          {steps, max(copied.peak, peak) + min(waiting, Temporaries.most())}
        end)
      end)
    end

    @doc "The most bytes that a program needs for any arguments of the types of its parameters, and any captured tensors on the device."
    @spec peak(Program.t(), [T.t()], map) :: non_neg_integer
    def peak(program, leaves, config) do
      small? = Enum.any?(leaves, &(&1.data.op in [:parameter, :captured] and host?(&1, config)))
      # Powers of 2 are no kernel.
      numbers = if Enum.any?(leaves, &(&1.data.op == :pow)), do: [1, 2], else: [1]
      places = if small?, do: [config, %{config | host_limit: 0}], else: [config]

      Rehearsal.run(fn ->
        for(place <- places, number <- numbers, do: peak(program, leaves, place, number, config))
        |> Enum.max()
      end)
    end

    defp peak(program, leaves, place, number, config) do
      [parameters, captured] =
        for {op, leaves} <- [parameter: leaves, captured: Graph.all(leaves)],
            do: leaves |> leaves(op, place, number) |> List.to_tuple()

      {_steps, peak} = run(program, parameters, captured, config)
      peak
    end

    defp leaves(leaves, op, config, number) do
      given =
        for %T{data: %{op: ^op, args: [index]}} = leaf <- leaves, into: %{}, do: {index, leaf}

      last = given |> Map.keys() |> Enum.max(fn -> -1 end)

      for index <- 0..last//1,
          do: given[index] && argument(%{given[index] | data: nil}, config, number)
    end

    @doc "A tensor for a template, on the device unless it is small. It has no memory."
    @spec argument(T.t(), map, number) :: T.t()
    def argument(template, config, number \\ 1) do
      template = Nx.devectorize(template)

      if host?(template, config) do
        numbers(template, number, config)
      else
        {dtype, _} = Types.storage(template.type)
        options = [device: config.device]
        buffer = Error.unwrap!(Buffer.empty(Storage.shape(template), dtype, options))
        Storage.put(template, buffer, config)
      end
    end

    defp host?(%T{type: type, shape: shape}, config),
      do: Tuple.product(shape) <= config.host_limit or Types.storage(type) == nil

    defp numbers(%T{shape: shape} = template, number, config) do
      one = Backend.constant(%{template | data: nil, shape: {}}, number, config: config)

      Storage.put(
        template,
        Nx.to_binary(one) |> List.duplicate(Tuple.product(shape)) |> bits(),
        config
      )
    end

    defp bits(list), do: for(bits <- list, into: <<>>, do: bits)

    ## Steps

    defp steps(steps, values, memo, state) do
      {steps, {values, memo}} =
        Enum.map_reduce(steps, {values, memo}, fn {call, free}, {values, memo} ->
          before = Rehearsal.state()
          Rehearsal.put(%{before | launches: 0, peak: before.live, depends?: false})
          {values, memo, counts} = call(call, values, memo, state)
          now = Rehearsal.state()
          step = Map.merge(counts || counted(now), %{live: now.peak})
          values = Run.freed(free, values, state)
          peak = max(before.peak, now.peak)
          Rehearsal.put(%{Rehearsal.state() | peak: peak, depends?: false})
          {step, {values, memo}}
        end)

      {values, memo, steps}
    end

    defp counted(%{launches: launches, depends?: depends?, mixed?: mixed?}) do
      %{
        launches: launches,
        at_least: if(mixed? or depends?, do: 0, else: launches),
        at_most: if(mixed? or depends?, do: :infinity, else: launches),
        inner: []
      }
    end

    @doc "The sum of the launches of steps, by key."
    @spec sum([step], :launches | :at_least | :at_most) :: non_neg_integer | :infinity
    def sum(steps, key), do: Enum.reduce(steps, 0, &plus(&1[key], &2))

    defp plus(a, b) when :infinity in [a, b], do: :infinity
    defp plus(a, b), do: a + b

    # Programs of which one is run, or all.
    defp nested(inner, at_least, at_most) do
      counts = &Enum.map(inner, fn steps -> sum(steps, &1) end)

      %{
        launches: Enum.reduce(counts.(:launches), 0, &plus/2),
        at_least: at_least.(counts.(:at_least)),
        at_most: at_most.(counts.(:at_most)),
        inner: inner
      }
    end

    defp call({:cond, id, _predicate, yes, no, tuple?, unused}, values, memo, state) do
      start = {Rehearsal.state(), Temporaries.state()}
      yes = branch(yes, values, memo, state)
      resume(start, yes.state.peak)
      no = branch(no, values, memo, state)
      {results, chosen} = merged(yes, no)
      values = Run.put(values, id, Run.result(results, tuple?), unused, state)
      # Infinity is greater than each number.
      counts = nested([yes.steps, no.steps], &Enum.min/1, &Enum.max/1)
      {values, known(chosen.memo, yes.memo, no.memo), counts}
    end

    defp call({:while, id, initial, condition, body, tuple?, unused}, values, memo, state) do
      none = ending(for id <- initial, do: Run.initial(id, values, state))
      {last, [asked | _], inner} = rounds(none.results, condition, body, state, 1)
      {results, _chosen} = merged(ending(last), none)

      counts =
        nested(inner, fn _counts -> sum(asked, :at_least) end, fn counts ->
          if Enum.all?(counts, &(&1 == 0)), do: 0, else: :infinity
        end)

      {Run.put(values, id, Run.result(results, tuple?), unused, state), memo, counts}
    end

    defp call({:lazy, id, program}, values, memo, state) do
      case memo do
        %{^id => %{value: value, certain?: certain?} = known} when value != nil ->
          unless certain?, do: again(known.work)
          counts = if certain?, do: none(known.steps), else: %{known.counts | at_least: 0}
          {Map.put(values, id, value), memo, counts}

        _ ->
          %{live: before} = Rehearsal.state()
          %{results: [value]} = inner = branch(program, values, memo, state)
          counts = nested([inner.steps], &hd/1, &hd/1)
          work = max(Rehearsal.state().peak - before, 0)
          known = %{value: value, certain?: true, work: work, counts: counts, steps: inner.steps}
          counts = if is_map_key(memo, id), do: %{counts | at_least: 0}, else: counts
          {Map.put(values, id, value), Map.put(inner.memo, id, known), counts}
      end
    end

    # The values may be garbage before the function is called, or be kept for ever.
    defp call({:effects, ids, _calls}, values, memo, _state) do
      keep(Run.given(ids, values))
      {values, memo, nil}
    end

    defp call({:runtime_call, id, ids, _index, outs, tuple?, unused}, values, memo, state) do
      keep(Run.given(ids, values))
      results = for out <- outs, do: Run.again(Fallback.blank(out, state.config))
      {Run.put(values, id, Run.result(results, tuple?), unused, state), memo, nil}
    end

    defp call(call, values, memo, state) do
      {values, _memo} = Run.call(call, values, %{}, state)
      {values, memo, nil}
    rescue
      # A step that raises for these numbers, or that no run can take.
      error -> {Enum.into(blank(call, error, __STACKTRACE__, state.config), values), memo, nil}
    end

    defp blank({:fused, group}, _error, _stacktrace, config) do
      for id <- group.outputs, do: {id, Fallback.blank(%{group.results[id] | data: nil}, config)}
    end

    defp blank({:eager, id, :block, [_struct, {:term, out} | _], _unused}, _error, _, config),
      do: [{id, Fallback.blank(out, config)}]

    defp blank({:eager, id, _operation, [{:term, out} | _], _unused}, _error, _, config),
      do: [{id, Fallback.blank(out, config)}]

    defp blank({:create, id, _operation, [{:term, out} | _]}, _error, _stacktrace, config),
      do: [{id, Fallback.blank(out, config)}]

    defp blank(_call, error, stacktrace, _config), do: reraise(error, stacktrace)

    defp keep(tensors) do
      state = Rehearsal.state()
      Rehearsal.put(%{state | kept: tensors ++ state.kept})
    end

    ## Conditions

    defp branch(program, values, memo, state) do
      {values, memo, steps} = steps(program.steps, values, memo, state)
      results = Run.exported(program.outputs, program.borrowed, values)
      Map.merge(ending(results), %{memo: memo, steps: steps})
    end

    # One of the ways in which a condition or a loop ends.
    defp ending(results),
      do: %{results: results, state: Rehearsal.state(), temporaries: Temporaries.state()}

    # Continues after a condition or a loop that can end in two ways, with the memory of the ending whose results need more. Returns the results and that ending.
    defp merged(one, two) do
      [chosen, other] = Enum.sort_by([one, two], &score/1, :desc)
      resume(chosen, max(one.state.peak, two.state.peak))
      now = Rehearsal.state()

      mixed? = one.state.mixed? or two.state.mixed? or places(one.results) != places(two.results)

      live = max(one.state.live, two.state.live)
      kept = Enum.uniq(one.state.kept ++ two.state.kept)
      held = max(one.state.held, two.state.held)
      Rehearsal.put(%{now | live: live, held: held, mixed?: mixed?, kept: kept})
      {either(chosen.results, other.results), chosen}
    end

    defp resume({state, temporaries}, peak),
      do: resume(%{state: state, temporaries: temporaries}, peak)

    defp resume(%{state: state, temporaries: temporaries}, peak) do
      Temporaries.put(temporaries)
      Rehearsal.put(%{state | peak: peak})
    end

    # Results on the device need more memory than those in host memory. What else is live may end with the step, or with the results.
    defp score(%{results: results, state: state}) do
      sizes = for %T{data: %{state: %View{buffer: buffer}}} <- results, do: Buffer.size!(buffer)
      {Enum.count(results, &(not Storage.on_host?(&1))), Enum.sum(sizes), state.live}
    end

    defp places(results) do
      for %T{data: %{state: state}} <- results do
        case state do
          %View{} -> Strides.contiguous?(state)
          {:fill, _} -> :number
          _ -> :host
        end
      end
    end

    # Results that need as much memory as either: that of the first ones, and that of a copy where others are in another order.
    defp either(results, others) do
      for {result, other} <- Enum.zip(results, others) do
        case {result.data.state, other.data.state} do
          {%View{} = view, %View{} = moved} ->
            if Strides.contiguous?(moved), do: result, else: put(result, view, moved.strides)

          {%View{strides: strides} = view, {:fill, _}} ->
            put(result, view, Enum.map(strides, fn _ -> 0 end))

          _ ->
            result
        end
      end
    end

    defp put(%T{data: data} = result, view, strides),
      do: %{result | data: %{data | state: %{view | offset: 0, strides: strides}}}

    # What only one branch calculates may have to be calculated later.
    defp known(chosen, yes, no) do
      for {id, known} <- Map.merge(Map.merge(yes, no), chosen), into: %{} do
        cond do
          is_map_key(yes, id) and is_map_key(no, id) -> {id, known}
          is_map_key(chosen, id) -> {id, %{known | certain?: false}}
          true -> {id, %{known | value: nil}}
        end
      end
    end

    defp none(steps),
      do: %{launches: 0, at_least: 0, at_most: 0, inner: [Enum.map(steps, &zero/1)]}

    defp zero(step),
      do: %{
        step
        | launches: 0,
          at_least: 0,
          at_most: 0,
          inner: for(s <- step.inner, do: Enum.map(s, &zero/1))
      }

    defp again(work) do
      state = Rehearsal.state()
      Rehearsal.put(%{state | peak: max(state.peak, state.live + work)})
    end

    defp release(memo, state),
      do: Run.release_all(for({_id, %{value: value}} when value != nil <- memo, do: value), state)

    ## Loops

    defp rounds(values, condition, body, state, round) do
      parameters = List.to_tuple(values)
      {_predicate, asked} = body(condition, parameters, state)
      {results, done} = body(body, parameters, state)
      Temporaries.collect()

      if round == @rounds or (round > 1 and places(values) == places(results)) do
        {results, [asked, done], [asked, done]}
      else
        {results, _later, inner} = rounds(results, condition, body, state, round + 1)
        inner = for {a, b} <- Enum.zip([asked, done], inner), do: most(a, b)
        {results, [asked, done], inner}
      end
    end

    defp most(first, second) do
      for {a, b} <- Enum.zip(first, second) do
        inner = for {c, d} <- Enum.zip(a.inner, b.inner), do: most(c, d)
        %{b | live: max(a.live, b.live), inner: inner}
      end
    end

    defp body(program, parameters, state) do
      state = %{state | parameters: parameters}
      {values, memo, steps} = steps(program.steps, Run.no_values(), %{}, state)
      results = Run.exported(program.outputs, program.borrowed, values)
      release(memo, state)
      {results, steps}
    end
  end
end
