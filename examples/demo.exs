# Buffers on a real device, step by step: make demo

defmodule Demo do
  def run do
    title("Devices")
    Enum.each(ExCubecl.devices!(), &device/1)
    IO.puts("  used here: #{inspect(ExCubecl.default_device!())}")
    memory("Memory before")

    hold(create())

    # No term refers to the buffers any more. They are freed when this process has collected its
    # garbage and yielded, without a call of a `free` function.
    :erlang.garbage_collect()
    Process.sleep(50)
    memory("Memory after garbage collection")

    title("An error")
    {:error, error} = ExCubecl.buffer([0, 128, 256], [3], :u8)
    IO.puts("  #{inspect(error.reason)}: #{Exception.message(error)}")
  end

  defp create do
    f32 = fn numbers -> for x <- numbers, into: <<>>, do: <<x::float-32-native>> end
    s32 = fn numbers -> for x <- numbers, into: <<>>, do: <<x::32-native>> end

    title("Buffers, each read back from the device")
    {:ok, vector} = ExCubecl.buffer([1.0, 2.0, 3.0, 4.0], [4], :f32)
    show(vector, f32.([1.0, 2.0, 3.0, 4.0]))

    {:ok, matrix} = ExCubecl.buffer([1.0, 2.0, 3.0, 4.0], [2, 2], :f32)
    show(matrix, f32.([1.0, 2.0, 3.0, 4.0]))
    IO.puts("    as a list: #{inspect(ExCubecl.to_list!(matrix))}")

    {:ok, image} = ExCubecl.buffer(List.duplicate(0.0, 1080 * 1920 * 3), [1080, 1920, 3], :f32)
    show(image, :binary.copy(f32.([0.0]), 1080 * 1920 * 3))

    {:ok, integers} = ExCubecl.buffer([10, 20, 30], [3], :s32)
    show(integers, s32.([10, 20, 30]))

    {:ok, bytes} = ExCubecl.buffer([0, 128, 255], [3], :u8)
    show(bytes, <<0, 128, 255>>)

    [vector, matrix, image, integers, bytes]
  end

  defp hold(buffers) do
    memory("Memory while they are held")
    IO.puts("  held: #{length(buffers)}")
  end

  defp device(device) do
    IO.puts("  #{inspect(device.id)} #{device.name}, #{device.kind}, driver #{device.driver}")
  end

  defp show(buffer, expected) do
    {:ok, shape} = ExCubecl.shape(buffer)
    {:ok, dtype} = ExCubecl.dtype(buffer)
    {:ok, size} = ExCubecl.size(buffer)
    {:ok, data} = ExCubecl.read(buffer)
    if data != expected, do: raise("the device returned other bytes than it was given")

    IO.puts("  #{inspect(buffer)}")
    IO.puts("    shape #{inspect(shape)}, dtype #{dtype}, #{size} bytes, read back unchanged")
  end

  defp memory(name) do
    {:ok, usage} = ExCubecl.Memory.usage()
    title(name)
    IO.puts("  live: #{usage.live_buffers} buffers, #{usage.live_bytes} bytes")
  end

  defp title(text), do: IO.puts("\n#{text}")
end

Demo.run()
