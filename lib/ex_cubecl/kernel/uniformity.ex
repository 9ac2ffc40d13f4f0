defmodule ExCubecl.Kernel.Uniformity do
  @moduledoc false
  # Finds a barrier or an operation on a plane that not all threads of a workgroup reach: the conditions and the bounds of loops around it must be
  # uniform, that is, have the same value in all threads of the workgroup.
  #
  # The rules are those of `uniform.rs` of the native side, which refuses a typed tree without a line. A variable varies if it is set to a
  # varying value, or in control flow that depends on the thread, anywhere in the kernel.
  #
  # The value of an expression is `:uniform`, `:varying`, or a literal as the typer has it: the typer drops a branch of an `if` with a
  # value whose condition is a literal, and so does this analysis.

  alias ExCubecl.Kernel.Functions

  @doc "The text of the error."
  def text,
    do:
      "all threads of a group must reach a barrier, and an operation on a plane: it cannot be in an if or a loop that depends on the thread, or on an element of a buffer"

  @doc """
  `:ok`, or `{:error, line}` with the line of the first barrier or operation on a plane that not all threads reach.

  `buffers` are the arguments that are buffers: where one is used without an index, it is the element at the index of the thread.
  """
  @spec check(map, [atom]) :: :ok | {:error, non_neg_integer}
  def check(%{group: nil}, _buffers), do: :ok

  def check(kernel, buffers) do
    args = for name <- kernel.args, into: %{}, do: {name, of(name not in buffers)}

    case divergent(kernel.statements, %{args: args, call: 0, together: true}, MapSet.new()) do
      nil -> :ok
      line -> {:error, line}
    end
  end

  # The analysis is repeated with the variables known to vary until it finds no more of them.
  defp divergent(statements, scope, varying) do
    state = block(statements, scope, %{varying: varying, calls: 0, divergent: nil})

    if state.varying == varying,
      do: state.divergent,
      else: divergent(statements, scope, state.varying)
  end

  ## Statements

  defp block(statements, scope, state),
    do: Enum.reduce(statements, state, &statement(&1, scope, &2))

  defp statement({:let, _line, name, value}, scope, state) do
    {value, state} = value(value, scope, state)
    set(name, scope.together and value != :varying, scope, state)
  end

  defp statement({:branch, _line, condition, then, other}, scope, state) do
    {scope, state} = inside([condition], scope, state)
    block(other, scope, block(then, scope, state))
  end

  defp statement({:for, _line, name, from, to, body}, scope, state) do
    {scope, state} = inside([from, to], scope, state)
    block(body, scope, set(name, scope.together, scope, state))
  end

  # The condition is evaluated in the loop, as are the statements of kernels that it calls.
  defp statement({:while, _line, condition, limit, body}, scope, state) do
    {scope, state} = inside([limit, condition], scope, state)
    {_, state} = value(condition, scope, state)
    block(body, scope, state)
  end

  defp statement({:run, kernel, args}, scope, state) do
    {scope, state} = called(kernel, args, scope, state)
    block(kernel.statements, scope, state)
  end

  defp statement({:barrier, line}, scope, state), do: reached(line, scope, state)

  defp statement({:write, _line, _name, index, value}, scope, state),
    do: [index, value] |> values(scope, state) |> elem(1)

  defp statement({:atomic, _, _, _, index, value, before}, scope, state) do
    {_, state} = values([index, value], scope, state)
    if before, do: set(before, false, scope, state), else: state
  end

  # What all threads must reach together.
  defp reached(line, scope, state),
    do: if(scope.together, do: state, else: %{state | divergent: state.divergent || line})

  defp set(_name, true, _scope, state), do: state

  defp set(name, false, scope, state),
    do: %{state | varying: MapSet.put(state.varying, {scope.call, name})}

  # The scope of a block that is executed as these expressions decide.
  defp inside(deciding, scope, state) do
    {values, state} = values(deciding, scope, state)
    {%{scope | together: scope.together and :varying not in values}, state}
  end

  ## Expressions

  defp values(expressions, scope, state),
    do: Enum.map_reduce(expressions, state, &value(&1, scope, &2))

  defp value({:number, number}, _scope, state), do: {{:number, number}, state}
  defp value({:bool, bool}, _scope, state), do: {{:bool, {:bool, bool}}, state}
  defp value({word, _}, _scope, state) when word in [:len, :group], do: {:uniform, state}
  defp value({:shape, _name, _axis}, _scope, state), do: {:uniform, state}
  defp value({word, _}, _scope, state) when word in [:index, :local], do: {:varying, state}
  defp value({:plane_size}, _scope, state), do: {:uniform, state}
  defp value({:plane_lane}, _scope, state), do: {:varying, state}

  defp value({:at, _line, _name, index}, scope, state) do
    {_, state} = value(index, scope, state)
    {:varying, state}
  end

  # The threads of another plane may have another result.
  defp value({word, line, a, b}, scope, state) when word in [:plane, :plane_broadcast] do
    {_, state} = value(if(word == :plane, do: b, else: a), scope, state)
    {:varying, reached(line, scope, state)}
  end

  defp value({:var, name}, scope, state) do
    uniform? = {scope.call, name} not in state.varying
    {Map.get_lazy(scope.args, name, fn -> of(uniform?) end), state}
  end

  defp value({:cast, _dtype, value}, scope, state), do: joined([value], scope, state)
  defp value({:bitcast, _, _dtype, value}, scope, state), do: joined([value], scope, state)

  defp value({:call, _line, function, args}, scope, state) do
    {values, state} = values(args, scope, state)
    {Functions.folded(function, values) || join(values), state}
  end

  defp value({:if, _line, condition, then, other}, scope, state) do
    {[condition, then, other], state} = values([condition, then, other], scope, state)

    case condition do
      {:bool, {:bool, true}} -> {then, state}
      {:bool, {:bool, false}} -> {other, state}
      condition -> {join([condition, then, other]), state}
    end
  end

  # The statements of the called kernel are executed before the statement that calls it, so also where the call is in a branch of an
  # `if` with a value. Each call has its own variables.
  defp value({:inline, kernel, args}, scope, state) do
    {scope, state} = called(kernel, args, scope, state)
    value(kernel.result, scope, block(kernel.statements, scope, state))
  end

  # The scope of a called kernel.
  defp called(kernel, args, scope, state) do
    {values, state} = values(args, scope, state)
    state = %{state | calls: state.calls + 1}
    args = kernel.args |> Enum.zip(Enum.map(values, &bound/1)) |> Map.new()
    {%{scope | args: args, call: state.calls}, state}
  end

  # The typer binds numbers to arguments, and stores anything else in a variable.
  defp bound({:bool, _}), do: :uniform
  defp bound(value), do: value

  defp joined(expressions, scope, state) do
    {values, state} = values(expressions, scope, state)
    {join(values), state}
  end

  defp join(values), do: of(:varying not in values)

  defp of(true), do: :uniform
  defp of(false), do: :varying
end
