defmodule ExCubecl.ProgressTest do
  use ExCubecl.Case, async: false

  import ExUnit.CaptureIO

  @mib 1024 * 1024
  @bytes 48 * @mib

  defp listener do
    test = self()
    fn done, total -> send(test, {:told, done, total}) end
  end

  defp told(seen \\ []) do
    receive do
      {:told, done, @bytes} -> told([done | seen])
    after
      0 -> Enum.reverse(seen)
    end
  end

  # The reported bytes grow and end with the total. A slow listener receives only the newest state.
  defp assert_told do
    seen = told()
    assert List.last(seen) == @bytes
    assert seen == Enum.sort(Enum.uniq(seen))
  end

  test "the library tells of what is on the way" do
    buffer = Buffer.zeros!([@bytes], :u8)
    bytes = :binary.copy(<<1>>, @bytes)
    {:ok, _} = ExCubecl.Native.buffer_write(buffer.ref, 0, bytes, self(), true)
    assert [_, _ | _] = pieces()
    {:ok, _} = ExCubecl.Native.buffer_read(buffer.ref, self())
    assert [_, _ | _] = pieces()
  end

  # Another thread than that of the result sends them, so that some may come after it.
  defp pieces do
    assert_receive {:progress, bytes}
    if bytes == @bytes, do: [bytes], else: [bytes | pieces()]
  end

  test "writes and reads tell how far they are, and carry the same bytes" do
    data = :crypto.strong_rand_bytes(@bytes)
    buffer = Buffer.new!(data, [@bytes], :u8, progress: listener())
    assert_told()
    assert Buffer.read!(buffer, progress: listener()) == data
    assert_told()
    other = :crypto.strong_rand_bytes(@bytes)
    assert Buffer.write(buffer, other, progress: listener()) == :ok
    assert_told()
    assert Buffer.read!(buffer) == other
    assert told() == []
  end

  test "a transfer to another device tells, and one to the same does not" do
    {runtime, _} = id = ExCubecl.default_device!()
    {:ok, other} = Device.open(id, as: {runtime, 7301})
    buffer = Buffer.full!([@bytes], :u8, 7)
    copy = Buffer.transfer!(buffer, other, progress: listener())
    assert_told()
    assert Buffer.read!(copy) == :binary.copy(<<7>>, @bytes)
    Buffer.transfer!(buffer, id, progress: listener())
    assert told() == []
  end

  @tag :capture_log
  test "a listener that raises or is slow does not disturb the transfer" do
    data = :crypto.strong_rand_bytes(@bytes)

    test = self()

    raising = fn _, _ ->
      send(test, :raised)
      raise "listener"
    end

    buffer = Buffer.new!(data, [@bytes], :u8, progress: raising)
    assert Buffer.read!(buffer) == data
    assert_received :raised
    slow = fn _, _ -> Process.sleep(20) end
    buffer = Buffer.new!(data, [@bytes], :u8, progress: slow)
    assert Buffer.read!(buffer, progress: slow) == data
  end

  test "what fails does not claim to have arrived" do
    buffer = Buffer.empty!([@bytes], :u8)
    assert reason(Buffer.read(buffer, progress: listener())) == :not_allocated
    assert told() == []
    assert reason(Buffer.write(buffer, <<1>>, progress: listener())) == :shape_mismatch
    assert told() == []
  end

  test "bad listeners" do
    buffer = Buffer.zeros!([1], :u8)

    for bad <- [true, 1, fn -> 1 end, &is_atom/1, "f"] do
      assert reason(Buffer.read(buffer, progress: bad)) == :invalid_argument
      assert reason(Buffer.write(buffer, <<1>>, progress: bad)) == :invalid_argument
      assert reason(Buffer.new(<<1>>, [1], :u8, progress: bad)) == :invalid_argument
      assert reason(Buffer.transfer(buffer, nil, progress: bad)) == :invalid_argument
    end

    assert reason(Buffer.read(buffer, 1)) == :invalid_argument
    assert reason(Buffer.read(buffer, offset: 1)) == :invalid_argument
  end

  defp make(bytes), do: Buffer.new!(:binary.copy(<<1>>, bytes), [bytes], :u8)

  test "a bar in a notebook for what takes as long as the delay, and none elsewhere" do
    Application.put_env(:ex_cubecl, :progress_after, 0)
    assert capture_io(fn -> make(@bytes) end) == ""
    in_livebook(0)
    shown = capture_io(fn -> make(@bytes) end)
    assert shown =~ "[==============================] 100 %  48.0 of 48.0 MiB"
    assert String.ends_with?(shown, "\n")
    assert capture_io(fn -> make(100_000) end) =~ "100 %"
    buffer = Buffer.full!([@bytes], :u8, 1)
    assert capture_io(fn -> Buffer.read!(buffer, progress: false) end) == ""
    assert capture_io(fn -> Buffer.read!(buffer) end) =~ "100 %"
  end

  test "no bar for what takes less, and none in a release" do
    in_livebook(:infinity)
    assert capture_io(fn -> make(@bytes) end) == ""
    Application.put_env(:ex_cubecl, :progress_after, 3_600_000)
    assert capture_io(fn -> make(@bytes) end) == ""
    Application.put_env(:ex_cubecl, :progress_after, 0)
    System.put_env("RELEASE_NAME", "of_a_test")
    on_exit(fn -> System.delete_env("RELEASE_NAME") end)
    assert capture_io(fn -> make(@bytes) end) == ""
  end
end
