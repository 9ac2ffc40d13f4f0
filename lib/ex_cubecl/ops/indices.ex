defmodule ExCubecl.Ops.Indices do
  @moduledoc false
  # Buffers of indices: their types, their bounds, and the expressions that read them.

  alias ExCubecl.{Buffer, Device, DType, Error, Kernel, Shape, View}
  alias ExCubecl.Ops.{ComputeType, Index, Layout, Lowering, Operands, Shapes, Strided}
  alias ExCubecl.View.Bits

  require Kernel

  @same Kernel.kernel(fn x -> x end)
  @in_word Kernel.kernel(fn low, high ->
             if high == 0 and low < 2_147_483_648, do: cast(low, :s32), else: -1
           end)
  @none 2_147_483_647

  @doc """
  The indices in a buffer, in a type that the device computes; they must be integers. On a device without 64-bit integers, errors show -1 for an index that does not
  fit into 32 bits.
  """
  @spec integers(atom, Buffer.t() | View.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def integers(name, indices) do
    with {:ok, %{dtype: dtype} = indices} <- Operands.contiguous(indices, name),
         :ok <- integer(dtype),
         {:ok, type} <- ComputeType.of(dtype, indices.device),
         {:ok, known} <- Device.dtypes(indices.device) do
      if type in known or DType.size!(type) < 8,
        do: ComputeType.converted(indices, type),
        else: in_words(name, indices)
    end
  end

  # Integers of the other sign that has 64 bits have the same indices below 2^63. Without any, an index that needs more than one word is -1, which
  # is outside of each axis.
  defp in_words(name, %{shape: shape} = indices) do
    case Bits.of(View.new(indices)) do
      {:ok, %{dtype: :u32} = words} ->
        low = %{words | shape: shape, strides: Enum.drop(words.strides, -1)}
        Lowering.map(Strided.named(@in_word, name), [low, %{low | offset: 1}], dtype: :s32)

      {:ok, %{buffer: buffer}} ->
        {:ok, buffer}

      error ->
        error
    end
  end

  defp integer(dtype) when dtype in [:f16, :bf16, :f32, :f64],
    do: Error.new(:type_mismatch, argument: :indices, expected: :s32, actual: dtype)

  defp integer(_dtype), do: :ok

  @doc "The axes of a tensor that the index vectors along the last axis of `indices` address: by default the leading ones."
  @spec axes(atom, [non_neg_integer], [non_neg_integer], term) ::
          {:ok, [non_neg_integer]} | {:error, Error.t()}
  def axes(name, shape, indices, axes) do
    with {:ok, depth} <- depth(name, shape, indices),
         {:ok, _sorted} <- Shapes.axes(name, shape, axes),
         {:ok, axes} <-
           Error.map(axes || Enum.to_list(0..(depth - 1)//1), &Shapes.axis(name, shape, &1)) do
      if length(axes) == depth,
        do: {:ok, axes},
        else:
          Shapes.invalid(
            name,
            :axes,
            axes,
            "#{depth} axes, as the last axis of the indices has elements"
          )
    end
  end

  defp depth(name, shape, indices) do
    case List.last(indices) do
      depth when is_integer(depth) and depth <= length(shape) -> {:ok, depth}
      _ -> Shapes.mismatch(name, :vectors, shape, indices)
    end
  end

  ## Expressions

  @doc "An index in a type that has every length of an axis."
  def widened(expression, dtype) when dtype in [:u8, :s8, :u16, :s16],
    do: {:cast, :s32, expression}

  def widened(expression, _dtype), do: expression

  @doc "Whether a widened index is from 0 to below a length."
  def inside(expression, dtype, length) do
    below = Index.call(:lt, expression, length)

    if dtype in [:u32, :u64],
      do: below,
      else: Index.call(:and, Index.call(:ge, expression, Index.number(0)), below)
  end

  # The elements of the index vector of a row, and their positions.
  defp vector(depth, row) do
    for n <- 0..(depth - 1)//1 do
      first = Index.call(:mul, row, Index.number(depth))
      at = Index.call(:add, first, Index.number(n))
      {{:at, 0, :indices, at}, at}
    end
  end

  @doc """
  The index of a cell: the part of a tensor at the index vector of a row, an expression. Statements that read the vector, whether it is inside, and the
  row-major index. Their arguments are `indices` and those of `cell_arguments/1`.
  """
  def cell(depth, dtype, row) do
    parts =
      for {{element, _}, axis} <- Enum.with_index(vector(depth, row)) do
        [at, n, s] = for what <- [:at, :length, :stride], do: Index.name(axis, what)
        move = Index.call(:mul, Index.unsigned(Index.var(at)), Index.var(s))
        statement = Index.let(at, widened(element, dtype))
        {statement, inside(Index.var(at), dtype, Index.var(n)), move}
      end

    {Enum.map(parts, &elem(&1, 0)), all(Enum.map(parts, &elem(&1, 1))),
     Enum.reduce(parts, Index.unsigned(Index.number(0)), &Index.call(:add, &2, elem(&1, 2)))}
  end

  @doc "The conjunction of conditions."
  def all([]), do: {:bool, true}
  def all(conditions), do: Enum.reduce(conditions, &Index.call(:and, &2, &1))

  @doc "The arguments with the lengths and strides of the axes that address a cell."
  def cell_arguments(lengths) do
    for {{length, stride}, axis} <- Enum.with_index(Enum.zip(lengths, Layout.strides(lengths))),
        {what, value} <- [length: length, stride: stride],
        do: {Index.name(axis, what), value}
  end

  ## Bounds

  @doc """
  Checks, if the option `check` is true, that the index vectors along the last axis of `indices`, or the indices if there is one length, are below `lengths`: the
  lengths of the axes. Waits for the device.
  """
  @spec check(atom, Buffer.t(), [non_neg_integer], [non_neg_integer], term) ::
          :ok | {:error, Error.t()}
  def check(_name, _indices, _axes, _lengths, check) when check in [nil, false], do: :ok

  def check(name, indices, axes, lengths, true) do
    count = Shape.size(indices.shape)

    with true <- count > 0,
         {:ok, report} <- Buffer.full([1], :s32, @none, device: indices.device),
         :ok <- search(name, indices, lengths, count, report),
         {:ok, position} when position != @none <- Buffer.item(report) do
      out_of_bounds(name, indices, axes, lengths, position)
    else
      {:error, error} -> {:error, error}
      _all_inside -> :ok
    end
  end

  def check(name, _indices, _axes, _lengths, check),
    do: Shapes.invalid(name, :check, check, "true or false")

  # The least position of an index that is out of bounds.
  defp search(name, %{dtype: dtype} = indices, lengths, count, report) do
    depth = length(lengths)

    named =
      for {length, axis} <- Enum.with_index(lengths), do: {Index.name(axis, :length), length}

    statements =
      for {{length, _}, {element, at}} <-
            Enum.zip(named, vector(depth, Index.unsigned({:index, nil}))) do
        outside = {:call, 0, :not, [inside(widened(element, dtype), dtype, Index.var(length))]}
        note = {:atomic, 0, :min, :report, Index.number(0), {:cast, :s32, at}, nil}
        {:branch, 0, outside, [note], []}
      end

    args = [indices: indices] ++ named ++ [report: report]
    op = Strided.named(@same, name)

    {kernel, args} =
      Strided.kernel(op, {:bounds, depth, dtype}, args, [:report], {statements, nil})

    Strided.run(kernel, args, size: div(count, depth))
  end

  defp out_of_bounds(name, indices, axes, lengths, position) do
    with {:ok, element} <- Buffer.view(indices, position, []),
         {:ok, index} <- Buffer.item(element) do
      at = rem(position, length(lengths))
      [axis, size] = for list <- [axes, lengths], do: Enum.at(list, at)
      position = coordinates(position, indices.shape)
      details = [operation: name, index: index, position: position, axis: axis, size: size]
      Error.new(:out_of_bounds, details)
    end
  end

  defp coordinates(position, shape) do
    {coordinates, _} =
      shape
      |> Enum.reverse()
      |> Enum.map_reduce(position, fn length, rest -> {rem(rest, length), div(rest, length)} end)

    Enum.reverse(coordinates)
  end
end
