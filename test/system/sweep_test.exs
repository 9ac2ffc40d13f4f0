defmodule ExCubecl.SweepTest do
  # Every public function, in VMs with a fault: each call returns, or raises ExCubecl.Error.
  use ExCubecl.Case, async: true

  alias ExCubecl.Sweep

  @nothing for name <- ~w(VK_ICD_FILENAMES VK_DRIVER_FILES), do: {name, "/dev/null"}

  # Calls all functions in one VM after each of `faults`, pieces of code, and returns what it printed: the calls that
  # ended in another way, after the fault.
  defp sweep(env, faults) do
    script =
      Enum.map_join(faults, fn fault ->
        """
        #{fault}
        for {module, name, arity, how} <- ExCubecl.Sweep.run(),
            do: IO.puts(#{inspect(fault)} <> ": " <> inspect({module, name, arity, how}))
        """
      end)

    in_own_vm(script, env)
  end

  defp started, do: "{:ok, _} = Application.ensure_all_started(:ex_cubecl)"

  # Nothing else is configured: a fault does not outlast its sweep.
  defp configured(key, value) do
    """
    #{started()}
    for {key, _} <- Application.get_all_env(:ex_cubecl), do: Application.delete_env(:ex_cubecl, key)
    Application.put_env(:ex_cubecl, #{inspect(key)}, #{value})
    """
  end

  # A fault after which there is no default device; a default device that was found once would be kept.
  defp without_default(fault), do: "#{fault}\n{:error, _} = ExCubecl.default_device()"

  test "the sweep goes through all public modules" do
    assert Enum.sort(Sweep.modules() -- [ExCubecl.Backend, ExCubecl.Nx]) ==
             [
               ExCubecl,
               ExCubecl.Arena,
               ExCubecl.Batch,
               ExCubecl.Buffer,
               ExCubecl.Compat,
               ExCubecl.DType,
               ExCubecl.Data,
               ExCubecl.Device,
               ExCubecl.Error,
               ExCubecl.Kernel,
               ExCubecl.Kernel.Source,
               ExCubecl.LinAlg,
               ExCubecl.Memory,
               ExCubecl.Memory.Chart,
               ExCubecl.Ops,
               ExCubecl.Pool,
               ExCubecl.Random,
               ExCubecl.Replicated,
               ExCubecl.Telemetry,
               ExCubecl.View
             ]
             |> Enum.sort()
  end

  test "where EX_CUBECL_DEVICE or the configuration names no device" do
    names = ["cuda:99", "vulkan:4000", "nonsense", "vulkan:", "метал:0", ":"]

    named =
      for name <- names,
          do: started() <> "\nSystem.put_env(\"EX_CUBECL_DEVICE\", #{inspect(name)})"

    in_config =
      for device <- [~s({:cuda, 99}), ":vulkan", "42", "[1 | 2]", "%{}", ~s({:a@b, {:vulkan, 0}})],
          do: "System.delete_env(\"EX_CUBECL_DEVICE\"); " <> configured(:default_device, device)

    faults = Enum.map(named ++ in_config, &without_default/1)
    assert sweep([], faults) == {"", "", 0}
  end

  test "an error about a default device says who named it" do
    ask = fn env, put ->
      script = "#{put}\nIO.puts(Exception.message(elem(ExCubecl.Device.adapters(), 1)))"
      {message, "", 0} = in_own_vm(script, [{"EX_CUBECL_DEVICE", env}])
      String.replace(message, ~r/: this machine has .*\n/, "")
    end

    assert ask.("cuda:99", "") ==
             "adapters: there is no device cuda:99, which EX_CUBECL_DEVICE names"

    assert ask.(nil, "Application.put_env(:ex_cubecl, :default_device, {:cuda, 99})") ==
             "adapters: there is no device cuda:99, which `config :ex_cubecl, default_device: ...` names"
  end

  test "where limits, size classes and the like are not what they should be" do
    # A limit of the configuration is passed on once, before a device is opened: these are refused each time.
    limits =
      for value <- [":much", "[{:vulkan, 1} | 2]", "~D[2020-01-01]"] do
        "#{configured(:memory_limit, value)}\n{:error, _} = ExCubecl.buffer([1], [1], :u8)"
      end

    others =
      for {key, value} <- [
            memory_limit: ~s(%{"cuda:99" => 100}),
            size_classes: "[{1024, 10} | 2]",
            size_classes: "[{1024, -1}]",
            larger_max: ":many",
            gc_every: ":often",
            progress_after: ":there"
          ],
          do: configured(key, value)

    assert sweep([], limits) == {"", "", 0}
    assert sweep([], others) == {"", "", 0}
  end

  test "where the application is not started" do
    # Elixir logs the stop of the application.
    stop = "Logger.configure(level: :error); Application.stop(:ex_cubecl)"
    assert sweep([], ["", started() <> "\n" <> stop]) == {"", "", 0}
  end

  test "where there is no device" do
    env = [{"EX_CUBECL_DEVICE", nil}, {"CUDA_VISIBLE_DEVICES", ""} | @nothing]
    assert sweep(env, [started()]) == {"", "", 0}
  end

  test "where there is no native library" do
    assert sweep([{"EX_CUBECL_NIF", "/nowhere/ex_cubecl.so"}], [started()]) == {"", "", 0}
  end
end
