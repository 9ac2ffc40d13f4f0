defmodule ExCubecl.ReadAsyncTest do
  # Reads that do not block.
  use ExCubecl.Case, async: false

  test "the answer is a message with the transfer, and shows what was there at the call" do
    buffer = Buffer.full!([1_000_000], :u8, 1)
    {:ok, transfer} = Buffer.read_async(buffer)
    :ok = Buffer.fill(buffer, 2)
    assert_receive {^transfer, {:ok, binary}}
    assert binary == :binary.copy(<<1>>, 1_000_000)
    assert Buffer.read_part!(buffer, 0, 1) == <<2>>
  end

  test "many at once each bring their own bytes" do
    transfers = for i <- 1..100, do: {i, Buffer.read_async!(Buffer.full!([i * 1000], :u8, i))}
    :erlang.garbage_collect()

    for {i, transfer} <- transfers,
        do: assert(Buffer.await!(transfer, 30_000) == :binary.copy(<<i>>, i * 1000))
  end

  test "a caller that gives up finds no answer in its mailbox later" do
    buffer = Buffer.zeros!([8_000_000], :u8)

    for _ <- 1..20 do
      case Buffer.await(Buffer.read_async!(buffer), 0) do
        {:ok, binary} -> assert byte_size(binary) == 8_000_000
        error -> assert reason(error) == :timeout
      end
    end

    # All earlier reads are answered before this one.
    assert {:ok, _} = Buffer.await(Buffer.read_async!(buffer), 30_000)
    refute_received {_, _}
  end

  test "a caller that dies leaves nothing behind" do
    before = settled()

    pids =
      for i <- 1..20 do
        spawn(fn -> Buffer.read_async!(Buffer.full!([1_000_000], :u8, i)) end)
      end

    for pid <- pids do
      monitor = Process.monitor(pid)
      assert_receive {:DOWN, ^monitor, :process, _, _}
    end

    eventually(before)
  end
end
