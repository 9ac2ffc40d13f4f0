defmodule ExCubecl.BadInputTest do
  # Every invalid call returns an error with a reason and a readable message, and changes nothing.
  use ExCubecl.Case, async: false

  setup do
    %{buffer: keep(ExCubecl.buffer!([1.0, 2.0, 3.0], [3], :f32))}
  end

  test "data that does not fit the shape" do
    assert reason(ExCubecl.buffer([1.0, 2.0], [3], :f32)) == :shape_mismatch
    assert reason(ExCubecl.buffer([1, 2, 3, 4], [3], :u8)) == :shape_mismatch
    assert reason(ExCubecl.buffer(<<1, 2, 3>>, [1], :f32)) == :shape_mismatch
    assert reason(ExCubecl.buffer([[1, 2], [3]], [2, 2], :u8)) == :shape_mismatch
    assert reason(ExCubecl.buffer([[1, 2]], [2, 2], :u8)) == :shape_mismatch
    assert reason(ExCubecl.buffer([[[1], [2]], [[3], [4, 5]]], [2, 2, 1], :u8)) == :shape_mismatch
    assert reason(ExCubecl.buffer([], [], :u8)) == :shape_mismatch
    {:error, error} = ExCubecl.buffer([[1, 2], [3]], [2, 2], :u8)
    assert %{depth: 1, expected: 2, actual: 1} = error.details
  end

  test "data that is no data" do
    for data <- [nil, :nan, %{}, {1, 2}, self(), make_ref(), 1.0, <<1::3>>] do
      assert reason(ExCubecl.buffer(data, [2], :f32)) == :invalid_argument
    end

    for data <- [[1 | 2], [[1, 2] | 3], [[1 | 2], [3, 4]]] do
      assert reason(ExCubecl.buffer(data, [2, 2], :f32)) in [:invalid_argument, :invalid_value]
    end

    assert reason(ExCubecl.buffer([1 | 2], [1], :u8)) == :invalid_argument
  end

  test "elements that are none, with their index" do
    for {data, dtype, index} <- [
          {[1, 2, 256], :u8, 2},
          {[1, 2.0, 3], :s32, 1},
          {[1, :nan, 3], :s64, 1},
          {[:nonsense, 2, 3], :f32, 0},
          {[1, nil, 3], :f32, 1},
          {[1, "2", 3], :f64, 1},
          {[1, 2, [3]], :f32, 2},
          {[1, 2, {3}], :u16, 2},
          {[1, Integer.pow(10, 40), 3], :f32, 1}
        ] do
      assert {:error, error} = ExCubecl.buffer(data, [3], dtype)
      assert %{reason: :invalid_value, details: %{index: ^index, dtype: ^dtype}} = error

      assert Exception.message(error) =~
               "element #{index} of the data is #{inspect(Enum.at(data, index))}"
    end

    assert {:error, %{details: %{index: 3}}} = ExCubecl.buffer([[1, 2], [3, -1]], [2, 2], :u8)
    assert reason(ExCubecl.buffer([[1, 2], 3], [2, 2], :u8)) == :shape_mismatch
  end

  test "shapes that are none" do
    huge = Integer.pow(2, 64)

    for shape <- [
          nil,
          3,
          :a,
          "3",
          [-1],
          [2.0],
          [nil],
          [1 | 2],
          [huge],
          {:a},
          %{},
          [Integer.pow(2, 62), 8]
        ] do
      assert reason(ExCubecl.buffer([], shape, :f32)) == :invalid_shape
    end

    # Both products are zero modulo 2^64.
    assert reason(ExCubecl.buffer(<<>>, [4_294_967_296, 4_294_967_296], :f32)) == :invalid_shape
    assert reason(ExCubecl.buffer([], [huge, 0], :f32)) == :invalid_shape
  end

  test "types and options that do not exist" do
    for dtype <- [:f8, "f32", nil, 32, {:f, 32}],
        do: assert(reason(ExCubecl.buffer([1], [1], dtype)) == :unsupported_dtype)

    for opts <- [[devise: 1], :device, [1], %{device: nil}],
        do: assert(reason(ExCubecl.buffer([1], [1], :u8, opts)) == :invalid_argument)

    assert reason(Buffer.empty([1], :u8, lazy: 1)) == :invalid_argument
  end

  test "devices that do not exist" do
    for device <- [
          {:vulkan, 99},
          {:opencl, 0},
          "nope",
          "vulkan:",
          "vulkan:1x",
          :gpu,
          5,
          {:vulkan, -1},
          {:vulkan, 1.0}
        ] do
      assert {:error, error} = result = ExCubecl.buffer([1], [1], :u8, device: device)
      assert reason(result) == :unknown_device
      assert [_ | _] = error.details.known
    end
  end

  test "a buffer that is larger than the device takes" do
    {:ok, device} = Device.info(nil)
    limit = device.max_buffer_size
    assert {:error, error} = result = Buffer.empty([limit + 1], :u8)
    assert reason(result) == :too_large
    assert %{requested: requested, limit: ^limit} = error.details
    assert requested == limit + 1
    assert Exception.message(error) =~ "#{limit + 1}" and Exception.message(error) =~ "#{limit}"
  end

  test "sixty-four axes and not more, which no stack would stand" do
    nest = fn depth -> Enum.reduce(1..depth, 7, fn _, inner -> [inner] end) end
    ones = &List.duplicate(1, &1)
    buffer = ExCubecl.buffer!(nest.(64), ones.(64), :u8)
    assert ExCubecl.to_list!(buffer) == nest.(64)

    for axes <- [65, 1_000, 100_000] do
      assert reason(ExCubecl.buffer(nest.(axes), ones.(axes), :u8)) == :invalid_shape
      assert reason(Buffer.zeros(ones.(axes), :u8)) == :invalid_shape
      assert reason(Buffer.reshape(buffer, ones.(axes))) == :invalid_shape
    end
  end

  test "something that is no buffer, in every function" do
    buffer = ExCubecl.buffer!([1.0], [1], :f32)
    dead = %{buffer | ref: make_ref()}

    odd = [
      %{buffer | shape: :x},
      %{buffer | dtype: :zz},
      %{buffer | ref: 1},
      %{buffer | shape: [-1]}
    ]

    one =
      ~w(read to_list to_flat_list item ensure_allocated clone duplicate read_async synchronize pointer)a

    two = [
      view: [0, [1]],
      slice_bytes: [0, 1],
      reshape: [[1]],
      bitcast: [:s32],
      copy_from_pointer: [4_096],
      convert: [:u8],
      transfer: [nil],
      write: [[1.0]],
      fill: [1],
      read_part: [0, 1]
    ]

    for junk <- [nil, 1, "x", [], %{}, self(), make_ref(), dead | odd] do
      for name <- one, do: assert(reason(apply(Buffer, name, [junk])) == :invalid_argument)

      for {name, args} <- two,
          do: assert(reason(apply(Buffer, name, [junk | args])) == :invalid_argument)

      assert reason(Buffer.copy(junk, buffer)) == :invalid_argument
      assert reason(Buffer.copy(buffer, junk)) == :invalid_argument
      assert reason(Buffer.read_all([buffer, junk])) == :invalid_argument

      for name <- [:id!, :storage_id!, :total_size!, :ref_count!],
          do: assert_raise(Error, fn -> apply(Buffer, name, [junk]) end)

      assert_raise Error, fn -> Buffer.overlap?(junk, buffer) end
      assert_raise Error, fn -> Buffer.allocated?(junk) end
      assert is_binary(inspect(junk))
    end

    for junk <- [nil, 1, %{}, make_ref()], name <- [:shape, :dtype, :size] do
      assert reason(apply(ExCubecl, name, [junk])) == :invalid_argument
      assert_raise Error, fn -> apply(ExCubecl, :"#{name}!", [junk]) end
    end
  end

  test "views, parts and writes out of bounds", %{buffer: buffer} do
    for {offset, shape} <- [
          {0, [4]},
          {3, [1]},
          {4, [0]},
          {Integer.pow(2, 64) - 1, [2]},
          {Integer.pow(2, 70), [1]}
        ] do
      assert reason(Buffer.view(buffer, offset, shape)) == :out_of_bounds
    end

    for offset <- [-1, 1.0, nil, :a],
        do: assert(reason(Buffer.view(buffer, offset, [1])) == :invalid_argument)

    assert reason(Buffer.view(buffer, 0, [-1])) == :invalid_shape
    assert reason(Buffer.slice_bytes(buffer, 10, 3)) == :out_of_bounds
    assert reason(Buffer.slice_bytes(buffer, 0, -1)) == :invalid_argument
    assert reason(Buffer.read_part(buffer, 2, 2)) == :out_of_bounds
    assert reason(Buffer.read_part(buffer, 0, Integer.pow(2, 64) - 1)) == :out_of_bounds
    assert reason(Buffer.write(buffer, [1.0], offset: 3)) == :out_of_bounds
    assert reason(Buffer.write(buffer, <<0::64>>, offset: 2)) == :out_of_bounds
    assert reason(Buffer.write(buffer, <<0::24>>, offset: 0)) == :shape_mismatch
    assert reason(Buffer.write(buffer, [1.0, 2.0])) == :shape_mismatch
    assert reason(Buffer.write(buffer, <<0::32>>)) == :shape_mismatch
    assert reason(Buffer.write(buffer, [1.0, :x, 2.0])) == :invalid_value
    assert reason(Buffer.write(buffer, [1.0 | 2.0], offset: 0)) == :invalid_argument
    assert reason(Buffer.write(buffer, 5, offset: 0)) == :invalid_argument
    assert reason(Buffer.fill(buffer, "x")) == :invalid_value
    assert reason(Buffer.reshape(buffer, [2])) == :shape_mismatch
    assert reason(Buffer.item(buffer)) == :shape_mismatch
    assert reason(Buffer.convert(buffer, :f8)) == :unsupported_dtype
    assert ExCubecl.to_list!(buffer) == [1.0, 2.0, 3.0]
  end

  test "copies between buffers that do not go together", %{buffer: buffer} do
    other = Buffer.zeros!([3], :s32)
    [left, right] = for offset <- [0, 1], do: Buffer.view!(buffer, offset, [2])
    assert reason(Buffer.copy(buffer, other)) == :type_mismatch
    assert reason(Buffer.copy(buffer, Buffer.zeros!([2], :f32))) == :shape_mismatch
    assert reason(Buffer.copy(buffer, buffer)) == :overlap
    assert reason(Buffer.copy(left, right)) == :overlap
    assert reason(Buffer.copy(Buffer.empty!([3], :f32), buffer)) == :not_allocated
    assert ExCubecl.to_list!(buffer) == [1.0, 2.0, 3.0]
    assert ExCubecl.to_list!(other) == [0, 0, 0]
  end

  test "transfers that were awaited before, that are another's, or that are none", %{
    buffer: buffer
  } do
    transfer = Buffer.read_async!(buffer)
    assert {:ok, _} = Buffer.await(transfer)
    assert reason(Buffer.await(transfer)) == :invalid_argument
    foreign = Task.await(Task.async(fn -> Buffer.read_async!(buffer) end), :infinity)
    assert reason(Buffer.await(foreign)) == :invalid_argument

    for junk <- [nil, 1, make_ref(), buffer.ref, self()],
        do: assert(reason(Buffer.await(junk)) == :invalid_argument)

    assert reason(Buffer.await(Buffer.read_async!(buffer), -1)) == :invalid_argument
    assert reason(Buffer.read_async(Buffer.empty!([1], :u8))) == :not_allocated
  end

  test "an array without elements but with endless rows is no list" do
    buffer = ExCubecl.buffer!([], [1_000_000_000_000, 0], :f32)
    assert reason(ExCubecl.to_list(buffer)) == :too_large
    # The rows of all levels count, too.
    deep = ExCubecl.buffer!([], [10_000_000] ++ List.duplicate(1, 20) ++ [0], :f32)
    assert reason(ExCubecl.to_list(deep)) == :too_large
    thin = Buffer.zeros!([1_000_000] ++ List.duplicate(1, 40), :u8)
    assert reason(ExCubecl.to_list(thin)) == :too_large
    assert length(ExCubecl.to_flat_list!(thin)) == 1_000_000
    assert ExCubecl.to_flat_list(buffer) == {:ok, []}
  end

  test "ten thousand malformed calls neither crash nor leak nor raise anything else", %{
    buffer: buffer
  } do
    seed = :erlang.phash2(make_ref())
    :rand.seed(:exsss, {seed, seed, seed})
    before = settled()

    names = [:Arena, :Buffer, :Device, :Memory, :Pool, :Replicated]

    modules = [
      ExCubecl,
      ExCubecl.Memory.Chart,
      ExCubecl.Kernel,
      ExCubecl.Ops,
      ExCubecl.Batch | Enum.map(names, &Module.concat(ExCubecl, &1))
    ]

    functions =
      for module <- modules,
          {name, arity} <- module.__info__(:functions),
          plain(name) not in [:__struct__, :set_limit, :reset_peak, :trace, :child_spec, :reset] and
            {module, name} not in [{ExCubecl.Kernel, :prepare}, {ExCubecl.Kernel, :step}],
          do: {module, name, arity}

    for _ <- 1..10_000 do
      {module, name, arity} = Enum.random(functions)
      args = for _ <- 1..arity//1, do: junk(buffer)

      try do
        with {:error, error} <- apply(module, name, args),
             do: assert(is_binary(Exception.message(error)))
      rescue
        error ->
          assert is_struct(error, Error), "seed #{seed}: #{inspect({module, name, args, error})}"
      end
    end

    eventually(before)
  end

  # The name of a function without its `!`.
  defp plain(name),
    do: name |> to_string() |> String.trim_trailing("!") |> String.to_existing_atom()

  defp junk(buffer) do
    Enum.random([
      nil,
      0,
      -1,
      1,
      3,
      1.5,
      1.0e308,
      Integer.pow(2, 63),
      Integer.pow(2, 64),
      -Integer.pow(2, 70),
      :nan,
      :f32,
      :u8,
      "x",
      <<1::3>>,
      <<0::96>>,
      [],
      [3],
      [1],
      [-1],
      [2, 2],
      [1, 2, 3],
      [1.0, 2.0, 3.0],
      [[1], [2]],
      [1 | 2],
      [[1 | 2]],
      {},
      {3},
      [Integer.pow(2, 62), 8],
      %{},
      self(),
      make_ref(),
      &is_atom/1,
      buffer,
      %{buffer | ref: make_ref()},
      %{buffer | shape: [100]},
      %{buffer | dtype: :x},
      [device: {:vulkan, 99}],
      [offset: 1],
      [offset: -1],
      [lazy: false],
      {:vulkan, 0},
      "vulkan:0"
    ])
  end
end
