# Kernels written in Elixir, step by step: mix run examples/kernels.exs

defmodule Example do
  use ExCubecl.Kernel

  # The number of iterations until z = z * z + c leaves the circle.
  defkernel mandelbrot(out, left, top, step, rise) do
    cx = left + cast(index(:x), :f32) * step
    cy = top + cast(index(:y), :f32) * rise
    zx = 0.0
    zy = 0.0
    rounds = 0

    for i <- 1..200 do
      if zx * zx + zy * zy < 4.0 do
        next = zx * zx - zy * zy + cx
        zy = 2.0 * zx * zy + cy
        zx = next
        rounds = i
      end
    end

    out[index()] = rounds
  end

  # Counts how often each number of iterations occurs: first in the shared memory of each group, then over all groups.
  defkernel histogram(rounds, bins) do
    mine = shared(:u32, 256)
    if index() >= 0, do: atomic_add(mine[rounds[index()]], 1)
    barrier()
    atomic_add(bins[local()], mine[local()])
  end
end

alias ExCubecl.{Buffer, Kernel, Ops}

{width, height} = {76, 24}
{:ok, info} = ExCubecl.Device.info(nil)
IO.puts("#{info.name}\n")

rounds = Buffer.empty!([height, width], :s32)
{_, timing} = Kernel.profile!(fn -> Example.mandelbrot!(rounds, -2.2, -1.2, 0.042, 0.1) end)

for row <- ExCubecl.to_list!(rounds) do
  IO.puts(for n <- row, do: Enum.at(~c" .:-=+*#%@", min(div(n, 4), 9)))
end

bins = Buffer.zeros!([256], :u32)
Kernel.run!({Example, :histogram}, [rounds, bins], size: width * height)
inside = bins |> Buffer.view!(200, [1]) |> ExCubecl.item!()
IO.puts("\n#{inside} of #{width * height} points stay inside for 200 rounds")
IO.puts("the most rounds of any: #{ExCubecl.item!(Ops.reduce_max!(rounds))}")

IO.puts(
  "the device was at it for #{Float.round(timing.device_time / 1.0e6, 2)} ms, with compiling"
)
