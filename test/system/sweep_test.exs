defmodule ExCubecl.SweepTest do
  # Every public function, in VMs with a fault: each call returns, or raises ExCubecl.Error.
  use ExCubecl.Case, async: false

  alias ExCubecl.Sweep

  @moduletag timeout: 240_000

  @nothing for name <- ~w(VK_ICD_FILENAMES VK_DRIVER_FILES), do: {name, "/dev/null"}

  # Runs `before` in a VM with this environment, and then calls all functions.
  defp sweep(env, before) do
    script = """
    #{before}
    for {module, name, arity, how} <- ExCubecl.Sweep.run(),
        do: IO.puts(inspect(module) <> "." <> Atom.to_string(name) <> "/" <> Integer.to_string(arity) <> ": " <> inspect(how))
    """

    in_own_vm(script, env)
  end

  defp started, do: "{:ok, _} = Application.ensure_all_started(:ex_cubecl)"

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

  test "where EX_CUBECL_DEVICE names no device" do
    for name <- ["cuda:99", "vulkan:4000", "nonsense", "vulkan:", "метал:0", ":"],
        do: assert({name, sweep([{"EX_CUBECL_DEVICE", name}], started())} == {name, {"", "", 0}})
  end

  test "an error about a default device says who named it" do
    ask = fn env, put ->
      script = "#{put}\nIO.puts(Exception.message(elem(ExCubecl.Device.adapters(), 1)))"
      {message, "", 0} = in_own_vm(script, [{"EX_CUBECL_DEVICE", env}])
      String.replace(message, ~r/: this machine has .*\n/, "")
    end

    assert ask.("cuda:99", "") == "there is no device cuda:99, which EX_CUBECL_DEVICE names"

    assert ask.(nil, "Application.put_env(:ex_cubecl, :default_device, {:cuda, 99})") ==
             "there is no device cuda:99, which `config :ex_cubecl, default_device: ...` names"
  end

  test "where the configuration names no device" do
    for device <- [~s({:cuda, 99}), ":vulkan", "42", "[1 | 2]", "%{}", ~s({:a@b, {:vulkan, 0}})] do
      put = "Application.put_env(:ex_cubecl, :default_device, #{device})"
      env = [{"EX_CUBECL_DEVICE", nil}]
      assert {device, sweep(env, "#{started()}; #{put}")} == {device, {"", "", 0}}
    end
  end

  test "where limits, size classes and the like are not what they should be" do
    for {key, value} <- [
          memory_limit: ":much",
          memory_limit: "[{:vulkan, 1} | 2]",
          memory_limit: "~D[2020-01-01]",
          memory_limit: ~s(%{"cuda:99" => 100}),
          size_classes: "[{1024, 10} | 2]",
          size_classes: "[{1024, -1}]",
          larger_max: ":many",
          gc_every: ":often",
          progress_after: ":there"
        ] do
      put = "Application.put_env(:ex_cubecl, #{inspect(key)}, #{value})"
      assert {key, value, sweep([], "#{started()}; #{put}")} == {key, value, {"", "", 0}}
    end
  end

  test "where the application is not started" do
    assert sweep([], "") == {"", "", 0}
    # Elixir logs the stop of the application.
    stop = "Logger.configure(level: :error); Application.stop(:ex_cubecl)"
    assert sweep([], "#{started()}; #{stop}") == {"", "", 0}
  end

  test "where there is no device" do
    env = [{"EX_CUBECL_DEVICE", nil}, {"CUDA_VISIBLE_DEVICES", ""} | @nothing]
    assert sweep(env, started()) == {"", "", 0}
  end

  test "where there is no native library" do
    assert sweep([{"EX_CUBECL_NIF", "/nowhere/ex_cubecl.so"}], started()) == {"", "", 0}
  end
end
