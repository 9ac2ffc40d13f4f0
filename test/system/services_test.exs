defmodule ExCubecl.ServicesTest do
  # The library's own processes: unexpected messages do not crash them, and everything works after one of them was
  # killed.
  use ExCubecl.Case, async: false

  import ExCubecl.Refusal
  alias ExCubecl.{Kernel, Ops, Pool}
  alias ExCubecl.Memory.Timeline

  require Kernel

  defp children do
    for {name, pid, _, _} <- Supervisor.which_children(ExCubecl.Supervisor), do: {name, pid}
  end

  # Includes malformed versions of messages that the processes handle.
  defp junk do
    [
      :junk,
      nil,
      {:released, :junk},
      {:released, <<1, 2, 3>>},
      {:released, :erlang.term_to_binary({1, 2})},
      {:freed, 1, 2},
      {:had, :junk},
      {:release, :junk},
      {:nodedown, 5},
      {:DOWN, make_ref(), :process, self(), :junk},
      {:DOWN, 1, 2, 3, 4},
      {:sample, nil},
      {:sample, make_ref()},
      {:record, :junk},
      {:record, %{every: -1, keep: 5}},
      {:keep, 1, 2},
      {:wait, 1, 2},
      {:late, :junk},
      {make_ref(), :junk},
      {:EXIT, spawn(fn -> :ok end), :junk},
      {:"$gen_cast", :junk},
      {:"$gen_call", {self(), make_ref()}, :junk},
      {:"$gen_call", :junk, {:wait, nil, 5}},
      {:"$gen_call", :junk, :junk},
      {:timeout, make_ref(), :junk},
      [1 | 2]
    ]
  end

  defp pelt(pid) do
    for junk <- junk() do
      send(pid, junk)
      GenServer.cast(pid, junk)
      refused(GenServer.call(pid, junk), :invalid_argument)
      assert Process.alive?(pid)
    end
  end

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}
  end

  test "what they are sent by mistake ends none of them" do
    before = children()
    assert length(before) >= 4
    for {_name, pid} <- before, do: pelt(pid)
    {:ok, pool} = Pool.start_link(size: 16)
    pelt(pool)
    assert ExCubecl.size!(Pool.checkout!(pool)) == 16
    assert children() == before
  end

  test "each may be killed, a hundred times in a row, and the next call works" do
    double = Kernel.kernel(fn x -> x + x end)
    x = ExCubecl.buffer!([1, 2], [2], :s32)
    supervisor = Process.whereis(ExCubecl.Supervisor)

    for _ <- 1..25, {_name, pid} <- children(), is_pid(pid) do
      kill(pid)
      assert ExCubecl.to_list!(Kernel.run!(double, [x])) == [2, 4]
      assert Kernel.cache!().size >= 0 and is_list(Kernel.list!())
      assert {:ok, _} = Memory.timeline()
    end

    assert Process.whereis(ExCubecl.Supervisor) == supervisor
    assert Enum.all?(children(), fn {_, pid} -> is_pid(pid) end)
  end

  # The application master: a different pid would mean that the application was restarted.
  defp master, do: :application_controller.get_master(:ex_cubecl)

  @tag :capture_log
  test "their supervisor may be killed, and called with junk, and the application goes on" do
    master = master()
    double = Kernel.kernel(fn x -> x + x end)
    x = ExCubecl.buffer!([1, 2], [2], :s32)

    for how <- [:kill, :call, :kill, :call, :kill] do
      pid = Process.whereis(ExCubecl.Supervisor)
      monitor = Process.monitor(pid)
      if how == :kill, do: Process.exit(pid, :kill), else: catch_exit(GenServer.call(pid, :junk))
      assert_receive {:DOWN, ^monitor, _, _, _}
      assert ExCubecl.to_list!(Kernel.run!(double, [x])) == [2, 4]
      assert {:ok, _} = Memory.timeline()
      back(pid, 6000)
    end

    assert master() == master
  end

  defp back(old, tries) do
    if Process.whereis(ExCubecl.Supervisor) in [nil, old] do
      if tries == 0, do: flunk("the supervisor did not come back")
      Process.sleep(10)
      back(old, tries - 1)
    end
  end

  test "kernels run while what keeps them is killed again and again" do
    test = self()
    kernel = Kernel.kernel(fn x, n -> x * n end)
    x = ExCubecl.buffer!([1, 2], [2], :s32)

    runners =
      for _ <- 1..4 do
        Task.async(fn ->
          for n <- 1..100 do
            assert ExCubecl.to_list!(Kernel.run!(kernel, [x, n])) == [n, 2 * n]
            assert ExCubecl.item!(Ops.sum!(x)) == 3
          end

          send(test, :done)
        end)
      end

    killer =
      spawn(fn ->
        for _ <- Stream.cycle([1]) do
          if pid = Process.whereis(ExCubecl.Kernel.Cache), do: Process.exit(pid, :kill)
          Process.sleep(1)
        end
      end)

    Task.await_many(runners, :infinity)
    Process.exit(killer, :kill)
    assert is_pid(Process.whereis(ExCubecl.Supervisor))
  end

  @tag :capture_log
  test "calls go on while all of them are killed in every order, and while the application is stopped and started" do
    on_exit(fn ->
      {:ok, _} = Application.ensure_all_started(:ex_cubecl)
      :ok = Memory.timeline(false)
    end)

    x = ExCubecl.buffer!([1.0, 2.0], [2], :f32)
    {:ok, pool} = Pool.start_link(size: 16, max: 50)
    callers = for _ <- 1..8, do: Task.async(fn -> each_call(x, pool) end)

    for order <- orders(Enum.map(children(), &elem(&1, 0))) do
      for name <- order, pid = Process.whereis(name), do: Process.exit(pid, :kill)
      Process.sleep(:rand.uniform(4))
    end

    for _ <- 1..30 do
      :ok = Application.stop(:ex_cubecl)
      Process.sleep(:rand.uniform(10))
      {:ok, _} = Application.ensure_all_started(:ex_cubecl)
      Process.sleep(:rand.uniform(10))
    end

    for %{pid: pid} <- callers, do: send(pid, :enough)
    assert Task.await_many(callers, :infinity) |> Enum.all?(&(&1 > 0))
    assert length(children()) == 5
  end

  defp orders([]), do: [[]]
  defp orders(names), do: for(name <- names, rest <- orders(names -- [name]), do: [name | rest])

  # Calls that use the processes of the library, and some that do not. Returns how often all were made.
  defp each_call(x, pool, rounds \\ 0) do
    assert ExCubecl.to_list!(Kernel.run!(Kernel.kernel(fn x -> x + 1 end), [x])) == [2.0, 3.0]
    assert ExCubecl.item!(Ops.sum!(Ops.sort!(x))) == 3.0
    assert is_map(Memory.timeline!()) and is_list(Kernel.list!()) and is_map(Kernel.cache!())
    assert Memory.timeline(every: 5, keep: 5) == :ok
    assert Buffer.await!(Buffer.read_async!(x), :infinity) == ExCubecl.read!(x)
    assert :ok = Pool.checkin(pool, Pool.checkout!(pool))
    refused(Buffer.zeros([2], :u8, device: {:no@where, {:vulkan, 0}}), :node_down)

    receive do
      :enough -> rounds + 1
    after
      0 -> each_call(x, pool, rounds + 1)
    end
  end

  test "a timeline that was killed goes on recording" do
    :ok = Memory.timeline(every: 1, keep: 5)
    kill(Process.whereis(Timeline))
    buffer = Buffer.zeros!([10], :u8)
    recorded(12_000)
    assert Memory.timeline(false) == :ok
    kill(Process.whereis(Timeline))
    assert Memory.timeline() == {:ok, %{}}
    assert Buffer.size!(buffer) == 10
  end

  defp recorded(0), do: flunk("nothing was recorded")

  defp recorded(tries) do
    if Memory.timeline!() == %{}, do: Process.sleep(5) && recorded(tries - 1)
  end
end
