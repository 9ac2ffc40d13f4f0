defmodule ExCubecl.OwnVmTest do
  # Failures outside of any call, in separate VMs: the library is replaced, the VM ends.
  use ExCubecl.Case, async: true

  test "a library that is loaded again under live buffers is refused, and they go on" do
    script = ~S"""
    alias ExCubecl.Buffer
    :logger.set_primary_config(:level, :none)
    buffer = ExCubecl.buffer!([1, 2, 3], [3], :u8)
    view = Buffer.view!(buffer, 1, [2])
    pending = Buffer.read_async!(buffer)

    # The dynamic linker takes a file with another name for another library, as with a new release.
    newer = System.get_env("NEWER_LIBRARY")
    File.cp!(ExCubecl.Native.library_path(), newer)
    System.put_env("EX_CUBECL_NIF", newer)

    for _ <- 1..3 do
      :code.purge(ExCubecl.Native)
      {:error, :on_load_failure} = :code.load_file(ExCubecl.Native)
      <<1, 2, 3>> = ExCubecl.read!(buffer)
      :ok = Buffer.write(view, [9, 8])
      [1, 9, 8] = ExCubecl.to_list!(buffer)
      :ok = Buffer.write(view, [2, 3])
      [5.0] = ExCubecl.to_list!(ExCubecl.buffer!([5], [1], :f32))
    end

    <<1, 2, 3>> = Buffer.await!(pending)
    # All other modules can be reloaded, while processes call them.
    callers = for _ <- 1..4, do: Task.async(fn ->
      call = fn call, n ->
        x = Buffer.iota!([4], :f32)
        [0.0, 2.0, 4.0, 6.0] = x |> ExCubecl.Ops.multiply!(2) |> Buffer.to_list!()
        6.0 = x |> ExCubecl.Ops.sum!() |> Buffer.item!()
        <<0, 0, 0, 0, _::binary>> = Buffer.await!(Buffer.read_async!(x))
        receive do: (:stop -> n), after: (0 -> call.(call, n + 1))
      end
      call.(call, 1)
    end)

    Application.load(:ex_cubecl)
    {:ok, modules} = :application.get_key(:ex_cubecl, :modules)
    for module <- modules -- [ExCubecl.Native] do
      :code.purge(module)
      {:module, ^module} = :code.load_file(module)
    end

    for %{pid: pid} <- callers, do: send(pid, :stop)
    for calls <- Task.await_many(callers, :infinity), do: true = calls > 0

    [1, 2, 3] = ExCubecl.to_list!(buffer)
    true = ExCubecl.Memory.usage!().live_buffers >= 1
    IO.puts("went on")
    """

    newer = Path.join(System.tmp_dir!(), "ex_cubecl_newer_#{System.pid()}.so")
    assert {"went on\n", _, 0} = in_own_vm(script, [{"NEWER_LIBRARY", newer}])
  after
    File.rm(Path.join(System.tmp_dir!(), "ex_cubecl_newer_#{System.pid()}.so"))
  end

  test "a VM that ends in the middle of transfers ends well" do
    script = ~S"""
    alias ExCubecl.Buffer
    [how, wait] = String.split(System.get_env("ENDING"), ",")
    size = 16_000_000
    data = :binary.copy(<<7>>, size)
    {:ok, pool} = ExCubecl.Pool.start_link(size: 1000, max: 3)
    work = fn work ->
      buffer = ExCubecl.buffer!(data, [size], :u8, progress: fn _, _ -> :ok end)
      Buffer.read_async!(buffer)
      ExCubecl.Pool.with_buffer(pool, fn held -> Buffer.fill!(held, 1) end)
      Buffer.convert!(buffer, :f32)
      ^data = Buffer.read!(buffer)
      work.(work)
    end
    for _ <- 1..6, do: spawn(fn -> work.(work) end)
    Process.sleep(String.to_integer(wait))
    case how do
      "halt" -> System.halt(0)
      "no_flush" -> :erlang.halt(0, flush: false)
      "stop" -> System.stop(0) && Process.sleep(:infinity)
      "kill" -> System.cmd("sh", ["-c", "kill -9 " <> System.pid()])
      "raise" -> raise "the script"
    end
    """

    for {how, status} <- [halt: 0, no_flush: 0, stop: 0, raise: 1, kill: 137],
        wait <- [:rand.uniform(100), 100 + :rand.uniform(300)] do
      {_, errors, ended} = in_own_vm(script, [{"ENDING", "#{how},#{wait}"}])
      assert {how, wait, ended} == {how, wait, status}, inspect({how, wait, ended, errors})
      refute errors =~ ~r/panick|Segmentation|SIG[A-Z]+|core dumped/
    end

    # The next VM can still use the device.
    assert ExCubecl.to_list!(ExCubecl.buffer!([1], [1], :u8)) == [1]
  end

  # Lavapipe compiles on its own thread, with a library whose destructors run when the process exits.
  test "a VM that ends while kernels are compiled ends well" do
    script = ~S"""
    alias ExCubecl.{Buffer, Kernel}
    [how, wait] = String.split(System.get_env("ENDING"), ",")
    buffer = Buffer.full!([100_000], :f32, 1.0)
    work = fn work, n ->
      # A different source for each kernel, in every run.
      number = "#{n}.0e-3 + #{System.os_time()}.0"
      code = "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) " <>
        "{ if (id.x < arrayLength(&x)) { x[id.x] = x[id.x] + #{number}; } }"
      {:ok, kernel} = Kernel.source(wgsl: "@group(0) @binding(0) var<storage, read_write> x: array<f32>;" <> code)
      Kernel.run(kernel, [buffer], size: 100_000)
      ExCubecl.Ops.exp!(buffer)
      work.(work, n + 1)
    end
    for n <- 1..4, do: spawn(fn -> work.(work, n * 1_000_000) end)
    Process.sleep(String.to_integer(wait))
    case how do
      "halt" -> System.halt(3)
      "no_flush" -> :erlang.halt(3, flush: false)
    end
    """

    for how <- [:halt, :no_flush], wait <- [130 + :rand.uniform(100), 230 + :rand.uniform(160)] do
      {_, errors, ended} = in_own_vm(script, [{"ENDING", "#{how},#{wait}"}])
      assert {how, wait, errors, ended} == {how, wait, "", 3}
    end
  end
end
