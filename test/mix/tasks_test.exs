defmodule ExCubecl.TasksTest do
  # The Mix tasks: mix ex_cubecl.devices, .doctor, .top.
  use ExCubecl.Case, async: false

  import ExUnit.CaptureIO

  alias ExCubecl.Peer
  alias ExCubecl.Dashboard.{Doctor, Top}
  alias Mix.Tasks.ExCubecl, as: Tasks

  @moduletag timeout: 240_000
  @driver Path.expand("../support/driver.c", __DIR__)

  setup do
    dir = Path.join(System.tmp_dir!(), "ex_cubecl_tasks_#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    %{dir: dir}
  end

  # Runs with other environment variables, and restores the old ones.
  defp with_env(env, run) do
    before = for {name, _} <- env, do: {name, System.get_env(name)}
    System.put_env(env)

    try do
      run.()
    after
      System.put_env(before)
    end
  end

  defp only_driver(dir, library, run) do
    path = Path.join(dir, "broken_icd.json")
    icd = ~s({"library_path": "#{library}", "api_version": "1.3.0"})
    File.write!(path, ~s({"file_format_version": "1.0.0", "ICD": #{icd}}))
    with_env([{"VK_ICD_FILENAMES", path}, {"VK_DRIVER_FILES", path}], run)
  end

  defp compile_driver(dir, flags) do
    library = Path.join(dir, "libbroken.so")
    {"", 0} = System.cmd("cc", ["-shared", "-fPIC", "-o", library, @driver | flags])
    library
  end

  defp section(sections, name), do: sections |> List.keyfind(name, 0) |> elem(1)

  defp missing(sections, name),
    do: for({:missing, text} <- section(sections, name), into: "", do: text <> "\n")

  describe "devices" do
    test "lists all of them and marks the default one" do
      {:ok, default} = Device.default()
      {runtime, index} = default
      lines = String.split(capture_io(fn -> Tasks.Devices.run([]) end), "\n", trim: true)
      {:ok, devices} = Device.list()
      assert length(lines) == length(devices)
      assert [star] = Enum.filter(lines, &String.starts_with?(&1, "* "))
      assert star =~ "#{runtime}:#{index}"
      {:ok, info} = Device.info(default)
      assert star =~ info.name and star =~ info.driver
    end

    test "takes nothing else" do
      assert_raise Mix.Error, ~r/no arguments/, fn -> Tasks.Devices.run(["all"]) end
    end
  end

  describe "doctor" do
    test "finds this machine well, having tried each device" do
      text = capture_io(fn -> Tasks.Doctor.run([]) end)
      assert text =~ "Native library" and text =~ ExCubecl.version()
      {:ok, {runtime, index}} = Device.default()
      assert text =~ ~r/ok .*#{runtime}:#{index}: /
      assert_raise Mix.Error, ~r/no arguments/, fn -> Tasks.Doctor.run(["x"]) end
    end

    test "says how to get a driver where there is none", %{dir: dir} do
      nothing = for name <- ~w(VK_ICD_FILENAMES VK_DRIVER_FILES), do: {name, "#{dir}/none.json"}

      with_env([{"CUDA_VISIBLE_DEVICES", ""} | nothing], fn ->
        sections = Doctor.run()
        refute Doctor.healthy?(sections)
        assert missing(sections, "Vulkan") =~ "none.json cannot be read"
        assert missing(sections, "Devices") =~ "mesa-vulkan-drivers"
        run = fn -> capture_io(fn -> Tasks.Doctor.run([]) end) end
        assert_raise Mix.Error, ~r/no device works/, run
      end)
    end

    test "names a driver whose library is not there, or is none", %{dir: dir} do
      only_driver(dir, "#{dir}/gone.so", fn ->
        sections = Doctor.run()
        assert missing(sections, "Vulkan") =~ "gone.so, which is not there"
        refute Doctor.healthy?(sections)
      end)

      File.write!("#{dir}/garbage.so", "no library")

      only_driver(dir, "#{dir}/garbage.so", fn ->
        sections = Doctor.run()
        assert missing(sections, "Devices") =~ "no device on this machine"
        refute Doctor.healthy?(sections)
      end)

      File.write!("#{dir}/broken_icd.json", "{}")

      with_env([{"VK_ICD_FILENAMES", "#{dir}/broken_icd.json"}, {"VK_DRIVER_FILES", ""}], fn ->
        assert missing(Doctor.run(), "Vulkan") =~ "names no library"
      end)
    end

    test "outlives a driver that dies at its start, and says which attempt it was", %{dir: dir} do
      library = compile_driver(dir, ["-DDIES"])

      only_driver(dir, library, fn ->
        sections = Doctor.run()
        refute Doctor.healthy?(sections)
        assert missing(sections, "Devices") =~ ~r/looking for devices: .* status \d+/
      end)
    end

    test "says when the environment names a device that is not there" do
      with_env([{"EX_CUBECL_DEVICE", "vulkan:99"}], fn ->
        assert missing(Doctor.run(), "Devices") =~ "EX_CUBECL_DEVICE"
      end)
    end
  end

  test "a driver that refuses to start is no device, and no crash", %{dir: dir} do
    library = compile_driver(dir, [])

    script = ~S"""
    {:error, error} = ExCubecl.buffer([1], [1], :u8)
    IO.puts(error.reason)
    {:error, error} = ExCubecl.buffer([1], [1], :u8)
    IO.puts(error.reason)
    """

    only_driver(dir, library, fn ->
      env = [{"EX_CUBECL_DEVICE", nil}, {"CUDA_VISIBLE_DEVICES", ""}]
      assert {"no_device\nno_device\n", _, 0} = in_own_vm(script, env)
    end)
  end

  # Code that waits until this number of views was drawn; the drawing process has the same group leader.
  defp shown(views) do
    """
    drawn = fn -> Process.group_leader() |> StringIO.contents() |> elem(1) |> String.split("ExCubecl on") end
    wait = fn wait -> if length(drawn.()) <= #{views}, do: Process.sleep(5) && wait.(wait) end
    wait.(wait)
    """
  end

  describe "top" do
    test "shows devices, owners and tags, once" do
      buffer = Buffer.zeros!([3_000_000], :u8, tag: :shown_by_top)
      {:ok, {runtime, index}} = Device.default()
      text = capture_io(fn -> Tasks.Top.run(["--once"]) end)
      assert text =~ "#{runtime}:#{index}" and text =~ ":shown_by_top"
      assert text =~ inspect(self()) and text =~ "2.9 MiB"
      assert Buffer.size!(buffer) == 3_000_000
    end

    test "without arguments it lists nodes, and what it can show" do
      peer = if Peer.distributed?(), do: Peer.start()
      text = capture_io(fn -> Tasks.Top.run([]) end)
      for choice <- ["--node", "--run", "--app"], do: assert(text =~ choice)

      if peer do
        {_, node} = peer
        [name, _host] = String.split(to_string(node), "@")
        assert text =~ "\n  #{name}@"
        Peer.stop(peer)
      end
    end

    test "kernels are counted, and for each second since the snapshot before" do
      x = ExCubecl.buffer!([1, 2, 3], [3], :f32)
      ExCubecl.Ops.add!(x, x)
      before = Top.snapshot()
      for _ <- 1..5, do: ExCubecl.Ops.add!(x, x)
      id = ExCubecl.default_device!()
      batch = ExCubecl.Batch.fill(ExCubecl.Batch.new(), x, 1)
      :ok = ExCubecl.Batch.submit(batch)
      now = Top.snapshot()

      [earlier, later] =
        for snapshot <- [before, now],
            do:
              Enum.find(snapshot.devices, &(&1.id == id)).launches
              |> Enum.map(&elem(&1, 1))
              |> Enum.sum()

      assert later - earlier == 6
      text = Enum.join(Top.draw(%{now | at: before.at + 2_000_000}, before, :here, 200), "\n")
      assert text =~ "kernels #{later}, 3.0 per second" and text =~ ~r/queue wait \d+\.\d ms/
      assert text =~ ~r/count +a second +kernel/
      assert Enum.join(Top.draw(now, nil, :here, 200), "\n") =~ "kernels #{later}   queue wait"
    end

    test "a device whose queue does not answer, and operations of Nx on the host" do
      device = %{
        id: {:vulkan, 0},
        name: "card",
        usage: nil,
        wait: :longer,
        owners: [],
        tags: [],
        launches: [],
        fallbacks: [{"tan of {:c, 64}", 7}]
      }

      before = %{at: 0, devices: [%{device | fallbacks: [{"tan of {:c, 64}", 3}]}]}
      text = Enum.join(Top.draw(%{at: 1_000_000, devices: [device]}, before, :here, 120), "\n")
      assert text =~ "queue wait more than 1000 ms" and text =~ "busy"
      assert text =~ ~r/fallbacks of Nx 7, 4\.0 per second/
      assert text =~ ~r/7 +4\.0 +tan of \{:c, 64\}/
      # A device that was not open before.
      assert Enum.join(
               Top.draw(%{at: 1_000_000, devices: [device]}, %{at: 0, devices: []}, :here, 120)
             ) =~ "7.0"
    end

    test "watches a script until it ends", %{dir: dir} do
      path = Path.join(dir, "work.exs")

      File.write!(path, """
      buffer = ExCubecl.Buffer.zeros!([5_000_000], :u8, tag: :of_the_script)
      #{shown(3)}
      ExCubecl.Buffer.size!(buffer)
      """)

      enabled = Application.get_env(:elixir, :ansi_enabled)
      on_exit(fn -> Application.put_env(:elixir, :ansi_enabled, enabled) end)

      # A terminal shows one view, a file has one below the other.
      for ansi? <- [true, false] do
        Application.put_env(:elixir, :ansi_enabled, ansi?)
        text = capture_io(fn -> Tasks.Top.run(["--run", path, "--every", "50"]) end)
        assert length(String.split(text, "ExCubecl on")) > 3
        assert text =~ ":of_the_script"
        assert String.contains?(text, IO.ANSI.clear()) == ansi?
      end
    end

    test "a script that raises ends the view with its error", %{dir: dir} do
      path = Path.join(dir, "broken.exs")
      File.write!(path, ~s|#{shown(1)}\nraise "of the script"|)

      assert_raise RuntimeError, "of the script", fn ->
        capture_io(fn -> Tasks.Top.run(["--run", path, "--every", "50"]) end)
      end
    end

    test "looks at another node" do
      if Peer.distributed?() do
        {_, node} = peer = Peer.start()
        :erpc.call(node, :application, :ensure_all_started, [:ex_cubecl])
        device = {node, ExCubecl.default_device!()}
        buffer = Buffer.zeros!([7_000], :u8, device: device, tag: :over_there)
        text = capture_io(fn -> Tasks.Top.run(["--once", "--node", to_string(node)]) end)
        assert text =~ "#{node}" and text =~ ":over_there"
        assert Buffer.size!(buffer) == 7_000
        Peer.stop(peer)
      end
    end

    test "it starts epmd, which Mix does not" do
      if System.find_executable("epmd") do
        # An epmd of its own, on a free port.
        {:ok, socket} = :gen_tcp.listen(0, [])
        {:ok, port} = :inet.port(socket)
        :gen_tcp.close(socket)
        on_exit(fn -> System.cmd("epmd", ["-port", "#{port}", "-kill"]) end)

        script = """
        Mix.start()

        try do
          Mix.Tasks.ExCubecl.Top.run(["--node", "nobody@127.0.0.1"])
        rescue
          error in Mix.Error -> IO.puts(error.message)
        end
        """

        assert {text, _, 0} = in_own_vm(script, [{"ERL_EPMD_PORT", "#{port}"}])
        assert text =~ "nobody@127.0.0.1 does not answer"
      end
    end

    test "bad arguments are named", %{dir: dir} do
      for {args, words} <- [
            {["extra"], "extra"},
            {["--often"], "--often"},
            {["--every", "x"], "--every"},
            {["--run", "#{dir}/gone.exs"], "no script"}
          ],
          do: assert_raise(Mix.Error, ~r/#{words}/, fn -> Tasks.Top.run(args) end)

      if Peer.distributed?() do
        run = fn -> Tasks.Top.run(["--node", "nobody@127.0.0.1"]) end
        assert_raise Mix.Error, ~r/does not answer/, run
      end
    end
  end
end
