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
    assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
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
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      assert ExCubecl.to_list!(Kernel.run!(double, [x])) == [2, 4]
      assert {:ok, _} = Memory.timeline()
      back(pid, 500)
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

    Task.await_many(runners, 60_000)
    Process.exit(killer, :kill)
    assert is_pid(Process.whereis(ExCubecl.Supervisor))
  end

  test "a timeline that was killed goes on recording" do
    :ok = Memory.timeline(every: 1, keep: 5)
    kill(Process.whereis(Timeline))
    buffer = Buffer.zeros!([10], :u8)
    recorded(500)
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
