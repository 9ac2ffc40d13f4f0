# The compiler of the NIF library, which runs before the modules in `lib/` exist.
for file <- ["precompiled", "cargo_nif"], do: Code.require_file("native/mix/#{file}.exs", __DIR__)

defmodule ExCubecl.MixProject do
  use Mix.Project

  @version "0.1.0"
  # In the order in which README.md lists them.
  @guides ~w(buffers data kernels memory nx pools_and_arenas devices nodes errors deployment coming_from architecture)

  def project do
    [
      app: :ex_cubecl,
      version: @version,
      elixir: "~> 1.14",
      description: "Real GPU memory for Elixir, through CubeCL.",
      compilers: [:cargo_nif] ++ Mix.compilers(),
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      # The property tests use PropEr if it is installed with Erlang, and Nx may be loadable through ERL_LIBS; they are no dependencies.
      prune_code_paths: Mix.env() != :test and System.get_env("ERL_LIBS") in [nil, ""],
      xref: [exclude: [:proper, :proper_statem, :proper_types] ++ nx_modules()],
      deps: deps(Mix.env(), Mix.Project.get()),
      package: [
        licenses: ["Apache-2.0"],
        links: %{"CubeCL" => "https://github.com/tracel-ai/cubecl"},
        files:
          ~w(lib native guides notebooks nif-checksums.txt Cargo.toml Cargo.lock mix.exs .formatter.exs
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
          {app, version} <- [
            kino: "~> 0.9",
            nx: "~> 0.7",
            phoenix_live_dashboard: "~> 0.7",
            telemetry: "~> 1.0",
            telemetry_metrics: "~> 1.0"
          ],
          do: {app, version, optional: true}
        ),
      else: []
  end

  defp nx_modules do
    [Complex, Nx, Nx.Backend, Nx.BinaryBackend, Nx.Container, Nx.LazyContainer, Nx.Shape, Nx.Type] ++
      [Nx.Defn, Nx.Defn.Compiler, Nx.Defn.Composite, Nx.Defn.Evaluator] ++
      [Nx.Defn.Expr, Nx.Defn.Kernel, Nx.Defn.Stream, Nx.Defn.Tree, Nx.Shared]
  end

  defp docs do
    [
      main: "readme",
      extras:
        ["README.md"] ++
          Enum.map(@guides, &"guides/#{&1}.md") ++
          Path.wildcard("notebooks/*.livemd") ++ ["SECURITY.md", "CHANGELOG.md"],
      groups_for_extras: [Guides: ~r"guides/", Notebooks: ~r"notebooks/"],
      groups_for_modules: [
        Buffers: [ExCubecl, ExCubecl.Buffer, ExCubecl.Data, ExCubecl.Error],
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
        Insight: [
          ExCubecl.Memory,
          ExCubecl.Memory.Chart,
          ExCubecl.Telemetry,
          ExCubecl.Telemetry.Metrics,
          ExCubecl.LiveDashboard
        ],
        Integration: [
          ExCubecl.Backend,
          ExCubecl.Compiler,
          ExCubecl.Compiler.Explanation,
          ExCubecl.Nx,
          ExCubecl.Compat
        ]
      ]
    ]
  end

  def application, do: [mod: {ExCubecl.Application, []}, extra_applications: [:logger]]
end
