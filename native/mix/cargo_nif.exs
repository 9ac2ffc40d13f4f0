defmodule Mix.Tasks.Compile.CargoNif do
  @moduledoc """
  Builds the NIF library with Cargo, or downloads that of a release, and copies it to `priv/native`.

  It runs before the Elixir compiler, because `ExCubecl.Native` loads the library as soon as it
  is compiled; a task in `lib/` would not be compiled yet at that time. A release has finished libraries for the common
  systems (`precompiled.exs`); with one of these, Cargo is not needed.

    * `EX_CUBECL_NIF` - path of a prebuilt library; then nothing is built
    * `EX_CUBECL_BUILD` - with any value, the library is built here even if the release has one for this system
    * `EX_CUBECL_MIRROR` - the URL of a directory with the files of the release, instead of the one in `nif-checksums.txt`
    * `EX_CUBECL_FEATURES` - Cargo features to build with instead of the default ones
    * `CARGO_TARGET_DIR` - the build directory of Cargo; by default `target`, for all Mix environments
  """

  use Mix.Task.Compiler

  alias ExCubecl.MixProject.Precompiled

  @root Path.expand("../..", __DIR__)

  @impl true
  def run(_args) do
    cond do
      env("EX_CUBECL_NIF") -> {:noop, []}
      env("EX_CUBECL_BUILD") || env("EX_CUBECL_FEATURES") -> build_with_cargo()
      true -> download_or_build()
    end
  end

  defp download_or_build do
    case Precompiled.fetch(@root) do
      {:ok, library} ->
        install(library)

      :none ->
        build_with_cargo()

      {:error, message} ->
        Mix.shell().error("ExCubecl: #{message}. Building the NIF library instead.")
        build_with_cargo()
    end
  end

  defp build_with_cargo do
    if System.find_executable("cargo"), do: build(), else: failed(no_cargo())
  end

  @impl true
  def clean, do: File.rm(library())

  defp build do
    target_dir = Path.expand(env("CARGO_TARGET_DIR") || "target", @root)
    built = Path.join([target_dir, env("CARGO_BUILD_TARGET") || "", "release", artifact()])

    # The first build takes minutes and shows its progress; later builds print only errors.
    quiet = if File.exists?(built), do: ["--quiet"], else: []
    args = ["build", "--release", "--locked", "-p", "ex_cubecl"] ++ features() ++ quiet

    case System.cmd("cargo", args, cd: @root, env: [{"CARGO_TARGET_DIR", target_dir}]) do
      {_, 0} -> install(built)
      {_, status} -> failed("cargo #{Enum.join(args, " ")} ended with status #{status}")
    end
  end

  defp features do
    list = env("EX_CUBECL_FEATURES")
    if list, do: ["--no-default-features", "--features", list], else: []
  end

  defp install(built) do
    if same?(File.stat(built), File.stat(library())) and File.read(built) == File.read(library()),
      do: {:noop, []},
      else: copy(built)
  end

  defp same?({:ok, one}, {:ok, other}), do: one.size == other.size
  defp same?(_, _), do: false

  # A running VM may have the old file mapped, so it is replaced by a rename instead of written in place.
  defp copy(built) do
    temporary = "#{library()}.#{System.pid()}.tmp"

    with :ok <- File.mkdir_p(Path.dirname(library())),
         :ok <- File.cp(built, temporary),
         :ok <- File.rename(temporary, library()) do
      # Links priv into _build; Mix itself has done so only if priv existed before.
      Mix.Project.build_structure()
      {:ok, []}
    else
      {:error, reason} ->
        failed("cannot copy #{built} to #{library()}: #{:file.format_error(reason)}")
    end
  end

  defp failed(message) do
    Mix.shell().error(message)

    diagnostic = %Mix.Task.Compiler.Diagnostic{
      compiler_name: "cargo_nif",
      file: Path.join(@root, "Cargo.toml"),
      message: message,
      position: 0,
      severity: :error
    }

    {:error, [diagnostic]}
  end

  defp no_cargo do
    """
    ExCubecl needs Rust to build its NIF library, and there is no `cargo` in PATH.
    Install Rust from https://rustup.rs and try again,
    or let EX_CUBECL_NIF point to a library that is already built.\
    """
  end

  # The BEAM expects .so on macOS too.
  defp library,
    do: Path.join(@root, "priv/native/ex_cubecl#{if windows?(), do: ".dll", else: ".so"}")

  defp artifact do
    case :os.type() do
      {:win32, _} -> "ex_cubecl.dll"
      {:unix, :darwin} -> "libex_cubecl.dylib"
      _ -> "libex_cubecl.so"
    end
  end

  defp windows?, do: match?({:win32, _}, :os.type())

  # An empty variable counts as unset.
  defp env(name) do
    with "" <- System.get_env(name), do: nil
  end
end
