defmodule ExCubecl.ChaosCalls do
  @moduledoc false
  # A process that makes one random call after another: buffers, views, kernels, sources, operations, batches, replicas, pools, arenas, files, and
  # buffers of another node. Whoever starts it kills it at any moment. A wrong byte stops the whole test run, because no other process would notice it.

  alias ExCubecl.{Arena, Batch, Buffer, Data, Kernel, LinAlg, Ops, Pool, Replicated, View}

  require Kernel

  @steps 24
  @source """
  @group(0) @binding(0) var<storage, read_write> x: array<f32>;
  @compute @workgroup_size(1) fn main() { x[0] = 2.0; }
  """

  @doc "Calls without end. `world` has the `:devices`, a device of another node as `:remote`, and the shared `:pool`, `:arena` and `:replicated`."
  def run(world, seed) do
    :rand.seed(:exsss, seed)
    calls(world)
  end

  defp calls(world) do
    step(
      :rand.uniform(@steps),
      world,
      Enum.random(world.devices),
      Enum.random([1, 10, 1000, 20_000])
    )

    calls(world)
  end

  @doc "The bytes that processes write into the shared replicas: all are the same."
  def replicated_bytes(byte), do: :binary.copy(<<byte>>, 4000)

  defp ones(count, device), do: Buffer.full!([count], :f32, 1.0, device: device)

  defp next, do: Kernel.kernel(fn x, out -> out[index()] = x[index()] + 1 end)

  ## On one device

  defp step(1, _, device, count),
    do: same!(Kernel.run!(Kernel.kernel(fn x, y -> x * 2 + y end), [ones(count, device), 3]), 5.0)

  defp step(2, _, device, count) do
    [x, out] = [ones(count, device), Buffer.empty!([count], :f32, device: device)]
    Kernel.run!(next(), [x, out])
    same!(out, 2.0)
  end

  defp step(3, _, device, count) do
    x = ones(count, device)
    Kernel.run!(Kernel.source!(wgsl: @source), [x], groups: 1)
    same!(Buffer.view!(x, 0, [1]), 2.0)
  end

  defp step(4, _, device, count),
    do: same!(View.to_buffer!(View.reverse!(View.of!(ones(count, device)))), 1.0)

  defp step(5, _, device, count), do: same!(Ops.sum!(ones(count, device)), count / 1)
  defp step(6, _, device, _), do: Ops.sort!(Ops.random_uniform!([3000], 5, device: device))

  defp step(7, _, device, _) do
    [a, b] = for shape <- [[33, 47], [47, 21]], do: Buffer.full!(shape, :f32, 1, device: device)
    same!(Ops.matmul!(a, b), 47.0)
  end

  defp step(8, _, device, count) do
    [x, y] = [ones(count, device), ones(count, device)]
    batch = Batch.new() |> Batch.fill(x, 5) |> Batch.copy(x, y) |> Batch.run(next(), [x, y])
    Batch.submit!(batch)
    same!(y, 6.0)
  end

  defp step(9, _, device, _), do: Ops.fft!(Buffer.full!([500, 2], :f32, 1, device: device))

  defp step(10, _, device, _),
    do:
      LinAlg.inverse!(
        Buffer.reshape!(Ops.add!(Buffer.iota!([4], :f32, device: device), 1), [2, 2])
      )

  defp step(11, _, device, count),
    do: Buffer.convert!(Buffer.convert!(ones(count, device), :s64), :f64)

  defp step(12, _, device, count) do
    x = ones(count, device)
    Kernel.profile([device: device], fn -> Ops.exp!(x) end)
  end

  ## Reads that nobody waits for, and files

  defp step(13, _, device, count) do
    transfer = Buffer.read_async!(ones(count, device))
    if :rand.uniform(2) == 1, do: Buffer.await!(transfer, :infinity)
  end

  defp step(14, _, device, count), do: Buffer.read_all!([ones(count, device), ones(1, device)])

  defp step(15, world, device, count) do
    path = Path.join(world.dir, "#{:erlang.phash2(self())}.npy")
    Data.write!(path, ones(count, device))
    same!(Data.read!(path, device: device), 1.0)
  end

  ## Shared memory

  defp step(16, world, _, count) do
    with {:ok, buffer} <- Pool.checkout(world.pool, timeout: 5) do
      Buffer.fill!(buffer, 0)
      same!(Ops.add!(Buffer.bitcast!(buffer, :f32), 1), 1.0)
      if count > 10, do: Pool.checkin(world.pool, buffer)
    end
  end

  defp step(17, _, device, count) do
    buffer = Pool.get_buffer!(4 * count, device: device)
    Buffer.fill!(buffer, 0)
    Ops.sum!(buffer)
    if count > 1, do: Pool.return_buffer(buffer)
  end

  defp step(18, _, device, count) do
    Arena.scoped([size: 4 * count, device: device], fn arena ->
      x = Arena.alloc!(arena, [count], :f32)
      Buffer.fill!(x, 1)
      same!(Ops.add!(x, 1), 2.0)
    end)
  end

  defp step(19, world, _, count) do
    with {:ok, x} <- Arena.alloc(world.arena, [100], :f32) do
      Buffer.fill!(x, 1)
      same!(Ops.multiply!(x, 3), 3.0)
      if count > 10, do: Arena.reset(world.arena)
    end
  end

  ## Several devices, other nodes

  defp step(20, world, _, _),
    do: Replicated.write!(world.replicated, replicated_bytes(:rand.uniform(255)))

  defp step(21, world, _, count) do
    replicated = Replicated.new!([count], :u8, devices: Enum.shuffle(world.devices))
    Replicated.write!(replicated, :binary.copy(<<7>>, count))
    [one | others] = Replicated.read!(replicated)
    if Enum.any?(others, &(&1 != one)), do: :erlang.halt("replicas differ")
  end

  defp step(22, world, device, count),
    do: Buffer.transfer!(ones(count, device), Enum.random([world.remote | world.devices]))

  defp step(23, world, _, count), do: same!(ones(count, world.remote), 1.0)

  defp step(24, world, device, count) do
    x = ones(count, world.remote)
    Buffer.fill!(Buffer.view!(x, 0, [count]), 2)
    same!(Buffer.transfer!(Ops.add!(x, 1), device), 3.0)
  end

  defp same!(buffer, value) do
    bytes = Buffer.read!(buffer)

    if bytes != :binary.copy(<<value::float-32-native>>, div(byte_size(bytes), 4)),
      do: :erlang.halt("other bytes than were written were read")
  end
end
