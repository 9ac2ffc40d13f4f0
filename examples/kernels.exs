# Kernels written in Elixir, step by step: mix run examples/kernels.exs

defmodule Example do
  use ExCubecl.Kernel

  # The number of iterations until z = z * z + c leaves the circle.
  defkernel mandelbrot(out, left, top, step, rise) do
    cx = left + cast(index(:x), :f32) * step
    cy = top + cast(index(:y), :f32) * rise
    zx = 0.0
    zy = 0.0
    iterations = 0

    for i <- 1..200 do
      if zx * zx + zy * zy < 4.0 do
        next = zx * zx - zy * zy + cx
        zy = 2.0 * zx * zy + cy
        zx = next
        iterations = i
      end
    end

    out[index()] = iterations
  end

  # Counts how often each number of iterations occurs: first in the shared memory of each group, then over all groups.
  defkernel histogram(iterations, bins) do
    mine = shared(:u32, 256)
    if index() >= 0, do: atomic_add(mine[iterations[index()]], 1)
    barrier()
    atomic_add(bins[local()], mine[local()])
  end
end

alias ExCubecl.{Buffer, Ops}

{width, height} = {76, 24}
{:ok, info} = ExCubecl.Device.info(nil)
IO.puts("#{info.name}\n")

iterations = Buffer.empty!([height, width], :s32)

{_, timing} =
  ExCubecl.Kernel.profile!(fn -> Example.mandelbrot!(iterations, -2.2, -1.2, 0.042, 0.1) end)

for row <- ExCubecl.to_list!(iterations) do
  IO.puts(for n <- row, do: Enum.at(~c" .:-=+*#%@", min(div(n, 4), 9)))
end

bins = Buffer.zeros!([256], :u32)
Example.histogram!(iterations, bins, size: width * height)
inside = bins |> Buffer.view!(200, [1]) |> ExCubecl.item!()
IO.puts("\n#{inside} of #{width * height} points stay inside for 200 iterations")
IO.puts("the most iterations of any: #{ExCubecl.item!(Ops.reduce_max!(iterations))}")

IO.puts(
  "the device needed #{Float.round(timing.device_time / 1.0e6, 2)} ms, compilation included"
)
