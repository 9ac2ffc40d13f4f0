defmodule ExCubecl.Kernel.Typer.Variables do
  @moduledoc false
  # What names stand for: variables of a kernel, its buffers, and the arguments of the kernels that it calls.

  import ExCubecl.Kernel.Types

  alias ExCubecl.Kernel.Indices

  @doc "The statement that sets a variable, whose type joins those of its other values."
  def assign(name, typed, line, state) do
    {type, _} = elem(defaulted({typed, state}), 0)
    known = Map.get(state.variables, name)
    joined = if known, do: join(known, typed, line), else: type
    state = %{state | variables: Map.put(state.variables, name, joined)}
    state = %{state | locals: Map.put_new(state.locals, name, map_size(state.locals))}
    {tree, state} = coerce(typed, joined, state)
    {{:set, state.locals[name], tree}, state}
  end

  @doc "The element of a buffer at the index of the invocation."
  def element_at_self(name, dtype, %{group: nil} = state),
    do: {{dtype, {:element_at_self, slot(name, state)}}, state}

  def element_at_self(name, dtype, state) do
    {index, state} = Indices.index(nil, state)
    {{dtype, {:read, slot(name, state), index}}, state}
  end

  @doc "The value of an argument of a called kernel, computed once even if the kernel uses it several times."
  def once(_name, {kind, _} = number, state) when kind == :number, do: {{:bound, number}, state}
  def once(_name, {:argument, _, _} = argument, state), do: {{:bound, argument}, state}

  def once(_name, {_, tree} = typed, state)
      when not is_tuple(tree) or elem(tree, 0) in [:element_at_self, :local, :scalar, :const],
      do: {{:bound, typed}, state}

  def once(name, typed, state) do
    {set, state} = assign(name, typed, 0, state)
    {{:var, name}, %{state | prefix: [set | state.prefix]}}
  end

  @doc "The value of a variable that was set before."
  def variable(name, state) do
    case {state.variables[name], state.locals[name]} do
      {type, slot} when type != nil and slot != nil -> {type, {:local, slot}}
      _ -> type_error(0, "#{shown(name)} has no value here: set it before the branch or loop")
    end
  end

  @doc "The name in the code of a variable, which in the tree has another one if it is that of a called kernel or the counter of a loop."
  def shown({_, name}), do: shown(name)
  def shown(name), do: name

  @doc "The number of the binding of a buffer or of shared memory."
  def slot(name, state), do: Map.fetch!(state.slots, name)

  @doc "The type of the elements of a buffer or of shared memory."
  def dtype_of(name, line, state) do
    case state.kinds[name] do
      {_, dtype} -> dtype
      _ -> type_error(line, "#{name} is a number: a buffer is needed to have elements")
    end
  end
end
