defmodule ExCubecl.ReplicatedTest do
  # The same content on three devices. Here they are logical devices on one adapter; they could be three GPUs.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  alias ExCubecl.Replicated

  setup_all do
    {runtime, _} = adapter = ExCubecl.default_device!()

    devices =
      for index <- 11..13 do
        {:ok, device} = Device.open(adapter, as: {runtime, index})
        device.id
      end

    %{devices: devices}
  end

  setup %{devices: devices} do
    on_exit(fn ->
      for device <- devices, do: Memory.set_limit(nil, device: device)
    end)
  end

  test "vkdispatch's first buffer", %{devices: devices} do
    cpu_data = for i <- 0..15, into: <<>>, do: <<i::32-native>>
    buffer = Replicated.from!(cpu_data, [16], :s32, devices: devices)
    assert Replicated.read(buffer, 0) == {:ok, cpu_data}
    assert Replicated.read(buffer) == {:ok, [cpu_data, cpu_data, cpu_data]}

    buffer = Replicated.new!({1_000_000}, :f32, devices: devices)
    my_data = :binary.copy(<<1.5::float-32-native>>, 1_000_000)
    assert Replicated.write(buffer, my_data) == :ok
    assert Replicated.read!(buffer) == List.duplicate(my_data, 3)
  end

  test "one copy can be written by itself", %{devices: devices} do
    rep = Replicated.from!([1, 2, 3], [3], :u8, devices: devices)
    assert Replicated.write(rep, [4, 5, 6], 1) == :ok
    assert Replicated.read!(rep) == [<<1, 2, 3>>, <<4, 5, 6>>, <<1, 2, 3>>]
    assert Replicated.devices!(rep) == devices
    assert Replicated.gather!(rep) == <<1, 2, 3>>
    shard = Replicated.shard!(rep, 2)
    view = Buffer.view!(shard, 1, [1])
    Buffer.fill!(shard, 9)
    assert Replicated.read!(rep, 2) == <<9, 9, 9>>
    Replicated.write!(rep, [[7, 8, 9]] |> List.flatten())
    assert {Buffer.read!(shard), Buffer.read!(view)} == {<<7, 8, 9>>, <<8>>}
  end

  test "shards divide the first dimension", %{devices: devices} do
    rows = for row <- 0..5, do: [row, row + 10]
    rep = Replicated.from!(rows, [6, 2], :s16, devices: devices, shards: true)
    assert Replicated.shape!(rep) == [6, 2]
    assert Buffer.to_list!(Replicated.shard!(rep, 1)) == [[2, 12], [3, 13]]

    assert Replicated.gather!(rep) ==
             for([a, b] <- rows, into: <<>>, do: <<a::16-native, b::16-native>>)

    assert for(d <- devices, do: elem(live(d), 0)) |> Enum.all?(&(&1 >= 8))
    assert Replicated.devices!(rep) == devices

    refused(Replicated.new([7, 2], :u8, devices: devices, shards: true), :invalid_argument,
      says: "divide"
    )

    refused(Replicated.new([], :u8, devices: devices, shards: true), :invalid_argument)
    assert {:ok, _} = Replicated.from([], [0, 2], :u8, devices: devices, shards: true)
  end

  test "where one device has no room, all keep what they had, and the error names it", %{
    devices: devices
  } do
    [_, second, _] = devices
    rep = Replicated.from!(:binary.copy(<<1>>, 10_000), [10_000], :u8, devices: devices)
    before = Map.new(devices, &{&1, settled(&1)})
    Memory.set_limit(elem(before[second], 0) + 100, device: second)
    error = refused(Replicated.write(rep, :binary.copy(<<2>>, 10_000)), :limit_exceeded)
    assert error.details.device == second
    assert Exception.message(error) =~ "vulkan:12" or second != {:vulkan, 12}
    assert Replicated.read!(rep) == List.duplicate(:binary.copy(<<1>>, 10_000), 3)
    for device <- devices, do: eventually(before[device], device)
    Memory.set_limit(nil, device: second)
    assert Replicated.write(rep, :binary.copy(<<2>>, 10_000)) == :ok
    assert Replicated.read!(rep, 1) == :binary.copy(<<2>>, 10_000)
    for device <- devices, do: eventually(before[device], device)
    assert Replicated.shape!(rep) == [10_000]
  end

  test "a lost device answers for itself, the others go on", %{devices: devices} do
    rep = Replicated.from!([1, 2], [2], :u8, devices: devices)
    [first, second, third] = devices
    :ok = Device.reset(second)
    error = refused(Replicated.read(rep), :device_lost)
    assert error.details.device == second
    assert reason(Replicated.read(rep, 1)) == :device_lost
    assert {Replicated.read!(rep, 0), Replicated.read!(rep, 2)} == {<<1, 2>>, <<1, 2>>}
    error = refused(Replicated.write(rep, [3, 4]), :device_lost)
    assert error.details.device == second
    assert {Replicated.read!(rep, 0), Replicated.read!(rep, 2)} == {<<1, 2>>, <<1, 2>>}
    assert Replicated.write(rep, [5, 6], 2) == :ok
    assert {:ok, again} = Replicated.from([7], [1], :u8, devices: [first, second, third])
    assert Replicated.read!(again, 1) == <<7>>
  end

  test "the adapters are the default devices", %{devices: devices} do
    assert Replicated.devices!(Replicated.new!([1], :u8, devices: devices)) == devices
    default = Device.adapters!()
    assert Replicated.devices!(Replicated.new!([1], :u8)) == default
    assert default != [] and default != devices
    assert Enum.all?(default, &(&1 not in devices))
    assert Enum.all?(default, &(Device.info!(&1).adapter == &1))

    for bad <- [:junk, [], hd(devices), [1 | 2], devices ++ [hd(devices)]],
        do:
          refused(Replicated.new([1], :u8, devices: bad), :invalid_argument,
            says: "different devices"
          )

    refused(Replicated.new([1], :u8, context: devices), :invalid_argument, says: ":context")
  end

  test "lists of devices that make no sense", %{devices: [first | _] = devices} do
    for list <- [[], [first, first], :junk, [first | second_of(devices)], first],
        do: refused(Replicated.new([1], :u8, devices: list), :invalid_argument)

    assert reason(Replicated.new([1], :u8, devices: [first, {:vulkan, 777}])) == :unknown_device
    assert reason(Replicated.new([1], :u8, devices: [first, :junk])) == :unknown_device
    rep = Replicated.from!([1], [1], :u8, devices: devices)

    for index <- [3, 100, Integer.pow(2, 63)],
        do: refused(Replicated.read(rep, index), :out_of_bounds)

    for index <- [-1, 1.5, :a, nil],
        do: refused(Replicated.write(rep, [1], index), :invalid_argument)

    for data <- [[1, 2], [[1]], <<1, 2>>],
        do: assert(reason(Replicated.write(rep, data)) in [:shape_mismatch, :invalid_value])

    for data <- [nil, %{}, 5],
        do: assert(reason(Replicated.write(rep, data)) == :invalid_argument)

    refused(Replicated.write(rep, [300]), :invalid_value, details: %{index: 0})

    for junk <- [
          nil,
          %{rep | buffers: []},
          %{rep | buffers: [1]},
          %{rep | shape: 1},
          %{rep | dtype: :u16}
        ],
        call <- [
          &Replicated.read/1,
          &Replicated.write(&1, [1]),
          &Replicated.gather/1,
          &Replicated.shard(&1, 0)
        ],
        do: refused(call.(junk), :invalid_argument)

    assert Replicated.read!(rep) == [<<1>>, <<1>>, <<1>>]
  end

  defp second_of([_, second | _]), do: second

  test "processes that write at once leave one content, and readers see one write", %{
    devices: devices
  } do
    for shards <- [false, true] do
      rep =
        Replicated.from!(:binary.copy(<<0>>, 999), [999], :u8, devices: devices, shards: shards)

      # The same replicas, with the devices in another order.
      other = %{rep | buffers: Enum.reverse(rep.buffers)}

      writers =
        for value <- 1..6 do
          Task.async(fn ->
            to = if rem(value, 2) == 0, do: rep, else: other
            for _ <- 1..100, do: :ok = Replicated.write(to, :binary.copy(<<value>>, 999))
          end)
        end

      readers =
        for to <- [rep, other] do
          Task.async(fn ->
            for _ <- 1..200 do
              bytes = to |> Replicated.read!() |> IO.iodata_to_binary()
              assert bytes == :binary.copy(binary_part(bytes, 0, 1), byte_size(bytes))
            end
          end)
        end

      Task.await_many(writers ++ readers, :infinity)
      assert [_] = rep |> Replicated.read!() |> Enum.map(&binary_part(&1, 0, 1)) |> Enum.uniq()
    end
  end

  test "a replica that was given back keeps all others as they were", %{
    devices: [first, second, _]
  } do
    {:ok, pool} = ExCubecl.Pool.start_link(shape: [2], dtype: :u8, device: second)
    lent = ExCubecl.Pool.checkout!(pool)
    rep = Replicated.from!([1, 2], [2], :u8, devices: [first])
    ExCubecl.Pool.checkin(pool, lent)
    mixed = %{rep | buffers: rep.buffers ++ [lent]}
    refused(Replicated.write(mixed, [3, 4]), :stale)
    assert Replicated.read!(rep) == [<<1, 2>>]
    assert reason(Replicated.read(mixed)) == :stale
  end

  test "three devices under load, with an exact account on each", %{devices: devices} do
    for device <- devices, do: Memory.trim!(device: device)
    before = Map.new(devices, &{&1, settled(&1)})

    1..12
    |> Enum.map(fn i ->
      Task.async(fn ->
        rep = Replicated.new!([50_000], :u8, devices: Enum.shuffle(devices))

        for round <- 1..10 do
          data = :binary.copy(<<i * 10 + round>>, 50_000)
          Replicated.write!(rep, data)
          assert Replicated.read!(rep) == [data, data, data]
          other = Buffer.transfer!(Replicated.shard!(rep, 0), Enum.random(devices))
          assert Buffer.read!(other) == data
        end
      end)
    end)
    |> Task.await_many(:infinity)

    for device <- devices, do: eventually(before[device], device)
  end
end
