defmodule ExCubecl.Busy do
  @moduledoc false
  # Keeps a device busy for some seconds. The time of a kernel depends on the machine: `busy?` returns whether
  # the kernels still run.

  alias ExCubecl.Buffer

  defmodule Spin do
    @moduledoc false
    use ExCubecl.Kernel

    defkernel spin(out, rounds) do
      value = 0

      for i <- 1..rounds do
        value = band(value * 1_664_525 + i, 0xFFFFFF)
      end

      out[index()] = value
    end
  end

  @positions 131_072
  @rounds 50_000

  @doc "Launches kernels for about this many seconds; the task ends when they are done."
  def keep(device, seconds) do
    out = Buffer.empty!([@positions], :s32, device: device)
    Spin.spin!(out, 1)
    ExCubecl.read!(out)
    {time, _} = :timer.tc(fn -> Spin.spin!(out, 500) && ExCubecl.read!(out) end)
    # A launch of @rounds iterations takes a hundred times as long as this one of 500.
    launches = max(1, ceil(seconds * 1_000_000 / (time * div(@rounds, 500))))
    for _ <- 1..launches, do: Spin.spin!(out, @rounds)
    parent = self()

    task =
      Task.async(fn ->
        send(parent, {:reading, self()})
        ExCubecl.read!(Buffer.view!(out, 0, [1]))
      end)

    receive do: ({:reading, pid} when pid == task.pid -> task)
  end

  @doc "Whether the kernels of the task still run."
  def busy?(task), do: Process.alive?(task.pid)
end
