defmodule ExCubecl.GoMetalTest do
  # The functions of go-metal's `memory` package, as ExCubecl calls, do what its documentation says.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  alias ExCubecl.{Ops, Pool}

  test "NewBufferPool, Get, Return, Stats" do
    {:ok, pool} = Pool.start_link(size: 1024, max: 3)
    assert %{available: 0, allocated: 0, max: 3} = Pool.stats!(pool)
    [a | _] = keep(for _ <- 1..3, do: Pool.checkout!(pool))
    assert reason(Pool.checkout(pool, timeout: 0)) == :pool_exhausted
    Pool.checkin!(pool, a)
    assert %{available: 1, allocated: 3, max: 3} = Pool.stats!(pool)
  end

  test "GetBuffer gives the smallest class that is large enough, ReturnBuffer takes it back" do
    device = ExCubecl.default_device!()
    # Processes of earlier tests have returned their buffers.
    settled()

    for {bytes, class, max} <- [
          {1, 1024, 100},
          {1024, 1024, 100},
          {1025, 4096, 100},
          {5000, 16_384, 50},
          {65_536, 65_536, 50},
          {65_537, 262_144, 20},
          {1_048_577, 4_194_304, 20},
          {16_777_217, 67_108_864, 15},
          {67_108_865, 67_108_865, 15}
        ] do
      {:ok, buffer} = Pool.get_buffer(bytes, device: device)
      assert Buffer.size!(buffer) == class

      assert %{allocated: n, available: kept, max: ^max} =
               Pool.shared_stats() |> elem(1) |> Map.get({class, device})

      assert n == kept + 1
      assert Pool.return_buffer(buffer) == :ok
      assert reason(Pool.return_buffer(buffer)) == :stale
    end

    {:ok, stats} = Pool.shared_stats()
    assert %{available: 1, allocated: 1} = stats[{67_108_865, device}]
    Memory.trim!()
    {:ok, stats} = Pool.shared_stats()
    # Other devices keep theirs.
    for {key, pool} <- stats,
        elem(key, 1) == device,
        do: assert({key, pool.available} == {key, 0})
  end

  test "the buffer of a process that died comes back" do
    Memory.trim!()
    before = settled()
    parent = self()

    pid =
      spawn(fn ->
        send(parent, {:buffer, Pool.get_buffer!(300_000)})
        Process.sleep(:infinity)
      end)

    assert_receive {:buffer, buffer}
    Buffer.fill!(buffer, 1)
    Process.exit(pid, :kill)
    eventually(before)
    assert reason(Buffer.read(buffer)) == :stale
  end

  test "a buffer has the type that its caller asks for" do
    first = Pool.get_buffer!(500_000, dtype: :f64, tag: "first")
    assert Pool.return_buffer(first) == :ok
    taken = Pool.get_buffer!(500_000)
    assert taken.dtype == :u8
    Buffer.fill!(taken, 1)
    assert ExCubecl.to_list!(Ops.sum!(taken)) == Buffer.size!(taken)
    refute is_map_key(Memory.report!().by_tag, "first")
    assert Pool.return_buffer(taken) == :ok
  end

  test "sizes and classes come from the configuration" do
    Application.put_env(:ex_cubecl, :size_classes, [{3000, 1}])
    on_exit(fn -> Application.delete_env(:ex_cubecl, :size_classes) end)
    held = Pool.get_buffer!(100)
    assert Buffer.size!(held) == 3000
    assert reason(Pool.get_buffer(100)) == :pool_exhausted
    Application.put_env(:ex_cubecl, :size_classes, [:junk])
    refused(Pool.get_buffer(100), :invalid_argument, says: "size_classes")
    assert Pool.return_buffer(held) == :ok
  end

  test "PersistentGPU lies apart from what comes and goes" do
    kept = Pool.get_buffer!(1000, allocation: :persistent)
    {:ok, stats} = Pool.shared_stats()
    assert stats[{1024, ExCubecl.default_device!(), :persistent}].allocated >= 1
    weights = ExCubecl.buffer!([1, 2, 3], [3], :u8, allocation: :persistent)
    assert ExCubecl.read!(weights) == <<1, 2, 3>>
    assert Pool.return_buffer(kept) == :ok
    refused(Buffer.zeros([1], :u8, allocation: :forever), :invalid_argument, says: ":persistent")
  end

  test "sizes that make no sense" do
    for bytes <- [0, -1, 1.5, nil, "1", Integer.pow(2, 64)],
        do: refused(Pool.get_buffer(bytes), :invalid_argument)

    assert reason(Pool.get_buffer(Integer.pow(2, 50))) == :too_large
    assert reason(Pool.get_buffer(1, device: {:vulkan, 99})) == :unknown_device
    assert reason(Pool.get_buffer(1, dtype: :f9)) == :unsupported_dtype
    for junk <- [nil, 1, %{}], do: refused(Pool.return_buffer(junk), :invalid_argument)
  end

  test "NewTensor, Retain, Clone, Release, RefCount, ConvertTo and the copies" do
    tensor = Buffer.empty!([2, 2], :f32)
    Buffer.write!(tensor, [1.5, 2.5, 3.5, 4.5])
    assert Buffer.to_flat_list!(tensor) == [1.5, 2.5, 3.5, 4.5]
    assert Buffer.ref_count!(tensor) == 1
    retained = Buffer.clone!(tensor)
    assert Buffer.ref_count!(tensor) == 2
    assert {Buffer.shape!(retained), Buffer.size!(retained)} == {[2, 2], 16}
    half = Buffer.convert!(tensor, :f16)
    assert Buffer.to_list!(half) == [[1.5, 2.5], [3.5, 4.5]]
    assert reason(Buffer.write(tensor, [1, 2, 3])) == :shape_mismatch
    assert inspect(tensor) =~ "f32[2][2]"
  end
end
