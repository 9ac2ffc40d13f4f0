defmodule ExCubecl.LinAlg.Device.Completion do
  @moduledoc false
  # Orthonormal rows from orthogonal ones, and the rows that complete them: the last columns of the product of the Householder reflections that take the given rows to
  # unit vectors.

  use ExCubecl.Kernel

  alias ExCubecl.{Batch, Buffer, Kernel}
  alias ExCubecl.Native.Rehearsal

  @threads 64

  @doc """
  `{:ok, rows}` of [batch, count, m]: the first m elements of the n rows of `w`, divided by their lengths, which are in descending order. Rows that are not longer than
  `shortest`, and those after the n-th one, are orthonormal to all others.
  """
  def rows({w, lengths}, {m, n, count}, shortest) do
    %{shape: [batch, _, _], dtype: dtype, device: device} = w

    with {:ok, out} <- Buffer.empty([batch, count, m], dtype, device: device, lazy: false),
         :ok <- run(:divide, [w, lengths, n, shortest, out], batch * count * m),
         {:ok, lists} <- Buffer.to_list(lengths) do
      completed(out, for(list <- lists, do: Enum.count(list, &(&1 > shortest))))
    end
  end

  @doc "`{:ok, rows}` of [batch, count, m]: of each matrix the first rows, as many as `ranks` has, which are orthonormal, and what completes them. The others are unit vectors."
  def completed(%{shape: [batch, count, m], device: device} = rows, ranks) do
    ranks = if Rehearsal.on?(), do: lower(ranks), else: ranks
    [least, most] = [Enum.min(ranks), Enum.max(ranks)]

    if least == count,
      do: {:ok, rows},
      else: completed(rows, {batch, count, m, device}, ranks, {least, most})
  end

  # The ranks of matrices that need more launches and memory.
  defp lower(ranks) do
    Rehearsal.depends()
    for rank <- ranks, do: max(rank - 1, 0)
  end

  defp completed(rows, {batch, count, m, device}, ranks, {least, most}) do
    with {:ok, work} <- Buffer.duplicate(rows),
         {:ok, known} <- Buffer.new(ranks, [batch], :s32, device: device),
         steps = Enum.map(0..(most - 2)//1, &{&1, &1 + 1, 0}),
         back = Enum.map((most - 1)..0//-1, &{&1, least, 1}),
         :ok <- reflections(work, known, steps ++ back),
         :ok <- run(:restore, [rows, known, work], batch * count * m),
         do: {:ok, work}
  end

  defp reflections(%{shape: [batch, count, _]} = work, known, steps) do
    for {j, first, complete} <- steps, reduce: Batch.new() do
      recorded ->
        size = batch * (count - first) * @threads
        args = [known, j, first, complete, work]
        Batch.run(recorded, {__MODULE__, :reflect}, args, size: size)
    end
    |> Batch.submit()
  end

  defp run(name, args, size), do: Kernel.run({__MODULE__, name}, args, size: size)

  ## Kernels

  # Rows without a length are unit vectors.
  defkernel divide(w, lengths, n, shortest, out) do
    i = cast(index(), :u32)
    c = rem(i, cast(shape(out, 2), :u32))
    r = rem(div(i, cast(shape(out, 2), :u32)), cast(shape(out, 1), :u32))
    b = div(div(i, cast(shape(out, 2), :u32)), cast(shape(out, 1), :u32))
    length = lengths[b * n + r]
    element = w[(b * n + r) * cast(shape(w, 2), :u32) + c] / length
    unit = if r == c, do: 1, else: 0
    out[i] = if r < n and length > shortest, do: element, else: unit
  end

  # Reflects rows from `first` on by the reflection that takes row j, from element j on, to a unit vector: the given rows after it or, with `complete` 1, the others.
  defkernel reflect(known, j, first, complete, rows), group: 64 do
    parts = shared(rows, 128)
    sums = shared(rows, 2)
    t = cast(local(), :u32)
    m = cast(shape(rows, 2), :u32)
    places = cast(shape(rows, 1), :u32) - first
    b = div(cast(group(), :u32), places)
    r = rem(cast(group(), :u32), places) + first
    x = (b * cast(shape(rows, 1), :u32) + j) * m
    y = (b * cast(shape(rows, 1), :u32) + r) * m
    count = cast(known[b], :u32)
    given = r < count
    wanted = if complete == 1, do: not given, else: given
    xx = cast(0, :s32)
    xy = cast(0, :s32)

    for part <- 0..div(m - 1, 64) do
      at = cast(part, :u32) * 64 + t

      if at >= j and at < m do
        xx = xx + rows[x + at] * rows[x + at]
        xy = xy + rows[x + at] * rows[y + at]
      end
    end

    parts[t] = xx
    parts[64 + t] = xy
    barrier()

    if t < 2 do
      sum = parts[t * 64]

      for other <- 1..63 do
        sum = sum + parts[t * 64 + cast(other, :u32)]
      end

      sums[t] = sum
    end

    corner = rows[x + j]
    height = rows[y + j]
    barrier()
    norm = if corner > 0, do: -sqrt(sums[0]), else: sqrt(sums[0])
    factor = (sums[1] - norm * height) / (norm * (norm - corner))

    if wanted and j < count do
      for part <- 0..div(m - 1, 64) do
        at = cast(part, :u32) * 64 + t
        element = if at == j, do: corner - norm, else: rows[x + at]
        if at >= j and at < m, do: rows[y + at] = rows[y + at] - factor * element
      end
    end
  end

  # The given rows, which the reflections changed.
  defkernel restore(rows, known, out) do
    i = cast(index(), :u32)
    r = rem(div(i, cast(shape(out, 2), :u32)), cast(shape(out, 1), :u32))
    b = div(div(i, cast(shape(out, 2), :u32)), cast(shape(out, 1), :u32))
    if r < cast(known[b], :u32), do: out[i] = rows[i]
  end
end
