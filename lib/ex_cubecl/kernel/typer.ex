defmodule ExCubecl.Kernel.Typer do
  @moduledoc false
  # Turns a parsed kernel and the kinds of its arguments into the typed tree that the native side takes.
  # Types merge as in Nx; a number takes the type of the other operand.

  import ExCubecl.Kernel.Types

  alias ExCubecl.Kernel.{Bindings, Types}
  alias ExCubecl.Kernel.Typer.Trees

  @max_passes 20

  @doc """
  The tree with the result's type, the bindings and the order of numbers, or the type error.

  Kinds are `{:buffer, dtype}`, `{:one, dtype}` for a buffer of one element that is broadcast, `:int`
  and `:float` for numbers. With `report?` the tree has one more output, into which the kernel writes indices that
  are out of bounds.
  """
  @spec type(map, %{atom => term}, boolean) :: {:ok, map} | {:error, Exception.t()}
  def type(kernel, kinds, report?) do
    shared = for {name, type, _} <- kernel.shared, into: %{}, do: {name, memory(type, kinds)}
    bindings = Bindings.new(kernel, kinds, report?)
    {:ok, infer(kernel, bindings, Map.merge(kinds, shared), %{}, @max_passes)}
  rescue
    error in Types.TypeError -> {:error, error}
  end

  defp memory({:of, name}, kinds) do
    case kinds[name] do
      {_, dtype} -> {:shared, dtype}
      _ -> type_error(0, "#{name} is a number: shared memory takes the type of a buffer")
    end
  end

  defp memory(dtype, _kinds), do: {:shared, dtype}

  # `float` and `integer` of the state are the types of numbers that meet no typed operand. A variable has one type. The kernel is typed again until no assignment changes the type of a variable.
  defp infer(kernel, bindings, kinds, variables, passes) do
    state = start(kernel, bindings, kinds, variables)
    {body, state} = Trees.block(kernel.statements, state)
    {put, type, state} = result(kernel.result, bindings, state)

    cond do
      state.variables == variables ->
        typed(kernel, bindings, body ++ put, type, state)

      passes == 0 ->
        type_error(
          0,
          "the types of its variables cannot be inferred: they change with each of #{@max_passes} passes"
        )

      true ->
        infer(kernel, bindings, kinds, state.variables, passes - 1)
    end
  end

  defp start(kernel, bindings, kinds, variables) do
    %{
      kinds: kinds,
      slots: Bindings.slots(bindings),
      group: kernel.group,
      float: if(any?(kinds, [:f64]), do: :f64, else: :f32),
      integer: if(any?(kinds, [:s64, :u64]), do: :s64, else: :s32),
      variables: variables,
      locals: %{},
      scalars: %{},
      prefix: [],
      calls: 0
    }
  end

  defp any?(kinds, dtypes) do
    Enum.any?(kinds, fn
      {_name, {_, dtype}} -> dtype in dtypes
      _number -> false
    end)
  end

  # The statements that store the result of an element-wise kernel.
  defp result(nil, _bindings, state), do: {[], nil, state}

  defp result(result, bindings, state) do
    {{type, _} = typed, state} = result |> Trees.expression(%{state | prefix: []}) |> defaulted()
    type = if type == :bool, do: :u8, else: type
    {tree, state} = coerce(typed, type, state)
    put = {:put, Bindings.slot(bindings, :result), tree}
    {Enum.reverse([put | state.prefix]), type, state}
  end

  defp typed(kernel, bindings, body, result, state) do
    dtype = fn name -> elem(state.kinds[name], 1) end
    inputs = for {:input, name} <- bindings, do: dtype.(name)

    outputs =
      Enum.flat_map(bindings, fn
        {:output, name} -> [dtype.(name)]
        :result -> [result]
        :report -> [:s32]
        _ -> []
      end)

    scalars = in_order(state.scalars)
    locals = state.locals |> in_order() |> Enum.map(&Map.fetch!(state.variables, &1))
    report = Bindings.slot(bindings, :report)
    shared = for {name, _, length} <- kernel.shared, do: {dtype.(name), length}
    group = if kernel.group, do: {Enum.product(kernel.group), shared}

    %{
      tree: {inputs, outputs, Enum.map(scalars, &elem(&1, 1)), locals, body, report, group},
      bindings: bindings,
      scalars: Enum.map(scalars, &elem(&1, 0)),
      dtype: result
    }
  end

  defp in_order(slots), do: slots |> Enum.sort_by(&elem(&1, 1)) |> Enum.map(&elem(&1, 0))
end
