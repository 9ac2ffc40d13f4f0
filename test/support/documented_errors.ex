defmodule ExCubecl.DocumentedErrors do
  @moduledoc false
  # The reasons that the documentation lists: for a function in its part "Errors", for all functions of a module in that of the module, and for every
  # function in ExCubecl.Error.

  require ExCubecl.Kernel

  alias ExCubecl.{Error, Sweep}

  @reason ~r/`:([a-z_]+)`/
  # What a part refers to: "those of `f/1`", "as `Module.f/1`".
  @reference ~r/(?:\b(?:those of|the errors of|as)|^As) `([A-Z][\w.]*\.)?([a-z_0-9]+)\/(\d)`/
  # A part is the rest of its paragraph.
  @part ~r/\bErrors?: .+|\berrors? (?:are|as) .+|^As .+/i

  @doc """
  The reasons that the parts name themselves, for those that name any. The key is `{module, name, arities}`, the numbers of arguments that a function
  takes, or `{module, nil, nil}` for a part of a module.
  """
  def own do
    known = known()

    for {key, text} <- parts(),
        reasons = reasons(text, known),
        reasons != [],
        into: %{},
        do: {key, reasons}
  end

  @doc "The key of a function that has a part, or `nil`."
  def key(parts, module, name, arity),
    do:
      Enum.find(Map.keys(parts), fn {m, n, arities} ->
        {m, n} == {module, name} and arity in arities
      end)

  @doc "Every reason that a function may return, by `{module, name, arity}`."
  def all do
    known = known()
    parts = parts()

    for module <- Sweep.modules(), {name, arity} <- module.__info__(:functions), into: %{} do
      texts = texts([{module, name, arity}, {module, nil, nil}], parts, [])
      {{module, name, arity}, reasons(Enum.join([everywhere() | texts], " "), known)}
    end
  end

  @doc """
  Makes each call of a text, whose lines are `call  ###  reason`, and returns the functions with the reasons of their errors. Raises if another error came, or one
  whose reason is not documented.
  """
  def provoke(text, binding) do
    documented = all()

    {provoked, wrong} =
      text
      |> String.split("\n", trim: true)
      |> Enum.map(&outcome(&1, binding, documented))
      |> Enum.split_with(&match?({{_, _, _}, _}, &1))

    if wrong != [], do: raise(Enum.join(wrong, "\n"))
    provoked
  end

  defp outcome(line, binding, documented) do
    [code, expected] = line |> String.split("###") |> Enum.map(&String.trim/1)
    quoted = Code.string_to_quoted!(code)

    case Code.eval_quoted(quoted, binding, environment()) do
      {{:error, %Error{reason: reason} = error}, _} ->
        function = called(quoted, error.details.function)

        cond do
          Atom.to_string(reason) != expected ->
            "#{code}: #{reason}: #{Exception.message(error)}"

          reason not in documented[function] ->
            "#{code}: the documentation does not list #{reason}"

          true ->
            {function, reason}
        end

      {other, _} ->
        "#{code}: #{inspect(other)}"
    end
  end

  # The function of the name that is in the error.
  defp called(quoted, function) do
    {_, calls} =
      Macro.prewalk(quoted, [], fn
        {{:., _, [module, ^function]}, _, args} = call, calls ->
          {call, [{Macro.expand(module, environment()), function, length(args)} | calls]}

        other, calls ->
          {other, calls}
      end)

    List.last(calls)
  end

  # The modules are called by their short names.
  defp environment do
    alias ExCubecl.{
            Arena,
            Batch,
            Buffer,
            Data,
            Device,
            DType,
            Kernel,
            LinAlg,
            Memory,
            Ops,
            Pool,
            Random,
            Replicated,
            View
          },
          warn: false

    %{__ENV__ | function: nil}
  end

  # The parts of functions, and of all those to which they refer.
  defp texts(functions, parts, seen) do
    for function <- functions,
        function not in seen,
        text = text(function, parts),
        text <- [text | texts(references(function, text), parts, functions ++ seen)],
        do: text
  end

  # A function of the same module is named without it.
  defp references({from, _, _}, text) do
    for [_, module, name, arity] <- Regex.scan(@reference, text) do
      module = if module == "", do: from, else: Module.concat([String.trim_trailing(module, ".")])
      {module, String.to_atom(name), String.to_integer(arity)}
    end
  end

  defp text({module, nil, nil}, parts), do: parts[{module, nil, nil}]
  defp text({module, name, arity}, parts), do: parts[key(parts, module, name, arity)]

  defp reasons(text, known) do
    for [_, name] <- Regex.scan(@reason, text),
        name in known,
        uniq: true,
        do: String.to_atom(name)
  end

  defp parts do
    for module <- Sweep.modules(),
        {key, doc} <- [{{module, nil, nil}, moduledoc(module)} | docs(module)],
        text = part(doc),
        into: %{},
        do: {key, text}
  end

  defp docs(module) do
    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(module)

    for {{:function, name, arity}, _, _, %{"en" => doc}, meta} <- docs,
        do: {{module, name, (arity - Map.get(meta, :defaults, 0))..arity}, doc}
  end

  defp part(doc) do
    paragraphs =
      doc
      |> String.replace("## Errors\n\n", "Errors: ")
      |> String.split("\n\n")
      |> Enum.map(&String.replace(&1, ~r/\s+/, " "))

    texts = for paragraph <- paragraphs, [text] <- Regex.scan(@part, paragraph), do: text
    if texts != [], do: Enum.join(texts, "\n")
  end

  # The table of reasons.
  defp known, do: for([_, name] <- Regex.scan(~r/^\| `:(\w+)` \|/m, moduledoc(Error)), do: name)

  defp everywhere do
    [_, text] = String.split(moduledoc(Error), "## Reasons of every function\n")
    text
  end

  defp moduledoc(module) do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(module)
    doc
  end
end
