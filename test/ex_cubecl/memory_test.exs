defmodule ExCubecl.MemoryTest do
  # Memory accounting is exact.
  use ExCubecl.Case, async: false

  setup do
    on_exit(fn -> Memory.set_limit(nil) end)
  end

  test "every byte of a buffer counts once, views not at all" do
    {bytes, count} = settled()
    buffer = Buffer.zeros!([1000], :f64)
    assert live() == {bytes + 8000, count + 1}
    views = [Buffer.view!(buffer, 1, [10]), Buffer.clone!(buffer), Buffer.empty!([5000], :f64)]
    assert live() == {bytes + 8000, count + 1}
    copy = Buffer.duplicate!(buffer)
    assert live() == {bytes + 16_000, count + 2}
    # A variable that is not used any more may be garbage collected before the assertion.
    assert Enum.map([copy, buffer | views], &Buffer.size!/1) == [8000, 8000, 80, 8000, 40_000]
  end

  test "exactly the limit fits and one byte more does not" do
    {bytes, _} = settled()
    :ok = Memory.set_limit(bytes + 1000)
    assert {:error, error} = result = Buffer.zeros([1001], :u8)
    assert reason(result) == :limit_exceeded
    assert %{requested: 1001, limit: limit} = error.details
    assert limit == bytes + 1000
    kept = Buffer.zeros!([1000], :u8)
    assert reason(ExCubecl.buffer([1], [1], :u8)) == :limit_exceeded
    assert Buffer.read!(kept) == :binary.copy(<<0>>, 1000)
  end

  test "a limit below what is live is accepted, and nothing new fits" do
    kept = Buffer.full!([100], :u8, 3)
    assert Memory.set_limit(1) == :ok
    assert reason(ExCubecl.buffer([1], [1], :u8)) == :limit_exceeded
    assert Buffer.read!(kept) == :binary.copy(<<3>>, 100)
    assert Memory.usage!().limit == 1
  end

  test "the peak stays until it is reset" do
    {bytes, _} = settled()
    :ok = Memory.reset_peak()
    Buffer.zeros!([3_000_000], :u8)
    :erlang.garbage_collect()
    assert Memory.usage!().peak_bytes == bytes + 3_000_000
    # The destructor of a collected buffer may run a moment later.
    until(fn ->
      :ok = Memory.reset_peak()
      usage = Memory.usage!()
      usage.peak_bytes == usage.live_bytes and usage.live_bytes == bytes
    end)
  end

  test "a trim gives back what collected buffers left" do
    before = settled()
    for _ <- 1..4, do: Buffer.zeros!([8_388_608], :u8)
    eventually(before)
    assert Memory.trim!() >= 8_388_608
    reserved = Memory.usage!().reserved_bytes
    assert Memory.trim!() == 0
    assert Memory.usage!().reserved_bytes == reserved
  end

  test "memory_info knows what is used and what there is" do
    buffer = Buffer.zeros!([1_000_000], :u8)
    assert {:ok, %{used: used, total: total}} = ExCubecl.memory_info()
    assert used >= 1_000_000 and (total == nil or total > used)
    assert ExCubecl.size!(buffer) == 1_000_000
  end

  test "limits and devices that make no sense" do
    for limit <- [-1, 1.5, :a, "1"],
        do: assert(reason(Memory.set_limit(limit)) == :invalid_argument)

    for call <- [:usage, :total, :trim, :reset_peak],
        do: assert(reason(apply(Memory, call, [[device: {:vulkan, 99}]])) == :unknown_device)
  end
end
