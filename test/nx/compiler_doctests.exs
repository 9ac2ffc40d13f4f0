# The documentation of Nx, with numerical definitions compiled by ExCubecl, and each callback of the default backend compiled as an expression of one node.
# NX_HOST_LIMIT is the option of ExCubecl.Backend.

defmodule ExCubecl.NxCompiling do
  # A backend whose tensors are those of ExCubecl.Backend in another struct, and whose callbacks are compiled.
  @behaviour Nx.Backend

  alias ExCubecl.{Backend, Compiler}
  alias Nx.Defn.Expr
  alias Nx.Tensor, as: T

  defstruct [:tensor]

  @not_compiled [:init, :constant, :from_binary, :to_binary, :inspect, :to_batched] ++
                  [:backend_copy, :backend_transfer, :backend_deallocate] ++
                  [:from_pointer, :to_pointer, :optional, :block]

  def options, do: [host_limit: String.to_integer(System.fetch_env!("NX_HOST_LIMIT"))]

  @impl true
  def init(_opts), do: []

  @impl true
  def constant(out, number, _opts), do: wrap(Backend.constant(out, number, options()))

  @impl true
  def from_binary(out, binary, _opts), do: wrap(Backend.from_binary(out, binary, options()))

  @impl true
  def to_binary(tensor, limit), do: Backend.to_binary(unwrap(tensor), limit)

  @impl true
  def inspect(tensor, opts), do: Backend.inspect(unwrap(tensor), opts)

  @impl true
  def backend_copy(tensor, __MODULE__, _opts), do: tensor
  def backend_copy(tensor, backend, opts), do: Backend.backend_copy(unwrap(tensor), backend, opts)

  @impl true
  def backend_transfer(tensor, __MODULE__, _opts), do: tensor

  def backend_transfer(tensor, backend, opts),
    do: Backend.backend_transfer(unwrap(tensor), backend, opts)

  @impl true
  def backend_deallocate(tensor), do: Backend.backend_deallocate(unwrap(tensor))

  @impl true
  def to_batched(out, tensor, opts),
    do: out |> Backend.to_batched(unwrap(tensor), opts) |> Stream.map(&wrap/1)

  Code.ensure_loaded!(Expr)
  callbacks = Nx.Backend.behaviour_info(:callbacks)

  if {:from_pointer, 5} in callbacks do
    @impl true
    def from_pointer(pointer, type, shape, opts, options),
      do: Backend.from_pointer(pointer, type, shape, opts, options)

    @impl true
    def to_pointer(tensor, opts), do: Backend.to_pointer(unwrap(tensor), opts)
  end

  if {:block, 4} in callbacks do
    @impl true
    def block(struct, _out, args, fun), do: compiled(args, &apply(fun, [struct | &1]))
  end

  if {:optional, 3} in callbacks do
    @impl true
    def optional(name, args, fun), do: compiled(args, &Expr.optional(name, &1, fun))
  end

  for {name, arity} <- callbacks,
      name not in @not_compiled,
      function_exported?(Expr, name, arity) do
    args = Macro.generate_arguments(arity - 1, __MODULE__)

    @impl true
    if name in [:eye, :iota] do
      def unquote(name)(out, unquote_splicing(args)),
        do: compiled([], fn [] -> apply(Expr, unquote(name), [out, unquote_splicing(args)]) end)
    else
      def unquote(name)(out, unquote_splicing(args)) do
        compiled([unquote_splicing(args)], &apply(Expr, unquote(name), [out | &1]))
      end
    end
  end

  # A compiler whose results are tensors of this backend.
  def __jit__(key, vars, fun, args_list, opts),
    do: for(result <- Compiler.__jit__(key, vars, fun, args_list, opts), do: rewrapped(result))

  # The result of a function of the tensors among the arguments, compiled.
  defp compiled(args, fun) do
    {args, tensors} = Enum.map_reduce(args, [], &parameter/2)
    tensors = Enum.reverse(tensors)

    inner = fn parameters ->
      args |> Enum.map(&put(&1, List.to_tuple(parameters))) |> fun.()
    end

    call = Nx.Defn.Compiler.fun(length(tensors), inner)
    result = Nx.Defn.jit_apply(call, tensors, compiler: Compiler, on_conflict: :force)
    rewrapped(result)
  end

  defp parameter(%T{} = tensor, seen), do: {{:parameter, length(seen)}, [unwrap(tensor) | seen]}

  defp parameter([%T{} | _] = list, seen), do: Enum.map_reduce(list, seen, &parameter/2)

  defp parameter(list, seen) when is_list(list) do
    if Enum.any?(list, &is_struct(&1, T)),
      do: Enum.map_reduce(list, seen, &parameter/2),
      else: {list, seen}
  end

  defp parameter(other, seen), do: {other, seen}

  defp put({:parameter, at}, parameters), do: elem(parameters, at)
  defp put(list, parameters) when is_list(list), do: Enum.map(list, &put(&1, parameters))
  defp put(other, _parameters), do: other

  defp rewrapped(container), do: Nx.Defn.Composite.traverse(container, &wrap/1)

  defp wrap(%T{} = tensor), do: %{tensor | data: %__MODULE__{tensor: tensor}}

  defp unwrap(%T{data: %__MODULE__{tensor: inner}} = tensor),
    do: %{tensor | data: inner.data}

  defp unwrap(%T{data: %Nx.BinaryBackend{}} = tensor),
    do: Nx.backend_copy(tensor, {Backend, options()})
end

Application.put_env(:ex_cubecl, :add_backend_on_inspect, false)
Nx.global_default_backend(ExCubecl.NxCompiling)
Nx.Defn.global_default_options(compiler: ExCubecl.NxCompiling)

for module <- [Nx, Nx.LinAlg, Nx.Random] do
  defmodule Module.concat(ExCubecl.NxCompilerDoctests, module) do
    use ExUnit.Case, async: true
    doctest module
  end
end
