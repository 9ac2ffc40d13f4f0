defmodule ExCubecl.PoolTest do
  # Buffers that go from holder to holder: none is lost, none has two holders, and the next holder cannot read old bytes.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  alias ExCubecl.Pool

  defp pool(opts) do
    start_supervised!({Pool, opts}, id: make_ref())
  end

  test "what is given back is handed out again, without its content" do
    pool = pool(size: 1024, max: 2)
    first = Pool.checkout!(pool)
    Buffer.fill!(first, 7)
    view = Buffer.view!(first, 0, [10])
    assert Pool.checkin(pool, first) == :ok
    second = keep(Pool.checkout!(pool))
    assert reason(Buffer.read(second)) == :not_allocated
    Buffer.write!(second, [1], offset: 1000)
    assert Buffer.read_part!(second, 998, 5) == <<0, 0, 1, 0, 0>>

    for handle <- [first, view] do
      refused(Buffer.read(handle), :stale, says: "returned")
      refused(Buffer.write(handle, [1], offset: 0), :stale)
      refused(Buffer.fill(handle, 1), :stale)
      refused(Buffer.copy(handle, handle), :overlap)
      refused(Buffer.copy(handle, Buffer.zeros!(handle.shape, :u8)), :stale)
      refused(Buffer.duplicate(handle), :stale)
      refused(Buffer.convert(handle, :f32), :stale)
      refused(Buffer.read_async(handle), :stale)
      assert inspect(handle) =~ "stale"
      refute Buffer.allocated?(handle)
    end

    assert %{available: 0, allocated: 1, max: 2, hits: 1, misses: 1} = Pool.stats!(pool)
  end

  test "only the buffer itself goes back, to its own pool, once" do
    {pool, other} = {pool(size: 64), pool(size: 64)}
    buffer = Pool.checkout!(pool)
    refused(Pool.checkin(pool, Buffer.clone!(buffer)), :invalid_argument, says: "view")
    refused(Pool.checkin(pool, Buffer.view!(buffer, 0, [64])), :invalid_argument)
    refused(Pool.checkin(other, buffer), :stale, says: "does not belong to this pool or arena")
    refused(Pool.checkin(pool, Buffer.zeros!([64], :u8)), :stale)
    refused(Pool.return_buffer(buffer), :stale)
    assert Pool.checkin(pool, buffer) == :ok
    refused(Pool.checkin(pool, buffer), :stale)
    assert %{available: 1, allocated: 1} = Pool.stats!(pool)
  end

  test "at the maximum a checkout waits its turn, or says that nothing came" do
    pool = pool(size: 64, max: 1)
    held = Pool.checkout!(pool)
    refused(Pool.checkout(pool, timeout: 0), :pool_exhausted, details: %{max: 1})
    refused(Pool.checkout(pool, timeout: 20), :pool_exhausted, says: "20 ms")
    parent = self()

    waiters =
      for i <- 1..3 do
        task =
          Task.async(fn ->
            buffer = Pool.checkout!(pool)
            send(parent, {:got, i})
            Buffer.fill!(buffer, i)
            :erlang.yield()
            assert Buffer.read!(buffer) == :binary.copy(<<i>>, 64)
            Pool.checkin(pool, buffer)
          end)

        until(fn -> Pool.stats!(pool).waits == 1 + i end)
        task
      end

    Pool.checkin(pool, held)
    assert Task.await_many(waiters, :infinity) == [:ok, :ok, :ok]
    assert_received {:got, 1}
    assert_received {:got, 2}
    assert_received {:got, 3}
  end

  test "the dead give back, whatever others still hold of it" do
    pool = pool(size: 64, max: 1)
    parent = self()

    holder =
      spawn(fn ->
        buffer = Pool.checkout!(pool)
        Buffer.fill!(buffer, 3)
        send(parent, {:buffer, buffer})
        Process.sleep(:infinity)
      end)

    assert_receive {:buffer, buffer}
    assert Buffer.read!(buffer) == :binary.copy(<<3>>, 64)
    waiting = Task.async(fn -> Pool.checkout(pool) end)
    until(fn -> Pool.stats!(pool).waits == 1 end)
    Process.exit(holder, :kill)
    assert {:ok, _} = Task.await(waiting, :infinity)
    assert reason(Buffer.read(buffer)) == :stale
  end

  test "a buffer that was forgotten comes back when it is collected" do
    pool = pool(size: 64, max: 1)
    Task.await(Task.async(fn -> Pool.checkout!(pool).shape end), :infinity)
    {:ok, _} = Pool.checkout(pool)
  end

  test "a waiter that dies does not take a buffer with it" do
    pool = pool(size: 64, max: 1)
    held = Pool.checkout!(pool)
    dead = spawn(fn -> Pool.checkout(pool) end)
    until(fn -> Pool.stats!(pool).waits == 1 end)
    alive = Task.async(fn -> Pool.checkout(pool) end)
    until(fn -> Pool.stats!(pool).waits == 2 end)
    Process.exit(dead, :kill)
    Pool.checkin(pool, held)
    assert {:ok, _} = Task.await(alive, :infinity)
  end

  test "a pool ends with its process; what is held stays good, and who waits is told" do
    before = settled()
    {:ok, pool} = Pool.start_link(size: 1_000_000, max: 2)
    [held, other] = [Pool.checkout!(pool), Pool.checkout!(pool)]
    Buffer.fill!(held, 5)
    waiting = Task.async(fn -> Pool.checkout(pool) end)
    until(fn -> Pool.stats!(pool).waits == 1 end)
    Process.unlink(pool)
    Process.exit(pool, :kill)
    refused(Task.await(waiting, :infinity), :stale, says: "no such pool")
    until(fn -> reason(Pool.checkout(pool)) == :stale end)
    refused(Pool.checkin(pool, other), :stale)
    assert Buffer.read_part!(held, 0, 1) == <<5>>
    assert Buffer.size!(other) == 1_000_000
    {held, other} = {nil, nil}
    _ = {held, other}
    eventually(before)
  end

  test "with_buffer gives back, also after a raise, a throw or a checkin" do
    pool = pool(size: 4, max: 1)
    assert Pool.with_buffer(pool, &Buffer.size!/1) == {:ok, 4}
    assert_raise RuntimeError, fn -> Pool.with_buffer(pool, fn _ -> raise "x" end) end
    assert catch_throw(Pool.with_buffer(pool, fn _ -> throw(:x) end)) == :x
    assert Pool.with_buffer(pool, &Pool.checkin(pool, &1)) == {:ok, :ok}
    assert Pool.with_buffer!(pool, fn _ -> :done end) == :done
    assert %{available: 1, allocated: 1} = Pool.stats!(pool)
  end

  test "pools have names, types, shapes and tags, and live in supervision trees" do
    start_supervised!({Pool, name: :my_pool, shape: {2, 3}, dtype: :f32, tag: :frames})
    buffer = Pool.checkout!(:my_pool)
    assert {buffer.shape, buffer.dtype} == {[2, 3], :f32}
    assert %{bytes: 24, buffers: 1} = Memory.report!().by_tag[:frames]
    other = Pool.checkout!(:my_pool, tag: :other)
    assert %{bytes: 24, buffers: 1} = Memory.report!().by_tag[:other]
    Enum.each([buffer, other], &Pool.checkin!(:my_pool, &1))
    refute Memory.report!().by_tag[:frames]
    assert Pool.stats!(:my_pool).max == 100
  end

  test "what is kept is no live memory, and goes when there is no room" do
    before = settled()
    pool = pool(size: 3_000_000)
    Pool.with_buffer!(pool, &Buffer.fill!(&1, 1))
    eventually(before)
    assert Pool.stats!(pool).available == 1
    Memory.trim!()
    assert %{available: 0, allocated: 0} = Pool.stats!(pool)
    assert {:ok, _} = Pool.checkout(pool)
  end

  test "options that make no sense" do
    for opts <- [
          [],
          [size: 0],
          [size: -1],
          [size: 1.5],
          [size: nil],
          [size: 10, shape: [10]],
          [size: 3, dtype: :f32],
          [size: Integer.pow(2, 65)],
          [shape: [0]],
          [size: 1, max: 0],
          [size: 1, max: :many],
          [size: 1, color: :red],
          [size: 1, tag: String.duplicate("x", 2000)],
          [size: 1, allocation: :fast],
          :junk
        ],
        do: refused(Pool.start_link(opts), :invalid_argument, says: "expected")

    assert reason(Pool.start_link(shape: [-1])) == :invalid_shape
    assert reason(Pool.start_link(size: 1, dtype: :f8)) == :unsupported_dtype
    assert reason(Pool.start_link(size: 1, device: {:vulkan, 77})) == :unknown_device
    assert reason(Pool.start_link(size: Integer.pow(2, 50))) == :too_large

    pool = pool(size: 1)

    for junk <- [nil, 1, "pool", {:a, :b, :c}, %{}, [1 | 2]],
        do: assert(reason(Pool.checkout(junk)) in [:stale, :invalid_argument])

    for junk <- [nil, 1, %{}, make_ref(), pool],
        do: refused(Pool.checkin(pool, junk), :invalid_argument)

    refused(Pool.checkout(:nobody), :stale, says: "no such pool")
    refused(Pool.checkout(spawn(fn -> :ok end)), :stale)
    refused(Pool.checkout(pool, timeout: -1), :invalid_argument)
    refused(Pool.with_buffer(pool, fn -> :ok end), :invalid_argument)
    assert %{allocated: 0} = Pool.stats!(pool)
  end

  test "a pool cannot be started with a size or a name that is none" do
    refused(Pool.start_link(size: 0xFFFF_FFFF_FFFF_FFFF), :invalid_shape)

    for name <- ["pool", 5, {:via, "x", 1}, [1 | 2]],
        do: refused(Pool.start_link(size: 1, name: name), :invalid_argument)
  end
end
