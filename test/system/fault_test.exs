defmodule ExCubecl.FaultTest do
  # Many results live at once, and a device that is lost while other processes use it.
  use ExCubecl.Case, async: false

  @moduletag timeout: 300_000

  # More buffers than CubeCL's own pools can hold without aliasing.
  test "65,537 results of reads live at once, each with its own bytes" do
    before = settled()
    buffer = Buffer.iota!([100], :u32)

    results =
      for n <- 1..65_537 do
        Buffer.write!(buffer, <<n::32-native>>, offset: 0)
        Buffer.read!(buffer)
      end

    rest = for i <- 1..99, into: <<>>, do: <<i::32-native>>

    for {result, n} <- Enum.with_index(results, 1),
        do: assert(result == <<n::32-native>> <> rest)

    # Mapped memory is smaller: results that do not fit into it are copied.
    large = for n <- 1..300, do: {n, Buffer.read!(Buffer.full!([1_048_576], :u8, rem(n, 256)))}
    for {n, bytes} <- large, do: assert(bytes == :binary.copy(<<rem(n, 256)>>, 1_048_576))
    eventually({elem(before, 0) + 400, elem(before, 1) + 1})
    assert Buffer.size!(buffer) == 400
  end

  test "65,537 answers that nobody has taken yet" do
    buffer = Buffer.full!([16], :u8, 3)
    transfers = for _ <- 1..65_537, do: Buffer.read_async!(buffer)
    for transfer <- transfers, do: assert(Buffer.await!(transfer) == :binary.copy(<<3>>, 16))
    refute_received _
  end

  test "others never notice that a device is lost" do
    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, doomed} = Device.open(id, as: {runtime, 7900})
    parent = self()

    work = fn ->
      data = :crypto.strong_rand_bytes(200_000)
      buffer = ExCubecl.buffer!(data, [200_000], :u8)
      send(parent, :working)

      for n <- 1..100 do
        assert Buffer.read!(buffer) == data
        copy = Buffer.duplicate!(buffer)
        Buffer.fill!(copy, rem(n, 200))
        assert Buffer.read_part!(copy, 199_999, 1) == <<rem(n, 200)>>
      end
    end

    tasks = for _ <- 1..4, do: Task.async(work)
    for _ <- tasks, do: assert_receive(:working)

    for n <- 1..10 do
      buffer = Buffer.full!([500_000], :u8, n, device: doomed)
      transfer = Buffer.read_async!(buffer)
      assert Device.reset(doomed) == :ok
      assert reason(Buffer.read(buffer)) == :device_lost

      with {:ok, bytes} <- Buffer.await(transfer, 30_000),
           do: assert(bytes == :binary.copy(<<n>>, 500_000))
    end

    Task.await_many(tasks, :infinity)
  end
end
