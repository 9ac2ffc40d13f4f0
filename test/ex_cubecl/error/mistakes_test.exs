defmodule ExCubecl.MistakesTest do
  # What users of Elixir, Nx, PyTorch, CuPy and Julia type by mistake, with a part of the message that says what to do. A call returns an error, and raises nothing else.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Arena, ArgumentAttack}

  defmodule K do
    use ExCubecl.Kernel

    defkernel saxpy(a, x, y), do: a * x + y

    defkernel blur(input, output) do
      i = index()

      if i > 0 and i < len(input) - 1 do
        output[i] = (input[i - 1] + input[i] + input[i + 1]) / 3
      end
    end

    defkernel bits(x), do: band(x, 1)
  end

  Module.register_attribute(__MODULE__, :mistakes, accumulate: true)

  @mistakes {"creation",
             ~S'''
             ExCubecl.buffer([1, 2, 3], [3], :float32)  ###  did you mean :f32?
             ExCubecl.buffer([1, 2, 3], [3], :i32)  ###  did you mean :s32?
             ExCubecl.buffer([1, 2, 3], [3], {:f, 32})  ###  did you mean :f32?
             ExCubecl.buffer([1, 2, 3], [3], "f32")  ###  did you mean :f32?
             ExCubecl.buffer([1, 2, 3], [3], "float")  ###  did you mean :f32?
             ExCubecl.buffer([1, 2, 3], [3], :int)  ###  did you mean :s32?
             ExCubecl.buffer([1, 2, 3], [3], :double)  ###  did you mean :f64?
             ExCubecl.buffer([1, 2, 3], [3], Float32)  ###  did you mean :f32?
             ExCubecl.buffer([1, 2, 3], [3], type: :f32)  ###  expected the shape and the element type as arguments, [2, 3], :f32, before the options
             ExCubecl.buffer([1, 2, 3], dtype: :f32)  ###  expected the shape and the element type as arguments, [2, 3], :f32, before the options
             ExCubecl.buffer([1, 2, 3], type: :f32)  ###  expected the shape and the element type as arguments, [2, 3], :f32, before the options
             ExCubecl.buffer([1, 2, 3], shape: [3])  ###  expected the shape and the element type as arguments, [2, 3], :f32, before the options
             ExCubecl.buffer([1, 2, 3], [3], :complex64)  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64; a complex
             ExCubecl.buffer([1, 2, 3], [3], :bool)  ###  did you mean :u8?
             ExCubecl.buffer([true, false], [2], :u8)  ###  expected an integer from 0 to 255; true is written 1, and false 0
             ExCubecl.buffer([true, false])  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity; true
             ExCubecl.buffer([[1, 2], [3]])  ###  the data is ragged: the row at index [1] has 1 element, and the first row at this
             ExCubecl.buffer([[1, 2], [3]], [2, 2], :f32)  ###  the data has a row of 1 at depth 1, but shape [2, 2] needs 2 there: each row must
             ExCubecl.buffer([[1, 2], 3])  ###  the data is ragged: at index [1] is 3, where the first row has a row of 2
             ExCubecl.buffer([1, 2, 3], [2, 2], :f32)  ###  shape [2, 2] needs 4 elements, but the data has 3
             ExCubecl.buffer([1, 2, 3], 3, :f32)  ###  did you mean [3]?
             ExCubecl.buffer([1, 2, 3], {3.0}, :f32)  ###  expected a list or tuple of non-negative integers, such as [2, 3]
             ExCubecl.buffer([1, 2, 3], [-1], :f32)  ###  expected a list or tuple of non-negative integers, such as [2, 3]: a reshape infers one
             ExCubecl.buffer([1, 2, 3], "3", :f32)  ###  expected a list or tuple of non-negative integers, such as [2, 3]
             ExCubecl.buffer([1, 2, 3], [3.0], :f32)  ###  expected a list or tuple of non-negative integers, such as [2, 3]
             ExCubecl.buffer([1.5, 2], [2], :s32)  ###  expected an integer from -2147483648 to 2147483647
             ExCubecl.buffer([1.0, nil], [2], :f32)  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity
             ExCubecl.buffer(["1", "2"], [2], :f32)  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity
             ExCubecl.buffer([:inf], [1], :f32)  ###  did you mean :infinity?
             ExCubecl.buffer([:inf, 1.0])  ###  did you mean :infinity?
             ExCubecl.buffer([-1], [1], :u8)  ###  expected an integer from 0 to 255
             ExCubecl.buffer(1..3, [3], :f32)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary: see
             ExCubecl.buffer(1..3)  ###  expected a list of numbers, nested as the shape, or a number: see Enum.to_list/1 and
             ExCubecl.buffer({1, 2, 3}, [3], :f32)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary: see
             ExCubecl.buffer(5, [3], :f32)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary: see
             ExCubecl.buffer(%{a: 1}, [1], :f32)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary
             ExCubecl.buffer(nil)  ###  expected a list of numbers, nested as the shape, or a number
             ExCubecl.buffer(<<1, 2, 3>>, [3], :f32)  ###  the data is a binary of 3 bytes, and 12 were expected: elements times bytes per element
             ExCubecl.buffer(<<1, 2, 3, 4>>)  ###  expected a nested list, or a shape and an element type behind the binary
             ExCubecl.buffer(<<1, 2, 3, 4>>, [1])  ###  expected a nested list, or a shape and an element type behind the binary
             ExCubecl.buffer(x, [2, 3], :f32)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary: see
             ExCubecl.buffer([x, x])  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity; see
             ExCubecl.buffer([1], [1], :f32, device: "cuda")  ###  there is no device "cuda": this machine has
             ExCubecl.buffer([1], [1], :f32, device: :cuda)  ###  there is no device :cuda: this machine has
             ExCubecl.buffer([1], [1], :f32, device: "cpu")  ###  there is no device "cpu": this machine has
             ExCubecl.buffer([1], [1], :f32, device: 0)  ###  there is no device 0: this machine has
             ExCubecl.buffer([1], [1], :f32, on: :gpu)  ###  did you mean :device?
             ExCubecl.buffer([1], [1], :f32, :cuda)  ###  expected a keyword list with :device, :progress, :tag, :allocation
             ExCubecl.buffer([1], [1], :f32, %{device: :cuda})  ###  expected a keyword list with :device, :progress, :tag, :allocation
             ExCubecl.buffer([1, 2], :f32, [2])  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64, behind the
             ExCubecl.buffer([2], [1, 2], [2])  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64, behind the
             Buffer.zeros(2, 3)  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64
             Buffer.zeros([2, 3], 0)  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64
             Buffer.zeros(3, :f32)  ###  did you mean [3]?
             Buffer.zeros([2, 3], :f31)  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64
             Buffer.zeros(:f32, [2, 3])  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64, behind the
             Buffer.full([3], 1.0, :f32)  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64
             Buffer.full([3], :u8, 300)  ###  expected an integer from 0 to 255
             Buffer.iota(10, :s32)  ###  did you mean [10]?
             Buffer.iota([10], "s32")  ###  did you mean :s32?
             Buffer.empty([2], :f32, lazy: 1)  ###  expected true or false
             Buffer.zeros([100_000, 100_000, 100], :f32)  ###  4000000000000 bytes (3.6 TiB) are more than
             '''}

  @mistakes {"reading and writing",
             ~S'''
             ExCubecl.read({:ok, x})  ###  expected an %ExCubecl.Buffer{}: this is a result; match {:ok, value} = ..., or call the
             ExCubecl.to_list({:ok, x})  ###  expected an %ExCubecl.Buffer{}: this is a result; match {:ok, value} = ..., or call the
             ExCubecl.read(nil)  ###  expected an %ExCubecl.Buffer{}
             ExCubecl.read([1, 2])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             ExCubecl.read(Buffer.empty!([2], :f32))  ###  nothing was ever written to this buffer: write, fill or copy into it before reading
             ExCubecl.item(x)  ###  see to_list/1
             ExCubecl.shape(1)  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             ExCubecl.shape({:ok, x})  ###  expected an %ExCubecl.Buffer{}: this is a result; match {:ok, value} = ..., or call the
             Buffer.read_part(x, 4, 10)  ###  a range of 10 elements from offset 4 on is not inside of the buffer, which has 6: offset
             Buffer.read_part(x, -1, 2)  ###  expected a non-negative integer
             Buffer.read_part(x, 1.0, 2)  ###  expected a non-negative integer
             Buffer.read_all(x)  ###  expected a list of %ExCubecl.Buffer{}
             Buffer.read_all([x, 1])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Buffer.await(x)  ###  expected what ExCubecl.Buffer.read_async/1 returned
             Buffer.await(:a, -1)  ###  expected what ExCubecl.Buffer.read_async/1 returned
             Buffer.write(x, [1, 2])  ###  shape [2, 3] needs 6 elements, but the data has 2
             Buffer.write(x, <<1, 2, 3, 4>>)  ###  a binary of 4 bytes, and 24 were expected: elements times bytes per element: the option offset: writes a part
             Buffer.write(x, 1)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary: see
             Buffer.write(x, [1, 2], offset: 5)  ###  a range of 2 elements from offset 5 on is not inside of the buffer, which has 6: offset +
             Buffer.write(x, [1, 2], offset: -1)  ###  expected a non-negative integer
             Buffer.write(x, [1, 2], 3)  ###  expected a keyword list with :offset, :progress
             Buffer.write(x, [1, 2], at: 3)  ###  expected one of :offset, :progress
             Buffer.write([1, 2], x)  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Buffer.write(x, v)  ###  expected a list of numbers, nested as the shape or flat, or a native-endian binary: see
             Buffer.fill(x, "a")  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity
             Buffer.fill(x, nil)  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity
             Buffer.fill(i, 1.5)  ###  expected an integer from -2147483648 to 2147483647
             Buffer.fill(x, [1, 2])  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity
             Buffer.fill(x, true)  ###  expected a float, an integer of at most 64 bits, :nan, :infinity or :neg_infinity; true
             Buffer.copy(x, v)  ###  copy: expected as many elements as the target has, which are 3, and the source has 6
             Buffer.copy(x, x)  ###  source and target share bytes: copy into a buffer or view that does not overlap, or
             Buffer.copy(v, i)  ###  source: expected elements of type s32, but they are f32: see ExCubecl.Buffer.convert/2
             Buffer.copy([1, 2], x)  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Buffer.view(x, 5, [3])  ###  a range of 3 elements from offset 5 on is not inside of the buffer, which has 6: offset +
             Buffer.view(x, [0, 1], [2, 2])  ###  expected a non-negative integer
             Buffer.view(x, 0, 3)  ###  did you mean [3]?
             Buffer.view(x, -1, [1])  ###  expected a non-negative integer
             Buffer.reshape(x, [4, 2])  ###  shape [4, 2] has 8 elements, and the buffer has 6: a reshape keeps them all
             Buffer.reshape(x, 6)  ###  did you mean [6]?
             Buffer.reshape(x, [-1, -1])  ###  expected a list or tuple of non-negative integers, such as [2, 3]: a reshape infers one
             Buffer.reshape(x, [-2, 3])  ###  expected a list or tuple of non-negative integers, such as [2, 3]
             Buffer.reshape(x, [4, -1])  ###  shape [4, -1] has a multiple of 4 elements, and the buffer has 6: no dimension in place
             Buffer.reshape(x, [2.0, 3])  ###  expected a list or tuple of non-negative integers, such as [2, 3]
             Buffer.slice_bytes(x, 20, 8)  ###  a range of 8 bytes from offset 20 on is not inside of the buffer, which has 24: offset +
             Buffer.slice_bytes(x, 1.5, 2)  ###  expected a non-negative integer
             Buffer.bitcast(x, :f33)  ###  expected one of :f32 :f64 :s32 :s64 :u32 :u8 :f16 :bf16 :s8 :s16 :u16 :u64
             Buffer.bitcast(Buffer.zeros!([3], :u8), :f32)  ###  bitcast: the last axis of shape [3] has elements of 1 byte, which are no whole number of
             Buffer.convert(x, :int32)  ###  did you mean :s32?
             Buffer.convert(x, "f16")  ###  did you mean :f16?
             Buffer.convert(x, {:s, 64})  ###  did you mean :s64?
             Buffer.transfer(x, :cpu)  ###  there is no device :cpu: this machine has
             Buffer.synchronize(:all)  ###  expected an %ExCubecl.Buffer{} or a device
             '''}

  @mistakes {"operations, views, linear algebra, random numbers",
             ~S'''
             Ops.add(x, {:ok, x})  ###  expected a buffer or a number, and {:ok,
             Ops.add(x, [1, 2, 3])  ###  expected a buffer or a number, and [1, 2, 3] is given: see ExCubecl.buffer/1
             Ops.add(x, "1")  ###  expected a buffer or a number, and "1" is given
             Ops.add(x, nil)  ###  expected a buffer or a number, and nil is given
             Ops.add(x, Buffer.zeros!([4], :f32))  ###  expected the same length, or 1
             Ops.add(x, x, into: v)  ###  option into of kernel add: its shape is [3], and that of the result is [2, 3]
             Ops.add(x, x, out: x)  ###  did you mean :into?
             Ops.add(x, x, into: nil)  ###  expected an %ExCubecl.Buffer{}
             Ops.add(x, x, type: :f32)  ###  did you mean :dtype?
             Ops.sum(x, dim: 1)  ###  did you mean :axis?
             Ops.sum(x, axis: 2)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.sum(x, axis: -3)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.sum(x, axis: 1.0)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.sum(x, axes: 1)  ###  expected a list of axes
             Ops.sum(x, axes: [0, 0])  ###  expected each axis at most once
             Ops.sum(x, axes: [0, -2])  ###  expected each axis at most once
             Ops.sum(x, axis: :x)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.sum(x, 1)  ###  expected a keyword list with :axis, :axes, :keep_axes
             Ops.sum(x, keepdims: true)  ###  did you mean :keep_axes?
             Ops.sum(x, keep_axes: 1)  ###  expected true or false
             Ops.sum([1, 2, 3])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Ops.mean(x, axes: [5])  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.argmax(x, tie_break: :last)  ###  expected :low or :high
             Ops.matmul(x, x)  ###  matmul: shapes [2, 3] and [2, 3]: axis 1 of the first has 3 and axis 0 of the second has
             Ops.matmul(Buffer.zeros!([2, 3, 4], :f32), Buffer.zeros!([3, 4, 5], :f32))  ###  matmul: shapes [2, 3, 4] and [3, 4, 5] cannot be broadcast: axis 0 has 2 and 3
             Ops.max(x, axis: 1)  ###  options stand behind all operands; for the greatest and the least element see ExCubecl.Ops.reduce_max/2
             Ops.sum(x, -1)  ###  did you mean axis: -1?
             Ops.sum(x, :f64)  ###  expected a keyword list with :axis, :axes, :keep_axes
             Ops.transpose(x, [1, 0])  ###  did you mean axes: [1, 0]?
             Ops.argsort(x, 0)  ###  did you mean axis: 0?
             Ops.fft(v)  ###  which have a last axis of length 2; ExCubecl.Ops.rfft/2 takes real ones
             Ops.matmul(1, x)  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Ops.dot(x, x)  ###  dot: shapes [2, 3] and [2, 3]: axis 1 of the first has 3 and axis 0 of the second has 2:
             Ops.dot(x, v, axes: [1])  ###  did you mean :contract_axes?
             Ops.dot(x, x, axes: {[1], [0]})  ###  did you mean :contract_axes?
             Ops.conv(x, x)  ###  expected three axes or more: those of the batch, the channels, and one in space
             Ops.conv(img, ker, padding: :full)  ###  expected :valid, :same, or {low, high} for each axis of shape [8, 8]
             Ops.conv(img, ker, strides: [0, 1])  ###  expected a number from 1 on, or one for each axis of shape [8, 8]
             Ops.conv(img, ker, padding: 1)  ###  expected :valid, :same, or {low, high} for each axis of shape [8, 8]
             Ops.transpose(x, axes: [1])  ###  expected each of [0, 1] once
             Ops.transpose(x, axes: [0, 0])  ###  expected each of [0, 1] once
             Ops.transpose(x, [1, 0])  ###  expected a keyword list with :axes
             Ops.concatenate(x, x)  ###  expected a keyword list with :axis
             Ops.concatenate([x, v])  ###  expected as many axes
             Ops.concatenate([])  ###  expected at least one buffer
             Ops.concatenate([x, x], axis: 2)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.concatenate([x, i])  ###  expected as many axes
             Ops.concatenate({x, x})  ###  expected a list of buffers and views
             Ops.stack([x, v])  ###  expected equal shapes
             Ops.split(x, 2, axis: 1)  ###  expected lengths whose sum is 3, or a number that divides 3
             Ops.split(x, [1, 1], axis: 1)  ###  expected lengths whose sum is 3, or a number that divides 3
             Ops.slice(x, [0], [1])  ###  expected a length for each axis of shape [2, 3]
             Ops.slice(x, [0, 0], [3, 3])  ###  slice: a range of 3 from 0 on is not inside of axis 0, which has 2 elements
             Ops.slice(x, 0, 1)  ###  expected a list with a length for each axis of shape [2, 3]
             Ops.slice(x, [0, 0], [1, 1], strides: 2)  ###  expected a list with a step for each axis of shape [2, 3]
             Ops.slice(x, [-1, 0], [1, 1])  ###  expected a start from 0 on for each axis of shape [2, 3]
             Ops.slice(x, {0, 0}, {1, 1})  ###  expected a list with a length for each axis of shape [2, 3]
             Ops.take(x, [0, 1])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Ops.take(x, v)  ###  see ExCubecl.Buffer.convert/2
             Ops.take(x, i, axis: 5)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.gather(x, 0)  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Ops.select([1, 0], x, x)  ###  expected a buffer or a number, and [1, 0] is given: see ExCubecl.buffer/1
             Ops.clip(x, "0", 1)  ###  expected a buffer or a number, and "0" is given
             Ops.pow(x, "2")  ###  expected a buffer or a number, and "2" is given
             Ops.bitwise_and(x, 1)  ###  kernel bitwise_and: band is of integers, not of f32: use cast(x, :s32) in a kernel, or
             Ops.left_shift(x, 1)  ###  kernel left_shift: shl is of integers, not of f32: use cast(x, :s32) in a kernel, or
             Ops.quotient(x, 2)  ###  kernel quotient: div is of integers, not of f32: use cast(x, :s32) in a kernel, or
             Ops.sort(x, axis: 3)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.sort(x, direction: :descending)  ###  expected :asc or :desc
             Ops.sort(x, descending: true)  ###  did you mean :direction?
             Ops.top_k(x, 10)  ###  expected an integer from 0 to 3, the length of the axis
             Ops.top_k(x, k: 2)  ###  expected an integer from 0 to 3, the length of the axis
             Ops.pad(x, 0, 1)  ###  expected a list with {low, high, interior} for each axis of shape [2, 3], interior from 0
             Ops.pad(x, 0, [{1, 1}])  ###  expected {low, high, interior} for each axis of shape [2, 3], interior from 0 on
             Ops.pad(x, 0, [1, 1])  ###  expected {low, high, interior} for each axis of shape [2, 3], interior from 0 on
             Ops.pad(x, 0, [{1, 1, 0}])  ###  expected {low, high, interior} for each axis of shape [2, 3], interior from 0 on
             Ops.tile(x, 2)  ###  did you mean [2]?
             Ops.tile(x, [-2, 1])  ###  [-2, 1] is no shape
             Ops.one_hot(v, 3)  ###  see ExCubecl.Buffer.convert/2
             Ops.one_hot(i, -3)  ###  expected a non-negative integer
             Ops.eye([3], :f32)  ###  expected a number, or the lengths of two axes
             Ops.softmax(x, dim: -1)  ###  did you mean :axis?
             Ops.softmax(x, axis: 9)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.reduce(x, 0, &+/2)  ###  expected an element-wise kernel of an element and the accumulator, such as kernel(fn x,
             Ops.reduce(x, 0, fn a, b -> a + b end)  ###  expected an element-wise kernel of an element and the accumulator, such as kernel(fn x,
             Ops.window_sum(x, 2)  ###  expected a list with a length from 1 on for each axis of shape [2, 3]
             Ops.window_sum(x, [2])  ###  expected a length from 1 on for each axis of shape [2, 3]
             Ops.window_sum(x, [2, 2], padding: 1)  ###  expected :valid, :same, or {low, high} for each axis of shape [2, 3]
             Ops.window_sum(x, {2, 9})  ###  expected one that is at most as long as the padded axes of shape [2, 3]: it extends over
             Ops.broadcast_to(x, [3, 3])  ###  broadcast_to: shape [2, 3] does not broadcast to [3, 3]: axis 0 has 2 and 3: only a
             Ops.broadcast_to(x, 3)  ###  did you mean [3]?
             Ops.as_type(x, :float)  ###  did you mean :f32?
             Ops.fft(x, length: 0)  ###  expected complex numbers, which have a last axis of length 2
             Ops.fft(x, n: 8)  ###  did you mean :length?
             Ops.random_uniform([3], :seed)  ###  expected an integer of 64 bits
             Ops.random_normal(3, 1)  ###  did you mean [3]?
             Ops.exp(1.0)  ###  expected at least one buffer, and the arguments are numbers only: [1.0]
             Ops.exp(nil)  ###  expected a buffer or a number, and nil is given
             Ops.sqrt(x, 2)  ###  expected a keyword list with :as, :dtype, :into, :tag, :allocation
             Ops.cumulative_sum(x, axis: 2)  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             Ops.is_nan([1])  ###  expected a buffer or a number, and [1] is given: see ExCubecl.buffer/1
             Ops.layer_norm(x, eps: 1.0e-5)  ###  did you mean :epsilon?
             Ops.norm(x, ord: 2)  ###  did you mean :order?
             Ops.norm(x, p: :fro)  ###  did you mean :order?
             Ops.variance(x, ddof: :one)  ###  expected a non-negative integer below 2^64
             Ops.indexed_add(x, [0], [1.0])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             Ops.put_slice(x, [0, 2], x)  ###  put_slice: a range of 3 from 2 on is not inside of axis 1, which has 3 elements
             View.transpose(x, axes: [0])  ###  expected each of [0, 1] once
             View.slice(x, 0, 2)  ###  expected a list with a length for each axis of shape [2, 3]
             View.slice(x, [0, 0], [2, 4])  ###  slice: a range of 4 from 0 on is not inside of axis 1, which has 3 elements
             View.slice(x, [0, 0], [2, 2], strides: [0, 1])  ###  expected a step for each axis of shape [2, 3]
             View.squeeze(x, axes: [0])  ###  expected an axis of length 1 of shape [2, 3]
             View.new_axis(x, 5)  ###  expected an axis from 0 to 2, or from -3 to -1 at the end, of shape [1, 2, 3]
             View.broadcast(x, [4, 4])  ###  broadcast: shape [2, 3] does not broadcast to [4, 4]: axis 1 has 3 and 4: only a length
             View.reverse(x, axes: [2])  ###  expected an axis from 0 to 1, or from -2 to -1 at the end, of shape [2, 3]
             View.of([1])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             LinAlg.solve(x, v)  ###  expected square matrices
             LinAlg.inverse(x)  ###  expected square matrices
             LinAlg.inverse(Buffer.zeros!([2, 2], :f32))  ###  expected an invertible matrix: pivot 1 is 0
             LinAlg.cholesky(Buffer.full!([2, 2], :f32, -1))  ###  expected a positive definite matrix: pivot 0 is -1.0
             LinAlg.determinant(v)  ###  expected matrices: at least two axes
             LinAlg.qr(i)  ###  expected matrices: at least two axes
             LinAlg.qr(x, mode: :full)  ###  expected :reduced or :complete
             LinAlg.solve([[1.0]], [1.0])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             LinAlg.eigh(x)  ###  expected square matrices
             LinAlg.matrix_norm(x, ord: 3)  ###  did you mean :order?
             Random.key("seed")  ###  expected an integer of 64 bits
             Random.uniform(42, [3])  ###  expected a key of ExCubecl.Random.key/1
             Random.uniform(Random.key!(1), 3)  ###  did you mean [3]?
             Random.uniform(Random.key!(1), [3], min: 1, max: 0)  ###  did you mean :low?
             Random.uniform(Random.key!(1), [3], dtype: :s32)  ###  expected one of [:f16, :bf16, :f32, :f64]
             Random.normal(Random.key!(1), [3], std: -1)  ###  did you mean :deviation?
             Random.integers(Random.key!(1), [3], 10)  ###  expected first..last of step 1, within s32 and not all its numbers
             Random.integers(Random.key!(1), [3], 5..1//-1)  ###  expected first..last of step 1, within s32 and not all its numbers
             Random.split(Random.key!(1), 3)  ###  expected a keyword list with :parts
             Random.choice(Random.key!(1), x, samples: 100, replace: false)  ###  expected at most the 6 elements along the axis without replacement
             Random.shuffle(Random.key!(1), [1, 2])  ###  expected an %ExCubecl.Buffer{}: see ExCubecl.buffer/1
             '''}

  @mistakes {"memory, pools, arenas, devices, files",
             ~S'''
             Arena.new(1000, :f32)  ###  expected a keyword list with :size, :dtype, :extendable, :device, :tag, :allocation: did you mean dtype: :f32?
             Pool.get_buffer(40, :f32)  ###  did you mean dtype: :f32?
             Data.read("x.npz", only: ["b"])  ###  did you mean :name?
             Buffer.write(x, View.transpose!(x))  ###  see ExCubecl.View.to_buffer/1 and ExCubecl.Buffer.copy/2
             ExCubecl.to_list(Buffer.read_part!(x, 0, 1))  ###  see ExCubecl.buffer/3, which takes the bytes of elements
             Memory.set_limit("1GB")  ###  expected a number of bytes, a non-negative integer below 2^64, or nil for no limit
             Memory.set_limit(-1)  ###  expected a number of bytes, a non-negative integer below 2^64, or nil for no limit
             Memory.set_limit(1.0e9)  ###  expected a number of bytes, a non-negative integer below 2^64, or nil for no limit
             Memory.usage(:cuda)  ###  expected a keyword list with :device
             Memory.map(most: -1)  ###  expected a non-negative integer below 2^64
             Memory.timeline(every: 0)  ###  expected an integer from 1 to 4,294,967,295
             Memory.timeline(interval: 5)  ###  did you mean :every?
             Memory.timeline(:on)  ###  expected a keyword list with :every, :keep, :tags
             Memory.trace(1)  ###  expected true or false
             Memory.report(limit: 5)  ###  did you mean :most?
             Memory.trim(:all)  ###  expected a keyword list with :device
             Memory.Chart.map(by: :shape)  ###  expected one of :tag, :owner, :page
             Memory.Chart.save(Memory.Chart.map(), "x.svg")  ###  expected an %ExCubecl.Memory.Chart{}: this is a result; match {:ok, value} = ..., or call
             Memory.Chart.save(Memory.Chart.map!(), "x.png")  ###  expected a name that ends in .html or .svg
             Memory.Chart.save(Memory.Chart.map!(), "/no/such/dir/x.svg")  ###  cannot write "/no/such/dir/x.svg": no such file or directory (enoent)
             Memory.Chart.svg("x")  ###  expected an %ExCubecl.Memory.Chart{}
             Memory.Chart.timeline(by: :owner)  ###  expected one of nil, :tag
             Pool.checkout(:nopool)  ###  there is no such pool as :nopool: it was not started, or it has stopped
             Pool.checkout(self(), timeout: 10)  ###  there is no such pool as #PID
             Pool.checkin(:nopool, x)  ###  there is no such pool as :nopool: it was not started, or it has stopped
             Pool.with_buffer(:nopool, 1)  ###  expected a function of one argument
             Pool.stats(nil)  ###  there is no such pool as nil: it was not started, or it has stopped
             Pool.get_buffer(-1)  ###  expected a positive integer
             Pool.return_buffer(x)  ###  the buffer does not belong to this pool or arena: return it where it was taken from
             Arena.new(-5)  ###  expected a positive integer
             Arena.new(size: 10, type: :f32)  ###  did you mean :dtype?
             Arena.alloc(arena, 5)  ###  did you mean [5]?
             Arena.alloc(arena, [5], :float)  ###  did you mean :f32?
             Arena.alloc(x, [5])  ###  expected an %ExCubecl.Arena{}
             Arena.drop(arena, x)  ###  the buffer does not belong to this pool or arena: return it where it was taken from
             Arena.drop(arena, [x])  ###  the buffer does not belong to this pool or arena: return it where it was taken from
             Arena.free({:ok, arena})  ###  expected an %ExCubecl.Arena{}: this is a result; match {:ok, value} = ..., or call the
             Arena.used(x)  ###  expected an %ExCubecl.Arena{}
             Device.info(:cpu)  ###  there is no device :cpu: this machine has
             Device.info(7)  ###  there is no device 7: this machine has
             ExCubecl.devices(:all)  ###  expected a keyword list with :nodes
             ExCubecl.devices(nodes: :a@b)  ###  expected a list of names of connected nodes
             Replicated.new([3], :f32, devices: 2)  ###  expected a list of one or more different devices
             Replicated.new([3], :f32, devices: [])  ###  expected a list of one or more different devices
             Replicated.from([1, 2, 3], [3], :f32, shards: 2)  ###  expected true or false
             Replicated.all_reduce(x, :sum)  ###  expected an %ExCubecl.Replicated{}
             Replicated.all_reduce(rep, :average)  ###  expected one of [:sum, :mean, :max, :min]
             Replicated.shard(rep, 4)  ###  there is no device 4 in the device list, which has 1, from 0 to 0
             Replicated.shard(rep, -1)  ###  expected a non-negative integer below 2^64
             Replicated.read(rep, 1.0)  ###  expected a non-negative integer below 2^64
             Batch.submit(nil)  ###  expected an %ExCubecl.Batch{}
             Batch.submit(Batch.new() |> Batch.fill(:y, 1))  ###  expected one that submit/2 is given a buffer or a number for
             Batch.submit(Batch.new() |> Batch.fill(:y, 1), z: x)  ###  expected one that submit/2 is given a buffer or a number for
             Batch.submit(Batch.new() |> Batch.fill(:y, 1), y: 5)  ###  expected a buffer: the kernel writes into it, and 5 is given
             Batch.submit(Batch.new() |> Batch.copy(x, v))  ###  step 1: option into of kernel copy: its shape is [3], and that of the result is [2, 3]
             Batch.submit(Batch.new() |> Batch.run({K, :nope}, [x]))  ###  expected a kernel of ExCubecl.MistakesTest.K: bits/1, blur/2, saxpy/3
             Data.read("nofile.npy")  ###  cannot read "nofile.npy": no such file or directory (enoent)
             Data.read("README.md")  ###  expected one of the extensions .npy .npz .pgm .png .ppm .safetensors, or the option
             Data.read(nil)  ###  expected the path of a file
             Data.read("x.pt")  ###  expected one of the extensions .npy .npz .pgm .png .ppm .safetensors, or the option
             Data.write("x.npy", [1, 2])  ###  expected a buffer or a view
             Data.write("x.npy", %{a: x})  ###  expected a buffer or a view
             Data.write("x.npz", x)  ###  expected a map of buffers or views, by names that are strings
             Data.write("x.safetensors", x)  ###  expected a map of buffers or views, by names that are strings
             Data.write("x.safetensors", %{a: [1]})  ###  expected a string
             Data.write("x.png", x)  ###  expected an image of the shape [height, width], or [height, width, channels] with 2 to 4
             Data.write("x.bmp", x)  ###  expected one of the extensions .npy .npz .pgm .png .ppm .safetensors, or the option
             Data.write("x.h5", x)  ###  expected one of the extensions .npy .npz .pgm .png .ppm .safetensors, or the option
             Data.write(x, "x.npy")  ###  expected the path of a file
             Data.write("/no/such/x.npy", x)  ###  cannot write "/no/such/x.npy": no such file or directory (enoent)
             Data.list("README.md")  ###  expected one of the extensions .npy .npz .pgm .png .ppm .safetensors, or the option
             ExCubecl.run_kernel("nope", [x], x)  ###  expected one of elementwise_add, elementwise_div, elementwise_mul, elementwise_sub, relu,
             ExCubecl.run_kernel("elementwise_add", [x], x)  ###  kernel elementwise_add takes 2 arguments (a, b), and is given 1
             ExCubecl.run_kernel(:elementwise_add, x, x)  ###  expected one of elementwise_add, elementwise_div, elementwise_mul, elementwise_sub, relu,
             '''}

  @mistakes {"kernels",
             ~S'''
             K.saxpy(v, v, x)  ###  argument 3 (y) of kernel saxpy: its shape is [2, 3], and that of argument 1 (a) is [3]:
             K.saxpy(1, View.transpose!(x), x)  ###  see ExCubecl.View.to_buffer/1
             K.saxpy("1", v, v)  ###  expected a buffer or a number, and "1" is given
             K.saxpy(nil, v, v)  ###  expected a buffer or a number, and nil is given
             K.saxpy([1, 2], v, v)  ###  expected a buffer or a number, and [1, 2] is given: see ExCubecl.buffer/1
             K.saxpy(1, 2, 3)  ###  expected at least one buffer, and the arguments are numbers only: [1, 2, 3]
             K.saxpy(1, {:ok, v}, v)  ###  expected a buffer or a number, and {:ok,
             K.saxpy(1, v, v, into: x)  ###  option into of kernel saxpy: its shape is [2, 3], and that of the result is [3]
             K.saxpy(1, v, v, out: v)  ###  did you mean :into?
             K.blur(v, v)  ###  argument 2 (output) of kernel blur: it is written to and shares bytes with argument 1
             K.blur(v, 1)  ###  expected a buffer: the kernel writes into it, and 1 is given
             K.bits(v)  ###  band is of integers, not of f32: use cast(x, :s32)
             Kernel.run({K, :saxpy}, [1, v])  ###  kernel saxpy takes 3 arguments (a, x, y), and is given 2
             Kernel.run({K, :nope}, [v])  ###  expected a kernel of ExCubecl.MistakesTest.K: bits/1, blur/2, saxpy/3
             Kernel.run(K, [v])  ###  expected a kernel of ExCubecl.Kernel.kernel/1, or {module, name} of a module that uses
             Kernel.run(&K.saxpy/3, [1, v, v])  ###  did you mean {ExCubecl.MistakesTest.K, :saxpy}?
             Kernel.run(fn x -> x end, [v])  ###  expected a kernel of ExCubecl.Kernel.kernel/1, or {module, name} of a module that uses
             Kernel.run({K, :saxpy}, 1)  ###  expected a list of arguments
             Kernel.run({K, :blur}, [v, w], size: -1)  ###  expected a number, or the lengths of two or three axes
             Kernel.run({K, :blur}, [v, w], size: 1.5)  ###  expected a number, or the lengths of two or three axes
             Kernel.run({K, :blur}, [v, w], threads: 10)  ###  did you mean :size?
             Kernel.warm({K, :saxpy}, [1, v])  ###  kernel saxpy takes 3 arguments (a, x, y), and is given 2
             Kernel.profile(1)  ###  expected a function without arguments
             Kernel.profile(fn x -> x end)  ###  expected a function without arguments
             '''}

  @before """
  alias ExCubecl.{Arena, Batch, Buffer, Data, Device, Kernel, LinAlg, Memory, Ops, Pool, Random, Replicated, View}
  alias ExCubecl.MistakesTest.K
  _ = [Arena, Batch, Buffer, Data, Device, Kernel, LinAlg, Memory, Ops, Pool, Random, Replicated, View, K]
  """

  setup_all do
    [x, v, w] = for shape <- [[2, 3], [3], [3]], do: Buffer.iota!(shape, :f32)
    i = Buffer.iota!([3], :s32)
    img = Buffer.zeros!([1, 3, 8, 8], :f32)
    ker = Buffer.zeros!([2, 3, 3, 3], :f32)
    rep = ExCubecl.Replicated.from!([1, 2], [2], :u8)
    arena = Arena.new!(100, dtype: :f32)
    {:ok, binding: [x: x, v: v, w: w, i: i, img: img, ker: ker, rep: rep, arena: arena]}
  end

  for {topic, mistakes} <- @mistakes do
    test topic, %{binding: binding} do
      for line <- String.split(unquote(mistakes), "\n", trim: true) do
        [code, expected] = String.split(line, "###") |> Enum.map(&String.trim/1)
        {result, _} = Code.eval_string(@before <> code, binding)
        assert {code, {:error, %Error{} = error}} = {code, result}
        message = Exception.message(error)
        assert message =~ expected, "#{code}: #{message}"
        assert String.printable?(message) and String.length(message) < 600, code
        assert named?(message, code), "#{code}: #{message}"
      end
    end
  end

  test "an index in brackets" do
    x = Buffer.iota!([3], :f32)

    for index <- [0, -1, 0..1, {0, 1}] do
      error = assert_raise Error, fn -> x[index] end

      assert Exception.message(error) =~
               ~r/^buffer\[.*\]: .*ExCubecl.Buffer.read_part\/3 .*ExCubecl.View.slice\/4/
    end
  end

  # One of the functions that are called.
  defp named?(message, code) do
    [_ | _] = calls = Regex.scan(~r/\.([a-z_]+)[!?]?\(/, code, capture: :all_but_first)
    Enum.any?(List.flatten(calls), &ArgumentAttack.named?(message, &1))
  end
end
