defmodule ExCubecl.Kernel.Scope do
  @moduledoc false
  # The names that a line of a kernel can use: its arguments, its shared memory, and the variables that are set before the line.
  # Also what the parser needs to know of the kernel as a whole: its name, the threads of its workgroups, and the location of its code.

  import ExCubecl.Kernel.CompileErrors
  import ExCubecl.Kernel.Quoted

  # `line` is that of the definition. `shared` has {name, dtype | {:of, argument}, length}, the latest first. `group` has the threads
  # along x, y and z. `resolve` finds other kernels, as `ExCubecl.Kernel.Resolver.resolve/4`.
  # `env` is the environment of the definition, for macros and module attributes. `variables` has the names in the tree of a kernel by those in its code: the
  # counter of a loop has another one, because it is no variable of the same name outside. `loops` is the number of loops around the line.
  @enforce_keys [:file, :line, :module, :in_library, :name, :args, :resolve, :env]
  defstruct @enforce_keys ++ [variables: %{}, loops: 0, shared: [], group: nil]

  @type t :: %__MODULE__{}

  @doc "The scope at the first line of a kernel with these arguments, as quoted code."
  def new(name, args, env, resolve) do
    args = Enum.map(args, &argument(&1, env))
    if Enum.uniq(args) != args, do: fail(env, env.line, "two arguments of the same name")
    if args == [], do: fail(env, env.line, "a kernel has arguments, at least a buffer")

    %__MODULE__{
      file: env.file,
      line: env.line,
      module: env.module,
      in_library: in_library?(env),
      name: name,
      args: args,
      resolve: resolve,
      env: env
    }
  end

  defp argument({name, _, context}, _env) when is_atom(name) and is_atom(context), do: name

  defp argument({:when, meta, _}, env),
    do: fail(env, meta[:line] || env.line, "guards are not known in kernels: use if in the body")

  defp argument(other, env),
    do: fail(env, env.line, "arguments are names, not #{Macro.to_string(other)}")

  @doc "Whether a name has elements: an argument or shared memory."
  def memory?(name, scope), do: name in scope.args or shared?(name, scope)

  defp shared?(name, scope), do: List.keymember?(scope.shared, name, 0)

  @doc "The name in the tree of a variable that is set in the line with this meta, and the scope after the line."
  def put_variable(scope, name, meta) do
    if memory?(name, scope) do
      text = "#{name} is an argument or shared memory: give the local variable another name"
      fail(scope, meta, text)
    end

    in_tree = Map.get(scope.variables, name, name)
    {in_tree, %{scope | variables: Map.put(scope.variables, name, in_tree)}}
  end

  @doc "The name in the tree of the counter of a loop, and the scope of its body."
  def put_counter(scope, name, meta) do
    {_, scope} = put_variable(scope, name, meta)
    counter = {{:loop, scope.loops}, name}
    variables = Map.put(scope.variables, name, counter)
    {counter, %{scope | variables: variables, loops: scope.loops + 1}}
  end

  @doc "The scope with shared memory, which is declared in the line with this meta."
  def put_shared(scope, name, type, length, meta) do
    if memory?(name, scope),
      do: fail(scope, meta, "#{name} is already defined: give the shared memory another name")

    %{scope | shared: [{name, type, length} | scope.shared]}
  end

  @doc "The name in the tree of a name. Raises if it has no value in the line with this meta."
  def readable(name, meta, scope) do
    cond do
      is_map_key(scope.variables, name) ->
        scope.variables[name]

      name in scope.args ->
        name

      shared?(name, scope) ->
        fail(scope, meta, "#{name} is shared memory: name an element, as in #{name}[local()]")

      true ->
        fail(scope, meta, "#{name} was not set before: it is no argument and no local variable")
    end
  end

  @doc "The arguments among the names that a kernel writes to. Raises if one of them is neither an argument nor shared memory."
  def outputs(written, scope) do
    outputs = Enum.reject(Enum.uniq(written), &shared?(&1, scope))

    for name <- outputs, name not in scope.args do
      text = "#{name} is no argument: only buffers that are passed can be written to"
      fail(scope, scope.line, text)
    end

    outputs
  end
end
