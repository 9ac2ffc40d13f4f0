defmodule ExCubecl.DocumentedErrorsTest do
  # Each reason that the documentation of a function lists is provoked, and no call here has an error whose reason is not listed.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Arena, Busy, DataFiles, DocumentedErrors, Pool, Replicated}

  # A call, and the reason of its error.
  @cases ~S'''
  ExCubecl.buffer([1], :x, :u8)  ###  invalid_shape
  ExCubecl.buffer([1], [1], :f8)  ###  unsupported_dtype
  ExCubecl.buffer([1], [2], :u8)  ###  shape_mismatch
  ExCubecl.buffer([256], [1], :u8)  ###  invalid_value
  ExCubecl.buffer(nil, [1], :u8)  ###  invalid_argument
  ExCubecl.buffer([1], [1], :u8, device: "cuda:99")  ###  unknown_device
  limited.(fn -> ExCubecl.buffer([1, 2], [2], :u8) end)  ###  limit_exceeded
  ExCubecl.read(lazy)  ###  not_allocated
  ExCubecl.to_list(lazy)  ###  not_allocated
  ExCubecl.to_flat_list(lazy)  ###  not_allocated
  ExCubecl.item(x)  ###  shape_mismatch
  ExCubecl.devices(nodes: [:nobody@nowhere])  ###  node_down
  ExCubecl.run_kernel("relu", [x], i)  ###  type_mismatch

  Buffer.new([1], :x, :u8)  ###  invalid_shape
  Buffer.new([1], [1], :f8)  ###  unsupported_dtype
  Buffer.new([1], [2], :u8)  ###  shape_mismatch
  Buffer.new([256], [1], :u8)  ###  invalid_value
  Buffer.new(nil, [1], :u8)  ###  invalid_argument
  Buffer.new([1], [1], :u8, device: "cuda:99")  ###  unknown_device
  limited.(fn -> Buffer.new([1, 2], [2], :u8) end)  ###  limit_exceeded
  Buffer.new([[1, 2], [3]])  ###  shape_mismatch
  Buffer.new([[1, 2]], :f8)  ###  unsupported_dtype
  Buffer.empty([1_000_000_000_000_000], :u8)  ###  too_large
  Buffer.zeros(3, :u8)  ###  invalid_shape
  Buffer.full([2], :u8, 300)  ###  invalid_value
  Buffer.iota([2], :f8)  ###  unsupported_dtype
  limited.(fn -> Buffer.ensure_allocated(lazy) end)  ###  limit_exceeded
  Buffer.read(lazy)  ###  not_allocated
  Buffer.read_part(x, 6, 1)  ###  out_of_bounds
  Buffer.read_part(lazy, 0, 1)  ###  not_allocated
  Buffer.read_all([x, lazy])  ###  not_allocated
  Buffer.to_list(lazy)  ###  not_allocated
  Buffer.to_list(Buffer.zeros!([1_000_000_000_000, 0], :u8))  ###  too_large
  Buffer.to_flat_list(lazy)  ###  not_allocated
  Buffer.item(x)  ###  shape_mismatch
  Buffer.item(Buffer.empty!([], :u8))  ###  not_allocated
  Buffer.read_async(lazy)  ###  not_allocated
  busy.(fn x -> Buffer.await(Buffer.read_async!(x), 0) end)  ###  timeout
  Buffer.await(make_ref())  ###  invalid_argument
  Buffer.view(x, 6, [1])  ###  out_of_bounds
  Buffer.view(x, 0, 1)  ###  invalid_shape
  Buffer.view(x, -1, [1])  ###  invalid_argument
  Buffer.slice_bytes(x, 24, 1)  ###  out_of_bounds
  Buffer.reshape(x, [5])  ###  shape_mismatch
  Buffer.reshape(x, 6)  ###  invalid_shape
  Buffer.bitcast(Buffer.zeros!([3], :u8), :f32)  ###  shape_mismatch
  Buffer.bitcast(Buffer.view!(Buffer.zeros!([5], :u8), 1, [4]), :f32)  ###  invalid_argument
  Buffer.bitcast(x, :f8)  ###  unsupported_dtype
  Buffer.duplicate(lazy)  ###  not_allocated
  limited.(fn -> Buffer.duplicate(x) end)  ###  limit_exceeded
  Buffer.transfer(x, "cuda:99")  ###  unknown_device
  Buffer.transfer(lazy, nil)  ###  not_allocated
  Buffer.convert(x, :f8)  ###  unsupported_dtype
  Buffer.convert(lazy, :u8)  ###  not_allocated
  Buffer.copy(v, i)  ###  type_mismatch
  Buffer.copy(x, v)  ###  shape_mismatch
  Buffer.copy(lazy, v)  ###  not_allocated
  Buffer.copy(v, v)  ###  overlap
  limited.(fn -> Buffer.copy(v, lazy) end)  ###  limit_exceeded
  Buffer.write(x, [1])  ###  shape_mismatch
  Buffer.write(i, [1, 2, 3.5])  ###  invalid_value
  Buffer.write(x, [1], offset: 6)  ###  out_of_bounds
  limited.(fn -> Buffer.write(lazy, [1, 2, 3]) end)  ###  limit_exceeded
  Buffer.fill(i, 1.5)  ###  invalid_value
  limited.(fn -> Buffer.fill(lazy, 1) end)  ###  limit_exceeded
  Buffer.synchronize(5)  ###  invalid_argument
  Buffer.pointer(lazy)  ###  not_allocated

  Arena.new(0)  ###  invalid_argument
  Arena.new(1, dtype: :f8)  ###  unsupported_dtype
  Arena.new(1, device: "cuda:99")  ###  unknown_device
  Arena.new(1_000_000_000_000_000)  ###  too_large
  limited.(fn -> Arena.new(1000) end)  ###  limit_exceeded
  Arena.per_process(1, dtype: :f8)  ###  unsupported_dtype
  Arena.scoped(0, fn _ -> :ok end)  ###  invalid_argument
  Arena.measure([dtype: :f8], fn _ -> :ok end)  ###  unsupported_dtype
  Arena.alloc(fixed, [1000])  ###  limit_exceeded
  Arena.alloc(released, [1])  ###  stale
  Arena.alloc(windows, [1])  ###  invalid_argument
  Arena.alloc(elsewhere, [1])  ###  pool_exhausted
  Arena.alloc(fixed, 3)  ###  invalid_shape
  Arena.drop(fixed, Buffer.view!(tensor, 0, [1]))  ###  invalid_argument
  Arena.drop(fixed, x)  ###  stale
  Arena.reshape(fixed, [1])  ###  invalid_argument
  Arena.reshape(Arena.new!(10, dtype: :u8, extendable: false), [1000])  ###  limit_exceeded
  Arena.reshape(windows, [10_000])  ###  out_of_bounds
  Arena.reshape(windows, 1)  ###  invalid_shape

  Pool.start_link(size: 0)  ###  invalid_argument
  Pool.start_link(shape: 3)  ###  invalid_shape
  Pool.start_link(size: 8, dtype: :f8)  ###  unsupported_dtype
  Pool.start_link(size: 8, device: "cuda:99")  ###  unknown_device
  Pool.start_link(size: 1_000_000_000_000_000)  ###  too_large
  Pool.checkout(pool, timeout: 0)  ###  pool_exhausted
  Pool.checkout(:nopool)  ###  stale
  Pool.with_buffer(pool, [timeout: 0], fn _ -> :ok end)  ###  pool_exhausted
  Pool.checkin(pool, x)  ###  stale
  Pool.checkin(pool, Buffer.clone!(lent))  ###  invalid_argument
  Pool.checkin(gone_pool, gone_lent)  ###  device_lost
  exhausted.(fn -> Pool.get_buffer(10) end)  ###  pool_exhausted
  Pool.get_buffer(0)  ###  invalid_argument
  Pool.get_buffer(1_000_000_000_000_000)  ###  too_large
  Pool.return_buffer(x)  ###  stale
  Pool.return_buffer(Buffer.clone!(shared))  ###  invalid_argument
  Pool.return_buffer(gone_shared)  ###  device_lost

  Replicated.new([2], :u8, devices: [])  ###  invalid_argument
  Replicated.new([2], :u8, devices: ["cuda:99"])  ###  unknown_device
  Replicated.from([1], [2], :u8)  ###  shape_mismatch
  Replicated.write(rep, [1])  ###  shape_mismatch
  Replicated.write(rep, [1, 300])  ###  invalid_value
  Replicated.write(gone_rep, [1, 2])  ###  device_lost
  limited.(fn -> Replicated.write(rep, [1, 2]) end)  ###  limit_exceeded
  Replicated.write(rep, [1, 2], 5)  ###  out_of_bounds
  Replicated.read(Replicated.new!([2], :u8))  ###  not_allocated
  Replicated.read(gone_rep)  ###  device_lost
  Replicated.read(rep, 5)  ###  out_of_bounds
  Replicated.all_reduce(rep, :median)  ###  invalid_argument
  Replicated.shard(rep, 5)  ###  out_of_bounds
  Replicated.shard(rep, -1)  ###  invalid_argument
  Replicated.gather(Replicated.new!([2], :u8))  ###  not_allocated

  Device.info("cuda:99")  ###  unknown_device
  Device.open(nil, as: default)  ###  invalid_argument
  Device.open(missing, as: other)  ###  unknown_device
  crowded.(fn as -> Device.open(nil, as: as) end)  ###  limit_exceeded
  Device.remove(in_use)  ###  device_in_use
  Device.remove(default)  ###  invalid_argument
  Device.remove("cuda:99")  ###  unknown_device
  Device.synchronize("cuda:99")  ###  unknown_device
  Memory.usage(device: "cuda:99")  ###  unknown_device
  Memory.Chart.map(device: "cuda:99")  ###  unknown_device
  Memory.Chart.map(by: :shape)  ###  invalid_argument
  Memory.Chart.timeline(device: "cuda:99")  ###  unknown_device
  Memory.Chart.timeline(by: :shape)  ###  invalid_argument
  Memory.Chart.save(Memory.Chart.map!(), "x.png")  ###  invalid_argument
  Memory.Chart.save(Memory.Chart.map!(), "/no/such/x.svg")  ###  file
  DType.size(:f8)  ###  unsupported_dtype

  Data.read("/no/such.npy")  ###  file
  Data.read(text)  ###  invalid_file
  Data.read(strings)  ###  unsupported
  Data.read(numbers, name: "x")  ###  invalid_argument
  Data.list("/no/such.npy")  ###  file
  Data.list(text)  ###  invalid_file
  Data.list(strings)  ###  unsupported
  Data.write("/no/such.npy", x)  ###  file
  Data.write("x.npy", %{a: x})  ###  invalid_argument
  Data.write("x.npy", lazy)  ###  not_allocated

  Kernel.run(add, [x])  ###  invalid_argument
  Kernel.run(bits, [x])  ###  type_mismatch
  Kernel.run(add, [x, v])  ###  shape_mismatch
  Kernel.run(copy, [x, x])  ###  overlap
  Kernel.run(add, [Buffer.zeros!([1], :u8), 300])  ###  invalid_value
  Kernel.run(add, [lazy, 1])  ###  not_allocated
  limited.(fn -> Kernel.run(add, [x, 1]) end)  ###  limit_exceeded
  Kernel.warm(bits, [:f32])  ###  type_mismatch
  Kernel.source(wgsl: "fn")  ###  invalid_argument
  Kernel.source(cuda: "")  ###  unsupported
  ExCubecl.Compat.run_kernel("nope", [x], x)  ###  invalid_argument
  Batch.submit(Batch.fill(Batch.new(), :y, 1))  ###  invalid_argument
  Batch.submit(Batch.fill(Batch.new(), i, 1.5))  ###  invalid_value
  limited.(fn -> Batch.submit(Batch.fill(Batch.new(), lazy, 1)) end)  ###  limit_exceeded

  Ops.sum(x, axis: 2)  ###  invalid_argument
  Ops.add(x, Buffer.zeros!([4], :f32))  ###  shape_mismatch
  Ops.as_type(x, :f8)  ###  unsupported_dtype
  Ops.dot(x, x)  ###  shape_mismatch
  Ops.dot(x, v, contract_axes: {[5], [0]})  ###  invalid_argument
  Ops.layer_norm(x, scale: Buffer.zeros!([7], :f32))  ###  shape_mismatch
  Ops.conv(x, v)  ###  shape_mismatch
  Ops.conv(Buffer.zeros!([1, 1, 3], :f32), Buffer.zeros!([1, 1, 5], :f32))  ###  invalid_argument
  Ops.fft(v)  ###  invalid_argument
  Ops.broadcast_to(x, 3)  ###  invalid_shape
  Ops.slice(x, [0, 2], [1, 5])  ###  out_of_bounds
  Ops.put_slice(x, [1, 1], x)  ###  out_of_bounds
  LinAlg.inverse(x)  ###  invalid_argument
  LinAlg.solve(Buffer.zeros!([2, 2], :f32), v)  ###  shape_mismatch
  LinAlg.inverse(Buffer.empty!([2, 2], :f32))  ###  not_allocated
  View.squeeze(x, axis: 0)  ###  invalid_argument
  View.broadcast(x, 3)  ###  invalid_shape
  View.broadcast(x, [4, 4])  ###  shape_mismatch
  View.slice(x, [0, 2], [1, 5])  ###  out_of_bounds
  Random.uniform({1, 2}, 3)  ###  invalid_shape
  Random.integers({1, 2}, [3], 0..300, dtype: :u8)  ###  invalid_argument
  Random.shuffle({1, 2}, lazy)  ###  not_allocated
  Random.choice({1, 2}, lazy)  ###  not_allocated
  Random.choice({1, 2}, v, probabilities: x)  ###  shape_mismatch
  '''

  # On lavapipe, which has no pointers and takes small buffers only.
  @on_lavapipe ~S'''
  Buffer.pointer(out)  ###  unsupported
  Buffer.copy_from_pointer(out, 4096)  ###  unsupported
  Buffer.copy_from_pointer(out, -1)  ###  invalid_argument
  ExCubecl.buffer(many, [byte_size(many)], :u8)  ###  too_large
  Buffer.new(many, [byte_size(many)], :u8)  ###  too_large
  '''

  # In a VM without a device.
  @without_device ~S'''
  ExCubecl.buffer([1], [1], :u8)  ###  no_device
  ExCubecl.devices()  ###  no_device
  Device.list()  ###  no_device
  Device.default()  ###  no_device
  Device.info(nil)  ###  no_device
  Memory.usage()  ###  no_device
  Memory.Chart.map()  ###  no_device
  '''

  # In a VM whose environment names another device.
  @with_another ~S'''
  Device.default()  ###  unknown_device
  '''

  # In a VM whose device does not calculate with 64 bits.
  @with_32_bits ~S'''
  Kernel.run(Kernel.kernel(fn x -> x + 1 end), [Buffer.zeros!([1], :f64)])  ###  unsupported_dtype
  '''

  # In a VM with little memory, of which nothing is left.
  @without_memory ~S'''
  ExCubecl.buffer(:binary.copy(<<1>>, 67_108_864), [67_108_864], :u8)  ###  out_of_memory
  Buffer.new(:binary.copy(<<1>>, 67_108_864), [67_108_864], :u8)  ###  out_of_memory
  Arena.new(67_108_864)  ###  out_of_memory
  Batch.submit(Batch.fill(Batch.new(), Buffer.empty!([67_108_864], :u8), 1))  ###  out_of_memory
  Replicated.write(Replicated.new!([67_108_864], :u8), :binary.copy(<<1>>, 67_108_864))  ###  out_of_memory
  '''

  # Nothing is compiled afterwards.
  @fill """
  fill = ExCubecl.Batch.fill(ExCubecl.Batch.new(), ExCubecl.buffer!([1], [1], :u8), 1)
  :ok = ExCubecl.Batch.submit(fill)

  fill = fn fill, buffers ->
    case ExCubecl.Buffer.full([67_108_864], :u8, 7) do
      {:ok, buffer} -> fill.(fill, [buffer | buffers])
      {:error, _} -> buffers
    end
  end

  [buffers: fill.(fill, [])]
  """

  # Those that need another node, a driver that fails, or one that ends loops, as Mesa before version 25.
  @elsewhere [
    {{ExCubecl.Kernel, :run, 2..3}, :loop_limit},
    {{ExCubecl, :devices, 0..1}, :unsupported},
    {{Device, :synchronize, 1..1}, :driver},
    {{Device, :synchronize, 1..1}, :device_lost}
  ]

  @moduletag timeout: 300_000

  test "every reason that is documented is provoked, and no other one" do
    provoked = DocumentedErrors.provoke(@cases, bindings()) ++ in_vms() ++ on_lavapipe()
    own = DocumentedErrors.own()

    named =
      for {{module, name, arity}, reason} <- provoked,
          key <- [DocumentedErrors.key(own, module, name, arity), {module, nil, nil}],
          do: {key, reason}

    listed = for {key, reasons} <- own, reason <- reasons, do: {key, reason}
    if lavapipe?(), do: assert(Enum.uniq(listed) -- (named ++ @elsewhere) == [])
  end

  defp lavapipe?,
    do: :os.type() == {:unix, :linux} and match?({:ok, %{kind: :cpu}}, Device.info(nil))

  defp on_lavapipe do
    if lavapipe?() do
      many = :binary.copy(<<0>>, Device.info!(nil).max_buffer_size + 1)
      small = [out: Buffer.zeros!([1], :s32), many: many]

      DocumentedErrors.provoke(@on_lavapipe, small) ++
        in_vm(@without_memory, [], "ulimit -v 6000000; ", @fill)
    else
      []
    end
  end

  defp in_vms do
    none = for name <- ~w(VK_ICD_FILENAMES VK_DRIVER_FILES), do: {name, "/dev/null"}

    in_vm(@without_device, [{"CUDA_VISIBLE_DEVICES", ""}, {"EX_CUBECL_DEVICE", nil} | none]) ++
      in_vm(@with_another, [{"EX_CUBECL_DEVICE", "cuda:99"}]) ++
      in_vm(@with_32_bits, [{"EX_CUBECL_TEST_HIDDEN_DTYPES", "f64"}])
  end

  defp in_vm(cases, env, before \\ "", binding \\ "[]") do
    script = """
    {:ok, _} = Application.ensure_all_started(:ex_cubecl)
    binding = (#{binding})
    provoked = ExCubecl.DocumentedErrors.provoke(#{inspect(cases)}, binding)
    IO.puts(inspect(provoked, limit: :infinity))
    """

    assert {out, "", 0} = in_own_vm(script, env, before)
    elem(Code.eval_string(out), 0)
  end

  ## What the calls need

  defp bindings do
    [x, v] = for shape <- [[2, 3], [3]], do: Buffer.iota!(shape, :f32)

    buffers = [
      x: x,
      v: v,
      i: Buffer.iota!([3], :s32),
      lazy: Buffer.empty!([3], :f32),
      rep: Replicated.from!([1, 2], [2], :u8)
    ]

    conditions = [
      limited: &limited/1,
      busy: &busy/1,
      exhausted: &exhausted/1,
      crowded: &crowded/1
    ]

    buffers ++ kernels() ++ arenas() ++ pools() ++ devices() ++ files() ++ conditions
  end

  defp kernels do
    require ExCubecl.Kernel
    alias ExCubecl.Kernel

    [
      add: Kernel.kernel(fn x, y -> x + y end),
      bits: Kernel.kernel(fn x -> band(x, 1) end),
      copy: Kernel.kernel(fn x, out -> out[index()] = x[index()] end)
    ]
  end

  defp arenas do
    fixed = Arena.new!(100, dtype: :u8, extendable: false)
    [windows, released] = for _ <- 1..2, do: Arena.new!(100, dtype: :u8)
    Arena.reshape!(windows, [10])
    Arena.release!(released)
    elsewhere = Arena.per_process!(100, dtype: :u8, max: 1)
    # A process that has the only arena.
    start_supervised!({Agent, fn -> Arena.alloc!(elsewhere, [1]) end})

    [
      fixed: fixed,
      tensor: Arena.alloc!(fixed, [2]),
      windows: windows,
      released: released,
      elsewhere: elsewhere
    ]
  end

  defp pools do
    pool = start_supervised!({Pool, size: 8, max: 1})
    [pool: pool, lent: Pool.checkout!(pool), shared: Pool.get_buffer!(10)]
  end

  # A device that was reset, and one that has a buffer.
  defp devices do
    {runtime, _} = default = ExCubecl.default_device!()

    [lost, in_use] =
      for index <- [8_201, 8_202], do: Device.open!(default, as: {runtime, index}).id

    on_exit(fn ->
      for device <- [lost, in_use], do: Device.reset(device) && Device.remove(device)
    end)

    pool = start_supervised!({Pool, size: 8, device: lost}, id: :lost)
    lent = Pool.checkout!(pool)
    shared = Pool.get_buffer!(10, device: lost)
    rep = Replicated.from!([1, 2], [2], :u8, devices: [lost])
    Device.reset!(lost)

    [
      default: default,
      missing: {runtime, 7998},
      other: {runtime, 7999},
      in_use: in_use,
      kept: Buffer.zeros!([1], :u8, device: in_use),
      gone_pool: pool,
      gone_lent: lent,
      gone_shared: shared,
      gone_rep: rep
    ]
  end

  defp files do
    directory = DataFiles.directory()
    numbers = Path.join(directory, "numbers.npz")
    ExCubecl.Data.write!(numbers, %{"a" => Buffer.zeros!([1], :u8)})
    strings = "{'descr': '|S5', 'fortran_order': False, 'shape': (1,), }\n"

    [
      numbers: numbers,
      text: DataFiles.file(directory, "text.npy", "text"),
      strings: DataFiles.file(directory, "strings.npy", DataFiles.npy(strings, "abcde"))
    ]
  end

  ## Conditions of a call

  defp limited(call) do
    Memory.set_limit!(1)
    call.()
  after
    Memory.set_limit!(nil)
  end

  # The error of a call while a kernel runs. A kernel may end before the call, if this process does not run meanwhile.
  defp busy(call) do
    out = Buffer.empty!([131_072], :s32)
    after_launch = fn _ -> Busy.Spin.spin!(out, 5_000) && call.(out) end
    1..100 |> Stream.map(after_launch) |> Enum.find(&match?({:error, _}, &1))
  end

  defp exhausted(call) do
    taken = Stream.repeatedly(call) |> Enum.take_while(&match?({:ok, _}, &1))
    result = call.()
    for {:ok, buffer} <- taken, do: Pool.return_buffer!(buffer)
    result
  end

  # As many logical devices as there may be.
  defp crowded(open) do
    {runtime, _} = ExCubecl.default_device!()
    results = for index <- 7000..7099, do: open.({runtime, index})
    for {:ok, device} <- results, do: Device.remove!(device)
    List.last(results)
  end
end
