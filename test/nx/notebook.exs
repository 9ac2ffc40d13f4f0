defmodule ExCubecl.NxNotebookTest do
  use ExUnit.Case, async: false

  @path Path.expand("../../notebooks/nx.livemd", __DIR__)

  test "every cell runs and gives what it shows" do
    assert ExCubecl.Notebook.run(@path) == 8
  end
end
