defmodule ExCubecl.Native.WaitingTest do
  # Lines for calls that take long. The delay is configured, so that no test depends on time.
  use ExCubecl.Case, async: false

  import ExUnit.CaptureIO

  alias ExCubecl.Native.Waiting

  # Waits until the process that draws has written: it has the same group leader.
  defp until_written(text) do
    until(fn -> Process.group_leader() |> StringIO.contents() |> elem(1) =~ text end)
  end

  test "a line appears while the call runs, and ends with it" do
    in_livebook(0)

    written =
      capture_io(fn ->
        assert Waiting.show("opening", {:vulkan, 7}, fn ->
                 until_written("\ropening vulkan:7: ") && :done
               end) == :done
      end)

    assert written =~ ~r/^\ropening vulkan:7: \d+\.\d s/
    assert String.ends_with?(written, " s\n")
  end

  test "the line ends when the call raises" do
    in_livebook(0)

    written =
      capture_io(fn ->
        assert_raise RuntimeError, fn ->
          Waiting.show("failing", nil, fn -> until_written("failing") && raise("x") end)
        end
      end)

    assert String.ends_with?(written, "s\n")
  end

  test "nothing appears for what takes less, in a release, or outside of IEx and Livebook" do
    show = fn -> capture_io(fn -> Waiting.show("text", nil, fn -> :done end) end) end
    Application.put_env(:ex_cubecl, :progress_after, 0)
    assert show.() == ""
    in_livebook(0)
    assert show.() =~ "text"
    System.put_env("RELEASE_NAME", "of_a_test")
    assert show.() == ""
    System.delete_env("RELEASE_NAME")

    for long <- [3_600_000, :infinity] do
      Application.put_env(:ex_cubecl, :progress_after, long)
      assert show.() == ""
    end
  after
    System.delete_env("RELEASE_NAME")
  end

  test "what is no delay is the default one" do
    for bad <- [-1, 0.5, "1", nil] do
      Application.put_env(:ex_cubecl, :progress_after, bad)
      assert Waiting.delay() == 500
    end
  after
    Application.delete_env(:ex_cubecl, :progress_after)
  end

  test "a device that is opened, a kernel and a matrix product that are compiled have lines" do
    in_livebook(0)
    {runtime, _} = id = ExCubecl.default_device!()
    index = 7557
    {:ok, device} = Device.open(id, as: {runtime, index})
    first = capture_io(fn -> Buffer.zeros!([10], :u8, device: device) end)
    assert first =~ "opening #{runtime}:#{index}: "
    refute capture_io(fn -> Buffer.zeros!([10], :u8, device: device) end) =~ "opening"

    x = Buffer.full!([300, 300], :f32, 1, device: device)
    require ExCubecl.Kernel
    kernel = ExCubecl.Kernel.kernel(fn x -> x * 2 + 6543 end)
    compiled = capture_io(fn -> ExCubecl.Kernel.run!(kernel, [x]) end)
    assert compiled =~ "compiling kernel kernel on #{runtime}:#{index}: "
    refute capture_io(fn -> ExCubecl.Kernel.run!(kernel, [x]) end) =~ "compiling"

    assert capture_io(fn -> ExCubecl.Ops.matmul!(x, x) end) =~
             "preparing a matrix product on #{runtime}:#{index}: "
  end

  test "the output of a shell is a terminal only if it has columns" do
    # The group leader of a test that captures its output has none.
    capture_io(fn -> send(self(), {:terminal, Waiting.terminal?()}) end)
    assert_received {:terminal, false}
    in_livebook(0)
    capture_io(fn -> send(self(), {:terminal, Waiting.terminal?()}) end)
    assert_received {:terminal, true}
  end
end
