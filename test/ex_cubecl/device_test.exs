defmodule ExCubecl.DeviceTest do
  # Listing devices, selecting one, and removing one.
  use ExCubecl.Case, async: false

  setup do
    env = System.get_env("EX_CUBECL_DEVICE")

    on_exit(fn ->
      Application.delete_env(:ex_cubecl, :default_device)

      if env,
        do: System.put_env("EX_CUBECL_DEVICE", env),
        else: System.delete_env("EX_CUBECL_DEVICE")
    end)

    {:ok, id} = Device.default()
    %{id: id}
  end

  test "every device says what it is" do
    {:ok, devices} = ExCubecl.devices()
    assert ExCubecl.device_count() == {:ok, length(devices)}

    for device <- devices do
      assert elem(device.id, 0) == device.runtime
      assert device.kind in [:discrete_gpu, :integrated_gpu, :virtual_gpu, :cpu, :other]
      assert device.name =~ ~r/\S/ and device.driver =~ ~r/\S/
      assert device.max_buffer_size > 1_000_000 and :f32 in device.dtypes
      assert device.max_buffers in 4..64
      if device.name =~ "llvmpipe", do: assert(device.kind == :cpu)
    end
  end

  test "the environment comes before the configuration, and that before the best device", %{
    id: {runtime, index} = id
  } do
    System.delete_env("EX_CUBECL_DEVICE")
    Application.put_env(:ex_cubecl, :default_device, {:vulkan, 77})
    assert reason(Device.default()) == :unknown_device
    refute ExCubecl.available?()
    assert reason(ExCubecl.buffer([1], [1], :u8)) == :unknown_device
    System.put_env("EX_CUBECL_DEVICE", "#{runtime}:#{index}")
    assert Device.default() == {:ok, id}
    assert {:ok, _} = ExCubecl.buffer([1], [1], :u8)
    System.put_env("EX_CUBECL_DEVICE", "nonsense")
    assert reason(Device.default()) == :unknown_device
    refute ExCubecl.available?()
  end

  test "calls without a device keep the default device until it is looked up again", %{
    id: {runtime, _} = id
  } do
    {:ok, other} = Device.open(id, as: {runtime, 1041})
    assert Device.default() == {:ok, id}
    System.put_env("EX_CUBECL_DEVICE", "#{runtime}:1041")
    assert Buffer.zeros!([1], :u8).device == id
    assert Device.default() == {:ok, other.id}
    assert Buffer.zeros!([1], :u8).device == other.id

    # Each of these may change what the name stands for.
    System.delete_env("EX_CUBECL_DEVICE")
    assert Device.reset(other) == :ok
    assert Buffer.zeros!([1], :u8).device == id
    Application.put_env(:ex_cubecl, :default_device, other.id)
    assert Buffer.zeros!([1], :u8).device == id
    {:ok, third} = Device.open(id, as: {runtime, 1042})
    assert Buffer.zeros!([1], :u8).device == other.id
    :erlang.garbage_collect()
    until(fn -> Device.remove(other) == :ok end)
    assert reason(Buffer.zeros([1], :u8)) == :unknown_device
    assert reason(Device.default()) == :unknown_device
    Application.delete_env(:ex_cubecl, :default_device)
    assert Buffer.zeros!([1], :u8).device == id
    assert Device.remove(third) == :ok
  end

  test "a default device that is gone is looked up again after one error", %{
    id: {runtime, _} = id
  } do
    {:ok, other} = Device.open(id, as: {runtime, 1043})
    System.put_env("EX_CUBECL_DEVICE", "#{runtime}:1043")
    assert Device.default() == {:ok, other.id}
    System.delete_env("EX_CUBECL_DEVICE")
    # As if its removal and the lookup of another process had crossed.
    {:ok, :ok} = ExCubecl.Native.device_remove(other.id)
    assert reason(Buffer.zeros([1], :u8)) == :unknown_device
    assert Buffer.zeros!([1], :u8).device == id
  end

  test "ids, strings and devices name the same device", %{id: {runtime, index} = id} do
    {:ok, device} = Device.info(id)

    for name <- [id, "#{runtime}:#{index}", device, nil],
        do: assert(ExCubecl.buffer!([1], [1], :u8, device: name).device == id)
  end

  test "a name longer than any device's is not looked into", %{id: {runtime, index}} do
    long = "#{runtime}:" <> String.duplicate("0", 10_000_000) <> "#{index}"
    assert reason(Device.info(long)) == :unknown_device
    assert byte_size(Exception.message(elem(Device.info(long), 1))) < 1_000
  end

  test "device_info is about the default device", %{id: {runtime, _} = id} do
    assert {:ok, %{id: ^id, backend: ^runtime, total_memory: _}} = ExCubecl.device_info()
  end

  test "after a reset old buffers say so in every call, and new ones work", %{id: id} do
    buffer = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
    view = Buffer.view!(buffer, 0, [1])
    assert Device.reset(id) == :ok

    for old <- [buffer, view] do
      for call <- [:read, :to_list, :duplicate, :ensure_allocated, :read_async, :synchronize],
          do: assert(reason(apply(Buffer, call, [old])) == :device_lost)

      assert reason(Buffer.write(old, [1.0], offset: 0)) == :device_lost
      assert reason(Buffer.fill(old, 1)) == :device_lost
      assert reason(Buffer.convert(old, :u8)) == :device_lost
      assert reason(Buffer.copy(old, Buffer.zeros!(old.shape, :f32))) == :device_lost
      assert reason(Buffer.copy(Buffer.zeros!(old.shape, :f32), old)) == :device_lost
      assert inspect(old) =~ "device lost"
    end

    assert {:ok, new} = ExCubecl.buffer([1.0, 2.0], [2], :f32)
    eventually({8, 1})
    assert ExCubecl.to_list!(new) == [1.0, 2.0]
  end

  test "a logical device has an account and an end of its own" do
    {runtime, _} = adapter = ExCubecl.default_device!()
    {:ok, device} = Device.open(adapter, as: {runtime, 21})
    assert {:ok, %{adapter: ^adapter, kind: kind}} = Device.info({runtime, 21})
    assert {:ok, %{kind: ^kind}} = Device.info(adapter)
    kept = ExCubecl.buffer!([1, 2], [2], :u8, device: device)
    {before, _} = settled()
    other = ExCubecl.buffer!([3, 4, 5], [3], :u8)
    assert Memory.usage!(device: device).live_bytes == 2
    assert Memory.usage!(device: adapter).live_bytes == before + 3
    assert Device.reset(device) == :ok
    assert reason(ExCubecl.read(kept)) == :device_lost
    assert ExCubecl.read!(other) == <<3, 4, 5>>
    assert ExCubecl.default_device!() == adapter
    assert ExCubecl.buffer!([6], [1], :u8, device: "#{runtime}:21").device == {runtime, 21}
  end

  test "ids that cannot be those of another device" do
    {runtime, _} = adapter = ExCubecl.default_device!()
    assert reason(Device.open(adapter, as: adapter)) == :invalid_argument
    wrong = if runtime == :cuda, do: :vulkan, else: :cuda
    assert reason(Device.open(adapter, as: {wrong, 5})) == :invalid_argument
    assert reason(Device.open({runtime, 999}, as: {runtime, 5})) == :unknown_device

    for junk <- [nil, :a, {runtime, -1}, {runtime, 1.5}, {:gl, 1}, "vulkan:5"],
        do: assert(reason(Device.open(adapter, as: junk)) == :invalid_argument)

    assert reason(Device.open(adapter, [])) == :invalid_argument
    assert reason(Device.open(adapter, on: 1)) == :invalid_argument
  end

  test "a logical device is removed, and there are so many at most" do
    {runtime, _} = adapter = ExCubecl.default_device!()
    device = Device.open!(adapter, as: {runtime, 23})
    kept = ExCubecl.buffer!([1, 2], [2], :u8, device: device)
    {:error, error} = Device.remove(device)

    details = %{device: device.id, live_buffers: 1, function: :remove}
    assert {error.reason, error.details} == {:device_in_use, details}

    assert Exception.message(error) ==
             "remove: one buffer lives on #{runtime}:23: drop it first, or discard it with ExCubecl.Device.reset/1"

    assert_raise Error, fn -> Device.remove!(device) end
    assert ExCubecl.read!(kept) == <<1, 2>>
    assert Device.reset!(device) == :ok
    assert Device.remove!("#{runtime}:23") == :ok
    assert reason(ExCubecl.read(kept)) == :device_lost
    assert reason(ExCubecl.buffer([1], [1], :u8, device: device)) == :unknown_device
    assert reason(Device.remove(device)) == :unknown_device
    refute device.id in Enum.map(Device.list!(), & &1.id)
    {:error, error} = Device.remove(adapter)

    assert Exception.message(error) ==
             "remove: #{runtime}:#{elem(adapter, 1)} is an adapter of this machine: only logical devices of " <>
               "ExCubecl.Device.open/2 can be removed"

    # The id can be used again.
    again = Device.open!(adapter, as: {runtime, 23})
    assert ExCubecl.read!(ExCubecl.buffer!([3], [1], :u8, device: again)) == <<3>>

    {added, [full]} =
      6000..6100
      |> Enum.map(&Device.open(adapter, as: {runtime, &1}))
      |> Enum.uniq_by(&(elem(&1, 0) == :ok && elem(&1, 1).id))
      |> Enum.split_with(&match?({:ok, _}, &1))

    assert reason(full) == :limit_exceeded

    assert Exception.message(elem(full, 1)) ==
             "open: there are 64 logical devices already: remove one with ExCubecl.Device.remove/1 first"

    for {:ok, device} <- added, do: assert(Device.remove(device) == :ok)
  end

  test "a transfer brings the bytes to another device" do
    {runtime, _} = one = ExCubecl.default_device!()
    {:ok, other} = Device.open(one, as: {runtime, 22})
    data = :crypto.strong_rand_bytes(1_000_001)
    buffer = ExCubecl.buffer!(data, [1_000_001], :u8, device: one)
    copy = Buffer.transfer!(Buffer.view!(buffer, 1, [1_000_000]), other)
    assert copy.device == other.id
    assert ExCubecl.read!(copy) == binary_part(data, 1, 1_000_000)
  end

  @tag :cuda
  test "a CUDA buffer has an address" do
    assert {:ok, address} = Buffer.pointer(Buffer.zeros!([1], :f32))
    assert rem(address, 256) == 0
  end

  @tag :cuda
  test "elements are copied from an address that CUDA knows, and from no other" do
    source = ExCubecl.buffer!([1, 2, 3, 4], [4], :s32)
    address = Buffer.pointer!(Buffer.view!(source, 1, [3]))
    target = Buffer.empty!([3], :s32)
    assert Buffer.copy_from_pointer(target, address) == :ok
    assert ExCubecl.to_list!(target) == [2, 3, 4]

    for bad <- [0, 16, 0xFFFF_FFFF_FFFF_FFFF],
        do: assert(reason(Buffer.copy_from_pointer(target, bad)) == :invalid_argument)

    assert ExCubecl.to_list!(target) == [2, 3, 4]
  end
end
