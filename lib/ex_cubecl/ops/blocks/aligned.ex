defmodule ExCubecl.Ops.Blocks.Aligned do
  @moduledoc false
  # The strided operands of blocks none of which extends past the end of the last axis. Adjacent elements of an operand are loaded as a vector, and an operand
  # that is broadcast along the axis is read once for each block.

  alias ExCubecl.Ops.Index

  @lanes 4

  @doc "Whether blocks are aligned in axes of these lengths."
  def aligned?(lengths), do: lengths != [] and rem(List.last(lengths), @lanes) == 0

  @doc """
  The statements that set the lanes of operands, the arguments of the launch, and what the kernel depends on. Operands are `{name, offset, strides, vectors?}`, whose
  last element tells whether kernels load vectors of their type. With a target, which is described like an operand, `store` makes the statements that store
  the four results.
  """
  def lowered(lengths, operands, factors?, target \\ nil) do
    lengths = List.update_at(lengths, -1, &div(&1, @lanes))
    loads = for operand <- operands, do: load(operand)
    store = target && load(target)
    all = if target, do: loads ++ [store], else: loads
    patterns = for load <- all, do: Index.pattern(load.strides)
    used = Index.used(patterns)
    division = if factors? and used != [], do: :factors, else: :div
    rank = length(lengths)

    %{
      statements:
        [Index.let(:i, Index.unsigned({:index, nil}))] ++
          Index.coordinates(:i, rank, used, :kept, division) ++
          Enum.flat_map(Enum.zip(loads, patterns), &statements/1),
      store: fn values -> stored(store, List.last(patterns), values) end,
      args:
        Index.lengths(lengths, used, :kept) ++
          if(division == :factors, do: Index.factors(lengths, used, :kept), else: []) ++
          Enum.flat_map(all, &arguments/1),
      key: {:aligned, rank, division, patterns, for(load <- all, do: load.mode)}
    }
  end

  # An index of a block times the last stride is the first element of the block, or its vector.
  defp load({name, offset, strides, vectors?}) do
    {outer, [last]} = Enum.split(strides, -1)

    cond do
      last == 0 ->
        %{name: name, mode: :one, offset: offset, strides: strides, step: []}

      last == 1 and vectors? and Enum.all?([offset | outer], &(rem(&1, @lanes) == 0)) ->
        strides = Enum.map(outer, &div(&1, @lanes)) ++ [1]
        %{name: name, mode: :vector, offset: div(offset, @lanes), strides: strides, step: []}

      true ->
        strides = outer ++ [@lanes * last]
        %{name: name, mode: :elements, offset: offset, strides: strides, step: [last]}
    end
  end

  defp statements({%{name: name, mode: mode}, pattern}) do
    lanes = for lane <- 0..(@lanes - 1), do: Index.lane(name, lane)
    [located(name, pattern) | read(mode, name, Index.name(name, :at), lanes)]
  end

  defp located(name, pattern) do
    offset = Index.unsigned(Index.var(Index.name(name, :offset)))
    Index.let(Index.name(name, :at), Index.offset(offset, name, pattern, :kept))
  end

  defp stored(%{name: name, mode: mode}, pattern, values),
    do: [located(name, pattern) | stores(mode, name, Index.name(name, :at), values)]

  defp stores(:vector, name, at, values), do: [{:store_vector, 0, name, Index.var(at), values}]

  defp stores(:elements, name, at, values) do
    values
    |> Enum.map(&[{:write, 0, name, Index.var(at), &1}])
    |> Enum.intersperse([next(name, at)])
    |> Enum.concat()
  end

  defp next(name, at) do
    step = Index.unsigned(Index.var(Index.name(name, :step)))
    Index.let(at, Index.call(:add, Index.var(at), step))
  end

  defp read(:vector, name, at, lanes), do: [{:load_vector, 0, name, Index.var(at), lanes}]

  defp read(:one, name, at, [first | lanes]) do
    read = Index.let(first, {:at, 0, name, Index.var(at)})
    [read | for(lane <- lanes, do: Index.let(lane, Index.var(first)))]
  end

  defp read(:elements, name, at, [first | lanes]) do
    element = {:at, 0, name, Index.var(at)}

    [
      Index.let(first, element)
      | Enum.flat_map(lanes, &[next(name, at), Index.let(&1, element)])
    ]
  end

  defp arguments(%{name: name} = load) do
    [{Index.name(name, :offset), load.offset} | Index.strides(name, load.strides, :kept)] ++
      for step <- load.step, do: {Index.name(name, :step), Index.wrapped(step)}
  end
end
