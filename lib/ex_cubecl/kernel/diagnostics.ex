defmodule ExCubecl.Kernel.Diagnostics do
  @moduledoc false
  # The messages for code that is not valid in a kernel, with what to write instead.

  alias ExCubecl.DType.Table
  alias ExCubecl.Error.Text
  alias ExCubecl.Kernel.Suggestion

  # The names of types are no functions: `f32(x)` is a cast.
  @casts Map.new(Table.all(), &{&1, "cast(x, #{inspect(&1)})"})

  @instead Map.merge(@casts, %{
             &&: "and",
             ||: "or",
             !: "not",
             ===: "==",
             !==: "!=",
             case: "if or cond",
             unless: "if not ...",
             with: "if or cond",
             length: "len(x) for the number of elements",
             mod: "rem",
             float: "cast(x, :f32)",
             int: "cast(x, :s32)",
             sum: "ExCubecl.Ops.sum, or a loop",
             size: "len(x) for the number of elements",
             numel: "len(x) for the number of elements",
             "^^^": "bxor(a, b)",
             "~~~": "bnot(x)",
             in: "comparisons that are joined by or",
             raise: "an output that the caller checks: a kernel cannot raise",
             throw: "an output that the caller checks: a kernel cannot throw",
             return: "the value of the last line"
           })

  @modules [:math, :np, :jnp, :cp, :torch, :nx]

  # The variables of CUDA and WGSL.
  @places %{
    threadIdx: :local,
    blockIdx: :group,
    blockDim: :group_size,
    global_id: :index,
    local_id: :local,
    workgroup_id: :group
  }

  @doc "The message for a call that is neither a kernel nor a built-in; `other` is a `t:ExCubecl.Kernel.Resolver.other/0`."
  def call(called, arity, other)

  def call(name, arity, :recursion),
    do:
      "#{name}/#{arity} calls itself, directly or through another kernel, and kernels know no recursion: write a loop, for i <- first..last do ... end"

  def call(name, arity, :plain),
    do:
      "#{name}/#{arity} is a function of Elixir, and kernels call kernels only: define it by defkernel"

  def call(name, arity, {:arities, arities}) do
    known = Enum.map_join(arities, " and ", &"#{name}/#{&1}")
    "#{name}/#{arity} is not known in kernels: there is #{known}"
  end

  def call(name, arity, {:import, module}),
    do:
      "#{name}/#{arity} is a kernel of #{inspect(module)}: call it as #{inspect(module)}.#{name}(...)"

  def call(name, arity, {:takes, arities}) do
    takes = Enum.map_join(arities, " or ", &Text.count(&1, "argument"))
    "#{name} takes #{takes}, and is given #{arity}"
  end

  def call(name, _arity, {:function, module})
      when is_map_key(@instead, name) and module == Kernel,
      do: instead(name)

  def call(name, arity, {:function, module}) do
    instead =
      Suggestion.instead(module, name, arity) ||
        "they run for each element by themselves, and know what the documentation of ExCubecl.Kernel lists"

    "#{inspect(module)}.#{name}/#{arity} is a function of Elixir, and kernels call kernels only: #{instead}"
  end

  def call(name, arity, {:no_module, module}) do
    instead =
      Suggestion.instead(module, name, arity) ||
        "there is no module #{inspect(module)}, or it is compiled after this one"

    "#{inspect(module)}.#{name}/#{arity} is not known in kernels: #{instead}"
  end

  def call(name, arity, {:kernels, module, kernels}) do
    known = Enum.map_join(kernels, ", ", fn {name, arity} -> "#{name}/#{arity}" end)

    "#{inspect(module)}.#{name}/#{arity} is not known in kernels: the kernels of #{inspect(module)} are #{known}"
  end

  def call(name, _arity, :unknown) when is_map_key(@instead, name), do: instead(name)

  def call(name, arity, :unknown) do
    instead =
      Suggestion.instead(nil, name, arity) || "the documentation of ExCubecl.Kernel lists what is"

    "#{name}/#{arity} is not known in kernels: #{instead}"
  end

  defp instead(name), do: "#{name} is not known in kernels: use #{@instead[name]}"

  @doc "The message for code that has no value in a kernel, where a value is expected."
  def value({:=, _, [{name, _, context}, _]}) when is_atom(name) and is_atom(context),
    do: "#{name} = ... sets a variable and has no value: it is a line of its own, before this one"

  def value({:=, _, [{{:., _, [Access, :get]}, _, _} = nested, _]}), do: value(nested)

  def value({:=, _, _} = quoted), do: "#{short(quoted)} has no value: it is a line of its own"

  def value({:for, _, args}) do
    if Enum.any?(args, &(Keyword.keyword?(&1) and Keyword.has_key?(&1, :reduce))),
      do:
        "for has no value inside of an expression: write sum = for ... on a line of its own, and name sum here",
      else:
        "for has a value only with reduce:, as in: for i <- first..last, reduce: 0 do acc -> acc + x[i] end"
  end

  def value({:while, _, _}),
    do:
      "while has no value: it is a line of its own, and sets variables that are set before it, too"

  def value({:@, _, [{name, _, _}]}),
    do: "@#{name} has no value here: set it before the kernel, in its module"

  def value({word, _, _}) when word in [:if, :cond],
    do:
      "#{word} is written as: #{if word == :if, do: "if x > 0 do ... else ... end", else: "cond do x > 0 -> ... end"}"

  def value({word, _, _}) when word in [:fn, :&],
    do: "functions are no values in a kernel: define another kernel by defkernel, and call it"

  def value({{:., _, [_]}, _, _} = quoted),
    do: "#{short(quoted)} is no call of a kernel: define it by defkernel, and call it by its name"

  def value({{:., _, [Access, :get]}, _, [{{:., _, [Access, :get]}, _, [inner, _]}, _]}) do
    index(short(inner))
  end

  def value({{:., _, [Access, :get]}, _, [inner, _]}),
    do: "only buffers that are passed have elements, and #{short(inner)} is none"

  def value({{:., _, [module, name]}, _, args}) when is_atom(module) and is_list(args),
    do: call(name, length(args), {:function, module})

  def value({name, _, [{:&, _, [number]}]}),
    do: "#{name} & #{number} is a call in Elixir: the and of bits is band(#{name}, #{number})"

  # A module of Erlang whose colon is missing, or a module of another language.
  def value({{:., _, [{module, _, context}, name]}, _, args})
      when module in @modules and is_atom(name) and is_atom(context) and is_list(args) do
    instead = Suggestion.instead(:math, name, length(args)) || "kernels have no fields"
    "#{module}.#{name}/#{length(args)} is not known in kernels: #{instead}"
  end

  def value({{:., _, [{name, _, context}, axis]}, _, []})
      when is_map_key(@places, name) and is_atom(context) and axis in [:x, :y, :z],
      do: "#{name}.#{axis} is not known in kernels: did you mean #{@places[name]}(:#{axis})?"

  def value({{:., _, [_, field]}, _, _} = quoted) when is_atom(field),
    do: "#{short(quoted)} is not known in kernels: they have numbers, and no fields"

  def value(list) when is_list(list),
    do: "lists are not known in kernels: they have numbers only, and the elements of buffers"

  def value(empty) when empty in [nil, {:__block__, [], []}],
    do: "nil, or nothing, is where a value is expected: kernels have numbers only"

  def value(other), do: "#{short(other)} is not known in kernels: they have numbers only"

  @doc "The message for an index of several numbers."
  def index(name),
    do:
      "a buffer has one index, which counts all of its elements: #{name}[row * columns + column]"

  @doc "Quoted code as text, at most 60 characters of it. A list of integers is no charlist."
  def short(quoted) do
    integers? =
      is_list(quoted) and not List.improper?(quoted) and Enum.all?(quoted, &is_integer/1)

    text = if integers?, do: Text.show(quoted), else: Macro.to_string(quoted)
    String.slice(text, 0, 60)
  end
end
