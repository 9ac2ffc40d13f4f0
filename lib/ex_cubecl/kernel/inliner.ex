defmodule ExCubecl.Kernel.Inliner do
  @moduledoc false
  # Inlines a kernel into its caller, in two steps. When the caller is parsed, uses of elements of the called kernel's arguments become
  # uses of elements of the caller's buffers. When the caller is typed, its other arguments become the caller's values.

  import ExCubecl.Kernel.CompileErrors

  alias ExCubecl.Kernel.Scope

  @doc "The kernel with the caller's buffer names where it uses elements; `passed` has the caller's expressions by argument."
  def inline(kernel, passed, meta, scope) do
    names =
      for name <- kernel.args, uses?([kernel.statements, kernel.result], name), into: %{} do
        case passed[name] do
          {:var, buffer} ->
            {name, buffer}

          _ ->
            text =
              "#{kernel.name} uses elements of #{name}, or its length: pass an argument of this kernel there, " <>
                "not an expression"

            fail(scope, meta, text)
        end
      end

    for {name, buffer} <- names, not Scope.memory?(buffer, scope) do
      fail(
        scope,
        meta,
        "#{kernel.name} uses elements of #{name}, and #{buffer} is no argument of this kernel"
      )
    end

    %{kernel | statements: of(kernel.statements, names), result: of(kernel.result, names)}
  end

  @doc "Whether code uses elements of an argument, or its length."
  def uses?({:at, _, name, index}, wanted), do: name == wanted or uses?(index, wanted)
  def uses?({:len, name}, wanted), do: name == wanted
  def uses?({:shape, name, _axis}, wanted), do: name == wanted

  def uses?({:write, _, name, index, value}, wanted),
    do: name == wanted or uses?([index, value], wanted)

  def uses?({:atomic, _, _, name, index, value, _}, wanted),
    do: name == wanted or uses?([index, value], wanted)

  def uses?(%{statements: s, result: r}, wanted), do: uses?(s, wanted) or uses?(r, wanted)
  def uses?(list, wanted) when is_list(list), do: Enum.any?(list, &uses?(&1, wanted))

  def uses?(tuple, wanted) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> uses?(wanted)

  def uses?(_other, _wanted), do: false

  defp of({:at, line, name, index}, names),
    do: {:at, line, Map.get(names, name, name), of(index, names)}

  defp of({:len, name}, names), do: {:len, Map.get(names, name, name)}
  defp of({:shape, name, axis}, names), do: {:shape, Map.get(names, name, name), axis}

  defp of({:write, line, name, index, value}, names),
    do: {:write, line, Map.get(names, name, name), of(index, names), of(value, names)}

  defp of({:atomic, line, op, name, index, value, before}, names) do
    [index, value] = of([index, value], names)
    {:atomic, line, op, Map.get(names, name, name), index, value, before}
  end

  defp of(%{statements: statements, result: result} = kernel, names),
    do: %{kernel | statements: of(statements, names), result: of(result, names)}

  defp of(list, names) when is_list(list), do: Enum.map(list, &of(&1, names))

  defp of(tuple, names) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> of(names) |> List.to_tuple()

  defp of(other, _names), do: other

  @doc """
  The code of a called kernel for one call: `bound` has the values of its arguments by name, and `unique` gives its variables names that
  no other call uses.
  """
  def bind({:var, name}, bound, unique), do: Map.get(bound, name, {:var, unique.(name)})

  def bind(list, bound, unique) when is_list(list), do: Enum.map(list, &bind(&1, bound, unique))

  def bind({called, kernel, args}, bound, unique) when called in [:inline, :run],
    do: {called, kernel, bind(args, bound, unique)}

  def bind({:let, line, name, value}, bound, unique),
    do: {:let, line, unique.(name), bind(value, bound, unique)}

  def bind({:for, line, name, from, to, body}, bound, unique) do
    [from, to, body] = bind([from, to, body], bound, unique)
    {:for, line, unique.(name), from, to, body}
  end

  def bind({:atomic, line, op, name, index, value, before}, bound, unique) do
    [index, value] = bind([index, value], bound, unique)
    {:atomic, line, op, name, index, value, before && unique.(before)}
  end

  def bind(tuple, bound, unique) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> bind(bound, unique) |> List.to_tuple()

  def bind(other, _bound, _unique), do: other
end
