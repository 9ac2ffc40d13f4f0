defmodule ExCubecl.NxVm do
  @moduledoc false
  # Runs files of test/nx in a separate VM, in which Nx and telemetry are loaded. The modules for Nx are compiled once
  # in each run of the tests.

  import ExUnit.Assertions

  alias ExCubecl.{Case, NxLibraries}

  @directory Path.expand("../nx", __DIR__)
  @compiled {__MODULE__, :compiled}

  @doc "Runs files in one VM; returns the number of their tests, the names of those that failed, and the output."
  def run(files, env \\ []) do
    script = """
    #{load(["prepare" | files])}
    result = ExUnit.run()
    IO.puts("Nx " <> to_string(Application.spec(:nx, :vsn)))
    IO.inspect({:result, result.total, result.failures})
    """

    {out, errors, status} = Case.in_own_vm(script, environment(compiled()) ++ env)
    result = Regex.run(~r/{:result, (\d+), \d+}/, out)
    assert {status, is_list(result)} == {0, true}, errors <> out
    failed = Regex.scan(~r/^ *\d+\) (?:doctest|test) (.*) \(.*\)$/m, out, capture: :all_but_first)
    {result |> Enum.at(1) |> String.to_integer(), Enum.sort(Enum.concat(failed)), out}
  end

  @doc "Asserts that all tests of files pass."
  def passes(files, env \\ []) do
    {total, failed, out} = run(files, env)
    assert {total >= length(files), failed} == {true, []}, out
  end

  # Test modules run at the same time: the first one compiles, the others wait for it.
  defp compiled do
    directory = Path.join(Mix.Project.build_path(), "nx_modules")

    :global.trans({@compiled, self()}, fn ->
      unless :persistent_term.get(@compiled, false) do
        File.rm_rf!(directory)
        File.mkdir_p!(directory)
        {out, errors, status} = Case.in_own_vm(load(["prepare"]), environment(directory))
        assert status == 0, errors <> out
        :persistent_term.put(@compiled, true)
      end
    end)

    directory
  end

  defp load(files),
    do: Enum.map_join(files, "\n", &~s[Code.require_file("#{&1}.exs", "#{@directory}")])

  defp environment(directory),
    do: [{"ERL_LIBS", Enum.join(NxLibraries.directories(), ":")}, {"NX_MODULES", directory}]
end
