defmodule ExCubecl.Dashboard.Doctor do
  @moduledoc false
  # Looks for the libraries and drivers that each runtime needs on this machine, without loading them into
  # this VM: a driver that crashes would crash the VM. So devices are tried in a separate VM.

  alias ExCubecl.{Error, Native}

  @type check :: {:ok | :missing | :note, String.t()}

  @doc "The checks, by section."
  @spec run() :: [{String.t(), [check]}]
  def run do
    [{"Native library", library()} | runtimes(:os.type())] ++ [{"Devices", devices()}]
  end

  @doc "Whether buffers can be made on this machine."
  def healthy?(sections), do: Enum.any?(sections, &match?({"Devices", [{:ok, _} | _]}, &1))

  defp library do
    case Error.from_native(&Native.version/0) do
      {:ok, version} -> [{:ok, "version #{version} at #{Native.library_path()}"}]
      {:error, error} -> [{:missing, Exception.message(error)}]
    end
  end

  defp runtimes({:unix, :linux}), do: [{"Vulkan", vulkan()}, {"CUDA", cuda()}]
  defp runtimes({:unix, :darwin}), do: [{"Metal", [{:ok, "part of macOS"}]}]

  defp runtimes({:win32, _}) do
    [
      {"DirectX 12 and Vulkan", [{:note, "come with the driver of the graphics card"}]},
      {"CUDA", [{:note, "comes with NVIDIA's driver and the CUDA toolkit's NVRTC"}]}
    ]
  end

  defp runtimes(_other),
    do: [{"Vulkan", [{:note, "a Vulkan loader and driver of this system are needed"}]}]

  ## Vulkan

  defp vulkan do
    manifests = manifests()

    [
      found("libvulkan.so.1", "the Vulkan loader", "apt-get install libvulkan1"),
      if(manifests == [],
        do:
          {:missing,
           "no driver is registered: install one of the graphics card, or Mesa's, which has lavapipe for the CPU: " <>
             "apt-get install mesa-vulkan-drivers"}
      )
    ]
    |> Enum.concat(Enum.map(manifests, &manifest/1))
    |> Enum.concat([rendering(), forced(), runtime_dir()])
    |> Enum.reject(&is_nil/1)
  end

  defp manifests do
    case Enum.find_value(~w(VK_DRIVER_FILES VK_ICD_FILENAMES), &env/1) do
      nil ->
        Enum.flat_map(
          ~w(/etc /usr/share /usr/local/share),
          &Path.wildcard(&1 <> "/vulkan/icd.d/*.json")
        )

      files ->
        String.split(files, ":", trim: true)
    end
  end

  defp manifest(path) do
    with {:ok, json} <- File.read(path),
         [_, library] <- Regex.run(~r/"library_path"\s*:\s*"([^"]+)"/, json) do
      driver(path, library)
    else
      {:error, reason} -> {:missing, "#{path} cannot be read: #{:file.format_error(reason)}"}
      nil -> {:missing, "#{path} is no driver's manifest: it names no library"}
    end
  end

  # A name without a slash is looked up in the search path of libraries.
  defp driver(path, library) do
    place = if String.contains?(library, "/"), do: Path.expand(library, Path.dirname(path))
    there = if place, do: File.exists?(place), else: where(library) != nil

    if there,
      do: {:ok, "driver #{Path.basename(path, ".json")}, #{library}"},
      else: {:missing, "#{path} names #{library}, which is not there: install that driver again"}
  end

  defp rendering do
    case Path.wildcard("/dev/dri/renderD*") do
      [] ->
        {:note, "no graphics card is visible (/dev/dri); the CPU's driver does without"}

      nodes ->
        shut = Enum.reject(nodes, &match?({:ok, %{access: :read_write}}, File.stat(&1)))

        if shut == [],
          do: {:ok, "graphics card at #{Enum.join(nodes, ", ")}"},
          else:
            {:missing,
             "no permission for #{Enum.join(shut, ", ")}: add this user to the group render and log in again"}
    end
  end

  defp forced do
    with value when value != nil <- env("VK_ICD_FILENAMES") || env("VK_DRIVER_FILES"),
         do: {:note, "drivers are restricted to #{value} by the environment"}
  end

  defp runtime_dir do
    unless env("XDG_RUNTIME_DIR"),
      do:
        {:note,
         "XDG_RUNTIME_DIR is not set: Mesa may print a line about it, which does no harm; " <>
           "set it to a private directory, or NODEVICE_SELECT to 1"}
  end

  ## CUDA

  defp cuda do
    case found(
           "libcuda.so.1",
           "NVIDIA's driver",
           "the driver of the card, from NVIDIA or the distribution"
         ) do
      {:missing, _} = missing ->
        [missing]

      driver ->
        [driver, nvrtc()]
    end
  end

  defp nvrtc do
    names = for version <- ["", ".13", ".12", ".11.2"], do: "libnvrtc.so#{version}"

    case Enum.find_value(names, &where/1) do
      nil ->
        {:missing,
         "NVRTC, CUDA's compiler: install the CUDA toolkit or its package cuda-nvrtc, and let LD_LIBRARY_PATH or " <>
           "CUDA_PATH point to it"}

      path ->
        {:ok, "NVRTC at #{path}"}
    end
  end

  ## Libraries

  defp found(name, what, how) do
    case where(name) do
      nil -> {:missing, "#{what}, #{name}: #{how}"}
      path -> {:ok, "#{what} at #{path}"}
    end
  end

  defp where(name) do
    paths = String.split(env("LD_LIBRARY_PATH") || "", ":", trim: true)

    cuda =
      if path = env("CUDA_PATH"), do: [Path.join(path, "lib64")], else: ["/usr/local/cuda/lib64"]

    Enum.find(Enum.map(paths ++ cuda, &Path.join(&1, name)), &File.exists?/1) || cached(name)
  end

  # The cache of the dynamic linker; on some systems `ldconfig` is not in the PATH of users.
  defp cached(name) do
    ldconfig = System.find_executable("ldconfig") || "/sbin/ldconfig"

    if File.exists?(ldconfig) do
      {list, _} = System.cmd(ldconfig, ["-p"], stderr_to_stdout: true)

      list
      |> String.split("\n")
      |> Enum.find_value(&(String.starts_with?(String.trim(&1), name <> " ") && path(&1)))
    end
  end

  defp path(line), do: line |> String.split("=> ") |> List.last()

  ## Devices

  @list """
  case ExCubecl.Device.list() do
    {:ok, devices} -> for %{id: {runtime, index}} <- devices, do: IO.puts("device \#{runtime}:\#{index}")
    {:error, error} -> IO.puts("error \#{Exception.message(error)}")
  end
  """

  defp devices do
    case run_in_own_vm(@list) do
      {0, out} -> out |> String.split("\n", trim: true) |> tried() |> Enum.concat(chosen(out))
      {status, out} -> [{:missing, crashed("looking for devices", status, out)}]
    end
  end

  # The separate VMs run without EX_CUBECL_DEVICE, so it is checked here.
  defp chosen(out) do
    name = env("EX_CUBECL_DEVICE")

    if name && not (out =~ ~r/^device #{Regex.escape(name)}$/m),
      do: [{:missing, "EX_CUBECL_DEVICE is #{name}, which is none of these: unset or change it"}],
      else: []
  end

  defp tried(lines) do
    results =
      for line <- lines do
        case line do
          "device " <> name -> try_out(name)
          "error " <> message -> {:missing, message}
          noise -> {:note, noise}
        end
      end

    Enum.sort_by(results, fn {state, _} ->
      Enum.find_index([:ok, :missing, :note], &(&1 == state))
    end)
  end

  # Writes bytes, reads them back, and converts them, which runs a kernel.
  defp try_out(name) do
    script = """
    data = :binary.copy(<<1, 2, 3, 200>>, 5_000)
    buffer = ExCubecl.buffer!(data, [20_000], :u8, device: #{inspect(name)})
    floats = ExCubecl.Buffer.convert!(buffer, :f32)
    ^data = ExCubecl.Buffer.read!(ExCubecl.Buffer.convert!(floats, :u8))
    {:ok, info} = ExCubecl.Device.info(buffer.device)
    IO.write(info.name <> ", " <> info.driver)
    """

    case run_in_own_vm(script) do
      {0, out} -> {:ok, "#{name}: #{last_line(out)}"}
      {status, out} -> {:missing, crashed(name, status, out)}
    end
  end

  defp last_line(out), do: out |> String.split("\n", trim: true) |> List.last()

  defp crashed(what, status, out) do
    "#{what}: the attempt ended with status #{status}; a driver that crashes can be left out with VK_DRIVER_FILES\n" <>
      (out |> String.trim() |> String.slice(0, 600))
  end

  defp run_in_own_vm(script) do
    paths =
      for path <- :code.get_path(), to_string(path) =~ "ex_cubecl", do: ["-pa", to_string(path)]

    args = List.flatten(paths) ++ ["-e", script]

    case System.find_executable("elixir") do
      nil ->
        {1, "there is no elixir in PATH"}

      elixir ->
        swap(System.cmd(elixir, args, stderr_to_stdout: true, env: [{"EX_CUBECL_DEVICE", nil}]))
    end
  end

  defp swap({out, status}), do: {status, out}

  # An empty variable counts as unset.
  defp env(name) do
    with "" <- System.get_env(name), do: nil
  end
end
