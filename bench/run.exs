# Compares the cost of buffers with plain Elixir, raw wgpu and plain CubeCL, on this machine: make bench
#
# native/peers measures the peers in Rust just before, one after the other, also as medians.
# The table is written to bench/results/table.txt and its chart to bench/results/table.svg.
#
# Both sides of a row take turns in the same process, so that a machine that slows down slows both.
# A sample is as many calls as take 2 ms, at least one. Garbage is collected between samples, not
# within them. A row shows medians.

defmodule Bench do
  alias ExCubecl.{Batch, Buffer, Ops, Replicated}

  require ExCubecl.Kernel

  @peers Path.expand("../target/release/peers", __DIR__)
  @results Path.expand("results", __DIR__)
  @ratios Path.join(@results, "ratios.tsv")
  @rounds 31
  @sample_ns 2_000_000

  def run do
    {:ok, device} = ExCubecl.Device.info(nil)
    File.mkdir_p!(@results)
    File.rm(@ratios)
    Process.put(:table, [])
    peers = peers()
    say("#{cpu()}, #{System.schedulers_online()} schedulers")
    say("Elixir #{System.version()}, OTP #{System.otp_release()}")
    say("device #{inspect(device.id)} #{device.name}, #{device.kind}\n")
    line("", "ExCubecl", "compared with", "", "ratio")

    list()

    for {name, bytes} <- [
          {"1 KiB", 1024},
          {"4 KiB", 4096},
          {"1 MiB", 1_048_576},
          {"64 MiB", 67_108_864}
        ],
        do: transfer(name, bytes, peers)

    for live <- [1_000, 10_000, 60_000], do: create(live, peers)
    crowd()
    reuse()
    handles()
    replicas()
    convert()
    kernels(peers)
    windows()
    operations()
    processes()
    heartbeats()
    growth()
    say("\nratio: how many times as fast as what it is compared with")

    File.write!(
      Path.join(@results, "table.txt"),
      Process.get(:table) |> Enum.reverse() |> Enum.join()
    )

    {_, 0} = System.cmd(@peers, ["plot", @ratios, Path.join(@results, "table.svg")])
  end

  # Medians in nanoseconds of raw wgpu and plain CubeCL.
  defp peers do
    {out, 0} = System.cmd(@peers, ["measure"], stderr_to_stdout: false)

    for line <- String.split(out, "\n", trim: true), into: %{} do
      [key, microseconds] = String.split(line, "\t")
      {key, 1000 * String.to_float(microseconds)}
    end
  end

  defp list do
    numbers = for i <- 1..1_000_000, do: i / 3
    upload = fn -> Buffer.synchronize(ExCubecl.buffer!(numbers, [1_000_000], :f32)) end

    row("list of 1,000,000 floats to f32", upload, "for, into: <<>>", fn ->
      for x <- numbers, into: <<>>, do: <<x::float-32-native>>
    end)

    buffer = ExCubecl.buffer!(numbers, [1_000_000], :f32)
    download = fn -> ExCubecl.to_flat_list!(buffer) end

    row("f32 to list of 1,000,000 floats", download, "for <<x <- ...>>", fn ->
      for <<x::float-32-native <- ExCubecl.read!(buffer)>>, do: x
    end)

    if Code.ensure_loaded?(Nx), do: nx(numbers, upload, download)
  end

  defp nx(numbers, upload, download) do
    backend = [type: :f32, backend: Nx.BinaryBackend]
    tensor = apply(Nx, :tensor, [numbers, backend])

    row("list of 1,000,000 floats to f32", upload, "Nx.tensor/2", fn ->
      apply(Nx, :tensor, [numbers, backend])
    end)

    row("f32 to list of 1,000,000 floats", download, "Nx.to_flat_list/1", fn ->
      apply(Nx, :to_flat_list, [tensor])
    end)
  end

  defp transfer(name, bytes, peers) do
    data = :binary.copy(:rand.bytes(1024), div(bytes, 1024))
    buffer = ExCubecl.buffer!(data, [bytes], :u8)
    if ExCubecl.read!(buffer) != data, do: raise("the device returned other bytes")
    copy = fn -> :binary.copy(data) end

    # Synchronized, so that the bytes have arrived on the device and are not only queued.
    upload = fn -> Buffer.synchronize(ExCubecl.buffer!(data, [bytes], :u8)) end
    row("upload #{name}", upload, ":binary.copy/1", copy)
    peer("upload #{name}", upload, "plain CubeCL", peers["cubecl upload #{name}"])

    # wgpu is measured with an existing buffer, so this is too.
    write = fn -> Buffer.write!(buffer, data) && Buffer.synchronize(buffer) end
    peer("write in place #{name}", write, "raw wgpu", peers["raw upload #{name}"])

    row("read #{name}", fn -> ExCubecl.read!(buffer) end, ":binary.copy/1", copy)
    peer("read #{name}", fn -> ExCubecl.read!(buffer) end, "raw wgpu", peers["raw read #{name}"])

    peer(
      "read #{name}",
      fn -> ExCubecl.read!(buffer) end,
      "plain CubeCL",
      peers["cubecl read #{name}"]
    )

    other = Buffer.duplicate!(buffer)
    duplicate = fn -> Buffer.copy!(buffer, other) && Buffer.synchronize(other) end
    peer("copy on the device #{name}", duplicate, "raw wgpu", peers["raw copy #{name}"])
  end

  # Creates and drops one small buffer while `live` others are alive.
  defp create(live, peers) do
    data = :binary.copy(<<1>>, 256)
    kept = for _ <- 1..live, do: ExCubecl.buffer!(data, [256], :u8)
    make = fn -> ExCubecl.buffer!(data, [256], :u8) end
    peer("create beside #{live} live", make, "raw wgpu object", peers["raw create #{live}"])
    peer("create beside #{live} live", make, "plain CubeCL", peers["cubecl create #{live}"])
    ^live = length(kept)
  end

  # CubeCL's pools alias memory past 65,536 buffers: with more, only ExCubecl is measured.
  defp crowd do
    data = :binary.copy(<<1>>, 256)
    make = fn -> ExCubecl.buffer!(data, [256], :u8) end
    alone = time_of(make, @rounds)
    kept = for _ <- 1..100_000, do: ExCubecl.buffer!(data, [256], :u8)
    crowded = time_of(make, @rounds)
    ratio("create beside 100000 live", time(crowded), "beside none", time(alone), alone / crowded)
    100_000 = length(kept)
  end

  # Memory of a pool or an arena, compared with a buffer that has its own allocation.
  defp reuse do
    {:ok, pool} = ExCubecl.Pool.start_link(size: 4096, max: 1)
    arena = ExCubecl.Arena.new!(1_048_576)
    plain = fn -> Buffer.empty!([4096], :u8, lazy: false) end

    row("pool checkout and checkin", fn -> cycle(pool) end, "plain buffer", plain)

    row(
      "get_buffer and return_buffer",
      fn -> ExCubecl.Pool.return_buffer(ExCubecl.Pool.get_buffer!(4096)) end,
      "plain buffer",
      plain
    )

    row(
      "arena alloc and drop",
      fn -> ExCubecl.Arena.drop!(arena, ExCubecl.Arena.alloc!(arena, [4096], :u8)) end,
      "plain buffer",
      plain
    )
  end

  defp cycle(pool), do: ExCubecl.Pool.checkin!(pool, ExCubecl.Pool.checkout!(pool))

  defp convert do
    count = 16 * 1_048_576
    buffer = Buffer.full!([count], :f32, -7.25)

    row(
      "convert 16 Mi f32 to s32",
      fn -> buffer |> Buffer.convert!(:s32) |> Buffer.synchronize() end,
      "read, for, write",
      fn ->
        binary =
          for <<x::float-32-native <- ExCubecl.read!(buffer)>>,
            into: <<>>,
            do: <<trunc(x)::32-native>>

        Buffer.synchronize(ExCubecl.buffer!(binary, [count], :s32))
      end,
      3
    )
  end

  # The same work in a growing number of processes: how much they delay each other.
  defp processes do
    data = :binary.copy(<<7>>, 65_536)

    work = fn ->
      for _ <- 1..64, do: ^data = ExCubecl.read!(ExCubecl.buffer!(data, [65_536], :u8))
    end

    share = fn processes ->
      fn ->
        1..processes
        |> Enum.map(fn _ -> Task.async(fn -> for(_ <- 1..div(16, processes), do: work.()) end) end)
        |> Task.await_many(60_000)
      end
    end

    for processes <- [2, 4, 8, 16],
        do:
          row("1024 round trips by #{processes}", share.(processes), "by 1 process", share.(1), 5)
  end

  # Pauses of a process that wakes up every millisecond: alone, and while another process reads 64 MiB
  # in a loop.
  defp heartbeats do
    buffer = Buffer.zeros!([16 * 1_048_576], :f32)
    alone = pauses()
    reader = spawn_link(fn -> read_for_ever(buffer) end)
    beside = pauses()
    Process.unlink(reader)
    Process.exit(reader, :kill)

    for {name, rank} <- [{"a heartbeat of 1 ms", 500}, {"the longest 1 % of them", 990}] do
      [ours, theirs] = for pauses <- [beside, alone], do: Enum.at(pauses, rank)
      ratio(name, time(ours), "no 64 MiB reader", time(theirs), theirs / ours)
    end
  end

  defp read_for_ever(buffer) do
    67_108_864 = byte_size(ExCubecl.read!(buffer))
    read_for_ever(buffer)
  end

  defp pauses, do: Enum.sort(for _ <- 1..1000, do: sample(fn -> Process.sleep(1) end, 1))

  # Nanoseconds per byte as transfers grow, compared with transfers of one MiB.
  defp growth do
    round_trip = fn bytes ->
      data = :binary.copy(<<7>>, bytes)
      fn -> ^data = ExCubecl.read!(ExCubecl.buffer!(data, [bytes], :u8)) end
    end

    base = time_of(round_trip.(1_048_576), 15) / 1_048_576

    for {name, bytes} <- [
          {"1 KiB", 1024},
          {"16 KiB", 16_384},
          {"256 KiB", 262_144},
          {"16 MiB", 16_777_216},
          {"128 MiB", 134_217_728}
        ] do
      cost = time_of(round_trip.(bytes), 15) / bytes

      ratio(
        "round trip a byte, #{name}",
        "#{Float.round(cost, 2)} ns",
        "at 1 MiB",
        "#{Float.round(base, 2)} ns",
        base / cost
      )
    end
  end

  defp time_of(fun, rounds) do
    calls = calls(fun, 1)
    median(for _ <- 1..rounds, do: sample(fun, calls))
  end

  defp peer(_name, _fun, _peer, nil), do: :ok

  defp peer(name, fun, peer, peer_time) do
    ours = time_of(fun, @rounds)
    ratio(name, time(ours), peer, time(peer_time), peer_time / ours)
  end

  defp ratio(name, ours, other, theirs, ratio) do
    File.write!(@ratios, "#{name}, against #{other}\t#{ratio}\n", [:append])
    line(name, ours, other, theirs, Float.round(ratio, 2))
  end

  defp say(text) do
    IO.puts(text)
    Process.put(:table, [text <> "\n" | Process.get(:table)])
  end

  # Kernels written in Elixir: 16 Mi elements, and launches with almost no work.
  defp kernels(peers) do
    count = 16 * 1_048_576
    saxpy = ExCubecl.Kernel.kernel(fn a, x, y -> a * x + y end)
    [x, y] = for _ <- 1..2, do: Buffer.iota!([count], :f32)
    out = Buffer.empty!([count], :f32)

    on_device = fn ->
      ExCubecl.Kernel.run(saxpy, [2.0, x, y], into: out)
      Buffer.synchronize!(out)
    end

    bytes = Buffer.read!(x)

    in_elixir = fn ->
      for <<n::float-32-native <- bytes>>, into: <<>>, do: <<2.0 * n + n::float-32-native>>
    end

    peer("kernel a * x + y, 16 Mi f32", on_device, "WGSL by hand", peers["raw saxpy"])
    row("kernel a * x + y, 16 Mi f32", on_device, "for, into: <<>>", in_elixir, 3)
    sum = fn -> ExCubecl.item!(Ops.sum!(x)) end
    row("sum of 16 Mi f32", sum, "binary loop", fn -> sum_of(bytes, 0.0) end, 3)

    [m, n] = for seed <- 1..2, do: Ops.random_uniform!([1024, 1024], seed)
    product = fn -> Buffer.synchronize!(Ops.matmul!(m, n)) end
    peer("product of 1024 x 1024 f32", product, "cubek by itself", peers["cubecl matmul"])

    [a, b] = for seed <- 3..4, do: Ops.random_uniform!([16, 128, 128], seed)
    stacks = fn -> Buffer.synchronize!(Ops.matmul!(a, b)) end

    one_by_one = fn ->
      for at <- 0..15 do
        [x, y] = for stack <- [a, b], do: Buffer.view!(stack, at * 128 * 128, [128, 128])
        Buffer.synchronize!(Ops.matmul!(x, y))
      end
    end

    row("16 products of 128 x 128 f32", stacks, "one by one", one_by_one, 9)
    by_vector = fn -> Buffer.synchronize!(Ops.matmul!(m, Buffer.view!(n, 0, [1024]))) end
    row("1024 x 1024 times a vector", by_vector, "sum", fn -> ExCubecl.item!(Ops.sum!(m)) end)
    softmax = fn -> Buffer.synchronize!(Ops.softmax!(m)) end

    composed = fn ->
      exp = Ops.exp!(Ops.subtract!(m, Ops.reduce_max!(m, axis: 1, keep_axes: true)))
      Buffer.synchronize!(Ops.divide!(exp, Ops.sum!(exp, axis: 1, keep_axes: true)))
    end

    row("softmax of 1024 x 1024 f32", softmax, "five operations", composed, 15)

    next = ExCubecl.Kernel.kernel(fn a, b -> b[index()] = a[index()] + 1 end)
    [a, b] = for _ <- 1..2, do: Buffer.zeros!([100], :s32)
    launch = fn -> ExCubecl.Kernel.run(next, [a, b]) end
    batch = Enum.reduce(1..100, Batch.new(), fn _, batch -> Batch.run(batch, next, [a, b]) end)
    calls = fn -> for _ <- 1..100, do: launch.() end
    submit = fn -> Batch.submit!(batch) end
    done = fn work -> fn -> work.() && Buffer.synchronize!(b) end end
    settled = fn -> Buffer.synchronize!(b) end
    # The time in the caller, on an idle device, and the time until the device is done.
    row_of_single(
      "launch of a kernel, in the caller",
      launch,
      "with the device",
      done.(launch),
      settled
    )

    row_of_single("100 launches, in the caller", submit, "100 calls", calls, settled)

    row_of_single(
      "100 launches, until they are done",
      done.(submit),
      "100 calls",
      done.(calls),
      settled
    )
  end

  # A convolution does as many multiplications as the product of its windows and its kernel, and a window reads as many elements as the sum.
  defp windows do
    x = Ops.random_uniform!([8, 16, 32, 32], 1)
    kernel = Ops.random_uniform!([32, 16, 3, 3], 2)
    convolution = fn -> Buffer.synchronize!(Ops.conv!(x, kernel, padding: :same)) end
    [rows, columns] = for shape <- [[8192, 144], [144, 32]], do: Ops.random_uniform!(shape, 3)
    product = fn -> Buffer.synchronize!(Ops.matmul!(rows, columns)) end
    row("conv 8x16x32x32 f32, 32 of 3x3", convolution, "product as large", product)

    image = Ops.random_uniform!([8, 16, 128, 128], 4)
    options = [strides: [1, 1, 2, 2]]
    pool = fn -> Buffer.synchronize!(Ops.window_max!(image, [1, 1, 2, 2], options)) end
    greatest = fn -> Buffer.synchronize!(Ops.reduce_max!(image)) end
    row("window_max 8x16x128x128 f32, 2x2", pool, "reduce_max", greatest)
  end

  # Operations of ExCubecl.Ops, each compared with one that moves as many bytes.
  defp operations do
    [x, out] = for _ <- 1..2, do: Buffer.full!([2000, 2000], :f32, 1.5)
    line = Buffer.iota!([2000], :f32)
    done = fn run -> fn -> run.() && Buffer.synchronize!(out) end end

    row(
      "add [2000, 2000] + [2000]",
      done.(fn -> Ops.add(x, line, into: out) end),
      "of one shape",
      done.(fn -> Ops.add(x, x, into: out) end)
    )

    copy = done.(fn -> Buffer.copy(x, out) end)
    row("transpose 2000 x 2000", done.(fn -> Ops.transpose!(x) end), "copy", copy)
    row("copy by a kernel 2000 x 2000", done.(fn -> Ops.abs(x, into: out) end), "copy", copy)

    square = Buffer.full!([4096, 4096], :f32, 1.5)
    sums = Buffer.zeros!([4096 * 64], :f32)
    reader = ExCubecl.Kernel.source!(wgsl: reading())
    read = done.(fn -> ExCubecl.Kernel.run!(reader, [square, sums], groups: 1024) end)

    for {name, run} <- [
          {"sum", fn -> Ops.sum!(square) end},
          {"sum, axis 0", fn -> Ops.sum!(square, axis: 0) end},
          {"sum, axis 1", fn -> Ops.sum!(square, axis: 1) end},
          {"maximum", fn -> Ops.reduce_max!(square) end},
          {"argmax", fn -> Ops.argmax!(square) end}
        ],
        do: row("#{name} of 4096 x 4096 f32", done.(run), "a WGSL reader", read)
  end

  # Each invocation adds up 64 elements.
  defp reading do
    """
    @group(0) @binding(0) var<storage, read> x: array<f32>;
    @group(0) @binding(1) var<storage, read_write> sums: array<f32>;

    @compute @workgroup_size(256)
    fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      var sum = 0.0;
      for (var j = 0u; j < 64u; j++) { sum += x[id.x * 64u + j]; }
      sums[id.x] = sum;
    }
    """
  end

  defp sum_of(<<n::float-32-native, rest::binary>>, sum), do: sum_of(rest, sum + n)
  defp sum_of(<<>>, sum), do: sum

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

  # The same content on three logical devices of one adapter, compared with one of them.
  defp replicas do
    {runtime, _} = adapter = ExCubecl.default_device!()
    bytes = 67_108_864
    data = :binary.copy(<<7>>, bytes)

    devices =
      for index <- 31..33 do
        {:ok, device} = ExCubecl.Device.open(adapter, as: {runtime, index})
        device.id
      end

    write = fn count ->
      rep = Replicated.from!(data, [bytes], :u8, devices: Enum.take(devices, count))

      fn ->
        Replicated.write!(rep, data)
        for index <- 1..count, do: Buffer.synchronize(Replicated.shard!(rep, index - 1))
      end
    end

    row("write 64 MiB to three devices", write.(3), "to one", write.(1), 9)
  end

  defp row(name, ours, baseline_name, baseline, rounds \\ @rounds) do
    ours_calls = calls(ours, 1)
    baseline_calls = calls(baseline, 1)

    {ours, baseline} =
      1..rounds
      |> Enum.map(fn _ -> {sample(ours, ours_calls), sample(baseline, baseline_calls)} end)
      |> Enum.unzip()

    {ours, baseline} = {median(ours), median(baseline)}
    ratio(name, time(ours), baseline_name, time(baseline), baseline / ours)
  end

  # One call at a time, each after `settle`.
  defp row_of_single(name, ours, baseline_name, baseline, settle) do
    single = fn fun ->
      settle.()
      sample(fun, 1)
    end

    samples = for _ <- 1..101, do: {single.(ours), single.(baseline)}
    {ours, baseline} = Enum.unzip(samples)
    {ours, baseline} = {median(ours), median(baseline)}
    ratio(name, time(ours), baseline_name, time(baseline), baseline / ours)
  end

  defp calls(fun, calls) do
    if sample(fun, calls) * calls >= @sample_ns, do: calls, else: calls(fun, calls * 2)
  end

  # Nanoseconds per call.
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

  defp median(samples), do: samples |> Enum.sort() |> Enum.at(div(length(samples), 2))

  defp time(ns) when ns >= 1.0e6, do: "#{Float.round(ns / 1.0e6, 2)} ms"
  defp time(ns) when ns >= 1.0e3, do: "#{Float.round(ns / 1.0e3, 2)} us"
  defp time(ns), do: "#{Float.round(ns, 1)} ns"

  defp line(name, ours, baseline_name, baseline, ratio) do
    say(
      String.pad_trailing(name, 33) <>
        String.pad_leading(ours, 10) <>
        "   " <>
        String.pad_trailing(baseline_name, 16) <>
        String.pad_leading(baseline, 10) <>
        String.pad_leading("#{ratio}", 9)
    )
  end

  # The processor's name from a file that exists on Linux only, and not on all architectures.
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
