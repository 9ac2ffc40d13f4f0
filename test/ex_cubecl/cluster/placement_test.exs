defmodule ExCubecl.Cluster.PlacementTest do
  # Operations and kernels on replicated buffers and on buffers of other nodes.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Data, DataFiles, Kernel, Ops, Peer, Replicated}

  require Kernel

  defmodule Made do
    use ExCubecl.Kernel

    defkernel(saxpy(a, x, y), do: a * x + y)
    defkernel(fill(value, out), do: out[index()] = value)
  end

  setup_all do
    true = Peer.distributed?()
    peer = Peer.start()
    on_exit(fn -> Peer.stop(peer) end)
    {runtime, _} = first = ExCubecl.default_device!()

    logical =
      for index <- [2101, 2102, 2103] do
        {:ok, _} = Device.open(first, as: {runtime, index})
        {runtime, index}
      end

    on_exit(fn ->
      for id <- logical do
        Device.reset(id)
        Device.remove(id)
      end
    end)

    {:ok, [device | _]} = ExCubecl.devices(nodes: [elem(peer, 1)])
    %{node: elem(peer, 1), there: device.id, devices: logical}
  end

  defp lists(rep), do: Enum.map(rep.buffers, &ExCubecl.to_list!/1)
  defp says({:error, error}), do: Exception.message(error)

  defp place({node, {runtime, index}}), do: "#{runtime}:#{index} of node #{node}"
  defp place({runtime, index}), do: "#{runtime}:#{index}"

  describe "replicated buffers" do
    test "an operation runs on each copy", %{devices: devices} do
      x = Replicated.from!([[1, 2], [3, 4]], [2, 2], :s32, devices: devices)
      y = Ops.add!(x, 10)
      assert %Replicated{shape: [2, 2], dtype: :s32, shards: false} = y
      assert Enum.map(y.buffers, & &1.device) == devices
      assert lists(y) == List.duplicate([[11, 12], [13, 14]], 3)
      assert lists(Ops.multiply!(x, y)) == List.duplicate([[11, 24], [39, 56]], 3)
      assert %Replicated{shape: [], dtype: :s64} = sum = Ops.sum!(x)
      assert lists(sum) == [10, 10, 10]

      assert lists(Ops.concatenate!([x, y], axis: 1)) ==
               List.duplicate([[1, 2, 11, 12], [3, 4, 13, 14]], 3)

      assert [one, two] = Ops.split!(x, 2)

      assert {lists(one), lists(two)} ==
               {List.duplicate([[1, 2]], 3), List.duplicate([[3, 4]], 3)}

      assert {values, indices} = Ops.top_k!(x, 1)
      assert {values.shape, indices.shape} == {[2, 1], [2, 1]}
      assert lists(values) == List.duplicate([[2], [4]], 3)
      into = Replicated.new!([2, 2], :s32, devices: devices)
      assert Ops.subtract(y, x, into: into) == :ok
      assert lists(into) == List.duplicate([[10, 10], [10, 10]], 3)
    end

    test "copies that differ stay different", %{devices: devices} do
      x = Replicated.from!([0], [1], :s32, devices: devices)
      for index <- 0..2, do: Replicated.write!(x, [index], index)
      assert lists(Ops.add!(x, 1)) == [[1], [2], [3]]
    end

    test "an operation runs on each shard", %{devices: devices} do
      x = Replicated.from!(Enum.to_list(1..6), [6], :s32, devices: devices, shards: true)
      y = Ops.multiply!(x, x)
      assert %Replicated{shape: [6], shards: true} = y
      assert Replicated.gather!(y) == for(n <- 1..6, into: <<>>, do: <<n * n::32-native>>)
      sums = Ops.sum!(y)
      assert %Replicated{shape: [3], dtype: :s64, shards: true} = sums
      assert lists(sums) == [[5], [25], [61]]
    end

    test "kernels, of a module and anonymous", %{devices: devices} do
      x = Replicated.from!([1.0, 2.0], [2], :f32, devices: devices)
      assert lists(Made.saxpy!(10, x, x)) == List.duplicate([11.0, 22.0], 3)
      assert Made.fill(7, x) == :ok
      assert lists(x) == List.duplicate([7.0, 7.0], 3)
      assert lists(Kernel.run!({Made, :saxpy}, [1, x, 0.5])) == List.duplicate([7.5, 7.5], 3)
      half = Kernel.kernel(fn x -> x / 2 end)
      into = Replicated.new!([2], :f32, devices: devices)
      assert Kernel.run(half, [x], into: into) == :ok
      assert lists(into) == List.duplicate([3.5, 3.5], 3)
    end

    test "all_reduce gives every device the same", %{devices: devices} do
      x = Replicated.from!([0.0, 0.0], [2], :f32, devices: devices)

      for {row, index} <- Enum.with_index([[1, 9], [4, 5], [4, 1]]),
          do: Replicated.write!(x, row, index)

      for {operation, expected} <- [
            sum: [9.0, 15.0],
            mean: [3.0, 5.0],
            max: [4.0, 9.0],
            min: [1.0, 1.0]
          ] do
        reduced = Replicated.all_reduce!(x, operation)
        assert %Replicated{shape: [2], dtype: :f32, shards: false} = reduced
        assert Enum.map(reduced.buffers, & &1.device) == devices
        assert lists(reduced) == List.duplicate(expected, 3)
      end

      shards = Replicated.from!(Enum.to_list(1..6), [6], :u8, devices: devices, shards: true)
      assert %Replicated{shape: [2], dtype: :u8} = sum = Replicated.all_reduce!(shards, :sum)
      assert lists(sum) == List.duplicate([9, 12], 3)
      assert %Replicated{dtype: :f32} = mean = Replicated.all_reduce!(shards, :mean)
      assert lists(mean) == List.duplicate([3.0, 4.0], 3)

      one = Replicated.from!([5], [1], :u8, devices: [hd(devices)])
      same = Replicated.all_reduce!(one, :sum)
      Replicated.write!(one, [6])
      assert lists(same) == [[5]]

      assert says(Replicated.all_reduce(x, :product)) =~
               "expected one of [:sum, :mean, :max, :min]"
    end

    test "other places beside them are an error that names both", %{devices: [a, b, c]} do
      x = Replicated.from!([1, 2], [2], :s32, devices: [a, b])
      other = Replicated.from!([1, 2], [2], :s32, devices: [a, c])
      message = says(Ops.add(x, other))
      assert message =~ place(b) and message =~ place(c)
      assert reason(Ops.add(x, other)) == :invalid_argument
      three = Replicated.from!([1, 2], [2], :s32, devices: [a, b, c])
      assert reason(Ops.add(x, three)) == :invalid_argument
      plain = Buffer.iota!([2], :s32, device: c)
      message = says(Ops.add(x, plain))
      assert message =~ place(c) and message =~ place(a)
      message = says(Ops.add(Buffer.iota!([2], :s32, device: a), x))
      assert message =~ place(a) and message =~ place(b)
      single = Replicated.from!([1, 2], [2], :s32, devices: [c])
      assert lists(Ops.add!(single, plain)) == [[1, 3]]
      assert reason(Ops.add(ExCubecl.View.of!(plain), x)) == :invalid_argument
      assert reason(Ops.add(x, x, into: plain)) == :invalid_argument
      assert reason(Ops.add(%{x | buffers: [1]}, 1)) == :invalid_argument
      assert says(Ops.sum(x, axis: 5)) =~ "sum: invalid axis 5"
    end
  end

  describe "buffers of another node" do
    @describetag :nodes

    test "operations and kernels run where they are", %{node: node, there: there} do
      before = settled()
      x = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s32, device: there)
      y = Ops.add!(x, 10)
      assert %Buffer{device: ^there, shape: [2, 2], dtype: :s32} = y
      assert ExCubecl.to_list!(y) == [[11, 12], [13, 14]]
      assert ExCubecl.to_list!(Ops.concatenate!([x, y])) == [[1, 2], [3, 4], [11, 12], [13, 14]]
      assert [%Buffer{device: ^there}, two] = Ops.split!(x, 2)
      assert ExCubecl.to_list!(two) == [[3, 4]]
      assert {%Buffer{} = values, %Buffer{device: ^there}} = Ops.top_k!(x, 1)
      assert ExCubecl.to_list!(values) == [[2], [4]]
      assert ExCubecl.to_list!(Made.saxpy!(10, x, y)) == [[21, 32], [43, 54]]
      assert Kernel.run({Made, :fill}, [7, x]) == :ok
      assert ExCubecl.to_list!(x) == [[7, 7], [7, 7]]
      assert Ops.add(x, 1, into: x) == :ok
      assert ExCubecl.to_list!(x) == [[8, 8], [8, 8]]
      assert ExCubecl.to_list!(Ops.eye!([2, 2], :u8, device: there)) == [[1, 0], [0, 1]]
      assert ExCubecl.item!(Ops.reduce!(x, 0, Kernel.kernel(fn x, acc -> x + acc end))) == 32
      assert live() == before

      error = elem(Ops.sum(x, axis: 5), 1)
      assert error.details.node == node
      assert Exception.message(error) =~ "on node #{node}: sum: invalid axis 5"

      assert says(Kernel.run({Made, :saxpy}, [300, Buffer.zeros!([1], :u8, device: there), 1])) =~
               "u8 cannot hold 300"
    end

    test "files are read to and written from another node", %{there: there} do
      directory = DataFiles.directory()
      before = settled()

      for {name, wrap} <- [
            {"x.npy", & &1},
            {"x.safetensors", &%{"x" => &1}},
            {"x.npz", &%{"x" => &1}}
          ] do
        path = Path.join(directory, name)
        x = Buffer.iota!([3, 2], :u16, device: there)
        assert Data.write(path, wrap.(x)) == :ok
        read = Data.read!(path, device: there)
        read = if is_struct(read), do: read, else: read["x"]
        assert %Buffer{device: ^there, dtype: :u16, shape: [3, 2]} = read
        assert ExCubecl.to_list!(read) == [[0, 1], [2, 3], [4, 5]]
      end

      fortran =
        DataFiles.npy(
          "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}",
          <<1, 4, 2, 5, 3, 6>>
        )

      path = DataFiles.file(directory, "f.npy", fortran)
      assert ExCubecl.to_list!(Data.read!(path, device: there)) == [[1, 2, 3], [4, 5, 6]]
      assert live() == before
    end

    test "mixed places are an error that names both", %{there: there} do
      far = Buffer.iota!([2], :f32, device: there)
      near = Buffer.iota!([2], :f32)

      for result <- [
            Ops.add(far, near),
            Ops.add(near, far),
            Ops.concatenate([far, near]),
            Ops.add(far, far, into: near),
            Ops.add(far, ExCubecl.View.of!(near)),
            Made.saxpy(1, near, far)
          ] do
        assert reason(result) == :invalid_argument

        assert says(result) =~ place(there) and
                 says(result) =~ "#{place(ExCubecl.default_device!())}"
      end
    end

    test "only functions that say so can be called", %{node: node, there: there} do
      x = Buffer.iota!([2], :f32, device: there)
      there = &ExCubecl.Cluster.Placement.there/2

      for fun <- [&System.halt/1, &File.rm/1, fn x -> x end],
          do:
            assert(
              reason(ExCubecl.Cluster.Client.call(node, there, [fun, [x]])) == :invalid_argument
            )
    end

    test "results are freed there when their handles are collected here", %{
      node: node,
      there: there
    } do
      count = fn -> :erpc.call(node, ExCubecl.Cluster.Keeper, :count, []) end
      made = fn -> Ops.split!(Buffer.iota!([4], :s32, device: there), 2) |> length() end
      before = count.()
      assert made.() == 2
      until_collected(fn -> count.() <= before end, 6000)
    end

    defp until_collected(check, tries) do
      :erlang.garbage_collect()

      cond do
        check.() -> :ok
        tries == 0 -> flunk("handles are kept")
        true -> Process.sleep(10) && until_collected(check, tries - 1)
      end
    end
  end

  @tag :nodes
  test "two nodes and three logical devices compute the sum of one device", %{
    there: there,
    devices: [a, b, _]
  } do
    elements = for n <- 1..3000, do: rem(n * 7919, 1009) - 500
    devices = [a, there, b]

    expected =
      ExCubecl.item!(Ops.sum!(Ops.multiply!(ExCubecl.buffer!(elements, [3000], :s32), 3)))

    assert expected == 3 * Enum.sum(elements)

    x = Replicated.from!(elements, [3000], :s32, devices: devices, shards: true)
    assert Enum.map(x.buffers, & &1.device) == devices
    assert Replicated.gather!(x) == ExCubecl.read!(ExCubecl.buffer!(elements, [3000], :s32))
    total = x |> Ops.multiply!(3) |> Ops.sum!() |> Replicated.all_reduce!(:sum)
    assert Enum.map(total.buffers, & &1.device) == devices
    assert lists(total) == List.duplicate([expected], 3)

    # Copies on both nodes, whose mean is that of one device.
    copies = Replicated.from!(elements, [3000], :f32, devices: devices)
    [mean | _] = means = copies |> Ops.mean!() |> Replicated.all_reduce!(:mean) |> lists()
    assert means == [mean, mean, mean]
    assert_in_delta mean, Enum.sum(elements) / 3000, 1.0e-3
    assert reason(Replicated.write(copies, [1.0])) == :shape_mismatch
    assert Replicated.write(copies, <<1.0::float-32-native>>) |> reason() == :shape_mismatch

    assert reason(Replicated.new([3], :f32, devices: [{:nobody@nowhere, {:vulkan, 0}}])) ==
             :node_down
  end
end
