defmodule ExCubecl.DeviceLostTest do
  # A device that is reset: calls on its old buffers return `:device_lost`, and new buffers work.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal

  alias ExCubecl.Calls

  setup do
    {:ok, id} = Device.default()
    %{id: id}
  end

  test "every call on a buffer of a lost device says which device", %{id: {runtime, index} = id} do
    buffer = ExCubecl.buffer!([0.5], [1], :f32)
    lazy = Buffer.empty!([1], :f32)

    old = [
      buffer,
      Buffer.view!(buffer, 0, [1]),
      Buffer.clone!(buffer),
      Buffer.view!(lazy, 0, [1]),
      lazy
    ]

    assert Device.reset(id) == :ok
    new = ExCubecl.buffer!([2.0], [1], :f32)

    # A view needs no device, nor does `pointer` where addresses are unsupported.
    quiet = ~w(view slice_bytes reshape clone bitcast pointer)a

    for buffer <- old, {name, call} <- Calls.touching(new), name not in quiet do
      refused(call.(buffer), :device_lost, details: [device: id], says: "#{runtime}:#{index}")
    end

    for buffer <- old, {name, call} <- Calls.touching(new), name in quiet do
      with {:ok, %Buffer{} = view} <- call.(buffer), do: refused(Buffer.read(view), :device_lost)
    end

    assert Buffer.to_list!(new) == [2.0]
  end

  test "what was lent by a lost device is lost, not foreign, whoever opened it again" do
    {:ok, pool} = ExCubecl.Pool.start_link(size: 1000)
    lent = ExCubecl.Pool.checkout!(pool)
    [first, second] = for _ <- 1..2, do: ExCubecl.Pool.get_buffer!(1000)
    Device.reset(nil)
    refused(ExCubecl.Pool.return_buffer(first), :device_lost)
    # This call discards the shared pools of the old device.
    new = ExCubecl.Pool.get_buffer!(1000)
    refused(ExCubecl.Pool.return_buffer(second), :device_lost)
    refused(ExCubecl.Pool.checkin(pool, lent), :device_lost)
    assert ExCubecl.Pool.return_buffer(new) == :ok
  end

  test "what a handle knows by itself it still knows" do
    buffer = Buffer.zeros!([2, 3], :s16)
    known = [Buffer.id!(buffer), Buffer.storage_id!(buffer), Buffer.total_size!(buffer)]
    assert Device.reset(nil) == :ok
    assert [Buffer.id!(buffer), Buffer.storage_id!(buffer), Buffer.total_size!(buffer)] == known
    assert {ExCubecl.shape(buffer), ExCubecl.dtype(buffer)} == {{:ok, [2, 3]}, {:ok, "s16"}}
    assert ExCubecl.size(buffer) == {:ok, 12}
    refute Buffer.storage_id!(Buffer.zeros!([2, 3], :s16)) == Buffer.storage_id!(buffer)
    assert inspect(buffer) =~ "device lost"
    assert_raise Error, ~r/create it again/, fn -> ExCubecl.read!(buffer) end
  end

  test "the account starts again, and late garbage of the old device is not taken from it", %{
    id: id
  } do
    old = Buffer.zeros!([1_000_000], :u8)
    assert Device.reset(id) == :ok
    assert %{live_bytes: 0, live_buffers: 0, peak_bytes: 0, limit: nil} = Memory.usage!()
    new = Buffer.zeros!([100], :u8)
    assert live() == {100, 1}
    # The old buffer can be garbage collected only from here on.
    assert reason(Buffer.read(old)) == :device_lost
    eventually({100, 1})
    for _ <- 1..5, do: :erlang.garbage_collect()
    assert live() == {100, 1}
    assert Buffer.read!(new) == :binary.copy(<<0>>, 100)
  end

  test "many resets in a row, with buffers made in between" do
    for round <- 1..5 do
      buffer = Buffer.full!([1000], :u8, round)
      assert Buffer.read!(buffer) == :binary.copy(<<round>>, 1000)
      assert Device.reset(nil) == :ok
      assert reason(Buffer.read(buffer)) == :device_lost
    end
  end

  test "a transfer that was under way ends with bytes or with the loss, never with silence", %{
    id: id
  } do
    buffer = Buffer.full!([8_000_000], :u8, 7)
    transfers = for _ <- 1..10, do: Buffer.read_async!(buffer)
    assert Device.reset(id) == :ok

    for transfer <- transfers do
      case Buffer.await(transfer, 30_000) do
        {:ok, bytes} -> assert bytes == :binary.copy(<<7>>, 8_000_000)
        error -> refused(error, :device_lost)
      end
    end

    refute_received _
  end

  test "a reset while others work gives each of them its bytes or the loss", %{id: id} do
    started = :counters.new(1, [])

    work = fn process ->
      data = :binary.copy(<<process>>, 100_000)

      for _ <- 1..30 do
        :counters.add(started, 1, 1)

        with {:ok, buffer} <- ExCubecl.buffer(data, [100_000], :u8),
             {:ok, copy} <- Buffer.duplicate(buffer),
             :ok <- Buffer.copy(buffer, copy),
             {:ok, bytes} <- Buffer.read(copy) do
          assert bytes == data
        else
          error -> refused(error, :device_lost)
        end
      end
    end

    tasks = for process <- 1..8, do: Task.async(fn -> work.(process) end)

    for round <- 1..3 do
      until(fn -> :counters.get(started, 1) >= 40 * round end)
      assert Device.reset(id) == :ok
    end

    Task.await_many(tasks, :infinity)
    assert ExCubecl.to_list!(ExCubecl.buffer!([1], [1], :u8)) == [1]
    eventually({0, 0})
  end
end
