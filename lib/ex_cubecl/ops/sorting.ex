defmodule ExCubecl.Ops.Sorting do
  @moduledoc false
  # The operations that sort: the checks of their options, and the lines that `ExCubecl.Ops.MergeSort` sorts.

  alias ExCubecl.{Buffer, Device, Error, Kernel, Shape, View}
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Ops.{ComputeType, MergeSort, Operands, Shapes, Strided, Temporary}
  alias ExCubecl.View.{Copy, Strides}

  require Kernel

  def sort(x, opts, into \\ nil) do
    with {:ok, view, axis, direction} <- checked(:sort, x, opts, []),
         n = Enum.at(view.shape, axis),
         {:ok, [sorted]} <- along(:sort, view, axis, n, direction, [into]),
         do: {:ok, sorted}
  end

  def argsort(x, opts, into \\ nil) do
    with {:ok, view, axis, direction} <- checked(:argsort, x, opts, [:dtype]),
         {:ok, dtype} <- Shapes.index_type(:argsort, opts),
         n = Enum.at(view.shape, axis),
         {:ok, [values, places]} <- along(:argsort, view, axis, n, direction, [nil, into]),
         :ok <- Temporary.free([values], [view.buffer, places]),
         do: ComputeType.converted(places, dtype)
  end

  @doc "The elements of a vector in the order of `keys`, as many elements of another vector, in a new buffer. The device computes both types."
  @spec moved(Buffer.t(), Buffer.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
  def moved(%{shape: [n]} = keys, elements) do
    with {:ok, [keys, moved]} <-
           MergeSort.run(:shuffle, keys, {1, n}, n, :asc, [nil, nil], elements),
         :ok <- Temporary.free([keys], [moved]),
         do: Buffer.reshape(moved, [n])
  end

  def top_k(x, k, opts, {values, places} \\ {nil, nil}) do
    with {:ok, view} <- Operands.view(x),
         {:ok, opts} <- Arguments.options(opts, [:axis, :dtype]),
         {:ok, axis} <- Shapes.axis(:top_k, view.shape, Keyword.get(opts, :axis, -1)),
         {:ok, dtype} <- Shapes.index_type(:top_k, opts),
         :ok <- at_most(k, Enum.at(view.shape, axis)),
         {:ok, [values, places]} <- along(:top_k, view, axis, k, :desc, [values, places]),
         {:ok, places} <- ComputeType.converted(places, dtype),
         do: {:ok, {values, places}}
  end

  defp at_most(k, n) when is_integer(k) and k in 0..n//1, do: :ok

  defp at_most(k, n),
    do: Shapes.invalid(:top_k, :k, k, "an integer from 0 to #{n}, the length of the axis")

  ## Along an axis

  # The first `keep` elements along an axis, and if there are two targets, their places. A target is a buffer for the result, or `nil`.
  defp along(name, %{shape: shape} = view, axis, keep, direction, targets) do
    if keep == 0 or Shape.size(shape) == 0,
      do: empty(view, List.replace_at(shape, axis, keep), targets),
      else: sorted(name, view, axis, keep, direction, targets)
  end

  defp empty(%{dtype: dtype, device: device}, shape, targets) do
    [dtype, :s32]
    |> Enum.take(length(targets))
    |> Error.map(&Buffer.zeros(shape, &1, device: device))
  end

  defp sorted(name, %{dtype: dtype, shape: shape} = view, axis, keep, direction, targets) do
    {n, others} = List.pop_at(shape, axis)
    axes = List.delete_at(Enum.to_list(0..(length(shape) - 1)), axis) ++ [axis]

    with {:ok, lines} <- lines(name, Strides.transpose(view, axes)),
         size = {Shape.size(others), n},
         usable = Enum.map(targets, &usable(&1, others ++ [keep], axis)),
         {:ok, sorted} <- MergeSort.run(name, lines, size, keep, direction, usable),
         :ok <- Temporary.free([lines], [view.buffer]),
         pairs = Enum.zip(sorted, targets),
         {:ok, results} <- Error.map(pairs, &back(name, &1, others ++ [keep], axis)),
         {:ok, values} <- ComputeType.converted(hd(results), dtype),
         :ok <- Temporary.free([hd(results) | sorted], [values | tl(results)] ++ targets),
         do: {:ok, [values | tl(results)]}
  end

  # Lines along an axis that is not the last one are moved to the target in the end.
  defp usable(%{shape: shape} = target, shape, axis) when axis == length(shape) - 1, do: target
  defp usable(_target, _shape, _axis), do: nil

  # Contiguous elements of a type that the device computes.
  defp lines(name, view) do
    with {:ok, view} <- ComputeType.widened(view), do: Copy.contiguous(view, name)
  end

  # The last axis becomes axis `axis`.
  defp back(name, {result, target}, shape, axis) do
    last = length(shape) - 1
    axes = List.insert_at(Enum.to_list(0..(last - 1)//1), axis, last)

    with {:ok, result} <- Buffer.reshape(result, shape),
         view = result |> View.new() |> Strides.transpose(axes),
         :ok <- if(target, do: Copy.moved(view, name, target), else: Copy.contiguous(view, name)),
         do: {:ok, target}
  end

  ## Distinct values

  # NaN is equal to itself here, as in the order of a sort. An invocation counts the elements of a chunk that differ from the one before them.
  @count Kernel.kernel(fn x, n, chunk, counts ->
           i = index()
           start = i * chunk
           before = x[max(start - 1, 0)]
           count = cast(0, :s32)

           for j <- 0..(chunk - 1) do
             at = start + j

             if at < n do
               value = x[at]
               same = value == before or (value != value and before != before)
               count = if at > 0 and same, do: count, else: count + 1
               before = value
             end
           end

           counts[i] = count
         end)

  # An invocation writes those elements of its chunk one after the other, from the index `places[i]` of the result on.
  @distinct Kernel.kernel(fn x, places, n, chunk, out ->
              i = index()
              start = i * chunk
              before = x[max(start - 1, 0)]
              place = places[i]

              for j <- 0..(chunk - 1) do
                at = start + j

                if at < n do
                  value = x[at]
                  same = value == before or (value != value and before != before)

                  if at == 0 or not same do
                    out[place] = value
                    place = place + 1
                  end

                  before = value
                end
              end
            end)

  # A chunk has 64 elements, or more of them if there would be more chunks than this: the host adds up their counts.
  @chunk 64
  @most_chunks 131_072

  # On a CPU, one invocation takes less time than two launches.
  @most_on_cpu 1024
  @in_a_row Kernel.kernel(fn x, n, out, count ->
              last = cast(0, :s32)

              for j <- 0..(n - 1) do
                same = j > 0 and (x[j] == x[j - 1] or (x[j] != x[j] and x[j - 1] != x[j - 1]))
                if not same, do: out[last] = x[j]
                last = if same, do: last, else: last + 1
              end

              count[0] = last
            end)

  def unique(x) do
    with {:ok, view} <- Operands.view(x) do
      case Shape.size(view.shape) do
        0 -> Buffer.zeros([0], view.dtype, device: view.device)
        n -> unique(view, n, view.dtype)
      end
    end
  end

  defp unique(view, n, dtype) do
    with {:ok, line} <- lines(:unique, view),
         {:ok, [sorted]} <- MergeSort.run(:unique, line, {1, n}, n, :asc, [nil]),
         {:ok, distinct} <- distinct(sorted, n),
         do: ComputeType.converted(distinct, dtype)
  end

  defp distinct(sorted, n) do
    if n <= @most_on_cpu and Device.cpu?(sorted.device),
      do: in_a_row(sorted, n),
      else: counted(sorted, n)
  end

  defp in_a_row(%{dtype: dtype, device: device} = sorted, n) do
    with {:ok, out} <- Buffer.empty([n], dtype, device: device),
         {:ok, count} <- Buffer.empty([], :s32, device: device),
         args = [sorted, n, out, count],
         :ok <- run(@in_a_row, args, 1),
         {:ok, count} <- Buffer.item(count),
         {:ok, distinct} <- Buffer.view(out, 0, [count]),
         do: Buffer.duplicate(distinct)
  end

  defp counted(%{device: device} = sorted, n) do
    chunk = max(@chunk, div(n + @most_chunks - 1, @most_chunks))
    chunks = div(n + chunk - 1, chunk)
    new = &Buffer.new(&1, [chunks], :s32, device: device)

    with {:ok, counts} <- Buffer.empty([chunks], :s32, device: device),
         :ok <- run(@count, [sorted, n, chunk, counts], chunks),
         {:ok, counts} <- Buffer.to_list(counts),
         {places, count} = Enum.map_reduce(counts, 0, &{&2, &2 + &1}),
         {:ok, places} <- new.(places),
         {:ok, out} <- Buffer.empty([count], sorted.dtype, device: device),
         :ok <- run(@distinct, [sorted, places, n, chunk, out], chunks),
         do: {:ok, out}
  end

  defp run(kernel, args, size), do: Strided.run(Strided.named(kernel, :unique), args, size: size)

  ## Options

  defp checked(name, x, opts, more) do
    with {:ok, view} <- Operands.view(x),
         {:ok, opts} <- Arguments.options(opts, [:axis, :direction, :stable | more]),
         {:ok, axis} <- Shapes.axis(name, view.shape, Keyword.get(opts, :axis, -1)),
         {:ok, direction} <- direction(name, Keyword.get(opts, :direction, :asc)),
         :ok <- stable(name, Keyword.get(opts, :stable, true)),
         do: {:ok, view, axis, direction}
  end

  defp direction(_name, direction) when direction in [:asc, :desc], do: {:ok, direction}
  defp direction(name, other), do: Shapes.invalid(name, :direction, other, ":asc or :desc")

  defp stable(_name, stable) when is_boolean(stable), do: :ok
  defp stable(name, other), do: Shapes.invalid(name, :stable, other, "true or false")
end
