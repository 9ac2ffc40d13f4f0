defmodule ExCubecl.Kernel.Expander do
  @moduledoc false
  # Rewrites the quoted body of a kernel before it is parsed: pipes become calls, module attributes their values, and macros of the
  # caller their expansions. The names of the language and of kernels come first, so that an import cannot change their meaning.

  import ExCubecl.Kernel.CompileErrors

  alias ExCubecl.Kernel.{BuiltIns, Resolver}

  # Macros of Elixir's own modules would expand to code that is not valid in a kernel; the parser reports their names.
  @elixir [Kernel, Kernel.SpecialForms, Bitwise]

  @doc "The body with everything expanded. Raises a CompileError for what has no value."
  def expand(body, scope), do: body |> attributes(scope) |> Macro.prewalk(&node(&1, scope))

  @doc "The code with the values of module attributes in their place; `nil` attributes are left."
  @spec attributes(Macro.t(), map) :: Macro.t()
  def attributes(code, scope) do
    Macro.prewalk(code, fn node ->
      if attribute?(node), do: attribute(node, scope), else: node
    end)
  end

  @doc "Whether code has module attributes, which have their values only when the module is evaluated."
  def attributes?(code) do
    {_, found?} =
      Macro.prewalk(code, false, fn node, found? -> {node, found? or attribute?(node)} end)

    found?
  end

  defp attribute?({:@, _, [{name, _, context}]}), do: is_atom(name) and is_atom(context)
  defp attribute?(_other), do: false

  defp attribute({:@, meta, [{name, _, _}]} = node, scope) do
    case value(name, scope) do
      nil ->
        node

      value when is_number(value) or is_boolean(value) ->
        value

      value ->
        text = "@#{name} is #{kind(value)}, and kernels have numbers only: pass it as a buffer"
        fail(scope, meta, text)
    end
  end

  defp value(_name, %{module: nil}), do: nil

  defp value(name, %{module: module}),
    do: if(Module.open?(module), do: Module.get_attribute(module, name))

  defp kind(value) when is_list(value), do: "a list"
  defp kind(value) when is_binary(value), do: "a string"
  defp kind(_value), do: "no number"

  # `Macro.prewalk/2` goes on with the parts of what is returned here, so that an expansion is expanded itself first.
  defp node({:|>, meta, [_, _]} = pipe, scope) do
    [{first, 0} | calls] = Macro.unpipe(pipe)

    calls
    |> Enum.reduce(first, fn {call, position}, value ->
      piped(value, call, position, meta, scope)
    end)
    |> node(scope)
  end

  defp node({name, _, args} = call, scope) when is_atom(name) and is_list(args) do
    if BuiltIns.arities(name) == [] and macro?(name, length(args), scope),
      do: expanded(call, scope),
      else: call
  end

  defp node({{:., _, [{:__aliases__, _, _} = module, name]}, _, args} = call, scope)
       when is_list(args) do
    module = Macro.expand(module, scope.env)

    if is_atom(module) and module not in @elixir and Code.ensure_loaded?(module) and
         Resolver.macro?(module, name, length(args)),
       do: expanded(call, scope),
       else: call
  end

  defp node(other, _scope), do: other

  defp piped(value, call, position, meta, scope) do
    Macro.pipe(value, call, position)
  rescue
    ArgumentError ->
      fail(
        scope,
        meta,
        "a value is piped into a call, such as x |> scale(2), and #{Macro.to_string(call)} is none"
      )
  end

  ## Macros

  defp macro?(name, arity, %{env: env} = scope) do
    match?({:other, _}, scope.resolve.(nil, name, arity)) and
      Enum.any?(env.macros, fn {module, macros} ->
        module not in @elixir and {name, arity} in macros
      end)
  end

  # Variables that a macro introduces differ from variables of the same name in the kernel.
  defp expanded(call, %{env: env} = scope) do
    call
    |> Macro.expand_once(env)
    |> Macro.prewalk(fn
      {name, meta, context} = variable when is_atom(name) and is_atom(context) ->
        if counter = meta[:counter],
          do: {:"#{name}_#{:erlang.phash2(counter)}", meta, context},
          else: variable

      other ->
        other
    end)
    |> node(scope)
  end
end
