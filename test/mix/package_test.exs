defmodule ExCubecl.MixProject.PackageTest do
  # The package for Hex, without Hex: its list of files has all that a build from it needs.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir

  @root Path.expand("../..", __DIR__)
  @package Mix.Project.config()[:package]
  @limit 128 * 1024 * 1024

  defp files do
    for pattern <- @package[:files],
        path <- @root |> Path.join(pattern) |> Path.wildcard(match_dot: true),
        file <- if(File.dir?(path), do: Path.wildcard(path <> "/**"), else: [path]),
        File.regular?(file),
        do: Path.relative_to(file, @root)
  end

  test "the metadata are complete, and each pattern names files" do
    config = Mix.Project.config()
    assert {:ok, _} = Version.parse(config[:version])
    assert config[:description] =~ ~r/^.{10,300}$/
    assert [_ | _] = @package[:licenses]
    assert map_size(@package[:links]) > 0

    # The release workflow writes the checksums.
    for pattern <- @package[:files] -- ["nif-checksums.txt"],
        do: assert(File.exists?(Path.join(@root, pattern)), "#{pattern} does not exist")
  end

  test "the versions of mix.exs and Cargo.toml are the same" do
    cargo = File.read!(Path.join(@root, "Cargo.toml"))
    assert cargo =~ ~s(\nversion = "#{Mix.Project.config()[:version]}"\n)
  end

  test "the package has no build products and is not larger than Hex takes" do
    files = files()

    refute Enum.find(
             files,
             &(&1 =~ ~r{(^|/)(target|_build|deps|artifacts)/|\.(so|dll|dylib|beam)$})
           )

    assert Enum.sum(Enum.map(files, &File.stat!(Path.join(@root, &1)).size)) < @limit
  end

  test "each file that the workspace of Cargo names is there" do
    files = files()
    cargo = File.read!(Path.join(@root, "Cargo.toml"))
    [_, members] = Regex.run(~r/members = \[(.*?)\]/s, cargo)
    members = for [_, member] <- Regex.scan(~r/"(.*?)"/, members), do: member
    assert members != []
    for member <- members, do: assert("#{member}/Cargo.toml" in files)
  end

  test "the Elixir code compiles from the files of the package alone", %{tmp_dir: directory} do
    for file <- files() do
      target = Path.join(directory, file)
      File.mkdir_p!(Path.dirname(target))
      File.cp!(Path.join(@root, file), target)
    end

    installed = Path.wildcard(Path.join(@root, "priv/native/ex_cubecl.*"))
    library = System.get_env("EX_CUBECL_NIF") || hd(installed)
    File.mkdir_p!(Path.join(directory, "priv/native"))
    File.cp!(library, Path.join([directory, "priv/native", Path.basename(library)]))

    environment = [
      {"EX_CUBECL_NIF", library},
      {"MIX_ENV", "prod"},
      {"MIX_BUILD_ROOT", nil},
      {"MIX_EXS", nil},
      {"ERL_LIBS", nil}
    ]

    assert {_output, 0} =
             System.cmd("mix", ["compile", "--warnings-as-errors"],
               cd: directory,
               env: environment,
               stderr_to_stdout: true
             )
  end
end
