defmodule ExCubecl.Error.Bang do
  @moduledoc false
  # Generates the raising twin, `name!`, of each public function whose `@spec` says that it may return `{:error, _}`, and adds the name of the function
  # to its errors (`ExCubecl.Error.Operation`). The twin has the same
  # arguments and defaults. `use ExCubecl.Error.Bang` in the module is enough: the hook reads the specs at the end of the module.
  #
  # A spec may name a type of its module, or `result(value)` of another one, which by convention is `{:ok, value} | {:error, error}`.

  defmacro __using__(_opts), do: quote(do: @before_compile(ExCubecl.Error.Bang))

  defmacro __before_compile__(env) do
    types = types(env.module)

    for {:spec, spec, _} <- Enum.reverse(Module.get_attribute(env.module, :spec)),
        {name, types_of_args, result, guards} = split(spec),
        values = values(result, Map.drop(types, for({name, _} <- guards, do: {name, 0}))),
        :error in values do
      if :other in values, do: refuse(name, result)
      twin(env.module, {name, types_of_args, for({:value, type} <- values, do: type), guards})
    end
  end

  defp refuse(name, result) do
    text = Macro.to_string(result)
    raise ArgumentError, "#{name}: #{text} is neither :ok, {:ok, _} nor {:error, _}"
  end

  ## Specs

  defp types(module) do
    for kind <- [:type, :typep],
        {^kind, {:"::", _, [{name, _, parameters}, type]}, _} <-
          Module.get_attribute(module, kind),
        parameters = if(is_list(parameters), do: parameters, else: []),
        into: %{},
        do: {{name, length(parameters)}, {Enum.map(parameters, &elem(&1, 0)), type}}
  end

  defp split({:when, _, [spec, guards]}), do: put_elem(split(spec), 3, guards)
  defp split({:"::", _, [{name, _, nil}, result]}), do: {name, [], result, []}
  defp split({:"::", _, [{name, _, args}, result]}), do: {name, args, result, []}

  # The alternatives of a result: `:error`, `{:value, type}` for each type that the twin returns, or `:other`.
  defp values({:|, _, [one, other]}, types),
    do: Enum.uniq(values(one, types) ++ values(other, types))

  defp values({:error, _type}, _types), do: [:error]
  defp values(:ok, _types), do: [{:value, :ok}]
  defp values({:ok, type}, _types), do: [{:value, type}]
  defp values({{:., _, [_module, :result]}, _, [type]}, _types), do: [:error, {:value, type}]

  defp values({name, _, arguments}, types) when is_atom(name) do
    arguments = if is_list(arguments), do: arguments, else: []

    case types[{name, length(arguments)}] do
      {names, expanded} ->
        expanded |> bind(Enum.zip(names, arguments)) |> values(types)

      nil ->
        [:other]
    end
  end

  defp values(_type, _types), do: [:other]

  defp bind(type, parameters) do
    Macro.prewalk(type, fn
      {name, _, context} = variable when is_atom(name) and is_atom(context) ->
        Keyword.get(parameters, name, variable)

      other ->
        other
    end)
  end

  ## Twins

  defp twin(module, {name, types_of_args, values, guards}) do
    arity = length(types_of_args)
    args = arguments(module, name, arity)
    value = Enum.reduce(values, &{:|, [], [&2, &1]})
    bang = :"#{name}!"
    head = {:"::", [], [{bang, [], types_of_args}, value]}
    spec = if guards == [], do: head, else: {:when, [], [head, guards]}

    {:v1, :def, meta, _clauses} = Module.get_definition(module, {name, arity})

    # A stack trace shows the line of the function that was called.
    quote line: meta[:line] do
      defoverridable [{unquote(name), unquote(arity)}]

      def unquote(name)(unquote_splicing(args)),
        do:
          ExCubecl.Error.Operation.named(
            super(unquote_splicing(args)),
            unquote(name),
            unquote(Enum.map(args, &elem(&1, 0))),
            [unquote_splicing(args)]
          )

      @doc "As `#{unquote(name)}/#{unquote(arity)}`, but returns the value itself, or raises `ExCubecl.Error`."
      @spec unquote(spec)
      def unquote(bang)(unquote_splicing(with_defaults(module, name, arity, args))),
        do: ExCubecl.Error.unwrap!(unquote(name)(unquote_splicing(args)))
    end
  end

  @doc "The name and the arity of the function of a spec."
  def function({:when, _, [spec, _]}), do: function(spec)
  def function({:"::", _, [{name, _, args}, _]}), do: {name, length(args)}

  @doc "Variables with the names of the arguments of a function of the module being compiled, from the first clause that has a name."
  def arguments(module, name, arity) do
    {:v1, :def, _, clauses} = Module.get_definition(module, {name, arity})

    for index <- 0..(arity - 1)//1 do
      patterns = for {_, args, _, _} <- clauses, do: Enum.at(args, index)
      Macro.var(Enum.find_value(patterns, :"arg#{index + 1}", &variable/1), __MODULE__)
    end
  end

  defp variable({:=, _, [one, other]}), do: variable(one) || variable(other)

  defp variable({name, _, context}) when is_atom(name) and is_atom(context) do
    case String.trim_leading(Atom.to_string(name), "_") do
      "" -> nil
      name -> String.to_atom(name)
    end
  end

  defp variable(_pattern), do: nil

  # The compiler defines a function of fewer arguments for the defaults, which calls the whole one by `super`.
  defp with_defaults(module, name, arity, args) do
    least = Enum.find(0..arity, &calls_super?(module, name, &1, arity))

    if least do
      {:v1, :def, _, [{_, _, [], {:super, _, given}}]} =
        Module.get_definition(module, {name, least})

      Enum.map(Enum.zip(args, given), fn
        {arg, {_, _, :elixir_def}} -> arg
        {arg, default} -> quote(do: unquote(arg) \\ unquote(default))
      end)
    else
      args
    end
  end

  defp calls_super?(module, name, least, arity) do
    case Module.get_definition(module, {name, least}) do
      {:v1, :def, _, [{_, _, [], {:super, _, given}}]} -> length(given) == arity
      _ -> false
    end
  end
end
