defmodule Mix.Tasks.Compile.CargoNif do
  @moduledoc """
  Builds the NIF library with Cargo and copies it to `priv/native`.

  It runs before the Elixir compiler, because `ExCubecl.Native` loads the library as soon as it
  is compiled. It is defined in mix.exs, because a task in `lib/` would not be compiled yet at that time.

    * `EX_CUBECL_NIF` - path of a prebuilt library; then nothing is built
    * `EX_CUBECL_FEATURES` - Cargo features to build with instead of the default ones
    * `CARGO_TARGET_DIR` - the build directory of Cargo; by default `target`, for all Mix environments
  """

  use Mix.Task.Compiler

  @root __DIR__

  @impl true
  def run(_args) do
    cond do
      env("EX_CUBECL_NIF") -> {:noop, []}
      System.find_executable("cargo") -> build()
      true -> failed(no_cargo())
    end
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

defmodule ExCubecl.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :ex_cubecl,
      version: @version,
      elixir: "~> 1.14",
      description: "Real GPU memory for Elixir, through CubeCL.",
      compilers: [:cargo_nif] ++ Mix.compilers(),
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      # The property tests use PropEr if it is installed with Erlang; it is not a dependency.
      prune_code_paths: Mix.env() != :test,
      # Nx may be loadable through ERL_LIBS, which is no dependency either.
      xref: [exclude: [:proper, :proper_statem, :proper_types] ++ nx_modules()],
      deps: deps(Mix.env(), Mix.Project.get()),
      package: [
        licenses: ["Apache-2.0"],
        links: %{"CubeCL" => "https://github.com/tracel-ai/cubecl"},
        files: ~w(lib native guides notebooks Cargo.toml Cargo.lock mix.exs .formatter.exs
                  README.md CHANGELOG.md SECURITY.md LICENSE)
      ],
      docs: docs()
    ]
  end

  # Without Hex there are no dependencies: all of them are optional, and used if they are loaded. If a project that
  # depends on this one has them too, they are compiled before this one.
  defp deps(:docs, nil), do: [{:ex_doc, "~> 0.34", runtime: false}]
  defp deps(_env, nil), do: []

  defp deps(_env, _dependent) do
    if Code.ensure_loaded?(Hex),
      do:
        for(
          {app, version} <- [kino: "~> 0.9", nx: "~> 0.7", telemetry: "~> 1.0"],
          do: {app, version, optional: true}
        ),
      else: []
  end

  defp nx_modules do
    [Complex, Nx, Nx.Backend, Nx.BinaryBackend, Nx.Container, Nx.LazyContainer, Nx.Shape, Nx.Type] ++
      [Nx.Defn, Nx.Defn.Compiler, Nx.Defn.Composite, Nx.Defn.Evaluator] ++
      [Nx.Defn.Expr, Nx.Defn.Kernel, Nx.Defn.Tree]
  end

  defp docs do
    [
      main: "readme",
      extras:
        ["README.md"] ++
          Path.wildcard("guides/*.md") ++
          Path.wildcard("notebooks/*.livemd") ++ ["SECURITY.md", "CHANGELOG.md"],
      groups_for_extras: [Guides: ~r"guides/", Notebooks: ~r"notebooks/"],
      groups_for_modules: [
        Buffers: [ExCubecl, ExCubecl.Buffer, ExCubecl.Error],
        Reuse: [ExCubecl.Pool, ExCubecl.Arena],
        Devices: [ExCubecl.Device, ExCubecl.Replicated],
        Kernels: [
          ExCubecl.Kernel,
          ExCubecl.Ops,
          ExCubecl.Random,
          ExCubecl.LinAlg,
          ExCubecl.View,
          ExCubecl.Batch
        ],
        Insight: [ExCubecl.Memory, ExCubecl.Memory.Chart, ExCubecl.Telemetry],
        Integration: [ExCubecl.Backend, ExCubecl.Nx, ExCubecl.Compat]
      ]
    ]
  end

  def application, do: [mod: {ExCubecl.Application, []}, extra_applications: [:logger]]
end
