defmodule ExCubecl.ReadmeTest do
  # Examples set limits and count live buffers, so none runs concurrently with another.
  use ExUnit.Case, async: false

  # `doctest_file` exists since Elixir 1.15 and needs iex> prompts, which readers cannot paste.
  # Here a block is plain code, and a line that starts with #=> has the return value of the code
  # above it, as inspect/1 prints it.
  @root Path.expand("../..", __DIR__)

  # Readers run the examples in a new VM, in which no call was refused yet.
  setup do
    :ok = ExCubecl.Device.reset(nil)
  end

  for page <- ["README.md" | Path.wildcard(Path.join(@root, "guides/*.md"))],
      page = Path.relative_to(page, @root) do
    test "the examples of #{page} run in order and return what they say" do
      page = Path.join(@root, unquote(page))

      page
      |> File.read!()
      |> blocks()
      |> Enum.flat_map(&steps/1)
      |> Enum.reduce({[], Code.env_for_eval(file: page)}, &step/2)
    end
  end

  # Mix.install/1 adds to the code path at run time, and so does this line.
  test "a script can use kernels in a module and in evaluated code, but not on its own lines" do
    install = ~s|Code.prepend_path("#{:code.lib_dir(:ex_cubecl)}/ebin")\n|
    [_, script] = Regex.run(~r/^Mix\.install.*?\n(.*?)^```$/ms, read("README.md"))
    assert {"[11.0, 22.0]\n", 0} = run_script(install <> script)

    lines = "require ExCubecl.Kernel\nIO.inspect(ExCubecl.Kernel.kernel(fn x -> x + 1 end))"
    assert {message, 1} = run_script(install <> lines)
    assert message =~ "module ExCubecl.Kernel is not loaded"

    assert {"#ExCubecl.Kernel<kernel(x)>\n", 0} =
             run_script(install <> "Code.eval_string(#{inspect(lines)})")
  end

  defp run_script(text) do
    path =
      Path.join(
        System.tmp_dir!(),
        "ex_cubecl_#{System.pid()}_#{System.unique_integer([:positive])}.exs"
      )

    File.write!(path, text)
    result = System.cmd("elixir", [path], stderr_to_stdout: true)
    File.rm!(path)
    result
  end

  test "every test that SECURITY.md names is there" do
    named = Regex.scan(~r/`([\w\/]+\.(?:exs|rs))`: ([^|)]+?)\s*[|)]/, read("SECURITY.md"))
    assert length(named) > 20

    for [_, file, name] <- named do
      name = String.replace(name, "\n", " ")
      assert read(file) =~ ~r/(test "|fn )#{Regex.escape(name)}/, "#{file} has no #{name}"
    end
  end

  defp read(file), do: File.read!(Path.join(@root, file))

  # Blocks that show how to install or configure the library are not run.
  defp blocks(readme) do
    for [_, code] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, readme),
        not (code =~ ~r/\{:ex_cubecl, |config :ex_cubecl/),
        do: code
  end

  defp steps(block) do
    block
    |> String.split("\n")
    |> Enum.chunk_while([], &collect/2, &{:cont, {source(&1), nil}, []})
  end

  defp collect("#=> " <> expected, lines), do: {:cont, {source(lines), expected}, []}
  defp collect(line, lines), do: {:cont, [line | lines]}

  defp source(lines), do: lines |> Enum.reverse() |> Enum.join("\n")

  defp step({code, expected}, {binding, env}) do
    quoted = Code.string_to_quoted!(code)
    {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
    if expected, do: assert({code, inspect(value, charlists: :as_lists)} == {code, expected})
    {binding, env}
  end
end
