defmodule ExCubecl.Kernel.Fold do
  @moduledoc false
  # `for` with `reduce:` has a value. As a line of its own it is rewritten to a loop that sets a variable:
  #
  #     sum = for i <- 0..9, reduce: 0 do acc -> acc + x[i] end
  #
  # becomes `acc = 0`, `for i <- 0..9 do acc = acc + x[i] end` and `sum = acc`, where `acc` has a name of its own.

  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Quoted

  @doc "The lines that a line is rewritten to."
  def lines({:=, meta, [target, {:for, _, _} = loop]} = line, scope) do
    case unfolded(loop, scope) do
      {before, value} -> before ++ [{:=, meta, [target, value]}]
      nil -> [line]
    end
  end

  def lines({:for, _, _} = loop, scope) do
    case unfolded(loop, scope) do
      {before, value} -> before ++ [value]
      nil -> [loop]
    end
  end

  def lines(line, _scope), do: [line]

  defp unfolded({:for, meta, [generator | rest]} = loop, scope) do
    options = Enum.concat(Enum.filter(rest, &Keyword.keyword?/1))

    if Keyword.has_key?(options, :reduce) do
      {name, body} = clause(options[:do], meta, scope)
      # Each variable has one type: two loops may each have an `acc`, of different types.
      accumulator = {:"#{name}_#{:erlang.phash2(loop)}", meta, nil}
      {before, [last]} = body |> renamed(name, accumulator) |> lines() |> Enum.split(-1)
      body = {:__block__, [], before ++ [{:=, meta(last), [accumulator, last]}]}

      {[{:=, meta, [accumulator, options[:reduce]]}, {:for, meta, [generator, [do: body]]}],
       accumulator}
    end
  end

  defp unfolded(_loop, _scope), do: nil

  defp clause([{:->, _, [[{name, _, context}], body]}], _meta, _scope)
       when is_atom(name) and is_atom(context) and body not in [nil, {:__block__, [], []}],
       do: {name, body}

  defp clause(_other, meta, scope) do
    text =
      "for with reduce: is written as: for i <- first..last, reduce: 0 do acc -> acc + x[i] end"

    fail(scope, meta, text)
  end

  defp renamed(body, name, {unique, _, _}) do
    Macro.prewalk(body, fn
      {^name, meta, context} when is_atom(context) -> {unique, meta, context}
      other -> other
    end)
  end
end
