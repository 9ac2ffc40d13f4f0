defmodule ExCubecl.Ops.TiledProduct do
  @moduledoc false
  # The kernel for products of any types and strides, but those of `ExCubecl.Ops.VectorProduct`. Each invocation accumulates a tile of 4 by 4 elements, or of
  # 4 if there is one row or one column, so that it uses each element that it reads of a matrix or of a vector four times; on a driver for CPUs of 8 by 8, if
  # there are many. The sums of few tiles are split among more invocations, whose results a reduction adds up.
  #
  # Adjacent invocations read adjacent elements: those of adjacent columns or rows, or, of a vector and a matrix that is contiguous along the inner
  # axis, adjacent elements of the sums.

  alias ExCubecl.{Buffer, Device, Kernel, Shape, View}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Ops.{Contraction, Epilogue, Index, Inlined, Layout, Reduction, Strided, Target}
  alias ExCubecl.Ops.{TiledCode, VectorProduct}

  require Kernel

  @side 4
  # A driver for CPUs reads the elements of each thread one by one. Measured on lavapipe: products of up to 2^25 multiplications take half of the time of tiles of 4
  # by 4, and no longer than those of the library.
  @cpu_side 8
  @cpu_tiles 128
  # For fewer multiplications, the kernel of the large tiles takes longer to compile than it saves.
  @cpu_products 0x20_0000

  # The least number of invocations, if there are enough products for them, and the least and the greatest number of products that one of
  # them sums up: a driver may stop a kernel whose loop runs too long.
  @invocations 4096
  @least 64
  @most 8192

  # A driver for CPUs has few threads, and a second launch takes it longer than such sums.
  @cpu_invocations 256
  @cpu_least 2048

  # The number of adjacent invocations for a sum whose elements are adjacent: those that a device runs together.
  @together 32

  @name Kernel.kernel(fn left, right -> left * right end)
  @add Kernel.kernel(fn acc, x -> acc + x end)
  @same Kernel.kernel(fn x -> x end)

  @doc "The product of operands whose types the device computes; for the types see `ExCubecl.Ops.Operands.types/2`."
  def run(name, contraction, types, into) do
    op = Strided.named(@name, name)
    vector = VectorProduct.plan(contraction, types)

    case vector || plan(contraction, types) do
      {1, launch} when vector == nil -> with_epilogue(op, contraction, types, into, launch)
      {1, launch} -> in_one(op, contraction, types, into, launch)
      {parts, launch} -> in_parts(op, {parts, contraction, types}, into, launch)
    end
  end

  defp plan(contraction, types) do
    space = space(contraction)
    {space.parts, &launch(&1, space, types.acc, &2)}
  end

  defp in_one(op, %{left: %{device: device}} = contraction, types, into, launch) do
    with {:ok, out} <- Target.new(into, Contraction.shape(contraction), types.stored, device),
         :ok <- launch.(op, out),
         :ok <- Buffer.ensure_allocated(out),
         do: {:ok, out}
  end

  # The kernel keeps the products in a result of their type, until it has the elements of the epilogue.
  defp with_epilogue(op, contraction, types, into, launch) do
    with {:ok, inlined} <- Epilogue.inlined(into, types.stored),
         {kept, _} <- Enum.find(inlined.outputs, &(elem(&1, 1).dtype == types.stored)),
         :ok <- launch.(op, {kept, inlined, into}) do
      {:ok, Keyword.values(inlined.outputs)}
    else
      none when none in [:none, nil] -> in_one(op, contraction, types, into, launch)
      error -> error
    end
  end

  # Only the last launch may round to the type of the result.
  defp in_parts(op, {parts, contraction, %{acc: acc} = types}, into, launch) do
    shape = Contraction.shape(contraction)

    with {:ok, out} <-
           Buffer.empty([parts, Shape.size(shape)], acc, device: contraction.left.device),
         :ok <- launch.(op, out),
         :ok <- Buffer.ensure_allocated(out),
         do: added(op.parsed.name, out, shape, types, into)
  end

  # The memory of the parts is free for the next operation, instead of after a garbage collection.
  defp added(name, parts, shape, %{acc: acc, stored: stored}, into) do
    spec = %{name: name, first: 0, step: @add, operands: acc, as: acc, dtype: stored}
    into = if is_struct(into, Epilogue), do: into

    with {:ok, sum} <- Reduction.run(spec, @same, [View.new(parts)], [0], false, into),
         {:ok, _freed?} <- Handle.release(parts),
         do: {:ok, if(is_list(sum), do: sum, else: %{sum | shape: shape})}
  end

  # The joined axes of the four groups, with the strides of the operands along those that they have.
  defp space(%{left: left, right: right} = contraction) do
    [batch, rows, inner, columns] =
      for key <- [:batch, :rows, :inner, :columns], do: Map.fetch!(contraction, key)

    {left_batch, rest} = Enum.split(left.strides, length(batch))
    {left_rows, left_inner} = Enum.split(rest, length(rows))
    {right_batch, rest} = Enum.split(right.strides, length(batch))
    {right_inner, right_columns} = Enum.split(rest, length(inner))

    [row_count, column_count, count] = Enum.map([rows, columns, inner], &Shape.size/1)
    {height, width} = tile = tile(row_count, column_count, Shape.size(batch), count, left.device)
    {row_tiles, column_tiles} = {ceil_div(row_count, height), ceil_div(column_count, width)}
    tiles = Shape.size(batch) * row_tiles * column_tiles
    together? = together?(tile, List.last(left_inner), List.last(right_inner), count)

    length =
      if together?,
        do: ceil_div(count, @together),
        else: length_of_part(count, tiles, left.device)

    %{
      left: left,
      right: right,
      groups: [
        kept: group(batch, left: left_batch, right: right_batch),
        rows: group(rows, left: left_rows),
        columns: group(columns, right: right_columns),
        reduced: group(inner, left: left_inner, right: right_inner)
      ],
      tile: tile,
      together?: together?,
      parts: ceil_div(count, length),
      invocations: tiles * ceil_div(count, length),
      numbers: [
        tiles: tiles,
        rows: row_count,
        columns: column_count,
        row_tiles: row_tiles,
        column_tiles: column_tiles,
        size: Shape.size(batch) * row_count * column_count,
        count: count,
        part: length,
        parts: ceil_div(count, length)
      ]
    }
  end

  defp together?(tile, left_stride, right_stride, count) do
    adjacent? =
      case tile do
        {@side, 1} -> left_stride == 1
        {1, @side} -> right_stride == 1
        {1, 1} -> left_stride == 1 and right_stride == 1
        _ -> false
      end

    adjacent? and count in (@together * 8)..(@together * @most)
  end

  # The number of products that one invocation sums up.
  defp length_of_part(count, tiles, device) do
    {invocations, least} =
      if Device.cpu?(device), do: {@cpu_invocations, @cpu_least}, else: {@invocations, @least}

    count |> ceil_div(ceil_div(invocations, tiles)) |> max(least) |> min(@most) |> min(count)
  end

  defp tile(rows, columns, batch, count, device) do
    tiles = batch * div(rows, @cpu_side) * div(columns, @cpu_side)
    many? = tiles >= @cpu_tiles and batch * rows * columns * count >= @cpu_products

    if many? and Device.cpu?(device),
      do: {@cpu_side, @cpu_side},
      else: {side(rows), side(columns)}
  end

  defp side(1), do: 1
  defp side(_length), do: @side

  defp ceil_div(a, b), do: div(a + b - 1, b)

  defp group(lengths, views) do
    {lengths, strides} = Layout.joined(lengths, Keyword.values(views))
    patterns = Enum.map(strides, &Index.pattern/1)

    %{
      lengths: lengths,
      strides: Enum.zip(Keyword.keys(views), strides),
      patterns: Enum.zip(Keyword.keys(views), patterns),
      used: Index.used(patterns)
    }
  end

  ## The launch

  # `out` is the buffer for the products, or `{kept, inlined, epilogue}` with the name of the output that keeps them first.
  defp launch(op, %{left: left, right: right, groups: groups} = space, acc, out) do
    axes =
      for {name, group} <- groups do
        strides =
          for {operand, strides} <- group.strides, do: Index.strides(operand, strides, name)

        Index.lengths(group.lengths, group.used, name) ++ Enum.concat(strides)
      end

    {more, outputs, own, last} = outputs(out)

    args =
      [left: left.buffer, right: right.buffer, left_offset: left.offset] ++
        [right_offset: right.offset] ++ space.numbers ++ Enum.concat(axes) ++ more ++ outputs

    signature = for {name, group} <- groups, do: {name, length(group.lengths), group.patterns}
    split = split(space)
    key = {:tiles, acc, space.tile, split, signature, own}
    statements = TiledCode.statements(groups, acc, space.tile, split, last)
    {kernel, args} = Strided.kernel(op, key, args, Keyword.keys(outputs), {statements, nil})
    Strided.run(kernel, args, size: space.invocations, replaces: true)
  end

  defp split(%{together?: true}), do: :together
  defp split(%{parts: 1}), do: :whole
  defp split(_space), do: :parts

  defp outputs(%Buffer{} = out), do: {[], [out: out], nil, {:out, []}}

  defp outputs({kept, inlined, epilogue}) do
    product = {:at, 0, kept, Index.var(:element)}
    statements = Epilogue.statements(inlined, epilogue, product)
    key = {kept, Inlined.key(inlined)}
    {Inlined.arguments(inlined), inlined.outputs, key, {kept, statements}}
  end
end
