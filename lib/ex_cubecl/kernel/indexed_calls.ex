defmodule ExCubecl.Kernel.IndexedCalls do
  @moduledoc false
  # Calls of indexed kernels in kernels. The called kernel is inlined as statements: it runs with the index of the caller, and writes into
  # the buffers of the caller that it is passed.

  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Expressions, only: [expression: 2]

  alias ExCubecl.Kernel.{BuiltIns, Inliner}

  @doc "The statement for a call of an indexed kernel, or `nil` for any other code."
  def statement(quoted, scope) do
    with {kernel, args, meta} <- indexed(quoted, scope) do
      if kernel.group != nil do
        text = "#{kernel.name} runs in groups, and only a kernel that does not can be called"
        fail(scope, meta, text)
      end

      args = Enum.map(args, &expression(&1, scope))
      passed = Map.new(Enum.zip(kernel.args, args))
      {:run, Inliner.inline(kernel, passed, meta, scope), args}
    end
  end

  @doc "The names of the arguments that the indexed kernels called in these lines write into."
  def outputs(lines, scope) do
    {_, names} =
      Macro.prewalk(lines, [], fn node, names ->
        case indexed(node, scope) do
          {kernel, args, _meta} -> {node, written(kernel, args) ++ names}
          nil -> {node, names}
        end
      end)

    Enum.reverse(names)
  end

  defp written(kernel, args) do
    for {name, {passed, _, context}} <- Enum.zip(kernel.args, args),
        name in kernel.outputs and is_atom(passed) and is_atom(context),
        do: passed
  end

  defp indexed({{:., _, [{:__MODULE__, _, context}, name]}, meta, args}, scope)
       when is_atom(context),
       do: resolved(nil, name, args, meta, scope)

  defp indexed({{:., _, [{:__aliases__, _, _} = module, name]}, meta, args}, scope),
    do: resolved(module, name, args, meta, scope)

  defp indexed({name, meta, args}, scope) when is_atom(name) and is_list(args),
    do: if(BuiltIns.arities(name) == [], do: resolved(nil, name, args, meta, scope))

  defp indexed(_other, _scope), do: nil

  defp resolved(module, name, args, meta, scope) do
    case scope.resolve.(module, name, length(args)) do
      %{result: nil} = kernel -> {kernel, args, meta}
      _ -> nil
    end
  end
end
