# What a buffer costs against plain Elixir, on this machine: make bench
#
# Both sides of a row take turns in the same process, so that a machine that slows down slows both.
# A sample is as many calls as take 2 ms, at least one; garbage is collected between samples, not
# within them; a row shows medians.

defmodule Bench do
  alias ExCubecl.Buffer

  @rounds 31
  @sample_ns 2_000_000

  def run do
    {:ok, device} = ExCubecl.Device.info(nil)
    IO.puts("#{cpu()}, #{System.schedulers_online()} schedulers")
    IO.puts("Elixir #{System.version()}, OTP #{System.otp_release()}")
    IO.puts("device #{inspect(device.id)} #{device.name}, #{device.kind}\n")
    line("", "ExCubecl", "compared with", "", "ratio")

    list()

    for {name, bytes} <- [{"4 KiB", 4096}, {"1 MiB", 1_048_576}, {"64 MiB", 67_108_864}],
        do: transfer(name, bytes)

    handles()

    IO.puts("\nratio: how many times as fast as what it is compared with")
  end

  defp list do
    numbers = for i <- 1..1_000_000, do: i / 3

    row(
      "list of 1,000,000 floats to f32",
      fn -> Buffer.synchronize(ExCubecl.buffer!(numbers, [1_000_000], :f32)) end,
      "for, into: <<>>",
      fn -> for x <- numbers, into: <<>>, do: <<x::float-32-native>> end
    )
  end

  defp transfer(name, bytes) do
    data = :binary.copy(:rand.bytes(4096), div(bytes, 4096))
    buffer = ExCubecl.buffer!(data, [bytes], :u8)
    if ExCubecl.read!(buffer) != data, do: raise("the device returned other bytes")
    copy = fn -> :binary.copy(data) end

    # Synchronized, so that the bytes have arrived and are not just queued.
    upload = fn -> Buffer.synchronize(ExCubecl.buffer!(data, [bytes], :u8)) end
    row("upload #{name}", upload, ":binary.copy/1", copy)
    row("read #{name}", fn -> ExCubecl.read!(buffer) end, ":binary.copy/1", copy)
  end

  defp handles do
    data = :binary.copy(<<1>>, 4096)
    buffer = ExCubecl.buffer!(data, [4096], :u8)

    row("view", fn -> Buffer.view(buffer, 256, [1024]) end, "binary_part/3", fn ->
      binary_part(data, 256, 1024)
    end)

    for call <- [:shape, :dtype, :size] do
      fun = Function.capture(ExCubecl, call, 1)
      row("#{call}", fn -> fun.(buffer) end, "byte_size/1", fn -> byte_size(data) end)
    end
  end

  defp row(name, ours, baseline_name, baseline) do
    ours_calls = calls(ours, 1)
    baseline_calls = calls(baseline, 1)

    {ours, baseline} =
      1..@rounds
      |> Enum.map(fn _ -> {sample(ours, ours_calls), sample(baseline, baseline_calls)} end)
      |> Enum.unzip()

    {ours, baseline} = {median(ours), median(baseline)}
    line(name, time(ours), baseline_name, time(baseline), Float.round(baseline / ours, 2))
  end

  defp calls(fun, calls) do
    if sample(fun, calls) * calls >= @sample_ns, do: calls, else: calls(fun, calls * 2)
  end

  # Nanoseconds a call.
  defp sample(fun, calls) do
    :erlang.garbage_collect()
    :erlang.yield()
    start = System.monotonic_time(:nanosecond)
    repeat(fun, calls)
    (System.monotonic_time(:nanosecond) - start) / calls
  end

  defp repeat(_fun, 0), do: :ok

  defp repeat(fun, calls) do
    fun.()
    repeat(fun, calls - 1)
  end

  defp median(samples), do: samples |> Enum.sort() |> Enum.at(div(@rounds, 2))

  defp time(ns) when ns >= 1.0e6, do: "#{Float.round(ns / 1.0e6, 2)} ms"
  defp time(ns) when ns >= 1.0e3, do: "#{Float.round(ns / 1.0e3, 2)} us"
  defp time(ns), do: "#{Float.round(ns, 1)} ns"

  defp line(name, ours, baseline_name, baseline, ratio) do
    IO.puts(
      String.pad_trailing(name, 33) <>
        String.pad_leading(ours, 10) <>
        "   " <>
        String.pad_trailing(baseline_name, 16) <>
        String.pad_leading(baseline, 10) <>
        String.pad_leading("#{ratio}", 9)
    )
  end

  # Linux names the processor in a file that other systems, and some architectures, lack.
  defp cpu do
    with {:ok, text} <- File.read("/proc/cpuinfo"),
         [_, model] <- Regex.run(~r/^model name\s*: (.*)$/m, text) do
      model
    else
      _ -> to_string(:erlang.system_info(:system_architecture))
    end
  end
end

Bench.run()
