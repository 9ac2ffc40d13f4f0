defmodule ExCubecl.Ops.MergeSort do
  @moduledoc false
  # A stable merge sort of the lines of a matrix, with the first elements of each line or all of them, and with their places. Tiles are
  # sorted in registers or by counting, and runs are merged in pairs until each line is one run; only comparisons depend on the type. Equal elements keep
  # their order, also in descending order.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Ops.{MergeKernels, Strided, Target, Temporary}

  # The number of elements that one invocation merges.
  @chunk 64

  # Few elements are sorted in tiles by counting, which is the kernel that compiles faster; the elements of such a tile, and the comparisons for which each line
  # is one tile: then the kernel that merges is not compiled.
  @few 0x2000
  @counted 32
  @comparisons 0x4_0000

  @floats [:f16, :bf16, :f32, :f64]

  @doc """
  The `keep` first elements of each line of `lines` lines, and with a second target their indices in the line (`:s32`), as `[lines, keep]`. `name`
  is the operation. There are elements. A target is a buffer with as many elements, which is used if it has the type of the result, or `nil`.
  """
  @spec run(atom, Buffer.t(), {pos_integer, pos_integer}, pos_integer, :asc | :desc, [
          Target.into()
        ]) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
  def run(name, buffer, {lines, n}, keep, direction, targets) do
    places? = length(targets) == 2

    sort = %{
      name: name,
      lines: lines,
      keep: keep,
      order: {direction, buffer.dtype in @floats},
      places?: places?,
      types: if(places?, do: [buffer.dtype, :s32], else: [buffer.dtype]),
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

  defp tile(lines, n) when lines * n > @few, do: MergeKernels.tile()
  defp tile(lines, n) when lines * n * n <= @comparisons, do: n
  defp tile(_lines, _n), do: @counted

  defp tiles(%{lines: lines} = sort, buffer, [n, tile, run, m, tiles], out) do
    if lines * n <= @few,
      do: launch(sort, &MergeKernels.rank/2, [buffer, n, tile, run, m] ++ out, lines * n),
      else: launch(sort, &MergeKernels.tile/2, [buffer, n, run, m, tiles] ++ out, lines * tiles)
  end

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
         :ok <- launch(sort, &MergeKernels.merge/2, args, sort.lines * pairs * parts),
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

  defp launch(sort, kernel, args, size) do
    kernel = Strided.named(kernel.(sort.order, sort.places?), sort.name)
    Strided.run(kernel, args, size: size)
  end
end
