defmodule ExCubecl.ZeroLengthTest do
  # Calls on zero elements: each is checked like any other, and changes nothing.
  use ExCubecl.Case, async: false

  require ExCubecl.Kernel
  import ExCubecl.Refusal
  alias ExCubecl.{Arena, Batch, Kernel, Ops, Pool, Replicated}

  @shapes [{[0], []}, {[3, 0], [[], [], []]}, {[0, 3], []}, {{2, 0, 2}, [[], []]}]

  defp lazy, do: Buffer.empty!([10], :s32)
  defp none(dtype \\ :s32), do: ExCubecl.buffer!([], [0], dtype)
  defp none_of(buffer), do: Buffer.view!(buffer, 10, [0])

  # Calls that write no elements, on a lazy buffer of ten :s32.
  @writes [
    write: &__MODULE__.write/1,
    write_binary: &__MODULE__.write_binary/1,
    write_part: &__MODULE__.write_part/1,
    write_part_binary: &__MODULE__.write_part_binary/1,
    fill: &__MODULE__.fill/1,
    copy: &__MODULE__.copy/1,
    copy_of_its_own: &__MODULE__.copy_of_its_own/1,
    run: &__MODULE__.run/1,
    run_over_none: &__MODULE__.run_over_none/1,
    batch: &__MODULE__.batch/1,
    into: &__MODULE__.into/1
  ]

  def write(b), do: Buffer.write(Buffer.view!(b, 10, [0]), [])
  def write_binary(b), do: Buffer.write(Buffer.view!(b, 3, [0, 2]), "")
  def write_part(b), do: Buffer.write(b, [], offset: 10)
  def write_part_binary(b), do: Buffer.write(b, "", offset: 4)
  def fill(b), do: Buffer.fill(Buffer.view!(b, 0, [5, 0]), 7)
  def copy(b), do: Buffer.copy(ExCubecl.buffer!([], [0], :s32), Buffer.view!(b, 2, [0]))
  def copy_of_its_own(b), do: Buffer.copy(Buffer.view!(b, 9, [0]), Buffer.view!(b, 2, [0]))

  def run(b) do
    one = Kernel.kernel(fn out -> out[index()] = 1 end)
    Kernel.run(one, [Buffer.view!(b, 10, [0])])
  end

  def run_over_none(b) do
    one = Kernel.kernel(fn out -> out[index()] = 1 end)
    Kernel.run(one, [b], size: 0)
  end

  def batch(b) do
    Batch.new()
    |> Batch.copy(ExCubecl.buffer!([], [0], :s32), Buffer.view!(b, 1, [0]))
    |> Batch.fill(Buffer.view!(b, 1, [0]), 3)
    |> Batch.run(Kernel.kernel(fn out -> out[index()] = 1 end), [Buffer.view!(b, 1, [0])])
    |> Batch.submit()
  end

  def into(b) do
    plus = Kernel.kernel(fn x -> x + 1 end)
    Kernel.run(plus, [ExCubecl.buffer!([], [0], :s32)], into: Buffer.view!(b, 10, [0]))
  end

  for {name, _} <- @writes do
    test "#{name} of no elements" do
      call = @writes[unquote(name)]
      done = &(&1 == :ok or match?({:ok, _}, &1))
      lazy = lazy()
      assert done.(call.(lazy))
      refute Buffer.allocated?(lazy)
      assert reason(Buffer.read(lazy)) == :not_allocated
      Buffer.fill!(lazy, 5)
      assert done.(call.(lazy))
      assert Buffer.to_list!(lazy) == List.duplicate(5, 10)

      # A buffer of a pool or an arena stays unreadable, and is stale after its return.
      {:ok, pool} = Pool.start_link(shape: [10], dtype: :s32)
      lent = Pool.checkout!(pool)
      assert done.(call.(lent))
      assert reason(Buffer.read(lent)) == :not_allocated
      Pool.checkin(pool, lent)
      assert reason(call.(lent)) == :stale
      arena = Arena.new!(100)
      tensor = Arena.alloc!(arena, [10], :s32)
      assert done.(call.(tensor))
      assert reason(Buffer.read(tensor)) == :not_allocated
      Arena.drop!(arena, tensor)
      assert reason(call.(tensor)) == :stale
    end
  end

  test "a lost device is told of all the same" do
    {runtime, _} = id = ExCubecl.default_device!()
    device = Device.open!(id, as: {runtime, 7310})
    buffer = Buffer.zeros!([10], :s32, device: device)
    Device.reset!(device)

    for {name, call} <- @writes,
        name not in [:copy, :batch, :into],
        do: assert({name, reason(call.(buffer))} == {name, :device_lost})

    assert reason(Buffer.read_part(buffer, 0, 0)) == :device_lost
    assert reason(Buffer.read(none_of(buffer))) == :device_lost
    Device.remove!(device)
  end

  test "arguments are checked all the same" do
    lazy = lazy()
    refused(Buffer.write(lazy, [], offset: 11), :out_of_bounds)
    refused(Buffer.write(lazy, "", offset: 11), :out_of_bounds)
    refused(Buffer.read_part(lazy, 11, 0), :out_of_bounds)
    refused(Buffer.view(lazy, 11, [0]), :out_of_bounds)
    refused(Buffer.slice_bytes(lazy, 41, 0), :out_of_bounds)
    refused(Buffer.fill(none_of(lazy), :nan), :invalid_value)
    refused(Buffer.fill(none_of(lazy), Integer.pow(2, 31)), :invalid_value)
    refused(Buffer.copy(none(:f32), none_of(lazy)), :type_mismatch)
    refused(Buffer.copy(none(), lazy), :shape_mismatch)
    refused(Buffer.write(none(), [1]), :shape_mismatch)
    refused(Buffer.write(none(), <<0>>), :shape_mismatch)
    refused(Buffer.item(none()), :shape_mismatch)
    refused(Buffer.full([0], :u8, 300), :invalid_value)
    refute Buffer.allocated?(lazy)
  end

  test "reading none needs nothing to have been written" do
    lazy = lazy()
    assert Buffer.read_part(lazy, 10, 0) == {:ok, ""}
    view = none_of(lazy)
    assert {Buffer.read(view), Buffer.to_list(view)} == {{:ok, ""}, {:ok, []}}
    assert Buffer.to_flat_list(view) == {:ok, []}
    assert Buffer.read_all([view, none(), view]) == {:ok, ["", "", ""]}
    {:ok, transfer} = Buffer.read_async(view)
    assert Buffer.await(transfer) == {:ok, ""}
    assert Buffer.shape!(Buffer.duplicate!(view)) == [0]
    assert Buffer.read!(Buffer.convert!(view, :f64)) == ""
    assert Buffer.read!(Buffer.transfer!(view, view.device)) == ""
    assert reason(Buffer.read_part(lazy, 9, 1)) == :not_allocated
    assert inspect(view) =~ "s32[0]"
    refute Buffer.allocated?(lazy)
    # `ensure_allocated` allocates the whole storage, even through an empty view.
    assert Buffer.ensure_allocated(view) == :ok
    assert Buffer.to_list!(lazy) == List.duplicate(0, 10)
  end

  test "buffers without elements, in every way there is to make and to use one" do
    before = settled()

    for {shape, list} <- @shapes, dtype <- [:u8, :f16, :s64] do
      {:ok, lazy} = Buffer.empty(shape, dtype)

      made = [
        Buffer.new!([], [0], dtype) |> Buffer.reshape!(shape),
        Buffer.new!(list, shape, dtype),
        Buffer.new!("", shape, dtype),
        lazy,
        Buffer.empty!(shape, dtype, lazy: false),
        Buffer.zeros!(shape, dtype),
        Buffer.full!(shape, dtype, 1),
        Buffer.iota!(shape, dtype)
      ]

      for buffer <- made do
        assert Buffer.allocated?(buffer)
        assert Buffer.to_list!(buffer) == list

        assert {Buffer.read!(buffer), Buffer.size!(buffer), Buffer.total_size!(buffer)} ==
                 {"", 0, 0}

        assert Buffer.write(buffer, list) == :ok
        assert Buffer.write(buffer, "", offset: 0) == :ok
        assert Buffer.fill(buffer, 1) == :ok
        assert Buffer.copy_from_pointer(buffer, 4_096) == :ok
        assert Buffer.ensure_allocated(buffer) == :ok
        assert Buffer.synchronize(buffer) == :ok
        assert Buffer.copy(buffer, Buffer.clone!(buffer)) == :ok
        refute Buffer.overlap?(buffer, buffer)
        assert Buffer.to_list!(Buffer.duplicate!(buffer)) == list
        assert Buffer.to_list!(Buffer.convert!(buffer, :f32)) == list
        assert Buffer.to_list!(Buffer.transfer!(buffer, buffer.device)) == list
        assert Buffer.read!(Buffer.slice_bytes!(buffer, 0, 0)) == ""
        assert is_binary(inspect(buffer))
        assert reason(Buffer.pointer(buffer)) in [:not_allocated, :unsupported]
      end
    end

    # Buffers without bytes are not counted.
    buffers = for {shape, _} <- @shapes, do: Buffer.zeros!(shape, :f32, tag: :nothing)
    assert live() == before
    {:ok, report} = Memory.report(most: 1000)
    refute Enum.any?(report.largest, &(&1.tag == :nothing))
    {:ok, %{allocations: all}} = Memory.map()
    refute Enum.any?(all, &(&1.tag == :nothing))
    {:ok, chart} = Memory.Chart.map()
    assert Memory.Chart.svg!(chart) =~ "<svg"
    assert length(buffers) == 4
  end

  test "kernels over no elements" do
    plus = Kernel.kernel(fn x, y -> x + y end)
    assert Kernel.run!(plus, [none(), none()]).shape == [0]
    assert Kernel.run!(plus, [none(), 3]).shape == [0]
    # A buffer of one element goes with any shape.
    one = ExCubecl.buffer!([1], [1], :s32)
    assert Kernel.run!(plus, [none(), one]).shape == [0]
    three = Kernel.kernel(fn x, out -> out[index()] = x[index()] + len(x) end)
    out = ExCubecl.buffer!([9, 9], [2], :s32)
    # Reads from a buffer without elements are out of bounds, and return zero.
    assert Kernel.run(three, [none(), out]) == :ok
    assert Buffer.to_list!(out) == [0, 0]
    assert Kernel.run(three, [out, none()]) == :ok
    lazy = lazy()
    refused(Kernel.run(three, [lazy, none()]), :not_allocated)
    assert Kernel.run(three, [none_of(lazy), out]) == :ok
    refused(Kernel.run(three, [lazy, out], size: 0), :not_allocated)
    assert Kernel.run(three, [out, none()], check: true) == :ok
    assert Kernel.run(three, [none(), out], size: 0, check: true) == :ok
    assert Kernel.warm(plus, [none(), none()]) == :ok
    grouped = Kernel.kernel(fn out -> out[group()] = 1 end, group: 64)
    assert Kernel.run(grouped, [none()]) == :ok
    assert Kernel.run(grouped, [out], size: 0) == :ok
    assert Buffer.to_list!(out) == [0, 0]
  end

  test "a source in WGSL" do
    source =
      Kernel.source!(
        wgsl: """
        @group(0) @binding(0) var<storage, read> x: array<i32>;
        @group(0) @binding(1) var<storage, read_write> out: array<i32>;
        @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3<u32>) { out[id.x] = x[id.x] + 1; }
        """
      )

    {x, lazy} = {ExCubecl.buffer!([1, 2], [2], :s32), Buffer.empty!([2], :s32)}
    refused(Kernel.run(source, [none(), lazy], groups: 1), :invalid_argument)
    refused(Kernel.run(source, [x, none()], groups: 1), :invalid_argument)
    refute Buffer.allocated?(lazy)
    # A run of zero groups writes nothing.
    assert Kernel.run(source, [x, lazy], groups: 0) == :ok
    refute Buffer.allocated?(lazy)
    refused(Kernel.run(source, [lazy, x], groups: 0), :not_allocated)
    assert Kernel.run(source, [x, lazy], groups: 2) == :ok
    assert Buffer.to_list!(lazy) == [2, 3]
  end

  test "operations on empty axes" do
    for {shape, list} <- @shapes do
      x = ExCubecl.buffer!([], shape, :f32)
      assert ExCubecl.to_list!(Ops.add!(x, x)) == list
      assert ExCubecl.to_list!(Ops.add!(x, 1)) == list
      assert ExCubecl.to_list!(Ops.exp!(x)) == list
      assert ExCubecl.item!(Ops.sum!(x)) == 0
      assert ExCubecl.item!(Ops.product!(x)) == 1

      for op <- [&Ops.reduce_min/1, &Ops.reduce_max/1, &Ops.argmin/1, &Ops.argmax/1],
          do: refused(op.(x), :invalid_argument)
    end

    x = ExCubecl.buffer!([], [0, 3], :f32)
    assert ExCubecl.to_list!(Ops.sum!(x, axis: 0)) == [0.0, 0.0, 0.0]
    assert ExCubecl.to_list!(Ops.product!(x, axis: 0)) == [1.0, 1.0, 1.0]
    assert ExCubecl.to_list!(Ops.sum!(x, axis: 1)) == []
    refused(Ops.reduce_max(x, axis: 0), :invalid_argument)
    assert ExCubecl.to_list!(Ops.reduce_max!(x, axis: 1)) == []
    assert ExCubecl.to_list!(Ops.argmin!(x, axis: 1)) == []
    assert ExCubecl.to_list!(Ops.mean!(x, axis: 1)) == []
    assert ExCubecl.to_list!(Ops.mean!(x, axis: 0)) == [:nan, :nan, :nan]
    assert ExCubecl.item!(Ops.mean!(x)) == :nan
    assert Ops.transpose!(x).shape == [3, 0]
    assert Ops.broadcast_to!(x, [2, 0, 3]).shape == [2, 0, 3]
    three = ExCubecl.buffer!([1, 2, 3], [1, 3], :f32)
    assert ExCubecl.to_list!(Ops.concatenate!([x, three])) == [[1.0, 2.0, 3.0]]
    assert Ops.concatenate!([x, x]).shape == [0, 3]
    assert Ops.gather!(three, none(), axis: 1).shape == [1, 0]

    assert ExCubecl.to_list!(Ops.gather!(x, ExCubecl.buffer!([0], [1], :s32))) == [
             [0.0, 0.0, 0.0]
           ]

    assert ExCubecl.to_list!(Ops.cumulative_sum!(x, axis: 0)) == []
    y = ExCubecl.buffer!([], [3, 0], :f32)
    assert Ops.matmul!(x, y).shape == [0, 0]
    assert ExCubecl.to_list!(Ops.matmul!(y, x)) == List.duplicate([0.0, 0.0, 0.0], 3)
    assert Ops.random_uniform!([0, 2], 1).shape == [0, 2]
    assert Ops.random_normal!([0], 1).shape == [0]
  end

  test "pools, arenas and shared buffers" do
    refused(Pool.start_link(shape: [0]), :invalid_argument)
    refused(Pool.start_link(size: 0), :invalid_argument)
    refused(ExCubecl.Pool.get_buffer(0), :invalid_argument)
    refused(Arena.new(0), :invalid_argument)
    arena = Arena.new!(1000, dtype: :f32)
    [a, none, b] = for shape <- [[10], [0, 3], [10]], do: Arena.alloc!(arena, shape)
    used = Arena.used!(arena)
    assert Buffer.fill(none, 1) == :ok
    assert Buffer.read!(none) == ""
    assert Arena.drop(arena, none) == :ok
    assert {reason(Buffer.read(none)), Arena.used!(arena)} == {:stale, used}
    Buffer.fill!(b, 2)
    assert reason(Buffer.read(a)) == :not_allocated
    assert Arena.drop(arena, []) == :ok
    assert Arena.drop(arena, [b, a]) == :ok
    assert Arena.used!(arena) == 0
    window = Arena.reshape!(arena, [0], offset: 1000)
    assert Buffer.read!(window) == ""
    assert Buffer.fill(window, 1) == :ok
    assert reason(Buffer.read(Arena.reshape!(arena, [1]))) == :not_allocated
    assert Arena.measure!(fn arena -> Arena.alloc!(arena, [0], :f32) end) == 0
  end

  test "replicas" do
    {runtime, _} = first = ExCubecl.default_device!()
    second = Device.open!(first, as: {runtime, 7311})

    for shape <- [[0], [0, 3]], shards <- [false, true] do
      rep = Replicated.new!(shape, :f32, devices: [first, second], shards: shards)
      assert Replicated.write(rep, []) == :ok
      assert Replicated.write(rep, "") == :ok
      assert Replicated.write(rep, [], 1) == :ok
      assert {Replicated.read!(rep), Replicated.gather!(rep)} == {["", ""], ""}

      assert Replicated.read!(Replicated.from!([], shape, :u8, devices: [first, second])) == [
               "",
               ""
             ]
    end
  end

  test "samples of a bar and of a timeline" do
    assert ExCubecl.buffer!("", [0], :u8, progress: fn _, _ -> :ok end).shape == [0]
    assert Buffer.read!(none(), progress: fn _, _ -> :ok end) == ""
    assert Buffer.write(none(), "", progress: fn _, _ -> :ok end) == :ok
  end
end
