defmodule ExCubecl.Ops.UpdateSums do
  @moduledoc false
  # The sums of the updates at each cell, which is the part of a tensor at an index vector. Integers are added by atomic operations, whose sums do not depend on
  # their order. Those of floats do, and no device has atomic operations on all types: updates are sorted by cell, and added up in this order; where there are few, each
  # cell looks for its own.

  alias ExCubecl.{Buffer, Error, Kernel}
  alias ExCubecl.Ops.{ComputeType, Index, Indices, MergeSort, SegmentSum, Strided}

  require Kernel

  @same Kernel.kernel(fn x -> x end)

  # Comparisons of updates with elements that take less time than sorting the updates, and than compiling the kernels for that.
  @little 65_536

  # The types of the sums. Integers of fewer bits are the low bits of these sums.
  @types %{f16: :f32, bf16: :f32, u8: :u32, u16: :u32, s8: :s32, s16: :s32}

  @doc """
  The sums for a space of `ExCubecl.Ops.Scattering` and updates of the type `dtype`: a buffer with the elements of each cell. Where there are no updates, it has a
  zero that changes nothing.
  """
  @spec run(map, atom) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def run(%{cells: cells, width: width} = space, dtype) do
    type = Map.get(@types, dtype, dtype)
    # The sum of -0.0 and -0.0 is -0.0, and that with 0.0 is not.
    zero = if type in [:f32, :f64], do: -0.0, else: 0

    with {:ok, updates} <- computed(space.updates) do
      space = %{space | updates: updates}
      work = space.rows * cells * width

      if type not in [:s32, :u32] and work in 1..@little and space.rows <= SegmentSum.chunk(),
        do: compared(space, type, zero),
        else: added_or_sorted(space, type, zero, work)
    end
  end

  defp added_or_sorted(%{cells: cells, width: width} = space, type, zero, work) do
    with {:ok, sums} <- Buffer.full([cells * width], type, zero, device: space.target.device) do
      added =
        cond do
          work == 0 -> :ok
          type in [:s32, :u32] -> added(space, sums)
          true -> sorted(space, sums)
        end

      with :ok <- added, do: {:ok, sums}
    end
  end

  defp computed(%{dtype: dtype, device: device} = updates) do
    with {:ok, type} <- ComputeType.of(dtype, device), do: ComputeType.converted(updates, type)
  end

  # Few updates of few cells: each element of the sums is compared with all of them. The additions are those of the sorted updates.
  defp compared(%{indices: indices, width: width} = space, type, zero) do
    i = Index.unsigned({:index, nil})
    row = Index.unsigned(Index.var(:j))
    {statements, inside, cell} = Indices.cell(length(space.lengths), indices.dtype, row)
    own = Index.call(:eq, cell, Index.call(:div, i, Index.var(:width)))

    place =
      Index.call(
        :add,
        Index.call(:mul, row, Index.var(:width)),
        Index.call(:rem, i, Index.var(:width))
      )

    value = {:cast, type, {:at, 0, :updates, place}}
    sum = Index.let(:sum, Index.call(:add, Index.var(:sum), value))
    found = Index.let(:found, Index.unsigned(Index.number(1)))
    body = statements ++ [{:branch, 0, Index.call(:and, inside, own), [sum, found], []}]
    last = Index.call(:sub, Index.var(:rows), Index.number(1))
    any = Index.call(:eq, Index.var(:found), Index.number(1))

    code = [
      Index.let(:sum, {:cast, type, Index.number(0)}),
      Index.let(:found, Index.unsigned(Index.number(0))),
      {:for, 0, :j, Index.number(0), last, body},
      {:write, 0, :sums, {:index, nil},
       {:if, 0, any, Index.var(:sum), {:cast, type, Index.var(:none)}}}
    ]

    with {:ok, sums} <- Buffer.empty([space.cells * width], type, device: space.target.device),
         args = [updates: space.updates, rows: space.rows, width: width, none: zero, sums: sums],
         :ok <- launch(space, :compared, args, [:sums], code, space.cells * width),
         do: {:ok, sums}
  end

  # One invocation for each element of the updates.
  defp added(%{indices: indices, updates: updates, width: width} = space, sums) do
    i = Index.unsigned({:index, nil})
    row = Index.call(:div, i, Index.var(:width))
    {statements, inside, cell} = Indices.cell(length(space.lengths), indices.dtype, row)
    first = Index.call(:mul, cell, Index.var(:width))
    at = Index.call(:add, first, Index.call(:rem, i, Index.var(:width)))
    value = {:cast, sums.dtype, {:at, 0, :updates, {:index, nil}}}
    add = {:atomic, 0, :add, :sums, at, value, nil}
    code = statements ++ [{:branch, 0, inside, [add], []}]

    args = [updates: updates, width: width, sums: sums]
    launch(space, :added, args, [:sums], code, space.rows * width)
  end

  defp sorted(%{rows: rows} = space, sums) do
    with {:ok, cells} <- Buffer.empty([rows], :u32, device: sums.device),
         :ok <- cells(space, cells),
         {:ok, [cells, places]} <-
           MergeSort.run(:indexed_add, cells, {1, rows}, rows, :asc, [nil, nil]),
         {:ok, cells} <- Buffer.reshape(cells, [rows]),
         do: SegmentSum.run(cells, places, space.updates, space.width, sums)
  end

  # The cell of each update, and their number for one out of bounds.
  defp cells(%{indices: indices, lengths: lengths} = space, cells) do
    {statements, inside, cell} =
      Indices.cell(length(lengths), indices.dtype, Index.unsigned({:index, nil}))

    value = {:if, 0, inside, cell, Index.unsigned(Index.var(:count))}
    code = statements ++ [{:write, 0, :cells, {:index, nil}, value}]
    launch(space, :cells, [count: space.cells, cells: cells], [:cells], code, space.rows)
  end

  defp launch(%{indices: indices, lengths: lengths}, what, args, outputs, code, size) do
    args = [indices: indices] ++ Indices.cell_arguments(lengths) ++ args
    key = {what, length(lengths), indices.dtype, for(output <- outputs, do: args[output].dtype)}
    op = Strided.named(@same, :indexed_add)
    {kernel, args} = Strided.kernel(op, key, args, outputs, {code, nil})
    Strided.run(kernel, args, size: size)
  end
end
