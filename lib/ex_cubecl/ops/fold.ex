defmodule ExCubecl.Ops.Fold do
  @moduledoc false
  # Folds operands in the row-major order of some axes, one element after the other, for each index of other axes: windows, convolutions, and
  # reductions with a function of the caller. One invocation has one index of the kept axes, and one loop for each folded axis.
  #
  # A space describes where the elements are:
  #
  #   * `kept`, `folded`: the lengths of the axes
  #   * `operands`: name and `t:operand/0` in the order of the arguments of `op`
  #   * `out`, for what is not folded: the index of each element in the result, as an operand without a buffer
  #   * `bounds`: name and `t:bound/0` for each axis along which an element may be outside, in the padding
  #
  # A spec describes what is folded, or without `step` and `select`, copied to the result, one element for each index of both groups of axes:
  #
  #   * `name`: the operation that errors and telemetry show
  #   * `op`: a kernel of the operands, whose result is the element; `step`: a kernel of the element and the accumulator
  #   * `select`, in place of `step`: a kernel of an element and the one selected before, whether the new one is preferred; the result is the number
  #     of the selected element
  #   * `initial`: the first accumulator, a number or a buffer of one element
  #   * `padding`: what an element outside is: `:zero` or `:initial`
  #   * `as`: the type of the elements and of the accumulator; `dtype`: that of the result
  #
  # Long folds run in several launches, because a driver may stop a kernel whose loops run too long.

  alias ExCubecl.{Buffer, Error, Shape, View}
  alias ExCubecl.Ops.{Cost, Epilogue, FoldCode, Index, Inlined, Layout, Shapes, Strided, Target}
  alias ExCubecl.View.Copy

  # Each iteration is counted up to three times (see `trip_count.rs`): drivers stop at 65,535. More than 2 Mi invocations share threads.
  @iterations 16_384

  # Without padding, an iteration of the last loop of a long fold has this many elements, and the loops are counted here as drivers count them.
  @unroll 8
  @long 60_000

  @threads 2_097_152

  # The elements of the longest fold, so that the number of its launches is bounded.
  @most 0x1_0000_0000

  @typedoc "The index of an element is `offset` plus the coordinates times the strides. `padded?` tells whether `bounds` are for this operand."
  @type operand :: %{
          buffer: Buffer.t(),
          offset: integer,
          kept: [integer],
          folded: [integer],
          padded?: boolean
        }

  @typedoc """
  A coordinate of the padded operand, as an affine function, which is outside unless it is from 0 to `extent - 1`, and a multiple of `dilation`. The
  coordinate divided by the dilation times `stride` is added to the index; both are `nil` where the strides of the operand have the axis.
  """
  @type bound :: %{
          offset: integer,
          kept: [integer],
          folded: [integer],
          extent: integer,
          dilation: pos_integer | nil,
          stride: integer | nil
        }

  @doc "The folded elements in a buffer of the shape. `into` is a buffer for the result, or an epilogue, which has it only if it takes one launch."
  @spec run(map, map, [non_neg_integer], Target.into() | Epilogue.t()) ::
          {:ok, Buffer.t()} | {:ok, [Buffer.t()]} | {:error, ExCubecl.Error.t()}
  def run(spec, space, shape, into \\ nil) do
    [{_, %{buffer: %{device: device}}} | _] = space.operands
    count = Shape.size(space.kept)
    code = code(space)
    passes = max(div(count + @threads - 1, @threads), 1)

    with :ok <- bounded(spec, code.folded) do
      {boxes, unroll} = divided(spec, code, passes)
      code = Map.put(code, :unroll, unroll)

      with_epilogue(spec, code, boxes, into, count) ||
        folded(spec, code, boxes, {shape, device}, into, count)
    end
  end

  # `nil` if it is left to the caller.
  defp with_epilogue(%{step: _} = spec, code, [box], into, count) do
    part = if code.unroll == 1, do: {:whole, []}, else: {:first, box}

    with {:ok, inlined} <- Epilogue.inlined(into, spec.dtype),
         :ok <- launch(spec, code, part, {inlined, into}, count) do
      {:ok, Keyword.values(inlined.outputs)}
    else
      :none -> nil
      error -> error
    end
  end

  defp with_epilogue(_spec, _code, _boxes, _into, _count), do: nil

  defp folded(spec, code, boxes, {shape, device}, into, count) do
    dtype = if length(boxes) > 1, do: spec.as, else: spec.dtype

    with {:ok, out} <- Target.new(if(dtype == spec.dtype, do: into), shape, dtype, device),
         :ok <- launches(spec, code, boxes, out, count),
         :ok <- Buffer.ensure_allocated(out) do
      if dtype == spec.dtype,
        do: {:ok, out},
        else: Copy.copy(View.new(out), spec.name, spec.dtype)
    end
  end

  defp bounded(spec, lengths) do
    if Shape.size(lengths) <= @most do
      :ok
    else
      expected = "at most 2^32 elements for each result, which are folded one after the other"
      Shapes.invalid(spec.name, :shape, lengths, expected)
    end
  end

  # What is selected is no accumulator from which another launch could go on.
  defp divided(%{select: _}, %{folded: lengths}, _passes),
    do: {boxes(lengths, Shape.size(lengths)), 1}

  defp divided(spec, %{folded: lengths} = code, passes) do
    limit = div(@iterations, passes)

    if Shape.size(lengths) > limit and code.bounds == [] and cheap?(spec),
      do: {boxes(lengths, div(@long, passes), @unroll), @unroll},
      else: {boxes(lengths, limit), 1}
  end

  defp cheap?(%{step: step}), do: Cost.cheap?(step)
  defp cheap?(_copy), do: false

  # Without elements, each result is the initial accumulator.
  defp launches(spec, code, [], out, count),
    do: launch(spec, %{code | folded: []}, {:empty, []}, out, count)

  defp launches(spec, %{unroll: 1} = code, [_whole], out, count),
    do: launch(spec, code, {:whole, []}, out, count)

  defp launches(spec, code, [first | rest], out, count) do
    with :ok <- launch(spec, code, {:first, first}, out, count),
         do: Error.each(rest, &launch(spec, code, {:next, &1}, out, count))
  end

  @doc """
  Divides a space into boxes of at most `limit` iterations where that is possible, in row-major order: a range for each axis. An iteration has one index, or
  along the last axis `unroll` of them where there are as many.

      iex> ExCubecl.Ops.Fold.boxes([2, 5], 3)
      [[{0, 0}, {0, 2}], [{0, 0}, {3, 4}], [{1, 1}, {0, 2}], [{1, 1}, {3, 4}]]
      iex> ExCubecl.Ops.Fold.boxes([2, 50], 3, 8)
      [[{0, 0}, {0, 23}], [{0, 0}, {24, 47}], [{0, 0}, {48, 49}], [{1, 1}, {0, 23}], [{1, 1}, {24, 47}], [{1, 1}, {48, 49}]]
  """
  def boxes(lengths, limit, unroll \\ 1)
  def boxes([], _limit, _unroll), do: [[]]

  def boxes([length | rest], limit, unroll) do
    step = if rest == [], do: limit * unroll, else: div(limit, max(iterations(rest, unroll), 1))
    step = if Shape.size(rest) == 0, do: 1, else: max(step, 1)

    for from <- 0..(length - 1)//step,
        box <- boxes(rest, max(limit, 1), unroll),
        do: [{from, min(from + step, length) - 1} | box]
  end

  # Drivers also count the check that ends a loop. Along the last axis there are two loops: one over blocks, one over the rest.
  defp iterations(lengths, 1), do: Shape.size(lengths)
  defp iterations([last], unroll), do: div(last, unroll) + rem(last, unroll) + 3
  defp iterations([length | rest], unroll), do: length * iterations(rest, unroll) + 2

  ## Joined axes

  # Coordinates of bounds are affine functions like the indices of operands: both are views here, whose axes are joined.
  defp code(%{operands: operands, bounds: bounds} = space) do
    views = operands ++ bounds ++ for {:out, out} <- space, do: {:out, out}
    {kept, along_kept} = Layout.joined(space.kept, for({_, view} <- views, do: view.kept))
    {folded, along_folded} = Layout.joined(space.folded, for({_, view} <- views, do: view.folded))

    views =
      for {{name, view}, kept, folded} <- Enum.zip([views, along_kept, along_folded]) do
        {name, %{offset: view.offset, kept: kept, folded: folded}}
      end

    %{operands: operands, bounds: bounds, views: views, kept: kept, folded: folded}
  end

  # `out` is the buffer of the results, or an epilogue that writes them.
  defp launch(spec, code, {part, box}, out, count) do
    patterns = for {name, view} <- code.views, do: {name, patterns(view)}
    used = Index.used(for {_, pattern} <- patterns, do: pattern.kept)
    ranks = {length(code.kept), length(code.folded)}
    {last, more, outputs, own} = outputs(out, spec)
    body = FoldCode.statements(spec, code, patterns, {ranks, used}, {part, code.unroll})
    statements = body ++ last

    args =
      for({name, operand} <- code.operands, do: {name, operand.buffer}) ++
        [initial: spec.initial] ++
        Index.lengths(code.kept, used, :kept) ++
        scalars(code) ++ ranges(code, box) ++ blocks(box, code.unroll) ++ more ++ outputs

    key =
      {:fold, part, code.unroll, function(spec), spec.as, spec.padding, is_struct(spec.initial)}

    dilated = for {name, bound} <- code.bounds, do: {name, bound.dilation != nil}
    op = Strided.named(spec.op, spec.name)

    signature = {key, ranks, patterns, dilated, own}
    names = Keyword.keys(outputs)
    [{_, %{shape: shape}} | _] = outputs
    {kernel, args} = Strided.kernel(op, signature, args, names, {statements, nil})
    Strided.run(kernel, args, size: count, replaces: count == Shape.size(shape))
  end

  # The statements that write the results, their arguments, and what the kernel depends on.
  defp outputs({inlined, epilogue}, spec) do
    element = Index.let(:element, Index.unsigned({:index, nil}))
    last = Epilogue.statements(inlined, epilogue, {:cast, spec.dtype, Index.var(:acc)})
    {[element | last], Inlined.arguments(inlined), inlined.outputs, Inlined.key(inlined)}
  end

  defp outputs(out, spec), do: {FoldCode.result(spec), [], [out: out], nil}

  defp function(%{select: select}), do: {:select, select.key}
  defp function(%{step: step}), do: {:step, step.key}
  defp function(_spec), do: :copy

  defp patterns(view),
    do: %{kept: Index.pattern(view.kept), folded: Index.pattern(view.folded)}

  ## Arguments

  defp scalars(code) do
    for({name, view} <- code.views, scalar <- scalars(name, view), do: scalar) ++
      for {name, bound} <- code.bounds,
          {what, value} <- [
            extent: bound.extent,
            dilation: bound.dilation,
            stride: bound.stride
          ],
          value != nil,
          do: {Index.name(name, what), value}
  end

  defp scalars(name, view) do
    [{Index.name(name, :offset), view.offset}] ++
      Index.strides(name, view.kept, :kept) ++ Index.strides(name, view.folded, :reduced)
  end

  defp ranges(%{folded: lengths}, []) do
    for {length, axis} <- Enum.with_index(lengths), do: {Index.name(:last, axis), length - 1}
  end

  defp ranges(_code, box) do
    for {{from, to}, axis} <- Enum.with_index(box),
        range <- [{Index.name(:from, axis), from}, {Index.name(:last, axis), to}],
        do: range
  end

  # The number of the last block of a box, and the first index behind the blocks.
  defp blocks(_box, 1), do: []

  defp blocks(box, unroll) do
    {from, to} = List.last(box)
    count = div(to - from + 1, unroll)
    [last_block: count - 1, behind_blocks: from + count * unroll]
  end
end
