defmodule ExCubecl.ExampleTest do
  # The scripts in examples/ run, and print what they should.
  use ExCubecl.Case, async: false

  import ExUnit.CaptureIO

  @examples Path.expand("../../examples", __DIR__)

  test "the kernels draw a set and count its points" do
    said = capture_io(fn -> Code.eval_file(Path.join(@examples, "kernels.exs")) end)
    assert said =~ ~r/@{10}/
    assert said =~ ~r/\d+ of 1824 points stay inside for 200 iterations/
    assert said =~ "the most iterations of any: 200"
  end

  test "the demo makes buffers, and gives them back" do
    said = capture_io(fn -> Code.eval_file(Path.join(@examples, "demo.exs")) end)
    assert said =~ "Memory after garbage collection"
    assert said =~ "invalid_value"
  end
end
