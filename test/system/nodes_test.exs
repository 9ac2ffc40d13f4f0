defmodule ExCubecl.NodesTest do
  # Buffers on another node, which is another VM on this machine.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  alias ExCubecl.Peer
  alias ExCubecl.Cluster.Keeper

  @moduletag :nodes
  @mib 1_048_576

  setup_all do
    # Distribution ends with the process that started it, here the process of this module's setup.
    true = Peer.distributed?()
    peer = Peer.start()
    on_exit(fn -> Peer.stop(peer) end)
    {:ok, [device | _]} = ExCubecl.devices(nodes: [elem(peer, 1)])
    %{node: elem(peer, 1), device: device.id}
  end

  defp there(node, module, function, args), do: :erpc.call(node, module, function, args)

  defp kept(node), do: there(node, Keeper, :count, [])

  defp live_there(node) do
    usage = there(node, Memory, :usage!, [])
    {usage.live_bytes, usage.live_buffers}
  end

  # The other node is notified of dropped handles when this process is garbage collected.
  defp collected(check), do: until(fn -> :erlang.garbage_collect() && check.() end)

  test "devices of other nodes are named with their node", %{node: node} do
    {:ok, devices} = ExCubecl.devices(nodes: [node, Node.self()])
    assert [%Device{id: {^node, {_, _}}, kind: kind} | _] = devices
    assert kind in [:cpu, :discrete_gpu, :integrated_gpu, :virtual_gpu, :other]
    assert Enum.any?(devices, &match?({n, _} when n == node(), &1.id))
    refused(ExCubecl.devices(nodes: []), :invalid_argument)
    refused(ExCubecl.devices(nodes: ["a"]), :invalid_argument)
    refused(ExCubecl.devices(nodes: [:nobody@nowhere]), :node_down, says: "nobody@nowhere")
  end

  test "every call on a handle runs where the buffer is", %{node: node, device: device} do
    before = settled()
    buffer = ExCubecl.buffer!([[1, 2], [3, 4]], [2, 2], :s16, device: device)
    assert live() == before
    assert elem(live_there(node), 1) >= 1

    assert {Buffer.shape!(buffer), Buffer.dtype!(buffer), Buffer.size!(buffer)} ==
             {[2, 2], "s16", 8}

    assert Buffer.device!(buffer) == device
    assert inspect(buffer) =~ "s16[2][2]" and inspect(buffer) =~ "on #{node}"
    assert Buffer.to_list!(buffer) == [[1, 2], [3, 4]]
    assert Buffer.to_flat_list!(buffer) == [1, 2, 3, 4]
    view = Buffer.view!(buffer, 1, [2])
    assert Buffer.write(view, [8, 9]) == :ok
    assert Buffer.read!(buffer) == <<1::16-native, 8::16-native, 9::16-native, 4::16-native>>
    assert Buffer.read_part!(buffer, 1, 1) == <<8::16-native>>
    assert Buffer.item!(Buffer.view!(buffer, 3, [])) == 4
    assert Buffer.to_list!(Buffer.convert!(buffer, :f32)) == [[1.0, 8.0], [9.0, 4.0]]
    assert Buffer.to_list!(Buffer.reshape!(buffer, [4])) == [1, 8, 9, 4]
    assert Buffer.same_storage?(buffer, view) and Buffer.overlap?(buffer, view)
    refute Buffer.same_storage?(buffer, Buffer.duplicate!(buffer))
    assert Buffer.fill(Buffer.clone!(buffer), 5) == :ok

    assert Buffer.read_all!([buffer, view]) == [
             :binary.copy(<<5::16-native>>, 4),
             :binary.copy(<<5::16-native>>, 2)
           ]

    assert is_integer(Buffer.id!(buffer)) and
             Buffer.storage_id!(buffer) == Buffer.storage_id!(view)

    assert Buffer.total_size!(view) == 8 and Buffer.ref_count!(buffer) >= 2
    assert Buffer.allocated?(buffer) and Buffer.synchronize(buffer) == :ok
    {:ok, transfer} = Buffer.read_async(view)
    assert Buffer.await(transfer) == {:ok, :binary.copy(<<5::16-native>>, 2)}
    assert reason(Buffer.await(transfer)) == :invalid_argument

    for make <- [
          fn -> Buffer.zeros([3], :u8, device: device) end,
          fn -> Buffer.full([3], :u8, 0, device: device) end,
          fn -> Buffer.empty([3], :u8, device: device, lazy: false) end
        ],
        do: assert(Buffer.to_list!(elem(make.(), 1)) == [0, 0, 0])

    assert Buffer.to_list!(Buffer.iota!([3], :u8, device: device, tag: :far)) == [0, 1, 2]
    lazy = Buffer.empty!([3], :u8, device: device)
    refute Buffer.allocated?(lazy)
    assert reason(Buffer.read(lazy)) == :not_allocated
  end

  test "memory and devices over there are asked like those here", %{node: node, device: device} do
    buffer = Buffer.zeros!([12_345], :u8, device: device, tag: :asked)
    assert Memory.usage!(device: device).live_bytes >= 12_345
    assert %{bytes: 12_345} = Memory.report!(device: device).by_tag[:asked]
    assert {:ok, %Device{}} = Device.info(device)
    assert Device.synchronize(device) == :ok
    assert Buffer.synchronize(device) == :ok
    limit = Memory.usage!(device: device).live_bytes
    assert Memory.set_limit(limit, device: device) == :ok
    error = refused(Buffer.zeros([100_000], :u8, device: device), :limit_exceeded)
    assert error.details.node == node
    assert Memory.set_limit(nil, device: device) == :ok
    assert is_integer(Memory.trim!(device: device)) and Memory.reset_peak(device: device) == :ok
    assert Memory.usage!(device: {node(), ExCubecl.default_device!()}).limit == nil
    refused(Memory.usage(device: {:nobody@nowhere, {:vulkan, 0}}), :node_down)
    chart = ExCubecl.Memory.Chart.map!(device: device)
    assert ExCubecl.Memory.Chart.svg!(chart) =~ "tag :asked"
    assert Buffer.size!(buffer) == 12_345
  end

  test "an id with the name of this node is of this node", %{} do
    buffer = ExCubecl.buffer!([1], [1], :u8, device: {node(), ExCubecl.default_device!()})
    assert buffer.device == ExCubecl.default_device!()
  end

  # On the node that has its bytes, a handle from another node cannot be used.
  test "a handle that came home is stale for every function, and none loops", %{
    node: node,
    device: device
  } do
    buffer = ExCubecl.buffer!([1], [1], :u8, device: device)
    said = :erpc.call(node, ExCubecl.Calls, :said, [buffer], 60_000)

    for {name, reason, message} <- said do
      # Storages of different nodes share nothing, and `read_async` returns its error later.
      unless name in [:same_storage?, :overlap?, :read_async],
        do: assert({name, reason, message =~ "#{node}"} == {name, :stale, true}, message)
    end

    assert Buffer.read!(buffer) == <<1>>
  end

  test "what takes buffers of its own node only says where the buffer is", %{device: device} do
    {node, {runtime, index}} = device
    buffer = ExCubecl.buffer!([1, 2, 3, 4], [4], :u8, device: device)
    other = ExCubecl.buffer!([1, 2, 3, 4], [4], :u8)

    for {name, call} <- ExCubecl.Calls.elsewhere(other) do
      assert {name, {:error, error}} = {name, call.(buffer)}
      message = Exception.message(error)

      # Kernels and batches also name the argument, other operations their function.
      assert {name,
              String.replace(
                message,
                ~r/^(\w+: )?(step 1: )?(argument \d \(.*\) of kernel .*?: )?/,
                ""
              )} ==
               {name,
                "the buffer is on #{runtime}:#{index} of node #{node}, and this call takes buffers of its own node only: " <>
                  "create it there, or transfer the buffer here with ExCubecl.Buffer.transfer/2"}
    end
  end

  test "operations run where their buffers are, and refuse those of several nodes", %{
    device: {node, {runtime, index}} = device
  } do
    buffer = ExCubecl.buffer!([1, 2, 3, 4], [4], :u8, device: device)
    other = ExCubecl.buffer!([1, 2, 3, 4], [4], :u8)
    {here, number} = other.device

    for {name, call} <- ExCubecl.Calls.placed(other) do
      case call.(buffer) do
        {:error, %{reason: :invalid_argument, details: %{reason: _}} = error} ->
          message = Exception.message(error)
          assert message =~ "#{runtime}:#{index} of node #{node}", "#{name}: #{message}"
          assert message =~ "#{here}:#{number}", "#{name}: #{message}"

        {:error, error} ->
          # An error of the operation itself.
          assert {name, error.details[:node]} == {name, node}

        {:ok, %Buffer{device: place}} ->
          assert {name, place} == {name, device}

        result ->
          assert {name, match?({:ok, {%Buffer{}, %Buffer{}}}, result) or result == :ok} ==
                   {name, true}
      end
    end
  end

  test "a device of another node may be given as it was listed", %{node: node} do
    {:ok, [device | _]} = ExCubecl.devices(nodes: [node])
    buffer = ExCubecl.buffer!([1], [1], :u8, device: device)
    assert buffer.device == device.id
    assert Buffer.device!(Buffer.transfer!(ExCubecl.buffer!([1], [1], :u8), device)) == device.id
    assert Memory.usage!(device: device).live_bytes >= 1
    assert Buffer.size!(buffer) == 1
    message = "cannot be used from here: buffers of ExCubecl.Buffer, and queries of"

    for call <- [
          fn -> ExCubecl.Arena.new(100, device: device) end,
          fn -> ExCubecl.Pool.start_link(size: 10, device: device.id) end,
          fn -> ExCubecl.Pool.get_buffer(10, device: device) end,
          fn -> ExCubecl.Random.uniform({1, 2}, [2], device: device) end,
          fn ->
            args = [:f32, 1, 1, 1, 1, :f32]
            ExCubecl.Kernel.warm({ExCubecl.Ops.Kernels, :running_sum}, args, device: device)
          end
        ],
        do: refused(call.(), :unsupported, says: ["of node #{node}", message])
  end

  test "errors are those of a local buffer, and name the node", %{node: node, device: device} do
    buffer = ExCubecl.buffer!([1, 2, 3], [3], :u8, device: device)
    error = refused(Buffer.view(buffer, 2, [2]), :out_of_bounds)
    assert error.details.node == node

    assert Exception.message(error) ==
             "on node #{node}: view: a range of 2 elements from offset 2 on is not inside of the buffer, which has 3: offset + count must be at most 3"

    refused(Buffer.convert(buffer, :u9), :unsupported_dtype,
      says: "on node #{node}: convert: :u9 is no"
    )

    refused(Memory.set_limit(-1, device: device), :invalid_argument,
      says: "on node #{node}: set_limit: invalid bytes"
    )

    refused(Buffer.write(buffer, [1, 2]), :shape_mismatch)
    refused(Buffer.write(buffer, [1, 2, 300]), :invalid_value, details: %{index: 2})
    refused(Buffer.fill(buffer, :x), :invalid_value)
    refused(Buffer.item(buffer), :shape_mismatch)
    refused(Buffer.copy(buffer, buffer), :overlap)

    refused(ExCubecl.buffer([1, 300], [2], :u8, device: device), :invalid_value,
      details: %{index: 1}
    )

    refused(ExCubecl.buffer([1], [2], :u8, device: device), :shape_mismatch)
    refused(ExCubecl.buffer(<<1>>, [2], :u8, device: device), :shape_mismatch)
    refused(ExCubecl.buffer([1], [1], :u9, device: device), :unsupported_dtype)
    refused(ExCubecl.buffer([1], [1], :u8, device: {node, {:vulkan, 99}}), :unknown_device)
    refused(ExCubecl.buffer([1], [1], :u8, device: {:nobody@nowhere, {:vulkan, 0}}), :node_down)
    refused(ExCubecl.buffer([1], [1], :u8, device: device, color: 1), :invalid_argument)
    refused(Buffer.read(%{buffer | ref: make_ref()}), :stale)
    assert Buffer.read!(buffer) == <<1, 2, 3>>
  end

  test "a handle is released there after the process that tells of it was killed", %{
    node: node,
    device: device
  } do
    until(fn -> kept(node) == 0 end)
    # In a process that exits, so that no garbage on its heap keeps a handle alive.
    make = fn -> for _ <- 1..3, do: Buffer.zeros!([10], :u8, device: device) end
    parent = self()

    holder =
      spawn(fn ->
        handles = make.()
        send(parent, :made)
        receive do: (:drop -> send(parent, {:dropped, length(handles)}))
      end)

    assert_receive :made
    assert kept(node) == 3
    killed(ExCubecl.Cluster.Releaser)
    send(holder, :drop)
    assert_receive {:dropped, 3}
    until(fn -> kept(node) == 0 end)
    # After a kill of the Keeper the buffers that it held are stale, and new ones work.
    old = Buffer.zeros!([10], :u8, device: device)
    there(node, Process, :exit, [there(node, Process, :whereis, [Keeper]), :kill])
    refused(Buffer.read(old), :stale, says: "#{node}")
    assert Buffer.read!(Buffer.full!([2], :u8, 7, device: device)) == <<7, 7>>
  end

  defp killed(name) do
    pid = Process.whereis(name)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}
    until(fn -> Process.whereis(name) not in [nil, pid] end)
  end

  test "what nobody holds any more is freed there", %{node: node, device: device} do
    collected(fn -> kept(node) == 0 end)

    Task.await(
      Task.async(fn ->
        buffers = for i <- 1..20, do: Buffer.full!([1000], :u8, i, device: device)
        views = Enum.map(buffers, &Buffer.view!(&1, 0, [10]))
        assert kept(node) >= 20
        assert for(v <- views, do: hd(Buffer.to_list!(v))) == Enum.to_list(1..20)
        :done
      end),
      :infinity
    )

    collected(fn -> kept(node) == 0 end)
    collected(fn -> live_there(node) == {0, 0} end)
  end

  test "a process that is killed while it asks leaves nothing there", %{
    node: node,
    device: device
  } do
    for _ <- 1..30 do
      pid = spawn(fn -> for _ <- 1..1000, do: Buffer.zeros!([10], :u8, device: device) end)
      Process.sleep(:rand.uniform(8))
      Process.exit(pid, :kill)
    end

    collected(fn -> kept(node) == 0 end)
  end

  test "content goes from node to node", %{device: device} do
    data = :crypto.strong_rand_bytes(1_000_003)
    local = ExCubecl.buffer!(data, [1_000_003], :u8)
    far = Buffer.transfer!(local, device)
    assert Buffer.read!(far) == data
    back = Buffer.transfer!(Buffer.view!(far, 1, [1_000_000]), ExCubecl.default_device!())
    assert Buffer.read!(back) == binary_part(data, 1, 1_000_000)
    same = Buffer.transfer!(far, device)
    refute Buffer.same_storage?(far, same)
    target = Buffer.zeros!([1_000_000], :u8, device: device)
    assert Buffer.copy(back, target) == :ok
    assert Buffer.read!(target) == Buffer.read!(back)
    local_target = Buffer.zeros!([1_000_000], :u8)
    assert Buffer.copy(target, local_target) == :ok
    assert Buffer.read!(local_target) == Buffer.read!(back)
    assert Buffer.copy(target, Buffer.duplicate!(target)) == :ok
    refused(Buffer.copy(local, target), :shape_mismatch)

    refused(
      Buffer.copy(Buffer.zeros!([1], :f32), Buffer.zeros!([1], :s32, device: device)),
      :type_mismatch
    )

    assert {:ok, %{details: _}} = {:ok, elem(Buffer.transfer(Buffer.empty!([1], :u8), device), 1)}
  end

  test "256 MiB go over in pieces, with at most 32 MiB on the way", %{device: device} do
    size = 128 * @mib

    for _ <- 1..2 do
      local = Buffer.iota!([div(size, 4)], :s32)
      :erlang.garbage_collect()
      {far, most} = watched(fn -> Buffer.transfer!(local, device) end)
      assert most <= 32 * @mib
      check = [0, 1, div(size, 4) - 1, div(size, 8), 2_097_151, 2_097_152]

      for index <- check,
          do: assert(Buffer.read_part!(far, index, 1) == <<index::32-native>>)
    end

    data = :crypto.strong_rand_bytes(20 * @mib + 1)
    far = ExCubecl.buffer!(data, [20 * @mib + 1], :u8, device: device)
    assert Buffer.read!(far) == data
    other = :binary.copy(<<3>>, 20 * @mib + 1)
    assert Buffer.write(far, other) == :ok
    assert Buffer.read!(far) == other
    refused(Buffer.write(far, other <> <<1>>), :shape_mismatch)
  end

  # The peak of binary memory on this node during a call, above the level before it.
  defp watched(call) do
    base = :erlang.memory(:binary)
    parent = self()
    watcher = spawn_link(fn -> watch(parent, base, 0) end)
    result = call.()
    send(watcher, :stop)
    assert_receive {:most, most}
    {result, most}
  end

  defp watch(parent, base, most) do
    receive do
      :stop -> send(parent, {:most, most})
    after
      1 -> watch(parent, base, max(most, :erlang.memory(:binary) - base))
    end
  end

  test "a node that goes away releases what it held, and its handles say so", %{node: _} do
    peer = {_, other} = Peer.start()
    here = {node(), ExCubecl.default_device!()}
    before = settled()

    # A process on the other node holds a buffer of this node.
    there(other, Kernel, :spawn, [Peer, :hold, [here, self()]])
    assert_receive :held
    assert elem(live(), 0) == elem(before, 0) + 5_000

    {:ok, [device | _]} = ExCubecl.devices(nodes: [other])
    mine = ExCubecl.buffer!([1, 2, 3], [3], :u8, device: device.id)
    assert Buffer.read!(mine) == <<1, 2, 3>>
    Peer.kill(peer)
    eventually(before)
    refused(Buffer.read(mine), :node_down, says: to_string(other))
    refused(Buffer.view(mine, 0, [1]), :node_down)
    refused(ExCubecl.buffer([1], [1], :u8, device: device.id), :node_down)
  end

  test "a connection that is cut in the middle of calls leaves errors, and nothing there or here" do
    peer = {_, other} = Peer.start(survives: true)
    {:ok, [%{id: device} | _]} = ExCubecl.devices(nodes: [other])
    local = keep(Buffer.full!([16 * @mib], :u8, 1))
    bytes = Buffer.read!(local)
    before = settled()

    calls = [
      fn -> Buffer.transfer(local, device) end,
      fn -> Buffer.new(bytes, [16 * @mib], :u8, device: device) end,
      fn -> with {:ok, made} <- Buffer.transfer(local, device), do: Buffer.read(made) end,
      fn ->
        with {:ok, made} <- Buffer.full([16 * @mib], :u8, 1, device: device),
             do: Buffer.transfer(made, ExCubecl.default_device!())
      end
    ]

    for call <- calls, wait <- [0, 10, 30] do
      until(fn -> Node.connect(other) end)
      task = Task.async(fn -> {call.(), Process.info(self(), :messages)} end)
      Process.sleep(wait)
      Node.disconnect(other)
      {result, {:messages, messages}} = Task.await(task, :infinity)
      assert messages == []

      case result do
        {:ok, %Buffer{}} -> :ok
        {:ok, content} -> assert content == bytes
        error -> assert reason(error) in [:node_down, :stale]
      end
    end

    until(fn -> Node.connect(other) end)

    until(fn ->
      :erlang.garbage_collect()
      there(other, Memory, :usage!, []).live_buffers == 0
    end)

    eventually(before)
    Peer.stop(peer)
  end

  test "a node that is killed in the middle of a transfer leaves an error and no bytes" do
    peer = {_, other} = Peer.start()
    {:ok, [device | _]} = ExCubecl.devices(nodes: [other])
    local = Buffer.full!([100 * @mib], :u8, 1)
    before = settled()

    # Kills the node as soon as it has the target buffer, while the content is being sent.
    killer =
      Task.async(fn ->
        until(fn -> there(other, Memory, :usage!, []).live_buffers > 0 end)
        Peer.kill(peer)
      end)

    result = Buffer.transfer(local, device.id)
    Task.await(killer, :infinity)
    assert match?({:ok, _}, result) or reason(result) in [:node_down, :stale]
    eventually(before)
    assert Buffer.read_part!(local, 0, 1) == <<1>>
  end

  test "a node without the library, or with another version of it, is said to be so", %{
    node: node
  } do
    peer = {_, bare} = Peer.start(with_code: false)
    refused(ExCubecl.devices(nodes: [bare]), :unsupported, says: "no ExCubecl")
    Peer.stop(peer)

    args = ["0.0.1", self(), &Device.list/0, []]

    refused(there(node, ExCubecl.Cluster.Server, :run, args), :unsupported,
      says: ExCubecl.version()
    )
  end

  test "other nodes can call the functions for buffers and devices, and no others", %{node: node} do
    for fun <- [
          &System.halt/0,
          &Memory.Chart.save/2,
          &:os.cmd/1,
          fn -> 1 end,
          :list,
          &Kernel.node/0
        ] do
      args = [ExCubecl.version(), self(), fun, []]

      refused(there(node, ExCubecl.Cluster.Server, :run, args), :invalid_argument,
        says: "function"
      )
    end

    args = [ExCubecl.version(), self(), &Device.Local.list/0, []]
    assert {:ok, [%{id: _} | _]} = there(node, ExCubecl.Cluster.Server, :run, args)
  end
end
