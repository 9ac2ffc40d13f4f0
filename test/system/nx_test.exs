defmodule ExCubecl.NxTest do
  # The tests of the modules for Nx, in separate VMs: only there Nx and telemetry are loaded.
  use ExCubecl.Case, async: false

  alias ExCubecl.NxLibraries

  @moduletag :nx
  @moduletag timeout: 600_000

  @directory Path.expand("../nx", __DIR__)

  # Runs one file of test/nx, and returns the number of its tests.
  defp run(file, env \\ []) do
    script = """
    for name <- ["prepare", "#{file}"], do: Code.require_file(name <> ".exs", "#{@directory}")
    result = ExUnit.run()
    IO.inspect({:result, result.total, result.failures})
    """

    env = [{"ERL_LIBS", Enum.join(NxLibraries.directories(), ":")} | env]
    {out, errors, status} = in_own_vm(script, env)
    result = Regex.run(~r/{:result, (\d+), 0}/, out)
    assert {status, is_list(result)} == {0, true}, errors <> out
    result |> Enum.at(1) |> String.to_integer()
  end

  test "tensors and buffers", do: assert(run("conversion") == 3)

  test "all doctests of Nx pass, small tensors on the host",
    do: assert(run("doctests", [{"NX_HOST_LIMIT", "32"}]) >= 1_088)

  test "all doctests of Nx pass, every tensor on the device",
    do: assert(run("doctests", [{"NX_HOST_LIMIT", "0"}]) >= 1_088)
end
