defmodule ExCubecl.NumpyTest do
  # A few of the random programs of `make numpy`; skipped where no Python has NumPy (test_helper.exs).
  use ExCubecl.Case, async: true

  alias ExCubecl.NumpyCases

  @moduletag :numpy
  @moduletag timeout: :infinity

  test "random programs have the numbers of NumPy" do
    seed = System.unique_integer([:positive])
    path = Path.join(System.tmp_dir!(), "ex_cubecl_numpy_test_#{System.pid()}_#{seed}.txt")

    try do
      NumpyCases.write(path, 300, seed)
      {text, status} = System.cmd(NumpyCases.python(), ["test/numpy/main.py", path])
      assert status == 0, "seed #{seed}\n" <> text
    after
      File.rm(path)
    end
  end
end
