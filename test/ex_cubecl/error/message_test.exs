defmodule ExCubecl.MessageTest do
  # Complete messages: they name the operation and the argument, and no line of the library's code.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Arena, Batch, Kernel, Ops, Replicated}

  require Kernel

  defmodule Made do
    use ExCubecl.Kernel

    defkernel(saxpy(a, x, y), do: a * x + y)
    defkernel(halves(x, out), do: out[index()] = x[index()] / 2)
    defkernel(at(x, n), do: x[n] + len(n))
    defkernel(bits(x), do: band(x, 1))
  end

  defp says({:error, error}), do: Exception.message(error)

  defp f32(shape), do: Buffer.zeros!(shape, :f32)
  defp u8(shape), do: Buffer.zeros!(shape, :u8)

  defp device_name do
    {runtime, index} = ExCubecl.default_device!()
    "#{runtime}:#{index}"
  end

  test "addresses: which devices have them, which tensors, and which of them are wrong" do
    message = fn reason, details ->
      Exception.message(elem(ExCubecl.Error.new(reason, details), 1))
    end

    for operation <- ["pointer", "copy_from_pointer"] do
      text = message.(:unsupported, operation: operation, device: {:vulkan, 1})
      assert text =~ "only that of CUDA" and text =~ "ExCubecl.Buffer.read/1"
    end

    details = [operation: :to_pointer, elements: "are strided", device: {:cuda, 0}]
    assert message.(:unsupported, details) =~ "ExCubecl.Nx.from_tensor/1"
    details = [argument: :address, address: 255, bytes: 12, device: {:cuda, 0}]
    assert message.(:invalid_argument, details) =~ "12 bytes at address 0xFF are no memory"
  end

  test "a device is named in printable words, whatever was given for one" do
    for device <- [
          {:"a\0b", 3},
          {:n@h, <<255>>},
          {:"\0@h", "vulkan:0"},
          {:n@h, {:"\n", 1}},
          <<255>>
        ] do
      message = Exception.message(elem(ExCubecl.Device.info(device), 1))
      assert String.printable?(message) and not (message =~ "\n"), inspect({device, message})
    end

    message =
      Exception.message(%ExCubecl.Error{
        reason: :unknown_device,
        details: %{device: {:n@h, "vulkan:9"}, known: []}
      })

    assert message =~ "vulkan:9 of node n@h"
  end

  test "ranges are of elements, bytes, or devices, and sizes have a unit that is easy to read" do
    x = f32([6])

    assert says(Buffer.view(x, 5, [3])) =~
             "a range of 3 elements from offset 5 on is not inside of the buffer, which has 6"

    assert says(Buffer.read_part(x, 6, 1)) =~ "a range of 1 element from"
    assert says(Buffer.write(x, [1], offset: 6)) =~ "a range of 1 element from"

    # An integer may have any number of digits.
    huge = Integer.pow(10, 10_000)

    for {offset, count} <- [{huge, 1}, {0, huge}, {huge, huge}] do
      message = says(Buffer.read_part(x, offset, count))
      assert message =~ "which has 6" and byte_size(message) < 1_000
      message = says(Ops.slice(x, [offset], [count]))
      assert message =~ "slice: " and byte_size(message) < 1_000
    end

    assert says(Buffer.slice_bytes(x, 20, 5)) =~
             "a range of 5 bytes from offset 20 on is not inside of the buffer, which has 24"

    assert says(Buffer.slice_bytes(x, 20, 2 ** 70)) =~ "bytes from offset 20 on"
    devices = [ExCubecl.default_device!()]
    rep = Replicated.from!([1], [1], :u8, devices: devices)

    assert says(Replicated.read(rep, 3)) ==
             "read: there is no device 3 in the device list, which has 1, from 0 to 0"

    assert says(Buffer.zeros([10 ** 12], :f32)) =~ "4000000000000 bytes (3.6 TiB) are more than"

    assert says(ExCubecl.Pool.start_link(size: 0)) ==
             "start_link: invalid size 0: expected a positive number of bytes"

    assert says(ExCubecl.Pool.start_link(size: 3, dtype: :f32)) =~ "bytes, a multiple of 4"
  end

  test "what takes only buffers says how a view or replicated buffers become one" do
    x = f32([2])

    assert says(Buffer.read(ExCubecl.View.of!(x))) =~
             "expected an %ExCubecl.Buffer{}: see ExCubecl.View.to_buffer/1"

    rep = Replicated.from!([1], [1], :u8)

    assert says(ExCubecl.to_list(rep)) =~
             "expected an %ExCubecl.Buffer{}: see ExCubecl.Replicated.shard/2"

    assert says(Kernel.run({NoModule, :x}, [x])) =~
             "{module, name} of a module that uses ExCubecl.Kernel"

    assert says(Ops.slice(x, [0], [3])) ==
             "slice: a range of 3 from 0 on is not inside of axis 0, which has 2 elements"
  end

  test "a buffer beside replicated ones, and other devices, are named" do
    {runtime, _} = first = ExCubecl.default_device!()
    {:ok, second} = Device.open(first, as: {runtime, 7956})
    x = Replicated.from!([1, 2], [2], :u8, devices: [first, second])

    assert says(Ops.add(x, u8([2]))) ==
             "add: a buffer is on #{device_name()} only, and the replicated ones beside it are on #{device_name()}, #{runtime}:7956: " <>
               "make it an ExCubecl.Replicated of the same devices"

    y = Replicated.from!([1, 2], [2], :u8, devices: [second, first])
    assert says(Ops.add(x, y)) =~ "have the same devices in the same order, and these are on"
  end

  test "an error inspects with its message first" do
    error = elem(ExCubecl.buffer([1], [100], :u8), 1)

    assert inspect(error, width: :infinity) =~
             ~s(#ExCubecl.Error<message: "buffer: shape [100] needs 100 elements, but the data has 1", reason: :shape_mismatch, details: %{)

    assert inspect({:error, error}) =~ ~r/^{:error,\s+#ExCubecl.Error<\s*message: /

    # Details that no call makes.
    for details <- [%{relation: :along}, %{operation: :reshape, expected: 1}],
        do:
          assert(
            inspect(%ExCubecl.Error{reason: :shape_mismatch, details: details}) =~
              "%ExCubecl.Error{"
          )
  end

  test "a reshape infers one dimension" do
    x = f32([4, 6])
    assert Buffer.reshape!(x, [-1]).shape == [24]
    assert Buffer.reshape!(x, {3, -1, 2}).shape == [3, 4, 2]
    assert ExCubecl.View.reshape!(x, [2, -1]).shape == [2, 12]
    assert Buffer.reshape!(f32([0, 3]), [-1, 3]).shape == [0, 3]
    assert Buffer.reshape!(f32([]), [-1]).shape == [1]

    for reshape <- [&Buffer.reshape/2, &ExCubecl.View.reshape/2] do
      assert says(reshape.(x, [100, -1])) ==
               "reshape: shape [100, -1] has a multiple of 100 elements, and the buffer has 24: no dimension in place of -1 fits"

      assert says(reshape.(x, [-1, 0])) =~ "no dimension in place of -1 fits"
      assert says(reshape.(x, [-1, -1])) =~ "[-1, -1] is no shape"
      assert says(reshape.(x, [-1 | 2])) =~ "is no shape"
      assert says(reshape.(x, [-1, :a])) =~ "is no shape"
      assert says(reshape.(x, -1)) =~ "-1 is no shape"
      assert says(reshape.(x, [7])) =~ "a reshape keeps them all"
      assert says(reshape.(x, [-2, 1])) =~ "[-2, 1] is no shape"
    end
  end

  test "lists of small integers are shapes, and no text" do
    error = elem(ExCubecl.buffer([1], [100], :u8), 1)

    assert Exception.message(error) ==
             "buffer: shape [100] needs 100 elements, but the data has 1"

    assert inspect(error) =~ "shape: [100]"
    assert inspect(error, charlists: :as_charlists) =~ "shape: [100]"

    assert says(ExCubecl.buffer([1], [100, -1], :u8)) ==
             "buffer: [100, -1] is no shape: expected a list or tuple of non-negative integers, such as [2, 3]: a reshape infers one dimension, -1"

    assert says(Ops.sum(f32([100]), axis: 1)) ==
             "sum: invalid axis 1: expected an axis from 0 to 0, or from -1 to -1 at the end, of shape [100]"

    assert says(ExCubecl.buffer([[100, 101]], [1, 3], :u8)) ==
             "buffer: the data has a row of 2 at depth 1, but shape [1, 3] needs 3 there: each row must be as long as its " <>
               "dimension"

    assert says(Ops.transpose(f32([7]), axes: ~c"de")) ==
             "transpose: invalid axes [100, 101]: expected each of [0] once"

    assert inspect(Replicated.new!([100], :u8)) =~ "u8[100]"

    assert inspect(ExCubecl.Memory.Chart.map!()) =~
             ~r/^#ExCubecl.Memory.Chart<Memory of .*\.save\(chart, "memory.html"\).*>$/

    assert inspect(Made.__kernel__(:saxpy, 3)) == "#ExCubecl.Kernel<saxpy(a, x, y)>"
    assert inspect(Batch.copy(Batch.new(), :a, :b)) == "#ExCubecl.Batch<1 step>"

    for forged <- [
          %Batch{steps: 1},
          %{Made.__kernel__(:at, 2) | parsed: 1},
          %Replicated{buffers: 1, shape: 2, dtype: 3, shards: 4}
        ],
        do: assert(inspect(forged) =~ "%ExCubecl.")

    rep = Replicated.from!([1, 2], [2], :u8)
    assert inspect(rep) == "#ExCubecl.Replicated<u8[2] copies on #{device_name()}>"
    assert inspect(f32([100])) =~ "f32[100]"
    held = Buffer.zeros!([100], :u8, tag: [100, 101])
    assert ExCubecl.Memory.Chart.svg!(ExCubecl.Memory.Chart.map!()) =~ "tag [100, 101]"
    assert Buffer.size!(held) == 100
  end

  test "shapes that do not go together" do
    assert says(Ops.matmul(f32([2, 3]), f32([2, 3]))) ==
             "matmul: shapes [2, 3] and [2, 3]: axis 1 of the first has 3 and axis 0 of the second has 2: contracted axes have the same length"

    assert says(Ops.matmul(f32([2, 3]), f32([]))) ==
             "matmul: shapes [2, 3] and []: expected one axis or more of each; ExCubecl.Ops.multiply/2 takes numbers"

    assert says(Ops.add(f32([2, 3]), f32([4]))) ==
             "add: shapes [2, 3] and [4] cannot be broadcast: axis 1 has 3 and 4: expected the same length, or 1"

    assert says(Ops.add(f32([5, 2, 3]), f32([4, 2, 1]))) ==
             "add: shapes [5, 2, 3] and [4, 2, 1] cannot be broadcast: axis 0 has 5 and 4: expected the same length, or 1"

    assert says(Ops.select(u8([3]), f32([3]), f32([2]))) ==
             "select: shapes [3] and [2] cannot be broadcast: axis 0 has 3 and 2: expected the same length, or 1"

    assert says(Ops.broadcast_to(f32([2, 3]), [2, 4])) ==
             "broadcast_to: shape [2, 3] does not broadcast to [2, 4]: axis 1 has 3 and 4: only a length of 1 is repeated"

    assert says(Ops.broadcast_to(f32([2, 3]), [3])) ==
             "broadcast_to: shape [2, 3] does not broadcast to [3], which has fewer axes: see ExCubecl.Buffer.reshape/2"

    assert says(Ops.concatenate([f32([2, 3]), f32([2, 4])])) ==
             "concatenate: shapes [2, 3] and [2, 4] do not concatenate along axis 0: axis 1 has 3 and 4: expected the same length"

    assert says(Ops.concatenate([f32([2, 3]), f32([2])])) ==
             "concatenate: shapes [2, 3] and [2] do not concatenate: expected as many axes"

    assert says(Made.saxpy(2, f32([2]), f32([3]))) ==
             "argument 3 (y) of kernel saxpy: its shape is [3], and that of argument 2 (x) is [2]: an element-wise kernel " <>
               "takes buffers of one shape, or of one element; ExCubecl.Ops.broadcast_to/2 repeats"

    assert says(Kernel.run({Made, :saxpy}, [2, f32([2]), 1], into: f32([3]))) ==
             "option into of kernel saxpy: its shape is [3], and that of the result is [2]"
  end

  test "reshapes, copies, single elements and numbers alone" do
    assert says(Buffer.reshape(f32([2, 2]), [3])) ==
             "reshape: shape [3] has 3 elements, and the buffer has 4: a reshape keeps them all"

    assert says(Buffer.copy(f32([2, 2]), f32([3]))) ==
             "copy: expected as many elements as the target has, which are 3, and the source has 4"

    assert says(Buffer.item(f32([2, 2]))) ==
             "item: expected a buffer of exactly 1 element, and this one has 4: see to_list/1"

    assert says(Ops.add(1, 2)) ==
             "kernel add: expected at least one buffer, and the arguments are numbers only: [1, 2]"

    assert says(Ops.gather(f32([2]), f32([1]))) ==
             "gather: indices are of integers, such as s32, and these are f32: see ExCubecl.Buffer.convert/2"

    assert says(Buffer.await(make_ref())) =~
             ~r/^await: invalid transfer #Reference<.*>: expected what ExCubecl.Buffer.read_async\/1 returned$/

    assert says(Arena.scoped(10, fn -> 1 end)) =~ "expected a function of 1 arena"
  end

  test "errors of kernels name the argument" do
    x = f32([2])

    assert says(Made.saxpy(300, u8([1]), 1)) ==
             "argument 1 (a) of kernel saxpy: u8 cannot hold 300: expected an integer from 0 to 255"

    assert says(Ops.add(u8([2]), 300)) ==
             "argument 2 (b) of kernel add: u8 cannot hold 300: expected an integer from 0 to 255"

    assert says(Made.saxpy(1, x, "x")) ==
             "argument 3 (y) of kernel saxpy: expected a buffer or a number, and \"x\" is given"

    assert says(Made.halves(x, 5)) ==
             "argument 2 (out) of kernel halves: expected a buffer: the kernel writes into it, and 5 is given"

    assert says(Made.saxpy(1, x, Buffer.empty!([2], :f32))) ==
             "argument 3 (y) of kernel saxpy: nothing was ever written to this buffer: write, fill or copy into it before " <>
               "reading"

    assert says(Made.halves(x, x)) ==
             "argument 2 (out) of kernel halves: it is written to and shares bytes with argument 1 (x): write into a buffer " <>
               "or view that does not overlap, or ExCubecl.Buffer.duplicate/1 the other first"

    assert says(Kernel.run({Made, :saxpy}, [1, x, 1], into: x)) ==
             "option into of kernel saxpy: it is written to and shares bytes with argument 2 (x): write into a buffer or " <>
               "view that does not overlap, or ExCubecl.Buffer.duplicate/1 the other first"

    assert says(Kernel.run({Made, :saxpy}, [1, x, 1], into: u8([2]))) ==
             "option into of kernel saxpy: expected elements of type f32, but they are u8: see ExCubecl.Buffer.convert/2"

    counts = ExCubecl.buffer!([0], [1], :u8)

    assert says(
             Kernel.run(Kernel.kernel(fn x, out -> atomic_add(out[0], x[index()]) end), [
               u8([1]),
               counts
             ])
           ) =~
             ~r/^argument 2 \(out\) of kernel kernel: #{device_name()} has no atomic operations on u8: use one of :/

    assert says(Kernel.run({Made, :halves}, [x, u8([2])], size: :x)) ==
             "run: invalid size :x: expected a number, or the lengths of two or three axes"

    assert says(Kernel.run({Made, :saxpy}, x)) =~
             ~r/^run: invalid args #ExCubecl.Buffer<.*>: expected a list of arguments$/

    assert byte_size(says(Made.saxpy(1, x, Integer.pow(10, 4000)))) < 700
    {:ok, pool} = ExCubecl.Pool.start_link(size: 8, dtype: :f32)
    lent = ExCubecl.Pool.checkout!(pool)
    Buffer.fill!(lent, 1)
    ExCubecl.Pool.checkin!(pool, lent)

    assert says(Made.saxpy(1, x, lent)) ==
             "argument 3 (y) of kernel saxpy: the buffer was returned to its pool or arena: take a new one there, or before the return make a copy with ExCubecl.Buffer.duplicate/1"

    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, other} = Device.open(id, as: {runtime, 7955})
    there = Buffer.zeros!([2], :f32, device: other)

    assert says(Made.saxpy(1, x, there)) ==
             "argument 3 (y) of kernel saxpy: it is on #{runtime}:7955, and the kernel runs on #{device_name()}: see " <>
               "ExCubecl.Buffer.transfer/2"

    {:ok, %{dtypes: dtypes}} = Device.info(nil)

    unless :bf16 in dtypes do
      assert says(Made.saxpy(1, Buffer.convert!(x, :bf16), 1)) =~
               "argument 2 (x) of kernel saxpy: #{device_name()} cannot calculate with bf16: convert to one of "
    end
  end

  test "arguments of a source are its bindings" do
    {:ok, source} =
      Kernel.source(
        wgsl: """
        @group(0) @binding(0) var<storage, read_write> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(1) fn main() { x[0] = y[0]; }
        """
      )

    x = ExCubecl.buffer!([1], [1], :u32)

    assert says(Kernel.run(source, [x, 5], groups: 1)) ==
             "argument 2 (binding 1) of kernel main: expected a buffer: a source takes no numbers, and 5 is given"

    assert says(Kernel.run(source, [], groups: 1)) ==
             "run: invalid args []: expected at least one buffer"

    assert says(Kernel.run(source, [x | 1], groups: 1)) =~ "expected a list of %ExCubecl.Buffer{}"
  end

  test "types, with the line of the user's kernel, and none of the library's" do
    line = Enum.find_index(File.stream!(__ENV__.file), &(&1 =~ "bits(x)")) + 1

    assert says(Made.bits(f32([1]))) ==
             "kernel bits, line #{line}: band is of integers, not of f32: use cast(x, :s32)"

    assert says(Made.at(f32([3]), 1)) ==
             "kernel at: len(n) is the number of elements of a buffer, and n is a number"
  end

  test "another number of arguments" do
    expected = "kernel saxpy takes 3 arguments (a, x, y), and is given 1"
    x = f32([2])
    assert says(Kernel.run({Made, :saxpy}, [x])) == expected
    assert says(Kernel.run(Made.__kernel__(:saxpy, 3), [x])) == expected
    assert says(Kernel.warm({Made, :saxpy}, [:f32])) == expected

    assert says(Batch.submit(Batch.run(Batch.new(), {Made, :saxpy}, [x]))) ==
             "submit: step 1: " <> expected

    assert says(Kernel.run({Made, :saxpi}, [x])) ==
             "run: invalid kernel {ExCubecl.MessageTest.Made, :saxpi}: expected a kernel of ExCubecl.MessageTest.Made: " <>
               "at/2, bits/1, halves/2, saxpy/3"
  end

  test "steps of a batch are counted" do
    x = u8([2])
    batch = Batch.new() |> Batch.fill(x, 1) |> Batch.fill(x, 300)

    assert says(Batch.submit(batch)) ==
             "submit: step 2: argument 1 (value) of kernel fill: u8 cannot hold 300: expected an integer from 0 to 255"

    batch = Batch.new() |> Batch.fill(:x, 1) |> Batch.copy(:x, :x)

    assert says(Batch.submit(batch, x: x)) ==
             "submit: step 2: option into of kernel copy: it is written to and shares bytes with argument 1 (source): write into a " <>
               "buffer or view that does not overlap, or ExCubecl.Buffer.duplicate/1 the other first"

    assert says(Batch.submit(batch)) ==
             "submit: step 1: invalid name :x: expected one that submit/2 is given a buffer or a number for"

    assert ExCubecl.to_list!(x) == [0, 0]
  end

  test "infinities and NaN are numbers for kernels and batches" do
    x = f32([3])

    for {value, list} <- [
          {:infinity, [:infinity, :infinity, :infinity]},
          {:neg_infinity, [:neg_infinity, :neg_infinity, :neg_infinity]},
          {:nan, [:nan, :nan, :nan]}
        ] do
      assert Batch.submit(Batch.fill(Batch.new(), x, value)) == :ok
      assert ExCubecl.to_list!(x) == list
      assert Batch.submit(Batch.fill(Batch.new(), :y, :value), y: x, value: value) == :ok
      assert ExCubecl.to_list!(x) == list
    end

    one = Buffer.full!([1], :f32, 1)
    assert ExCubecl.to_list!(Made.saxpy!(:neg_infinity, one, 0)) == [:neg_infinity]
    assert Kernel.warm({Made, :saxpy}, [:infinity, :f32, 0]) == :ok

    assert says(Batch.submit(Batch.fill(Batch.new(), u8([1]), :infinity))) ==
             "submit: step 1: argument 1 (value) of kernel fill: u8 cannot hold :infinity: expected an integer from 0 to 255"
  end

  test "a tensor of an arena without a type" do
    types = Enum.map_join(ExCubecl.DType.all(), " ", &inspect/1)

    assert says(Arena.alloc(Arena.new!(100), [2])) ==
             "alloc: no dtype is given: expected one of #{types}, here or as dtype: where the arena is made, which counts bytes"

    assert says(Arena.reshape(Arena.new!(100), [2])) =~ "no dtype is given"
  end
end
