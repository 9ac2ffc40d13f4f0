defmodule ExCubecl.Ops.MergeSort do
  @moduledoc false
  # A stable merge sort of the lines of a matrix, with the first elements of each line or all of them, and with their places or with the elements of another matrix.
  # Tiles are sorted in registers or by counting, and runs are merged in pairs until each line is one run; only comparisons depend on the type. Equal elements keep
  # their order, also in descending order.

  alias ExCubecl.{Buffer, Device, Error}
  alias ExCubecl.Ops.{MergeKernels, Strided, Target, Temporary}

  # The number of elements that one invocation merges.
  @chunk 64

  # Few elements are sorted in tiles by counting, which is the kernel that compiles faster; the elements of such a tile, and the comparisons for which each line
  # is one tile: then the kernel that merges is not compiled.
  @few 0x2000
  @counted 32
  @comparisons 0x4_0000

  @doc """
  The `keep` first elements of each line of `lines` lines, and with a second target their indices in the line (`:s32`), as `[lines, keep]`. `name`
  is the operation. There are elements. A target is a buffer with as many elements, which is used if it has the type of the result, or `nil`. With `others`, as many elements of another
  type, these are moved in place of the indices.
  """
  @spec run(
          atom,
          Buffer.t(),
          {pos_integer, pos_integer},
          pos_integer,
          :asc | :desc,
          [Target.into()],
          Buffer.t() | nil
        ) :: {:ok, [Buffer.t()]} | {:error, Error.t()}
  def run(name, buffer, {lines, n}, keep, direction, targets, others \\ nil) do
    sort = %{
      name: name,
      lines: lines,
      keep: keep,
      order: {direction, class(buffer.dtype, buffer.device)},
      others: others,
      types: Enum.take([buffer.dtype, if(others, do: others.dtype, else: :s32)], length(targets)),
      targets: targets,
      device: buffer.device
    }

    tile = tile(lines, n)
    tiles = div(n + tile - 1, tile)
    run = min(tile, keep)
    m = length(n, tile, tiles, run)

    with {:ok, out} <- target(sort, m, tiles, []),
         :ok <- tiles(sort, buffer, [n, tile, run, m, tiles], out),
         do: merged(sort, %{buffers: out, spare: [], n: m, run: run, runs: tiles})
  end

  defp class(dtype, _device) when dtype in [:f16, :bf16, :f32], do: :f32

  defp class(:f64, device) do
    case Device.dtypes(device) do
      {:ok, dtypes} -> if :s64 in dtypes, do: :f64, else: :floats
      _ -> :f64
    end
  end

  defp class(_integer, _device), do: :integers

  defp tile(lines, n) when lines * n > @few, do: MergeKernels.tile()
  defp tile(lines, n) when lines * n * n <= @comparisons, do: n
  defp tile(_lines, _n), do: @counted

  defp tiles(%{lines: lines} = sort, buffer, [n, tile, run, m, tiles], out) do
    {moved, inputs} = moved(sort, buffer, out)

    if lines * n <= @few do
      kernel = MergeKernels.rank(sort.order, moved)
      launch(sort, kernel, inputs ++ [n, tile, run, m] ++ out, lines * n)
    else
      kernel = MergeKernels.tile(sort.order, moved)
      launch(sort, kernel, inputs ++ [n, tile, run, m, tiles] ++ out, lines * tiles)
    end
  end

  # What is moved with the elements, and the inputs of the first kernel.
  defp moved(%{others: nil}, buffer, [_out]), do: {:alone, [buffer]}
  defp moved(%{others: nil}, buffer, _out), do: {:places, [buffer]}
  defp moved(%{others: others}, buffer, _out), do: {:others, [buffer, others]}

  defp merged(sort, %{runs: 1, n: n, buffers: buffers, spare: spare}) do
    with :ok <- Temporary.free(spare, buffers),
         do: Error.map(buffers, &Buffer.reshape(&1, [sort.lines, n]))
  end

  defp merged(sort, %{buffers: buffers, spare: spare, n: n, run: run, runs: runs}) do
    pairs = div(runs + 1, 2)
    next = min(2 * run, sort.keep)
    m = length(n, 2 * run, pairs, next)
    parts = div(next + @chunk - 1, @chunk)
    chunk = div(next + parts - 1, parts)
    steps = length(Integer.digits(run, 2))

    with {:ok, out} <- target(sort, m, pairs, spare),
         :ok <- Temporary.free(spare, out),
         args = buffers ++ [n, run, next, m, pairs, parts, chunk, steps] ++ out,
         kernel = MergeKernels.merge(sort.order, tl(out) != []),
         :ok <- launch(sort, kernel, args, sort.lines * pairs * parts),
         do: merged(sort, %{buffers: out, spare: buffers, n: m, run: next, runs: pairs})
  end

  # The length of a line of which `keep` of every `width` elements are kept.
  defp length(n, width, count, keep), do: (count - 1) * keep + min(keep, n - (count - 1) * width)

  # The buffers of the last pass but one, if they are as large. The last pass leaves one run in each line.
  defp target(%{lines: lines, types: types} = sort, m, runs, spare) do
    if Enum.any?(spare) and hd(spare).shape == [lines, m] and
         (runs > 1 or not Enum.any?(sort.targets)),
       do: {:ok, spare},
       else: types |> Enum.zip(sort.targets) |> Error.map(&buffer(sort, &1, m, runs))
  end

  defp buffer(%{lines: lines, device: device}, {dtype, %{shape: shape} = target}, m, 1),
    do: Target.new(target, shape, dtype, device, [lines, m])

  defp buffer(%{lines: lines, device: device}, {dtype, _target}, m, _runs),
    do: Buffer.empty([lines, m], dtype, device: device)

  defp launch(sort, kernel, args, size),
    do: Strided.run(Strided.named(kernel, sort.name), args, size: size)
end
