defmodule ExCubecl.Kernel.Groups do
  @moduledoc false
  # The part of the parser for kernels whose threads run in groups (workgroups).

  import ExCubecl.Kernel.CompileErrors

  alias ExCubecl.DType

  @words [:local, :group, :group_size, :shared, :barrier]
  @threads 256

  @doc "The threads of a group along x, y and z; `nil` for a kernel without groups."
  def threads(opts, body, state) do
    case opts do
      [] -> if grouped?(body), do: [@threads, 1, 1]
      [group: axes] -> axes |> axes() |> each(axes, state)
      _ -> fail(state, state.line, "#{Macro.to_string(opts)} is no option: only group: is known")
    end
  end

  # A tuple of three is quoted as `{:{}, _, list}`; a tuple of two is quoted as itself.
  defp axes({:{}, _, axes}), do: axes
  defp axes({y, x}), do: [y, x]
  defp axes(x), do: List.wrap(x)

  defp each(axes, given, state) do
    if length(axes) in 1..3 and Enum.all?(axes, &(is_integer(&1) and &1 in 1..1024)),
      do: Enum.take(Enum.reverse(axes) ++ [1, 1], 3),
      else:
        fail(
          state,
          state.line,
          "group: #{Macro.to_string(given)} is no number of threads: expected one such as 256, or {16, 16} for two axes"
        )
  end

  defp grouped?(body) do
    {_, found} =
      Macro.prewalk(body, false, fn
        {word, _, args} = node, _found when word in @words and is_list(args) -> {node, true}
        node, found -> {node, found}
      end)

    found
  end

  @doc "The state with the shared memory that a line declares."
  def shared({:=, meta, [{name, _, context}, {:shared, _, [type, length]}]}, state)
      when is_atom(name) and is_atom(context) do
    if MapSet.member?(state.known, name) or List.keymember?(state.shared, name, 0),
      do: fail(state, meta, "#{name} is there already: give the shared memory another name")

    type =
      case type do
        {arg, _, context} when is_atom(arg) and is_atom(context) -> {:of, arg}
        dtype -> dtype
      end

    known? = match?({:of, _}, type) and elem(type, 1) in state.args

    if not known? and type not in DType.all(),
      do:
        fail(
          state,
          meta,
          "shared memory is of a type, one of #{Enum.map_join(DType.all(), " ", &inspect/1)}, or of an argument's: shared(:f32, 256), shared(input, 256)"
        )

    case constant(length, state) do
      length when is_integer(length) and length in 1..65_536 ->
        %{state | shared: [{name, type, length} | state.shared]}

      _ ->
        fail(
          state,
          meta,
          "the length of shared memory is a number that is known here, from 1 to 65536"
        )
    end
  end

  def shared({:=, meta, _}, state),
    do: fail(state, meta, "shared memory is written as: tile = shared(:f32, 256)")

  defp constant(number, _state) when is_integer(number), do: number

  defp constant({op, _, [a, b]}, state) when op in [:+, :-, :*, :div] do
    with a when is_integer(a) <- constant(a, state),
         b when is_integer(b) and not (op == :div and b == 0) <- constant(b, state) do
      apply(Kernel, op, [a, b])
    else
      _ -> nil
    end
  end

  defp constant({:group_size, _, []}, state), do: size(nil, state)
  defp constant({:group_size, _, [axis]}, state) when axis in [:x, :y, :z], do: size(axis, state)
  defp constant(_, _state), do: nil

  @doc "The threads of a group along one axis, or in total for `nil`."
  def size(nil, state), do: Enum.product(state.group)
  def size(axis, state), do: Enum.at(state.group, %{x: 0, y: 1, z: 2}[axis])
end
