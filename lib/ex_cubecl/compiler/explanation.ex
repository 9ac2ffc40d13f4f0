if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Explanation do
    @moduledoc """
    What a program of `ExCubecl.Compiler` does, as `ExCubecl.Compiler.explain/3` returns it. `inspect/1` and `to_string/1` print it as text; Livebook draws it.

      * `device` - the device
      * `steps` - the steps in the order in which they run. Each is a map: `kind` is `:kernel` for operations in one kernel, `:operation` for a callback of
        `ExCubecl.Backend`, `:view` for one that shares the memory of its operand, `:host` for one on small tensors in host memory, and `:loop`, `:condition` or `:call` for steps
        that run others or call a function; `text` describes it; `result` is its type; `launches` are the kernels that it launches; `bytes` are read and
        written; `live` are the most bytes that are live during the step; `steps` are those of nested programs
      * `launches`, `bytes` - their sums; a nested program counts once
      * `bounds` - the least and the most launches of a run, `{at_least, at_most}`. They differ if numbers decide how many there are: one of two branches runs, and a loop, whose
        `at_most` is `:infinity`, has any number of rounds. So they do where the process may have a copy of a small tensor in host memory
      * `peak` - the most bytes that are live at a time, without the arguments: an upper bound, with the work memory of each step and with the captured tensors that a run
        copies to the device. What functions of the caller make or keep, such as hooks, is not part of it
      * `fallbacks` - the operations that run on the host because the device cannot run them, with their types
    """

    alias ExCubecl.Backend
    alias ExCubecl.Compiler.{Fusion, Graph, Liveness, Program, Rehearsal, Scope}
    alias ExCubecl.Memory.Chart.Svg
    alias ExCubecl.Nx.{Blocks, Float8, Operand, Types}
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @enforce_keys [:device, :steps, :launches, :bounds, :bytes, :peak, :fallbacks]
    defstruct @enforce_keys

    @type step :: %{
            kind: :kernel | :operation | :view | :host | :loop | :condition | :call,
            text: String.t(),
            result: String.t(),
            launches: non_neg_integer,
            bytes: non_neg_integer,
            live: non_neg_integer,
            steps: [step]
          }
    @type t :: %__MODULE__{
            device: ExCubecl.Device.id(),
            steps: [step],
            launches: non_neg_integer,
            bounds: {non_neg_integer, non_neg_integer | :infinity},
            bytes: non_neg_integer,
            peak: non_neg_integer,
            fallbacks: [{atom, Nx.Type.t()}]
          }

    @views [:reshape, :squeeze, :transpose, :reverse, :slice, :broadcast]
    @silent [:value, :constant, :parameter, :captured, :drop, :elem, :attach]

    @doc false
    # The arguments and the captured tensors and functions of a run.
    @spec of(Scope.t(), Program.t(), map, {[T.t()], [T.t() | fun]}) :: t
    def of(scope, program, config, {arguments, captured}) do
      [arguments, captured] = for list <- [arguments, captured], do: List.to_tuple(list)
      {counts, peak} = Rehearsal.run(program, arguments, captured, config)
      steps = steps(scope, program, counts, config)
      all = flat(steps)

      %__MODULE__{
        device: config.device,
        steps: Enum.map(steps, &public/1),
        launches: Rehearsal.sum(counts, :launches),
        bounds: {Rehearsal.sum(counts, :at_least), Rehearsal.sum(counts, :at_most)},
        bytes: all |> Enum.map(& &1.bytes) |> Enum.sum(),
        peak: peak,
        fallbacks: all |> Enum.map(& &1.fallback) |> Enum.reject(&is_nil/1) |> Enum.uniq()
      }
    end

    defp flat(steps), do: Enum.flat_map(steps, &[&1 | flat(&1.steps)])

    defp public(step),
      do:
        step |> Map.delete(:fallback) |> Map.update!(:steps, &Enum.map(&1, fn x -> public(x) end))

    ## Steps

    defp steps(scope, program, counts, config) do
      nodes = Map.new(scope.nodes ++ scope.outside, &{&1.data.id, &1})

      for {{call, _free}, count} <- Enum.zip(program.steps, counts),
          elem(call, 0) not in @silent do
        own = if count.inner == [], do: count.launches, else: 0
        step = step(call, nodes, count.inner, config)
        Map.merge(step, %{launches: own, live: count.live})
      end
    end

    defp step({:fused, group}, nodes, [], _config) do
      {inputs, outputs} = {of_ids(group.inputs, nodes), of_ids(group.outputs, nodes)}

      row(:kernel, Fusion.describe(group), Enum.map_join(outputs, " ", &type/1),
        bytes: size(inputs) + size(outputs)
      )
    end

    defp step({:cond, id, _predicate, yes, no, _, _}, nodes, [first, second], config) do
      [_, _, yes_scope, no_scope] = nodes[id].data.args
      inner = steps(yes_scope, yes, first, config) ++ steps(no_scope, no, second, config)
      row(:condition, "cond, one of two programs", type(nodes[id]), steps: inner)
    end

    defp step({:while, id, _initial, condition, body, _, _}, nodes, [asked, done], config) do
      [_, condition_scope, body_scope] = nodes[id].data.args

      inner =
        steps(condition_scope, condition, asked, config) ++
          steps(body_scope, body, done, config)

      row(:loop, "while, a condition and a body", type(nodes[id]), steps: inner)
    end

    defp step({:lazy, id, program}, nodes, [counts], config) do
      [_, scope] = nodes[id].data.args

      row(:condition, "once, if a branch needs it", type(nodes[id]),
        steps: steps(scope, program, counts, config)
      )
    end

    defp step(call, nodes, [], config), do: step(call, nodes, config)

    defp step({:fun, _id, _arity, _program}, _nodes, _config),
      do: row(:call, "fun, the argument of an operation", "", [])

    defp step({:effects, _values, calls}, _nodes, _config),
      do: row(:call, "#{length(calls)} hooks", "", [])

    defp step({:runtime_call, id, _, _, _, _, _}, nodes, _config),
      do: row(:call, "runtime_call", type(nodes[id]), [])

    defp step({:create, id, operation, _args}, nodes, config) do
      if small?(nodes[id], config),
        do: row(:host, to_string(operation), type(nodes[id]), []),
        else: row(:operation, to_string(operation), type(nodes[id]), bytes: size([nodes[id]]))
    end

    # A block is named by the callback that runs it.
    defp step({:eager, id, :block, [{:term, block} | _], _unused}, nodes, config),
      do: operation(Blocks.name(block), nodes[id], config)

    defp step({:eager, id, operation, _args, _unused}, nodes, config),
      do: operation(operation, nodes[id], config)

    defp operation(name, node, config) do
      operands = Graph.operands(node)
      text = Enum.join([name | Enum.map(operands, &type/1)], " ")
      bytes = size([node | operands])

      cond do
        Enum.all?([node | operands], &small?(&1, config)) ->
          row(:host, text, type(node), [])

        name in @views ->
          row(:view, text, type(node), [])

        native?(name, node, operands, config) ->
          row(:operation, text, type(node), bytes: bytes)

        true ->
          row(:host, text, type(node), bytes: bytes, fallback: {name, hd(operands ++ [node]).type})
      end
    end

    defp row(kind, text, result, more) do
      row = %{
        kind: kind,
        text: text,
        result: result,
        launches: 0,
        bytes: 0,
        steps: [],
        fallback: nil
      }

      Map.merge(row, Map.new(more))
    end

    defp of_ids(ids, nodes), do: for(id <- ids, node = nodes[id], do: node)

    ## Types, sizes, and where an operation runs

    # Small operands are taken for those in host memory.
    defp small?(%T{data: %Expr{op: :constant}}, _config), do: true
    defp small?(%T{shape: shape}, config), do: Tuple.product(shape) <= config.host_limit

    defp native?(name, node, operands, config) do
      types = for %T{type: type} <- [node | operands], not match?({:tuple, _}, type), do: type

      Backend.native?(name, Enum.any?(types, &complex/1)) and
        Enum.all?(types, &on_device?(&1, config.device))
    end

    # Operations on complex numbers are in 32 or 64 bits, those on floats of 8 bits in 32.
    defp on_device?(type, device) do
      case Types.dtype(type) || complex(type) do
        nil -> Float8.type?(type)
        dtype -> dtype == :bf16 or dtype == :f16 or Operand.computes?(device, dtype)
      end
    end

    defp complex({:c, 64}), do: :f32
    defp complex({:c, 128}), do: :f64
    defp complex(_other), do: nil

    defp size(nodes), do: nodes |> Enum.map(&Liveness.size/1) |> Enum.sum()

    defp type(%T{type: {:tuple, count}}), do: "#{count} results"

    defp type(%T{type: type, shape: shape}) do
      axes = for n <- Tuple.to_list(shape), do: "[#{n}]"
      Nx.Type.to_string(type) <> Enum.join(axes)
    end

    ## Text

    @doc false
    @spec text(t) :: String.t()
    def text(%__MODULE__{} = explanation) do
      rows = lines(explanation.steps, 0)
      width = rows |> Enum.map(&String.length(hd(&1))) |> Enum.max(fn -> 0 end)

      lines =
        for [text, kind, result, launches, bytes, live] <- rows do
          "  " <>
            String.pad_trailing(text, width) <>
            "  " <>
            String.pad_trailing(kind, 9) <>
            "  #{String.pad_leading(launches, 3)} launches  #{String.pad_leading(bytes, 9)} moved  " <>
            "#{String.pad_leading(live, 9)} live  #{result}"
        end

      Enum.join([title(explanation) | lines] ++ fallbacks(explanation.fallbacks), "\n")
    end

    @doc false
    @spec title(t) :: String.t()
    def title(%__MODULE__{} = explanation) do
      "#{length(explanation.steps)} steps, #{launches(explanation)}, #{Svg.bytes(explanation.bytes)} moved, " <>
        "peak #{Svg.bytes(explanation.peak)} on #{inspect(explanation.device)}"
    end

    defp launches(%{launches: launches, bounds: bounds}) do
      case bounds do
        {^launches, ^launches} -> "#{launches} launches"
        {at_least, :infinity} -> "#{launches} launches (at least #{at_least} in a run)"
        {at_least, at_most} -> "#{launches} launches (#{at_least} to #{at_most} in a run)"
      end
    end

    defp lines(steps, depth) do
      Enum.flat_map(steps, fn step ->
        text = short(String.duplicate("  ", depth) <> step.text)
        numbers = [to_string(step.launches), Svg.bytes(step.bytes), Svg.bytes(step.live)]
        [[text, to_string(step.kind), step.result | numbers] | lines(step.steps, depth + 1)]
      end)
    end

    @widest 72

    defp short(text) do
      if String.length(text) > @widest,
        do: String.slice(text, 0, @widest - 3) <> "...",
        else: text
    end

    defp fallbacks([]), do: []

    defp fallbacks(fallbacks) do
      names = for {name, type} <- fallbacks, do: "#{name} of #{Nx.Type.to_string(type)}"
      ["  on the host, because the device cannot run them: " <> Enum.join(names, ", ")]
    end

    defimpl String.Chars do
      def to_string(explanation), do: ExCubecl.Compiler.Explanation.text(explanation)
    end

    defimpl Inspect do
      def inspect(explanation, _opts),
        do:
          "#ExCubecl.Compiler.Explanation<\n#{ExCubecl.Compiler.Explanation.text(explanation)}\n>"
    end
  end
end
