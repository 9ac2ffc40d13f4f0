defmodule ExCubecl.Kernel.Definition do
  @moduledoc false
  # The implementation of the macros of `ExCubecl.Kernel`.

  import ExCubecl.Kernel.CompileErrors

  alias ExCubecl.Kernel.{
    BuiltIns,
    Diagnostics,
    Expander,
    ForwardReference,
    Parser,
    Resolver,
    Uniformity
  }

  # Module attributes: kernels by name and arity, and kernels that call a name that is not defined yet, as `{reference, call, given, doc}`.
  @kernels :ex_cubecl_kernels
  @open :ex_cubecl_open

  @doc "Registers the module attributes, before any kernel of the module is expanded."
  def prepare(%{module: nil} = env),
    do:
      fail(
        env,
        env.line,
        "use ExCubecl.Kernel is for a module: kernel(fn x -> ... end) needs none"
      )

  def prepare(%{module: module}) do
    for name <- [@kernels, @open], do: Module.register_attribute(module, name, accumulate: true)
  end

  @doc """
  The code of the functions of a kernel, `name` and `name!`, each with and without options; `name!` raises.

  A module is expanded as a whole before it is evaluated. A kernel that uses a module attribute, or calls such a kernel, is therefore
  defined only when the module is evaluated, by `evaluate/3`.
  """
  def define(call, given, env) do
    if Expander.attributes?(given), do: later(call, given), else: functions(call, given, env)
  rescue
    ForwardReference -> later(call, given)
  end

  defp later(call, given) do
    quote do
      ExCubecl.Kernel.Definition.evaluate(
        unquote(Macro.escape(call)),
        unquote(Macro.escape(given)),
        __ENV__
      )
    end
  end

  @doc "Defines the functions of a kernel in the module that is being evaluated."
  def evaluate(call, given, env) do
    # A later line may change an attribute.
    given = Expander.attributes(given, env)

    with %ForwardReference{} = reference <- evaluated(call, given, env) do
      # The next function of the module must not get the documentation of this kernel.
      doc = Module.delete_attribute(env.module, :doc)
      Module.put_attribute(env.module, @open, {reference, call, given, doc})
      :ok
    end
  end

  # `:ok`, or the reference to a name that is not defined so far.
  defp evaluated(call, given, env) do
    call |> functions(given, env) |> Code.eval_quoted([], env)
    :ok
  rescue
    reference in ForwardReference ->
      {name, args} = head(call, env)
      %{reference | kernel: {name, length(args)}}
  end

  defp functions(call, given, env) do
    {name, args} = head(call, env)
    arity = length(args)
    {body, opts} = body(given, env)
    free(name, arity, env)
    functions(name, arity, make(name, args, body, opts, env), env)
  end

  defp functions(name, arity, kernel, env) do
    Module.put_attribute(env.module, @kernels, {{name, arity}, kernel})
    args = Macro.generate_arguments(arity, __MODULE__)
    opts = Macro.var(:opts, __MODULE__)
    call = &call(kernel, args, &1)
    raising_call = &quote(do: ExCubecl.Error.unwrap!(unquote(call(kernel, args, &1))))
    raising = :"#{name}!"

    # Not `opts \\ []`, of which Elixir would report a conflict with another function before `finish/1` can. No
    # function calls another by its name, which may be the name of a function that is imported from Elixir's Kernel.
    quote do
      def unquote(name)(unquote_splicing(args)), do: unquote(call.([]))

      @doc "As `#{unquote(name)}/#{unquote(arity)}`, with the options of `ExCubecl.Kernel.run/3`."
      def unquote(name)(unquote_splicing(args), unquote(opts)), do: unquote(call.(opts))

      @doc "As `#{unquote(name)}/#{unquote(arity)}`, but returns the value itself or raises `ExCubecl.Error`."
      def unquote(raising)(unquote_splicing(args)), do: unquote(raising_call.([]))

      @doc "As `#{unquote(name)}/#{unquote(arity + 1)}`, but returns the value itself or raises `ExCubecl.Error`."
      def unquote(raising)(unquote_splicing(args), unquote(opts)),
        do: unquote(raising_call.(opts))
    end
  end

  # Errors have the name of the function.
  defp call(%{parsed: %{name: name}} = kernel, args, opts) do
    quote do
      unquote(struct_of(kernel))
      |> ExCubecl.Kernel.run(unquote(args), unquote(opts))
      |> ExCubecl.Error.Operation.named(unquote(name), [], [])
    end
  end

  # The code of the struct, for the module that defines the kernel.
  defp struct_of(%{parsed: parsed, key: key}) do
    quote do: %ExCubecl.Kernel{parsed: unquote(Macro.escape(parsed)), key: unquote(key)}
  end

  defp head({:when, meta, _}, env),
    do: fail(env, meta, "guards are not known in kernels: use if in the body")

  defp head({name, _, args}, _env) when is_atom(name) and is_list(args), do: {name, args}

  defp head(other, env) do
    text =
      "a kernel is written as defkernel name(x, y) do ... end, not #{Diagnostics.short(other)}"

    fail(env, env.line, text)
  end

  # `defkernel f(x), group: 64, do: ...` passes the options and the body in one list.
  defp body(given, env) do
    given = List.flatten(List.wrap(given))

    case Keyword.keyword?(given) && Keyword.pop(given, :do, :none) do
      {body, opts} when body != :none ->
        {body, opts}

      _ ->
        fail(
          env,
          env.line,
          "a kernel is written as defkernel name(x, y) do ... end: there is no do"
        )
    end
  end

  # Raises if a kernel cannot have this name and arity.
  defp free(name, arity, %{module: module} = env) do
    if module == nil or not Module.has_attribute?(module, @kernels),
      do: fail(env, env.line, "defkernel is for a module that says: use ExCubecl.Kernel")

    defined? = &List.keymember?(Resolver.defined(env), {name, &1}, 0)

    cond do
      arity in BuiltIns.arities(name) ->
        text =
          "#{name}/#{arity} is a function of the language of kernels, which calls of it mean: give the kernel another name"

        fail(env, env.line, text)

      defined?.(arity) ->
        fail(env, env.line, "the kernel #{name}/#{arity} is defined twice")

      other = Enum.find([arity - 1, arity + 1], defined?) ->
        fail(env, env.line, taken(name, min(arity, other)))

      true ->
        :ok
    end
  end

  defp taken(name, arity),
    do:
      "#{name}/#{arity + 1} is the kernel #{name}/#{arity} with options: give the other one another name"

  @doc "A kernel without a module."
  def anonymous({:fn, _, [{:->, _, [args, body]}]}, opts, env) do
    struct_of(make(:kernel, args, body, opts, env))
  rescue
    reference in ForwardReference ->
      {name, arity} = reference.called
      fail(%{file: reference.file}, reference.line, Diagnostics.call(name, arity, :unknown))
  end

  def anonymous({:fn, _, _}, _opts, env),
    do: fail(env, env.line, "a kernel has one clause: use if or cond in its body")

  def anonymous({:&, _, _}, _opts, env),
    do:
      fail(
        env,
        env.line,
        "a kernel is written with fn, whose arguments have names: kernel(fn x -> x + 1 end), not &"
      )

  def anonymous(other, _opts, env) do
    text =
      "a kernel is compiled from its code, which must stand here: kernel(fn x -> x + 1 end), not #{Diagnostics.short(other)}"

    fail(env, env.line, text)
  end

  defp make(name, args, body, opts, env) do
    parsed = Parser.parse(name, args, body, opts, env, &Resolver.resolve(&1, &2, &3, env))
    barriers(parsed, env)
    %{parsed: parsed, key: key(parsed)}
  end

  # Whether an argument that is only read without an index is a buffer or a number is known when the kernel is called.
  defp barriers(parsed, env) do
    with {:error, line} <- Uniformity.check(parsed, parsed.outputs),
         do: fail(env, if(line == 0, do: env.line, else: line), Uniformity.text())
  end

  defp key(parsed), do: :erlang.md5(:erlang.term_to_binary(parsed))

  @doc "A kernel with another name, which messages and lists show."
  def named(%{parsed: parsed} = kernel, name) do
    parsed = %{parsed | name: name}
    %{kernel | parsed: parsed, key: key(parsed)}
  end

  @doc """
  Defines, at the end of a module, the kernels that call kernels defined below them. Checks that every kernel called is defined, and
  that no function has the name and arity of a kernel.
  """
  def finish(%{module: module} = env) do
    open = module |> Module.get_attribute(@open) |> Enum.reverse() |> resolved(env)
    if open != [], do: unresolved(open, env)
    kernels = Resolver.defined(env)

    for {{name, arity}, _} <- kernels,
        generated <- [arity, arity + 1],
        name <- [name, :"#{name}!"] do
      with {:v1, _, _, [_, {meta, _, _, _} | _]} <-
             Module.get_definition(module, {name, generated}),
           do: fail(env, meta[:line] || env.line, redefined(name, arity, generated))
    end
  end

  defp redefined(name, arity, arity),
    do: "#{name}/#{arity} is a kernel and a function: each needs a name of its own"

  defp redefined(name, arity, _with_options), do: taken(name, arity)

  # Each pass defines the kernels whose called kernels are all defined, until a pass defines none.
  defp resolved(open, env) do
    left = Enum.flat_map(open, &retried(&1, env))
    if length(left) in [0, length(open)], do: left, else: resolved(left, env)
  end

  defp retried({_reference, call, given, doc}, env) do
    if doc, do: Module.put_attribute(env.module, :doc, doc)

    case evaluated(call, given, env) do
      :ok -> []
      reference -> [{reference, call, given, Module.delete_attribute(env.module, :doc)}]
    end
  end

  # The first name that is no kernel, or else kernels that call each other.
  @spec unresolved(list, Macro.Env.t()) :: no_return
  defp unresolved(open, env) do
    references = for {reference, _, _, _} <- open, do: reference
    names = for %{kernel: kernel} <- references, do: kernel
    reference = Enum.find(references, hd(references), &(&1.called not in names))
    {name, arity} = reference.called

    meaning =
      if reference.called in names,
        do: :recursion,
        else:
          with(:forward <- Resolver.local(Resolver.defined(env), name, arity, env), do: :unknown)

    fail(%{file: reference.file}, reference.line, Diagnostics.call(name, arity, meaning))
  end
end
