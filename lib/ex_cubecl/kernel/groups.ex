defmodule ExCubecl.Kernel.Groups do
  @moduledoc false
  # The part of the parser for kernels whose threads run in groups (workgroups).

  import ExCubecl.Kernel.CompileErrors

  alias ExCubecl.DType
  alias ExCubecl.Kernel.Scope

  @words ~w(local group group_size shared barrier plane_lane plane_size plane_sum plane_product plane_min plane_max plane_broadcast)a
  @threads 256

  @doc "The threads of a group along x, y and z; `nil` for a kernel without groups."
  def threads(opts, body, scope) do
    case opts do
      [] -> if grouped?(body), do: [@threads, 1, 1]
      [group: axes] -> axes |> axes() |> each(axes, scope)
      _ -> fail(scope, scope.line, "#{Macro.to_string(opts)} is no option: only group: is known")
    end
  end

  # A tuple of three is quoted as `{:{}, _, list}`; a tuple of two is quoted as itself.
  defp axes({:{}, _, axes}), do: axes
  defp axes({y, x}), do: [y, x]
  defp axes(x), do: List.wrap(x)

  defp each(axes, given, scope) do
    if length(axes) in 1..3 and Enum.all?(axes, &(is_integer(&1) and &1 in 1..1024)) do
      Enum.take(Enum.reverse(axes) ++ [1, 1], 3)
    else
      text =
        "group: #{Macro.to_string(given)} is no number of threads: expected one such as 256, or {16, 16} for two axes"

      fail(scope, scope.line, text)
    end
  end

  defp grouped?(body) do
    {_, found} =
      Macro.prewalk(body, false, fn
        {word, _, args} = node, _found when word in @words and is_list(args) -> {node, true}
        node, found -> {node, found}
      end)

    found
  end

  @doc "The scope with the shared memory that a line declares."
  def shared({:=, meta, [{name, _, context}, {:shared, _, [type, length]}]}, scope)
      when is_atom(name) and is_atom(context) do
    type = type(type, meta, scope)

    case constant(length, scope) do
      length when is_integer(length) and length in 1..65_536 ->
        Scope.put_shared(scope, name, type, length, meta)

      _ ->
        text = "the length of shared memory is a number that is known here, from 1 to 65536"
        fail(scope, meta, text)
    end
  end

  def shared({:=, meta, _}, scope),
    do: fail(scope, meta, "shared memory is written as: tile = shared(:f32, 256)")

  defp type({arg, _, context}, meta, scope) when is_atom(arg) and is_atom(context),
    do: if(arg in scope.args, do: {:of, arg}, else: no_type(meta, scope))

  defp type(type, meta, scope),
    do: if(type in DType.all(), do: type, else: no_type(meta, scope))

  @spec no_type(keyword, map) :: no_return
  defp no_type(meta, scope) do
    types = Enum.map_join(DType.all(), " ", &inspect/1)

    text =
      "shared memory is of a type, one of #{types}, or of an argument's: shared(:f32, 256), shared(input, 256)"

    fail(scope, meta, text)
  end

  defp constant(number, _scope) when is_integer(number), do: number

  defp constant({op, _, [a, b]}, scope) when op in [:+, :-, :*, :div] do
    with a when is_integer(a) <- constant(a, scope),
         b when is_integer(b) and not (op == :div and b == 0) <- constant(b, scope) do
      apply(Kernel, op, [a, b])
    else
      _ -> nil
    end
  end

  defp constant({:group_size, _, []}, scope), do: size(nil, scope)
  defp constant({:group_size, _, [axis]}, scope) when axis in [:x, :y, :z], do: size(axis, scope)
  defp constant(_, _scope), do: nil

  @doc "The threads of a group along one axis, or in total for `nil`."
  def size(nil, scope), do: Enum.product(scope.group)
  def size(axis, scope), do: Enum.at(scope.group, %{x: 0, y: 1, z: 2}[axis])
end
