defmodule ExCubecl.ReclaimTest do
  # Without free memory, garbage is collected: that of the caller, of the process that made it, of any process.
  use ExCubecl.Case, async: false

  alias ExCubecl.{Batch, Kernel}

  require Kernel

  @mib 1_048_576

  setup do
    before = settled()
    Memory.trim!()
    :ok = Memory.reset_peak()
    on_exit(fn -> Memory.set_limit(nil) end)
    %{bytes: elem(before, 0), before: before}
  end

  # A process that runs the functions it receives, each in a call of its own, and keeps its garbage.
  defp actor do
    spawn_link(fn -> serve(nil) end)
  end

  defp serve(state) do
    receive do
      {:keep, kept} ->
        serve(kept)

      {from, call} ->
        {answer, state} = call.(state)
        send(from, {self(), answer})
        serve(state)
    end
  end

  defp ask(pid, call) do
    send(pid, {self(), call})
    assert_receive {^pid, answer}
    answer
  end

  defp full(mib), do: Buffer.full!([mib * @mib], :u8, 1)

  test "10,000 buffers of 1 MiB that nobody keeps go through a limit of 8 MiB", %{bytes: bytes} do
    :ok = Memory.set_limit(bytes + 8 * @mib)
    for _ <- 1..10_000, do: {:ok, _} = Buffer.empty([@mib], :u8, lazy: false) |> forget()
    assert Memory.usage!().peak_bytes <= bytes + 8 * @mib
  end

  defp forget({:ok, _}), do: {:ok, nil}

  test "launches that allocate the memory of their lazy outputs go through it, too", %{
    bytes: bytes
  } do
    x = full(1)
    :ok = Memory.set_limit(bytes + 8 * @mib)
    same = Kernel.kernel(fn x, out -> out[index()] = x[index()] end)

    wgsl =
      "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) { out[id.x] = 7u; }"

    source = Kernel.source!(wgsl: wgsl, workgroup: 64)

    for _ <- 1..30 do
      assert Kernel.run(same, [x, Buffer.empty!([@mib], :u8)]) == :ok
      assert Kernel.run(source, [Buffer.empty!([@mib], :u8)], groups: 1) == :ok
    end
  end

  test "batches that allocate the memory of their lazy outputs go through it, too", %{
    bytes: bytes
  } do
    x = full(1)
    :ok = Memory.set_limit(bytes + 8 * @mib)
    next = Kernel.kernel(fn x, out -> out[index()] = x[index()] + 1 end)
    batch = Batch.new() |> Batch.run(next, [x, :y]) |> Batch.run(next, [:y, :z])

    for _ <- 1..30 do
      names = for name <- [:y, :z], do: {name, Buffer.empty!([@mib], :u8)}
      assert Batch.submit(batch, names) == :ok
    end

    # What does not fit without garbage either is refused, and no step runs.
    names = [y: y = full(1), z: Buffer.empty!([@mib], :u8)]
    :ok = Memory.set_limit(1)
    assert reason(Batch.submit(batch, names)) == :limit_exceeded
    :ok = Memory.set_limit(nil)
    assert Buffer.item!(Buffer.view!(y, 0, [1])) == 1
  end

  test "garbage of the process that made it makes room for another", %{bytes: bytes} do
    :ok = Memory.set_limit(bytes + 100 * @mib)
    maker = actor()
    ask(maker, fn _ -> {:ok, for(_ <- 1..9, do: full(10))} end)
    ask(maker, fn _ -> {:ok, nil} end)
    kept = full(5)
    before = Memory.usage!()
    assert {:ok, big} = Buffer.full([80 * @mib], :u8, 2)
    assert Memory.usage!().reclaims == before.reclaims + 1
    assert Memory.usage!().failed == before.failed
    assert Buffer.read_part!(kept, 5 * @mib - 1, 1) == <<1>>
    assert Buffer.read_part!(big, 0, 1) == <<2>>
  end

  test "so does garbage of a process that got it from its maker", %{bytes: bytes} do
    :ok = Memory.set_limit(bytes + 100 * @mib)
    holder = actor()
    maker = actor()
    ask(maker, fn _ -> {send(holder, {:keep, full(90)}), nil} end)
    assert ask(holder, fn buffer -> {Buffer.size!(buffer), nil} end) == 90 * @mib
    assert {:ok, _} = Buffer.full([80 * @mib], :u8, 2)
  end

  test "what is still used stays, and the refusal says who has it", %{bytes: bytes} do
    :ok = Memory.set_limit(bytes + 100 * @mib)
    maker = actor()
    ask(maker, fn _ -> {:ok, full(90)} end)
    failed = Memory.usage!().failed
    assert {:error, error} = result = Buffer.full([20 * @mib], :u8, 2)
    assert reason(result) == :limit_exceeded
    assert [{^maker, n} | _] = error.details.owners
    assert n == 90 * @mib
    assert Exception.message(error) =~ inspect(maker)
    assert %{requested: requested, live: live, limit: limit} = error.details
    assert {requested, limit} == {20 * @mib, bytes + 100 * @mib}
    assert live >= 90 * @mib
    assert Memory.usage!().failed == failed + 1
    assert {:ok, small} = Buffer.full([@mib], :u8, 3)
    assert ask(maker, &{Buffer.read_part!(&1, 0, 2), nil}) == <<1, 1>>
    assert Buffer.read_part!(small, 0, 1) == <<3>>
  end

  test "many that have no room at once all get theirs, or an error", %{bytes: bytes} do
    :ok = Memory.set_limit(bytes + 40 * @mib)

    1..20
    |> Enum.map(fn i ->
      Task.async(fn ->
        for _ <- 1..10 do
          case Buffer.full([5 * @mib], :u8, i) do
            {:ok, buffer} -> assert Buffer.read_part!(buffer, @mib, 1) == <<i>>
            {:error, error} -> assert error.reason == :limit_exceeded
          end
        end
      end)
    end)
    |> Task.await_many(:infinity)

    assert Memory.usage!().peak_bytes <= bytes + 40 * @mib
    assert {:ok, _} = Buffer.full([5 * @mib], :u8, 1)
  end

  test "buffers that take their memory late count as those that take it at once", %{bytes: bytes} do
    :ok = Memory.set_limit(bytes + 8 * @mib)

    for i <- 1..200 do
      buffer = Buffer.empty!([@mib], :u8)
      assert Buffer.fill(buffer, i) == :ok
    end
  end
end
