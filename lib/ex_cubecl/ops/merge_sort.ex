defmodule ExCubecl.Ops.MergeSort do
  @moduledoc false
  # A stable merge sort of the lines of a matrix, with the first elements of each line or all of them, and with their places. Tiles are
  # sorted in registers, and runs are merged in pairs until each line is one run; only comparisons depend on the type. Equal elements keep
  # their order, also in descending order.

  alias ExCubecl.{Buffer, Error}
  alias ExCubecl.Ops.{MergeKernels, Strided}

  # The number of elements that one invocation merges.
  @chunk 64
  @floats [:f16, :bf16, :f32, :f64]

  @doc """
  The `keep` first elements of each line of `lines` lines, and with `places?` their indices in the line (`:s32`), as `[lines, keep]`. `name`
  is the operation. There are elements.
  """
  @spec run(atom, Buffer.t(), {pos_integer, pos_integer}, pos_integer, :asc | :desc, boolean) ::
          {:ok, [Buffer.t()]} | {:error, Error.t()}
  def run(name, buffer, {lines, n}, keep, direction, places?) do
    sort = %{
      name: name,
      lines: lines,
      keep: keep,
      order: {direction, buffer.dtype in @floats},
      places?: places?,
      types: if(places?, do: [buffer.dtype, :s32], else: [buffer.dtype]),
      device: buffer.device
    }

    tile = MergeKernels.tile()
    tiles = div(n + tile - 1, tile)
    run = min(tile, keep)
    m = length(n, tile, tiles, run)

    with {:ok, out} <- target(sort, m, []),
         :ok <-
           launch(sort, &MergeKernels.tile/2, [buffer, n, run, m, tiles] ++ out, lines * tiles),
         do: merged(sort, %{buffers: out, spare: [], n: m, run: run, runs: tiles})
  end

  defp merged(sort, %{runs: 1, n: n, buffers: buffers}),
    do: Error.map(buffers, &Buffer.reshape(&1, [sort.lines, n]))

  defp merged(sort, %{buffers: buffers, spare: spare, n: n, run: run, runs: runs}) do
    pairs = div(runs + 1, 2)
    next = min(2 * run, sort.keep)
    m = length(n, 2 * run, pairs, next)
    parts = div(next + @chunk - 1, @chunk)
    chunk = div(next + parts - 1, parts)
    steps = length(Integer.digits(run, 2))

    with {:ok, out} <- target(sort, m, spare),
         args = buffers ++ [n, run, next, m, pairs, parts, chunk, steps] ++ out,
         :ok <- launch(sort, &MergeKernels.merge/2, args, sort.lines * pairs * parts),
         do: merged(sort, %{buffers: out, spare: buffers, n: m, run: next, runs: pairs})
  end

  # The length of a line of which `keep` of every `width` elements are kept.
  defp length(n, width, count, keep), do: (count - 1) * keep + min(keep, n - (count - 1) * width)

  # The buffers of the last pass but one, if they are as large.
  defp target(%{lines: lines, types: types, device: device}, m, spare) do
    if Enum.any?(spare) and hd(spare).shape == [lines, m],
      do: {:ok, spare},
      else: Error.map(types, &Buffer.empty([lines, m], &1, device: device))
  end

  defp launch(sort, kernel, args, size) do
    kernel = Strided.named(kernel.(sort.order, sort.places?), sort.name)
    Strided.run(kernel, args, size: size)
  end
end
