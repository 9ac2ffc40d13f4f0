defmodule ExCubecl.CyclesTest do
  # `make lint` looks for cycles where it finds Nx, and these tests run with each version of Nx.

  use ExUnit.Case, async: true

  alias ExCubecl.NxLibraries

  @moduletag :nx
  @moduletag timeout: :infinity

  test "no modules depend on each other in a circle, those for Nx included" do
    libraries = Enum.join(NxLibraries.directories(), ":")
    # Mix does not know when it has to compile the modules for Nx again.
    build = Path.join(Mix.Project.build_path(), "nx_#{:erlang.phash2(libraries)}")

    {out, status} =
      System.cmd("mix", ~w(xref graph --format cycles --fail-above 0),
        env: [{"ERL_LIBS", libraries}, {"MIX_BUILD_ROOT", build}, {"MIX_ENV", "dev"}],
        stderr_to_stdout: true
      )

    assert {status, out =~ "No cycles found"} == {0, true}, out
  end
end
