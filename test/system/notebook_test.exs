defmodule ExCubecl.NotebookTest do
  use ExCubecl.Case, async: false

  alias ExCubecl.Notebook

  @root Path.expand("../..", __DIR__)

  test "every cell of the tour runs and gives what it shows" do
    assert Notebook.run(Path.join(@root, "notebooks/tour.livemd")) > 20
  end

  test "every cell of the images runs, and writes pictures that others can read" do
    assert Notebook.run(Path.join(@root, "notebooks/images.livemd")) > 10

    assert <<0x89, "PNG\r\n", 0x1A, "\n", 13::32, "IHDR", 400::32, 300::32, 8, 2, 0, 0, 0,
             _::binary>> = File.read!(Path.join(System.tmp_dir!(), "ex_cubecl_crop.png"))
  end

  test "every cell of the kernels runs, and draws" do
    assert Notebook.run(Path.join(@root, "notebooks/kernels.livemd")) > 8

    assert <<0x89, "PNG", _::binary>> =
             File.read!(Path.join(System.tmp_dir!(), "ex_cubecl_blurred.png"))
  end

  test "an output that is not what a cell gives is found" do
    path = Path.join(System.tmp_dir!(), "ex_cubecl_#{System.pid()}.livemd")
    tour = File.read!(Path.join(@root, "notebooks/tour.livemd"))
    File.write!(path, String.replace(tour, "{[2, 3], \"f32\", 24}", "{[2, 3], \"f32\", 25}"))
    assert_raise ExUnit.AssertionError, fn -> Notebook.run(path) end
  after
    File.rm(Path.join(System.tmp_dir!(), "ex_cubecl_#{System.pid()}.livemd"))
  end
end
