defmodule ExCubecl.ConcurrencyTest do
  # Many processes at once: nobody reads another's bytes, nobody waits for nothing.
  use ExCubecl.Case, async: false

  test "fifty processes that create, read and drop always read their own bytes" do
    before = settled()

    work = fn process ->
      for round <- 1..40 do
        size = 1 + rem(process * 7919 + round * 104_729, 200_000)
        data = :binary.copy(<<process, round>>, div(size, 2) + 1)
        assert ExCubecl.read!(ExCubecl.buffer!(data, [byte_size(data)], :u8)) == data
      end

      :ok
    end

    tasks = for process <- 1..50, do: Task.async(fn -> work.(process) end)
    Task.await_many(tasks, 60_000)
    eventually(before)
  end

  test "a read never sees half of a write, fill or copy" do
    size = 5_000_001
    buffer = Buffer.full!([size], :u8, 0)
    odd = Buffer.view!(buffer, 1, [size - 2])
    source = Buffer.full!([size - 2], :u8, 9)

    writers =
      for value <- 1..3 do
        Task.async(fn ->
          for _ <- 1..6 do
            :ok = Buffer.write(odd, :binary.copy(<<value>>, size - 2))
            :ok = Buffer.fill(odd, value + 3)
            :ok = Buffer.copy(source, odd)
          end
        end)
      end

    for _ <- 1..15 do
      <<first, _::binary>> = bytes = Buffer.read!(odd)
      assert bytes == :binary.copy(<<first>>, size - 2)
    end

    Task.await_many(writers, 60_000)
  end

  test "copies in opposite directions do not wait for each other" do
    [a, b] = for value <- [1, 2], do: Buffer.full!([4096], :u8, value)

    copy = fn from, to ->
      Task.async(fn -> for _ <- 1..200, do: :ok = Buffer.copy(from, to) end)
    end

    Task.await_many([copy.(a, b), copy.(b, a), copy.(a, b), copy.(b, a)], 30_000)
    assert Buffer.read!(a) == Buffer.read!(b)
  end

  test "a process that reads 64 MiB in a loop holds nobody up" do
    buffer = Buffer.zeros!([16 * 1_048_576], :f32)
    # What else runs on the machine holds processes up too: one quiet moment is enough.
    assert Enum.any?(1..5, fn _ -> undisturbed?(buffer) end)
  end

  # Typical and nearly worst pauses of a process that wakes up every millisecond.
  defp undisturbed?(buffer) do
    alone = gaps()
    reader = spawn_link(fn -> read_for_ever(buffer) end)
    beside = gaps()
    Process.unlink(reader)
    Process.exit(reader, :kill)

    Enum.at(beside, 500) < Enum.at(alone, 500) + 5_000 and
      Enum.at(beside, 990) < Enum.at(alone, 990) + 20_000
  end

  defp read_for_ever(buffer) do
    67_108_864 = byte_size(ExCubecl.read!(buffer))
    read_for_ever(buffer)
  end

  defp gaps do
    1..1000
    |> Enum.map_reduce(now(), fn _, last ->
      Process.sleep(1)
      {now() - last, now()}
    end)
    |> elem(0)
    |> Enum.sort()
  end

  defp now, do: System.monotonic_time(:microsecond)
end
