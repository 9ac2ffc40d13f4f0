defmodule ExCubecl.ManyKernels do
  @moduledoc false
  # Kernels that are all different, in one VM: what the caches and the driver keep of them is bounded. Every fourth is a
  # source in WGSL, every fourth has workgroups. Each result is checked.

  alias ExCubecl.Kernel

  @count 64

  @doc "Runs the kernels of these numbers; calls `each` with a number after its kernel."
  def run(numbers, each \\ fn _ -> :ok end) do
    x = ExCubecl.Buffer.iota!([@count], :s32)

    for number <- numbers do
      bytes = ExCubecl.read!(output(rem(number, 4), number, x))
      expected = for i <- 0..(@count - 1), into: <<>>, do: <<i * 3 + number::32-signed-native>>
      if bytes != expected, do: raise("kernel #{number} is wrong: #{inspect(bytes)}")
      each.(number)
    end

    :ok
  end

  defp output(0, number, x) do
    source =
      Kernel.source!(
        wgsl: """
        @group(0) @binding(0) var<storage, read> x: array<i32>;
        @group(0) @binding(1) var<storage, read_write> y: array<i32>;
        @compute @workgroup_size(#{@count}) fn main(@builtin(local_invocation_index) i: u32) {
          y[i] = x[i] * 3 + #{number};
        }
        """
      )

    y = ExCubecl.Buffer.zeros!([@count], :s32)
    Kernel.run!(source, [x, y], groups: 1)
    y
  end

  defp output(1, number, x) do
    body = quote(do: y[index()] = x[local()] * 3 + unquote(number))
    y = ExCubecl.Buffer.zeros!([@count], :s32)
    Kernel.run!(evaluated(quote(do: fn x, y -> unquote(body) end)), [x, y])
    y
  end

  defp output(_, number, x),
    do: Kernel.run!(evaluated(quote(do: fn x -> x * 3 + unquote(number) end)), [x])

  # A kernel of a user's cell or of a shell: new code each time.
  defp evaluated(fun) do
    {kernel, _} =
      Code.eval_quoted(
        quote do
          require ExCubecl.Kernel
          ExCubecl.Kernel.kernel(unquote(fun))
        end
      )

    kernel
  end

  @doc "The resident memory of this VM in MiB, now and at most; `nil` on systems other than Linux."
  def resident do
    with {:ok, status} <- File.read("/proc/self/status") do
      [now, most] =
        for name <- ["VmRSS", "VmHWM"] do
          [_, kib] = Regex.run(~r/#{name}:\s+(\d+) kB/, status)
          div(String.to_integer(kib), 1024)
        end

      %{now: now, most: most}
    else
      {:error, _} -> nil
    end
  end
end
