defmodule ExCubecl.ConcurrencyTest do
  # Many concurrent processes: no process reads the bytes of another one, and none waits without need.
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
    Task.await_many(tasks, :infinity)
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

    Task.await_many(writers, :infinity)
  end

  test "copies in opposite directions do not wait for each other" do
    [a, b] = for value <- [1, 2], do: Buffer.full!([4096], :u8, value)

    copy = fn from, to ->
      Task.async(fn -> for _ <- 1..200, do: :ok = Buffer.copy(from, to) end)
    end

    Task.await_many([copy.(a, b), copy.(b, a), copy.(a, b), copy.(b, a)], :infinity)
    assert Buffer.read!(a) == Buffer.read!(b)
  end

  test "a process that reads 64 MiB leaves its scheduler to others meanwhile" do
    buffer = Buffer.zeros!([16 * 1_048_576], :f32)
    beats = :counters.new(1, [])

    # Both run on the first scheduler: a read that blocked it would stop the heartbeat for the whole read.
    heart = :erlang.spawn_opt(fn -> beat(beats) end, [:link, scheduler: 1])
    parent = self()

    :erlang.spawn_opt(
      fn -> send(parent, {:seen, for(_ <- 1..20, do: beats_during_read(buffer, beats))}) end,
      [:link, scheduler: 1]
    )

    assert_receive {:seen, seen}, 60_000
    Process.unlink(heart)
    Process.exit(heart, :kill)
    assert Enum.any?(seen, &(&1 > 0))
  end

  defp beat(beats) do
    :counters.add(beats, 1, 1)
    :erlang.yield()
    beat(beats)
  end

  defp beats_during_read(buffer, beats) do
    before = :counters.get(beats, 1)
    67_108_864 = byte_size(ExCubecl.read!(buffer))
    :counters.get(beats, 1) - before
  end
end
