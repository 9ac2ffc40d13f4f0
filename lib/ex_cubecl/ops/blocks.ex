defmodule ExCubecl.Ops.Blocks do
  @moduledoc false
  # Element-wise kernels on strided operands, each invocation of which makes four consecutive elements of the result. Contiguous operands and the result are
  # accessed by vectors. In a strided operand, the first of the four elements is found by divisions, and the next ones by their stride along the last axis if that
  # never ends within a block (`ExCubecl.Ops.Blocks.Aligned`), else by additions, as by a mileage counter. There are no branches: a driver for CPUs executes
  # both sides of a branch.

  alias ExCubecl.{Buffer, Device, Kernel, Shape}
  alias ExCubecl.Ops.Blocks.Aligned
  alias ExCubecl.Ops.{Cost, Index, Layout, Reads, Strided}

  @lanes 4
  @types [:f32, :s32, :u32, :f16]

  # Elements of the smallest result that is made in blocks.
  @many 65_536

  @doc "Whether a result of this shape is worth it: if it is small, its launch takes longer than its kernel."
  @spec many?([non_neg_integer]) :: boolean
  def many?(shape), do: Shape.size(shape) >= @many

  @doc "Whether kernels access elements of this type by vectors."
  def vectors?(dtype), do: dtype in @types

  @doc "Whether an operation with these reads and a result of type `dtype` can be lowered to blocks, and is cheap."
  @spec fits?(Kernel.t(), [Reads.read()], atom) :: boolean
  def fits?(op, reads, dtype) do
    dtype in @types and Enum.all?(reads, &fits?/1) and Cost.cheap?(op)
  end

  defp fits?({_name, :flat, %Buffer{dtype: dtype}}), do: vectors?(dtype)
  defp fits?(_read), do: true

  @doc """
  Writes the result into a buffer, which shares no bytes with an operand unless it is one that is read flat. `casts` are the types of
  `ExCubecl.Ops.Reads.apply/4`.
  """
  def run(op, reads, casts, %{shape: shape} = out) do
    views = Reads.strided(reads)
    {lengths, strides} = Layout.joined(shape, for({_, view} <- views, do: view.strides))
    strided = lowered(lengths, Enum.zip(views, strides), computes?(out.device, :u64))
    vector = {:index, nil}
    store = [{:store_vector, 0, :out, vector, values(op, reads, casts)}]
    kernel = {op, {:block, strided.key, modes(reads, out), casts}}
    launch(kernel, reads, strided, store, out, {shape, true})
  end

  @doc """
  Writes the result through the strides of a view that shares no bytes with an operand, or returns `:no` if blocks extend past the end of its last axis. With
  `replaces?` the new memory of the buffer is not zeroed before.
  """
  def write(op, reads, casts, %{shape: shape, buffer: buffer} = target, replaces?) do
    views = Reads.strided(reads)
    named = views ++ [out: target]
    {lengths, strides} = Layout.joined(shape, for({_, view} <- named, do: view.strides))

    if Aligned.aligned?(lengths) do
      all =
        for {{name, view}, strides} <- Enum.zip(named, strides),
            do: {name, view.offset, strides, vectors?(view.dtype)}

      {operands, [out]} = Enum.split(all, -1)
      strided = Aligned.lowered(lengths, operands, computes?(buffer.device, :u64), out)
      store = strided.store.(values(op, reads, casts))
      kernel = {op, {:block_write, strided.key, modes(reads, buffer), casts}}
      launch(kernel, reads, strided, store, buffer, {shape, replaces?})
    else
      :no
    end
  end

  defp values(op, reads, {as, dtype}) do
    for lane <- 0..(@lanes - 1),
        do: Reads.apply(op, Enum.map(reads, &element(&1, lane)), as, dtype)
  end

  defp modes(reads, out), do: Enum.map(reads, &{elem(&1, 1), own?(&1, out)})
  defp own?({_name, mode, value}, %{ref: ref}), do: mode == :flat and value.ref == ref

  defp launch({op, key}, reads, strided, store, out, {shape, replaces?}) do
    others = Enum.reject(reads, &own?(&1, out))

    loads =
      for {name, :flat, _} = read <- reads,
          from = if(own?(read, out), do: :out, else: name),
          do: {:load_vector, 0, from, {:index, nil}, lanes(name)}

    statements = loads ++ strided.statements ++ store
    args = Enum.map(others, &Reads.argument/1) ++ strided.args ++ [out: out]
    {kernel, args} = Strided.kernel(op, key, args, [:out], {statements, nil})
    size = div(Shape.size(shape) + @lanes - 1, @lanes)
    Strided.run(kernel, args, size: size, replaces: replaces?)
  end

  defp lowered(lengths, operands, factors?) do
    if Aligned.aligned?(lengths) do
      operands =
        for {{name, view}, strides} <- operands,
            do: {name, view.offset, strides, vectors?(view.dtype)}

      Aligned.lowered(lengths, operands, factors?)
    else
      views = for {view, _} <- operands, do: view
      space = space(lengths, for({{name, _}, strides} <- operands, do: {name, strides}), factors?)

      %{
        statements: first(space) ++ Enum.flat_map(1..(@lanes - 1), &next(space, &1)),
        args: arguments(space, lengths, views),
        key: {space.rank, space.division, for({_, pattern, _} <- space.operands, do: pattern)}
      }
    end
  end

  # `used` are the axes whose coordinates are needed: each axis that an operand uses, and those behind it, to know where they end.
  defp space(lengths, strides, factors?) do
    operands = for {name, strides} <- strides, do: {name, Index.pattern(strides), strides}
    rank = length(lengths)
    first = operands |> Enum.map(&elem(&1, 1)) |> Index.used() |> Enum.min(fn -> 0 end)

    %{
      rank: rank,
      used: Enum.to_list(first..(rank - 1)//1),
      operands: operands,
      division: if(rank > 1 and factors?, do: :factors, else: :div)
    }
  end

  defp computes?(device, dtype) do
    case Device.dtypes(device) do
      {:ok, dtypes} -> dtype in dtypes
      _ -> false
    end
  end

  defp lanes(name), do: for(lane <- 0..(@lanes - 1), do: Index.lane(name, lane))

  defp element({name, mode, _}, lane) when mode in [:flat, :strided],
    do: Index.var(Index.lane(name, lane))

  defp element(read, _lane), do: Reads.expression(read, %{})

  # The first element of the block in each strided operand.
  defp first(%{operands: operands} = space) do
    first = Index.call(:mul, Index.unsigned({:index, nil}), Index.number(@lanes))

    [Index.let(:i, first)] ++
      Index.coordinates(:i, space.rank, space.used, :kept, space.division) ++
      for {name, pattern, _} <- operands do
        offset = Index.var(Index.name(name, :offset))
        Index.let(Index.name(name, :at), Index.offset(offset, name, pattern, :kept))
      end ++ reads(space, 0)
  end

  defp reads(%{operands: operands}, lane) do
    for {name, _, _} <- operands,
        do: Index.let(Index.lane(name, lane), {:at, 0, name, Index.var(Index.name(name, :at))})
  end

  # The next element is a stride along the last axis further. Where an axis ends, the coordinate before it increases.
  defp next(space, lane) do
    moves =
      for {name, pattern, _} <- space.operands, List.last(pattern) == 1, do: moved(name, space)

    moves ++ Enum.flat_map(ending(space), &ended(&1, space)) ++ reads(space, lane)
  end

  defp moved(name, %{rank: rank}),
    do: increased(Index.name(name, :at), Index.var(Index.stride(name, :kept, rank - 1)))

  # The axes that may end within a block, the last one first.
  defp ending(%{used: used}), do: used |> Enum.reject(&(&1 == 0)) |> Enum.reverse()

  defp ended(axis, %{rank: rank} = space) do
    at = Index.at(:kept, axis)
    step = if axis == rank - 1, do: Index.number(1), else: Index.var(ends(axis + 1))
    length = Index.var(Index.length(:kept, axis))
    at_end = Index.call(:eq, Index.var(at), length)
    is_end = {:if, 0, at_end, Index.unsigned(Index.number(1)), Index.number(0)}

    [
      increased(at, Index.unsigned(step)),
      Index.let(ends(axis), is_end),
      Index.let(at, chosen(axis, Index.number(0), Index.var(at)))
    ] ++
      for {name, pattern, _} <- space.operands, carries?(pattern, axis) do
        carry = Index.unsigned(Index.var(carry(name, axis)))
        increased(Index.name(name, :at), chosen(axis, carry, Index.number(0)))
      end
  end

  defp chosen(axis, then, other),
    do: {:if, 0, Index.call(:ne, Index.var(ends(axis)), Index.number(0)), then, other}

  defp increased(name, by), do: Index.let(name, Index.call(:add, Index.var(name), by))
  defp ends(axis), do: Index.name(:ends, axis)
  defp carry(name, axis), do: Index.name(name, "c#{axis}")
  defp carries?(pattern, axis), do: 1 in Enum.slice(pattern, (axis - 1)..axis)

  defp arguments(%{operands: operands, used: used} = space, lengths, views) do
    factors = if space.division == :factors, do: Index.factors(lengths, used, :kept), else: []

    Index.lengths(lengths, used, :kept) ++
      factors ++
      Enum.flat_map(operands, fn {name, pattern, strides} ->
        [{Index.name(name, :offset), views[name].offset} | Index.strides(name, strides, :kept)] ++
          for axis <- ending(space), carries?(pattern, axis) do
            [before, stride] = Enum.slice(strides, (axis - 1)..axis)
            {carry(name, axis), Index.wrapped(before - Enum.at(lengths, axis) * stride)}
          end
      end)
  end
end
