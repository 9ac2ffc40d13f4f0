if Code.ensure_loaded?(Nx.Defn.Expr) do
  defmodule ExCubecl.Compiler.Sharding.Propagation do
    @moduledoc false
    # Whether the shards of the results of a definition can be calculated from the shards of its arguments, each on its own.
    #
    # The definition is traced twice: for a shard of each argument, and for whole arguments. If both graphs have the same nodes, and each node of the first one
    # calculates a shard of the node of the second one, the program of the first graph is right for each shard.
    #
    # How a tensor is divided is a list with the mesh axes of each of its axes, or `:any` for an axis along which all elements are the same.

    alias ExCubecl.Compiler.Graph
    alias ExCubecl.Nx.ElementWise
    alias Nx.Defn.Expr
    alias Nx.Tensor, as: T

    @type division :: [[non_neg_integer] | :any]

    @element_wise ElementWise.names() ++ [:as_type, :bitcast, :real, :imag, :conjugate, :attach]
    @reductions [:sum, :product, :reduce_max, :reduce_min, :all, :any, :argmax, :argmin]
    @along_axis [:sort, :argsort, :cumulative_sum, :cumulative_product] ++
                  [:cumulative_max, :cumulative_min]

    @doc "Whether `shard` calculates shards of `whole`. `divisions` are those of the arguments, `mesh` has the size of each mesh axis."
    @spec local?(Graph.t(), Graph.t(), [division], tuple) :: boolean
    def local?(%Graph{nodes: nodes} = shard, %Graph{} = whole, divisions, mesh) do
      same? = Map.keys(nodes) == Map.keys(whole.nodes) and ids(shard) == ids(whole)

      with true <- same?,
           %{} = found <- divided(shard, whole, List.to_tuple(divisions), mesh) do
        Enum.all?(ids(shard), &whole_axes?(found[&1], nodes[&1].shape, whole.nodes[&1].shape))
      else
        _ -> false
      end
    end

    defp ids(%Graph{outputs: outputs}), do: for(%T{data: %Expr{id: id}} <- outputs, do: id)

    # An axis without a division has the same length in both.
    defp whole_axes?(division, shape, whole) do
      [division, Tuple.to_list(shape), Tuple.to_list(whole)]
      |> Enum.zip()
      |> Enum.all?(fn {axes, length, whole} -> axes != :any or length == whole end)
    end

    defp divided(shard, whole, divisions, mesh) do
      shard.nodes
      |> Map.keys()
      |> Enum.sort()
      |> Enum.reduce_while(%{}, fn id, found ->
        [a, b] = [shard.nodes[id], whole.nodes[id]]

        with true <- {a.data.op, a.type, a.names} == {b.data.op, b.type, b.names},
             {:ok, division} <- node(a, b, found, divisions),
             true <- fits?(division, a.shape, b.shape, mesh) do
          {:cont, Map.put(found, id, division)}
        else
          _ -> {:halt, nil}
        end
      end)
    end

    # No mesh axis divides two axes, and the lengths are those of a shard.
    defp fits?(division, shape, whole, mesh) do
      used = for axes when axes != :any <- division, axis <- axes, do: axis

      used == Enum.uniq(used) and length(division) == tuple_size(shape) and
        tuple_size(shape) == tuple_size(whole) and
        [division, Tuple.to_list(shape), Tuple.to_list(whole)]
        |> Enum.zip()
        |> Enum.all?(fn {axes, length, whole} ->
          axes == :any or length * parts(axes, mesh) == whole
        end)
    end

    @doc "The number of parts into which mesh axes divide."
    @spec parts([non_neg_integer], tuple) :: pos_integer
    def parts(axes, mesh), do: axes |> Enum.map(&elem(mesh, &1)) |> Enum.product()

    ## Nodes

    defp node(
           %T{data: %Expr{op: op, args: args}} = a,
           %T{data: %Expr{args: whole}} = b,
           found,
           all
         ) do
      operands =
        for {x, y} <- Enum.zip(Graph.operands(a), Graph.operands(b)),
            do: {found[x.data.id], x, y}

      case {op, args} do
        {:parameter, [index]} -> {:ok, elem(all, index)}
        {:constant, ^whole} -> {:ok, for(_ <- Tuple.to_list(a.shape), do: :any)}
        _ -> rule(op, a, b, operands) |> or_whole(a, b, operands)
      end
    end

    # What no rule knows is calculated from whole tensors, in the same way for each shard.
    defp or_whole({:ok, division}, _a, _b, _operands), do: {:ok, division}

    defp or_whole(:error, a, b, operands) do
      same? =
        stripped(a.data.args) == stripped(b.data.args) and a.shape == b.shape and
          Enum.all?(operands, fn {division, x, y} ->
            x.shape == y.shape and Enum.all?(division, &(&1 in [[], :any]))
          end)

      if same?, do: {:ok, undivided(a)}, else: :error
    end

    # Operands are compared by what they are, not by their stubs.
    defp stripped(args) do
      Enum.map(args, fn
        %T{data: %Expr{id: id}} -> id
        list when is_list(list) -> stripped(list)
        other -> other
      end)
    end

    defp undivided(%T{type: {:tuple, _}}), do: []
    defp undivided(%T{shape: shape}), do: for(_ <- Tuple.to_list(shape), do: [])

    defp rule(op, _a, b, operands) when op in @element_wise do
      rank = tuple_size(b.shape)
      lengths = Tuple.to_list(b.shape)

      operands
      |> Enum.filter(fn {_, x, _} -> not match?({:tuple, _}, x.type) end)
      |> Enum.map(&broadcast(&1, lengths, rank))
      |> Enum.reduce_while({:ok, List.duplicate(:any, rank)}, fn division, {:ok, all} ->
        case merged(all, division) do
          :error -> {:halt, :error}
          merged -> {:cont, {:ok, merged}}
        end
      end)
    end

    defp rule(op, a, b, [{division, _, _}]) when op in @reductions do
      [[_, opts], [_, same]] = [a.data.args, b.data.args]
      axes = axes(op, opts, length(division))

      if opts == same and Enum.all?(axes, &(Enum.at(division, &1) == [])),
        do: {:ok, reduced(division, axes, opts[:keep_axes])},
        else: :error
    end

    defp rule(op, a, b, [{division, _, _}]) when op in @along_axis do
      [[_, opts], [_, same]] = [a.data.args, b.data.args]
      if opts == same and Enum.at(division, opts[:axis]) == [], do: {:ok, division}, else: :error
    end

    defp rule(:transpose, %T{data: %Expr{args: [_, axes]}}, b, [{division, _, _}]) do
      if match?([_, ^axes], b.data.args),
        do: {:ok, Enum.map(axes, &Enum.at(division, &1))},
        else: :error
    end

    defp rule(:broadcast, %T{data: %Expr{args: [_, _, axes]}}, b, [{division, x, y}]) do
      with [_, _, ^axes] <- b.data.args do
        repeated? = fn at -> elem(y.shape, at) == 1 and elem(x.shape, at) == 1 end
        places = axes |> Enum.with_index() |> Map.new()

        {:ok,
         for axis <- 0..(tuple_size(b.shape) - 1)//1 do
           at = places[axis]
           if at == nil or repeated?.(at), do: :any, else: Enum.at(division, at)
         end}
      else
        _ -> :error
      end
    end

    defp rule(op, a, b, [{division, x, y}]) when op in [:reshape, :squeeze],
      do: reshaped(division, [x, y, a, b] |> Enum.map(&Tuple.to_list(&1.shape)))

    defp rule(:dot, a, b, [{left, _, _}, {right, _, _}]) do
      [_, c1, b1, _, c2, b2] = a.data.args
      options = fn %T{data: %Expr{args: args}} -> List.delete_at(List.delete_at(args, 3), 0) end
      batch = for {x, y} <- Enum.zip(b1, b2), do: {Enum.at(left, x), Enum.at(right, y)}
      whole? = fn division, axes -> Enum.all?(axes, &(Enum.at(division, &1) == [])) end

      if options.(a) == options.(b) and whole?.(left, c1) and whole?.(right, c2) and
           Enum.all?(batch, fn {x, y} -> x == y end) do
        rest = fn division, axes ->
          for {d, at} <- Enum.with_index(division), at not in axes, do: d
        end

        {:ok, Enum.map(b1, &Enum.at(left, &1)) ++ rest.(left, c1 ++ b1) ++ rest.(right, c2 ++ b2)}
      else
        :error
      end
    end

    defp rule(_op, _a, _b, _operands), do: :error

    ## Divisions

    # The division of an operand of an element-wise operation, as one of the result. Axes of length 1 of the whole operand are repeated.
    defp broadcast({division, _x, %T{shape: shape}}, lengths, rank) do
      missing = rank - tuple_size(shape)

      own =
        for {axes, length, of_result} <-
              Enum.zip([division, Tuple.to_list(shape), Enum.drop(lengths, missing)]),
            do: if(length == 1 and of_result > 1, do: :any, else: axes)

      List.duplicate(:any, missing) ++ own
    end

    defp merged(a, b) do
      both =
        Enum.zip_with(a, b, fn
          :any, axes -> axes
          axes, :any -> axes
          axes, axes -> axes
          _, _ -> :error
        end)

      if :error in both, do: :error, else: both
    end

    defp axes(op, opts, rank) when op in [:argmax, :argmin],
      do: if(opts[:axis], do: [opts[:axis]], else: Enum.to_list(0..(rank - 1)//1))

    defp axes(_op, opts, rank), do: opts[:axes] || Enum.to_list(0..(rank - 1)//1)

    defp reduced(division, axes, keep?) do
      for {own, at} <- Enum.with_index(division),
          keep? || at not in axes,
          do: if(at in axes, do: [], else: own)
    end

    # Divided axes come first, and the others are reshaped.
    defp reshaped(division, [from, whole_from, to, whole_to]) do
      divided = division |> Enum.reverse() |> Enum.drop_while(&(&1 == [])) |> length()
      first = &Enum.take(&1, divided)
      rest = &Enum.drop(&1, divided)

      if first.(from) == first.(to) and first.(whole_from) == first.(whole_to) and
           Enum.product(rest.(from)) == Enum.product(rest.(to)) and
           Enum.product(rest.(whole_from)) == Enum.product(rest.(whole_to)),
         do: {:ok, first.(division) ++ for(_ <- rest.(to), do: [])},
         else: :error
    end
  end
end
