defmodule ExCubecl.Data.BombsTest do
  # Small files that ask for much memory or work, files that end anywhere, and files that change while they are read.
  use ExCubecl.Case, async: true

  import ExCubecl.DataFiles

  alias ExCubecl.Data

  setup do: {:ok, dir: directory()}

  # What a list of the file says is wrong.
  defp refusal(path) do
    result = bounded(fn -> Data.list(path) end)
    assert reason(result) == :invalid_file, inspect(result)
    elem(result, 1).details.problem
  end

  @most_header 16 * 1024 * 1024

  # A JSON object of nearly 16 MiB, with this text again and again between its ends.
  defp json(first, text, last) do
    times = div(@most_header - byte_size(first) - byte_size(last), byte_size(text))
    safetensors(first <> String.duplicate(text, times) <> last)
  end

  # Each header has as many values, or as long ones, as it can.
  for {what, first, text, last, problem} <- [
        {"numbers", ~s({"a":[), "1,", "1]}", "an array of more than 1000 elements"},
        {"arrays", ~s({"a":[), "[[[[[]]]]],", "1]}", "an array of more than 1000 elements"},
        {"strings", ~s({"a":[), ~s("",), "1]}", "an array of more than 1000 elements"},
        {"objects", ~s({"a":[), ~s({"":1},), "1]}", "an array of more than 1000 elements"},
        {"escapes", ~s({"a":"), "\\n", ~s("}), "does not have exactly a dtype"},
        {"a name", ~s({"), "a", ~s(":1}), "does not have exactly a dtype"},
        {"spaces", "{", " ", "", "no key at its end"}
      ] do
    test "a header of safetensors that is full of #{what}", %{dir: dir} do
      {first, text, last} = {unquote(first), unquote(text), unquote(last)}
      path = file(dir, "x.safetensors", json(first, text, last))
      assert refusal(path) =~ unquote(problem)
    end
  end

  test "a header of safetensors that is full of names", %{dir: dir} do
    header = "{" <> Enum.map_join(1..400_001, ",", &~s("#{Integer.to_string(&1, 36)}":1)) <> "}"
    path = file(dir, "x.safetensors", safetensors(header))
    assert refusal(path) =~ "an object of more than 400000 fields"
  end

  # Its compressed bytes come in thousands of parts. With each of them, the row was copied: this took a minute.
  test "a row of 16 MiB in a PNG image of 16 KiB", %{dir: dir} do
    width = 16 * 1024 * 1024
    path = file(dir, "x.png", png({width, 1, 8, 0, 0}, [0, :binary.copy(<<7>>, width)]))
    assert File.stat!(path).size < 20_000
    {:ok, image} = bounded(fn -> Data.read(path) end)
    assert image.shape == [1, width]
    assert Buffer.read_part!(image, width - 2, 2) == <<7, 7>>
  end

  test "a PNG image whose data is in chunks without bytes, and of one byte", %{dir: dir} do
    <<head::binary-size(33), _::binary>> = png({300, 2, 8, 0, 0}, "")
    rows = :zlib.compress([0, :binary.copy(<<1>>, 300), 0, :binary.copy(<<2>>, 300)])
    bytes = for <<byte <- rows>>, do: [chunk("IDAT", <<byte>>), chunk("IDAT", "")]
    many = List.duplicate(chunk("IDAT", ""), 10_000)
    path = file(dir, "x.png", [head, many, bytes, many, chunk("IEND", "")])
    {:ok, image} = bounded(fn -> Data.read(path) end)
    assert Buffer.read!(image) == :binary.copy(<<1>>, 300) <> :binary.copy(<<2>>, 300)

    for {rest, problem} <- [{"", "truncated or damaged"}, {chunk("IEND", ""), "ends too early"}] do
      {:error, error} = bounded(fn -> Data.read(file(dir, "y.png", [head, many, rest])) end)
      assert error.details.problem =~ problem
    end
  end

  # A directory with one entry, `a.npy`, whose 64-bit numbers are these.
  defp zip64(size, compressed, header, directory) do
    extra =
      <<1::16-little, 24::16-little, size::64-little, compressed::64-little, header::64-little>>

    central =
      <<"PK", 1, 2, 45::16-little, 45::16-little, 0::64, 0::32, -1::64, 5::16-little,
        byte_size(extra)::16-little, 0::80, -1::32, "a.npy", extra::binary>>

    {at, bytes} = directory || {0, byte_size(central)}

    central <>
      <<"PK", 6, 6, 44::64-little, 0::256, bytes::64-little, at::64-little>> <>
      <<"PK", 6, 7, 0::32, byte_size(central)::64-little, 1::32-little>> <>
      <<"PK", 5, 6, 0::64, -1::64, 0::16>>
  end

  test "numbers of 64 bits in a ZIP archive that lie", %{dir: dir} do
    most = 0xFFFFFFFFFFFFFFFF

    for {size, compressed, header, directory} <- [
          {10, 10, 0, {most, 100}},
          {10, 10, 0, {0, most}},
          {10, 10, 0, {most, most}},
          {10, 10, 0, {100, 16_000_000}},
          {most, most, 0, nil},
          {10, 10, most, nil},
          {10, 10, 0x8000000000000000, nil},
          {most, 10, 0, nil},
          {10, most, 0, nil}
        ],
        do: refusal(file(dir, "x.npz", zip64(size, compressed, header, directory)))
  end

  # Small files of all formats, and of two kinds of three.
  defp small(dir) do
    {words, bytes} = {Buffer.iota!([2, 3], :u32), Buffer.iota!([40], :u8)}
    image = Buffer.iota!([4, 5, 3], :u8)

    for {name, data, opts} <- [
          {"x.safetensors", %{"a" => words, "b" => bytes}, [metadata: %{"k" => "v"}]},
          {"x.npy", words, []},
          {"x.npz", %{"a" => words, "b" => bytes}, []},
          {"y.npz", %{"a" => words, "b" => bytes}, [compress: true]},
          {"x.png", image, []},
          {"x.ppm", image, []},
          {"x.pgm", Buffer.iota!([4, 5], :u16), []}
        ] do
      path = Path.join(dir, name)
      :ok = Data.write(path, data, opts)
      path
    end
  end

  test "a file that ends anywhere is refused", %{dir: dir} do
    # An interlaced image with a palette.
    rows = <<0, 0x40, 1, 0x80, 2, 0x90, 3, 0xE4, 4, 0xE4, 0, 0x1B, 2, 0xFF>>
    palette = chunk("PLTE", <<1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12>>) <> chunk("tRNS", <<0, 9>>)
    interlaced = file(dir, "y.png", png({4, 4, 2, 3, 1}, rows, palette))

    for path <- [interlaced | small(dir)] do
      bytes = File.read!(path)
      # A reader of PNG may stop at the end of the data: what follows it has no pixels.
      whole = if Path.extname(path) == ".png", do: byte_size(bytes) - 12, else: byte_size(bytes)

      for size <- 0..(whole - 1) do
        read =
          bounded(fn ->
            Data.read(file(dir, "part" <> Path.extname(path), binary_part(bytes, 0, size)))
          end)

        assert {path, size, reason(read)} == {path, size, :invalid_file}
      end
    end
  end

  test "a file that is replaced, cut off or extended while it is read", %{dir: dir} do
    for path <- small(dir) do
      bytes = File.read!(path)
      other = path <> ".new"

      writer =
        Task.async(fn ->
          for n <- Stream.cycle(0..2) do
            size = div(byte_size(bytes) * (n + 1), 3)
            File.write!(other, binary_part(bytes, 0, size))
            File.rename!(other, path)
            File.write!(path, :binary.copy(bytes, n))
            receive do: (:stop -> exit(:normal)), after: (0 -> :ok)
          end
        end)

      for _ <- 1..50, read <- [&Data.read/1, &Data.list/1] do
        case read.(path) do
          {:ok, _} -> :ok
          error -> assert reason(error) == :invalid_file
        end
      end

      Process.unlink(writer.pid)
      send(writer.pid, :stop)
      Task.yield(writer, :infinity)
    end
  end

  # A program that saves a file writes another one and renames it: readers see the old or the new one.
  test "a file that others replace at once is the old or the new one", %{dir: dir} do
    path = Path.join(dir, "x.npy")
    new = Path.join(dir, "new.npy")
    [short, long] = for n <- [1, 1000], do: Buffer.full!([n], :u8, 3)
    :ok = Data.write(path, short)
    :ok = Data.write(new, long)
    [short, long] = for file <- [path, new], do: File.read!(file)
    parent = self()

    writer =
      spawn_link(fn ->
        for bytes <- Stream.cycle([long, short]) do
          File.write!(new, bytes)
          File.rename!(new, path)
          receive do: (:stop -> send(parent, :stopped) && exit(:normal)), after: (0 -> :ok)
        end
      end)

    for _ <- 1..500, do: assert({:ok, [_]} = Data.list(path))
    send(writer, :stop)
    assert_receive :stopped
  end

  test "what is no file is refused at once", %{dir: dir} do
    pipe = Path.join(dir, "pipe.npy")
    {_, 0} = System.cmd("mkfifo", [pipe])
    link = Path.join(dir, "link.npy")
    File.ln_s!("/dev/zero", link)
    loop = Path.join(dir, "loop.npy")
    File.ln_s!(loop, loop)

    for {path, problem} <- [
          {dir, "illegal operation on a directory"},
          {pipe, "the path of a regular file"},
          {link, "the path of a regular file"},
          {"/dev/zero", "the path of a regular file"},
          {"/dev/null", "the path of a regular file"},
          {loop, "too many levels of symbolic links"},
          {"/proc/self/status", "the file has 0"}
        ] do
      {:error, error} = Data.read(path, format: :npy)
      assert Exception.message(error) =~ problem
    end
  end
end
