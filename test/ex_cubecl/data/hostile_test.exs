defmodule ExCubecl.Data.HostileTest do
  # Broken and hostile files are errors, and take bounded memory and time.
  use ExCubecl.Case, async: true

  import ExCubecl.DataFiles

  alias ExCubecl.Data

  @reasons [:invalid_file, :unsupported, :too_large, :out_of_memory, :limit_exceeded]

  setup do: {:ok, dir: directory()}

  defp message(dir, name, bytes) do
    path = file(dir, name, bytes)
    read = bounded(fn -> Data.read(path) end)
    assert reason(read) in @reasons, inspect(read)
    # A list and a read of it see the same file.
    assert match?({:error, _}, bounded(fn -> Data.list(path) end)) or match?({:error, _}, read)
    Exception.message(elem(read, 1))
  end

  defp one(fields, data \\ <<0::32>>), do: safetensors(~s({"a":{#{fields}}}), data)

  test "safetensors", %{dir: dir} do
    good = ~s("dtype":"F32","shape":[1],"data_offsets":[0,4])

    for {bytes, text} <- [
          {"", "the length of the header is at bytes 0 to 8, and the file has 0"},
          {<<0::64>>, "its JSON has no object, array, string or non-negative integer at its end"},
          {<<1::56>>, "and the file has 7"},
          {<<0x8000000000000000::64-little>>,
           "its header has 9223372036854775808 bytes, and at most 16777216 are read"},
          {<<1000::64-little, "{}">>,
           "the header is at bytes 8 to 1008, and the file has 10: it is truncated or damaged"},
          {safetensors("[]"), "its header is no JSON object"},
          {safetensors("{"), "its JSON has no key at its end"},
          {safetensors("{}}"), "its JSON has text behind the end of the JSON"},
          {safetensors(~s({"a":1.5})), "its JSON has a number that is no integer at \".5}\""},
          {safetensors(~s({"a":-1})),
           "no object, array, string or non-negative integer at \"-1}\""},
          {safetensors(~s({"a":01})), "a number starts with 0"},
          {safetensors(~s({"a":99999999999999999999})), "a number is larger than 2^63 - 1"},
          {safetensors(~s({"a":nul})), "no object, array, string"},
          {safetensors(~s({"a":[1,]})), "no object, array, string"},
          {safetensors(~s({"a" 1})), "no : behind a key"},
          {safetensors(~s({a:1})), "no key at \"a:1}\""},
          {safetensors(~s({"a)), "a string without an end"},
          {safetensors(~s({"a\\x":1})), "no escape behind \\ at \"x"},
          {safetensors(~s({"\\ud800":1})), "no character behind \\u"},
          {safetensors(<<"{\"", 255, "\":1}">>), "a string is not valid UTF-8"},
          {safetensors(<<"{\"", 0, "\":1}">>), "or with a control character"},
          {safetensors(String.duplicate("[", 100_000)), "nested deeper than 8 levels"},
          {safetensors(~s({"a":{#{good}},"a":{#{good}}}), <<0::32>>),
           "the key \"a\" is there twice"},
          {safetensors(~s({"__metadata__":{"a":1}})), "its __metadata__ is no object of strings"},
          {one(~s("dtype":"F32","shape":[1])),
           "does not have exactly a dtype, a shape and ascending data_offsets"},
          {one(good <> ~s(,"more":1)), "does not have exactly"},
          {one(~s("dtype":"F32","shape":[1],"data_offsets":[4,0])), "does not have exactly"},
          {one(~s("dtype":"F32","shape":[1],"data_offsets":[0,4,8])), "does not have exactly"},
          {one(~s("dtype":"F32","shape":"1","data_offsets":[0,4])),
           "has the shape \"1\", which is none"},
          {one(~s("dtype":"F32","shape":[2],"data_offsets":[0,4])),
           "has 4 bytes, and its shape needs 8"},
          {one(
             ~s("dtype":"F32","shape":[#{Enum.join(List.duplicate(2, 65), ",")}],"data_offsets":[0,4])
           ), "which is none"},
          {one(
             ~s("dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,4])
           ), "which is none"},
          {one(~s("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]), ""),
           "which is none"},
          {one(
             ~s("dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807])
           ), "its tensors end at byte"},
          {one(~s("dtype":"U8","shape":[2],"data_offsets":[2,4])),
           "starts at byte 2 of the data, and the one before ends at 0"},
          {one(good, <<0::64>>), "and the file has"},
          {one(good, <<0::16>>), "it is truncated or damaged"},
          {safetensors(~s({"a":{#{good}},"b":{#{good}}}), <<0::32>>),
           "tensor \"b\" starts at byte 0 of the data, and the one before ends at 4"}
        ],
        do: assert(message(dir, "x.safetensors", bytes) =~ text)
  end

  test "npy", %{dir: dir} do
    head = fn descr, order, shape ->
      "{'descr': #{descr}, 'fortran_order': #{order}, 'shape': #{shape}, }"
    end

    long = "(" <> Enum.map_join(1..70, ",", fn _ -> "1" end) <> ")"

    for {bytes, text} <- [
          {"", "the header is at bytes 0 to 8"},
          {"\x93NUMPX123456", "it does not start as an .npy array does"},
          {npy("", "", 2), "no dictionary of descr"},
          {<<0x93, "NUMPY", 2, 0, 0xFFFFFFFF::32>>,
           "its header has 4294967295 bytes, and at most 65536 are read"},
          {<<0x93, "NUMPY", 1, 0, 0xFFFF::16, "{}">>, "it is truncated or damaged"},
          {npy("{"), "no dictionary of strings"},
          {npy(head.("'<f4'", "False", "(2,)"), <<0::32>>), "it is truncated or damaged"},
          {npy(head.("'<f4'", "False", "(2,)"), <<0::128>>), "it is truncated or damaged"},
          {npy(head.("'<f4'", "False", "(2)"), <<0::64>>), "(2) is no shape of an array"},
          {npy(head.("'<f4'", "False", "(-2,)"), <<0::64>>), "no dictionary of strings"},
          {npy(head.("'<f4'", "False", "(1,,2)"), <<0::64>>), "is no shape of an array"},
          {npy(head.("'<f4'", "False", "(9223372036854775807,9223372036854775807)")),
           "is no shape"},
          {npy(head.("'|u1'", "False", "(9223372036854775807,)")), "its array ends at byte"},
          {npy(head.("'<f4'", "False", long), <<0::32>>), "is no shape of an array"},
          {npy(head.("'<f4'", "None", "(2,)"), <<0::64>>), "no dictionary of strings"},
          {npy(head.("'<f4'", "'True'", "(2,)"), <<0::64>>), "its header has other fields"},
          {npy(
             "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
             <<0::64>>
           ), "is there twice"},
          {npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 'y'}", <<0::64>>),
           "its header has other fields"},
          {npy("{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", <<0::64>>),
           "no dictionary of strings"},
          {npy("{" <> String.duplicate("(", 60_000)), "no dictionary of strings"},
          {npy("{'descr': (" <> String.duplicate("1,", 30_000)), "no dictionary of strings"},
          {npy("__import__('os').system('true')"), "no dictionary of descr"}
        ],
        do: assert(message(dir, "x.npy", bytes) =~ text)
  end

  test "npz", %{dir: dir} do
    array = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", "abcd")
    crc = :erlang.crc32(array)
    size = byte_size(array)
    good = {"a.npy", 0, array, size, crc}
    zeros = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,)}")
    bomb = deflate([zeros, :binary.copy(<<0>>, 1_000_000)])
    path = file(dir, "x.npz", zip([good]))
    assert ExCubecl.to_list!(Data.read!(path, name: "a")) == ~c"abcd"

    for {bytes, text} <- [
          {"", "it has no directory of a ZIP archive"},
          {"PK\x05\x06", "it has no directory"},
          {"PK\x05\x06" <> <<0::64, 0xFFFFFF00::32-little, 0::32, 0::16>>,
           "its directory has 4294967040 bytes"},
          {"PK\x05\x06" <> <<0::64, 100::32-little, 0::32, 0::16>>,
           "the directory is at bytes 0 to 100"},
          {"PK\x05\x06" <> <<0::64, 0xFFFFFFFF::32-little, 0::32, 0::16>>,
           "its directory of 64 bits is damaged"},
          {zip([good, good]), "entry \"a.npy\" is there twice"},
          {zip([{"a.npy", 0, array, size, crc + 1}]), "does not have the size and the checksum"},
          {zip([{"a.npy", 0, array, size + 1, crc}]), "is stored in another size than its own"},
          {zip([{"a.npy", 12, array, size, crc}]), "of the compression 12"},
          {zip([{"a.npy", 8, <<7>> <> array, size, crc}]), "its compressed data is damaged"},
          {zip([{"a.npy", 8, array, size, crc}]), ""},
          {zip([{"a.npy", 8, deflate(array), size + 1, crc}]), ""},
          {zip([{"a.npy", 8, deflate([array, "more"]), size, crc}]),
           "does not have the size and the checksum"},
          {zip([{"a.npy", 8, binary_part(deflate(array), 0, 20), size, crc}]), ""},
          {zip([{"a.npy", 8, bomb, 4_000_000_000, 0}]),
           "which #{byte_size(bomb)} compressed ones cannot make"},
          {zip([{"a.npy", 8, bomb, 1_000_000, 0}]), "its array ends at byte"},
          {zip([{"a.npy", 0, "abc", 3, :erlang.crc32("abc")}]), "an array ends within its header"}
        ],
        do: assert(message(dir, "x.npz", bytes) =~ text)

    # Two entries of the same bytes.
    twice = zip([good, {"b.npy", 0, "", size, crc}])
    assert message(dir, "x.npz", twice) =~ "is stored in another size"
    {at, _} = List.last(:binary.matches(twice, "PK\x01\x02"))

    <<head::binary-size(at), entry::binary-size(20), _::32, _::32, middle::binary-size(14), _::32,
      rest::binary>> = twice

    overlapping =
      head <> entry <> <<size::32-little, size::32-little>> <> middle <> <<0::32>> <> rest

    assert message(dir, "x.npz", overlapping) =~ "overlaps what follows"
  end

  test "png", %{dir: dir} do
    rows = <<0, 1, 2, 0, 3, 4>>
    good = {2, 2, 8, 0, 0}
    bytes = png(good, rows)
    assert ExCubecl.to_list!(Data.read!(file(dir, "x.png", bytes))) == [[1, 2], [3, 4]]
    flipped = String.replace(bytes, "IDAT", "IDAT" <> "x", global: false)

    dictionary =
      <<137, "PNG\r\n", 26, 10>> <>
        chunk("IHDR", <<2::32, 2::32, 8, 0, 0, 0, 0>>) <>
        chunk("IDAT", <<0x78, 0x20 + 0x9B, 0::32>>)

    for {bytes, text} <- [
          {"", "the signature is at bytes 0 to 8"},
          {"GIF89a..", "it does not start as a PNG image does"},
          {binary_part(bytes, 0, 30), "truncated or damaged"},
          {png({0, 2, 8, 0, 0}, rows), "it does not start as a PNG image does"},
          {png({2, 0x80000000, 8, 0, 0}, rows), "it does not start as a PNG image does"},
          {png({2, 2, 3, 0, 0}, rows), "an image of 3 bits of the color type 0 does not exist"},
          {png({2, 2, 16, 3, 0}, rows), "an image of 16 bits of the color type 3 does not exist"},
          {png({2, 2, 8, 5, 0}, rows), "an image of 8 bits of the color type 5 does not exist"},
          {png({2, 2, 8, 0, 2}, rows), "it does not start as a PNG image does"},
          {png({2, 2, 8, 0, 1}, rows), "it has fewer rows than its header says"},
          {png({2, 2, 8, 0, 1}, <<0, 1, 0, 2, 0, 3>>), "it has fewer rows than its header says"},
          {png({2, 2, 8, 0, 1}, <<0, 1, 0, 2, 0, 3, 4, 5>>),
           "it has more rows than its header says"},
          {png({12_000, 12_000, 8, 0, 1}, :binary.copy(<<0>>, 150_000_000)),
           "an interlaced image of 144000000 bytes, and at most 134217728 are read"},
          {png({0x7FFFFFFF, 2, 16, 6, 0}, rows),
           "rows of 17179869176 bytes, and at most 67108864 are read"},
          {png({1000, 0x7FFFFFFF, 16, 6, 0}, rows), "compressed ones cannot make"},
          {png({2, 3, 8, 0, 0}, rows), "it has fewer rows than its header says"},
          {png({2, 1, 8, 0, 0}, rows), "it has more rows than its header says"},
          {png(good, <<9, 1, 2, 0, 3, 4>>),
           "it has a row with the filter 9, which does not exist"},
          {flipped, ""},
          {dictionary, ""},
          {String.replace(bytes, <<8, 0, 0, 0, 0>>, <<8, 2, 0, 0, 0>>, global: false),
           "the checksum of its chunk \"IHDR\" is wrong"}
        ],
        do: assert(message(dir, "x.png", bytes) =~ text)
  end

  test "ppm and pgm", %{dir: dir} do
    for {bytes, text} <- [
          {"", "does not start with P5 or P6"},
          {"P5", "its header does not have a width, a height and a highest value"},
          {"P5 2 2", "its header does not have"},
          {"P5 0 2 255 ", "its header does not have"},
          {"P5 99999999999 2 255 ", "its header does not have"},
          {"P5 2 2 70000 abcd", "its highest value is 70000"},
          {"P5 2 2 255 abc", "its samples end at byte 15, and the file has 14"},
          {"P5 2 2 255 abcde", "it is truncated or damaged"},
          {"P6 2147483647 2147483647 65535 ", "truncated or damaged"},
          {"P5 " <> String.duplicate("#", 100_000), "its header does not have"},
          {"P5 " <> String.duplicate(" ", 100_000) <> "1 1 255 a", "its header does not have"}
        ],
        do: assert(message(dir, "x.pgm", bytes) =~ text)
  end

  # Each file with changed, missing, additional and repeated bytes.
  for extension <- ~w(safetensors npy npz c.npz png p.png pgm ppm) do
    test "mutated files: .#{extension}", %{dir: dir} do
      path = Path.join(dir, "good.#{unquote(extension)}")
      good(unquote(extension), path)
      bytes = File.read!(path)
      seed = System.unique_integer([:positive])
      :rand.seed(:exsss, {seed, 7, 19})

      for n <- 1..mutations() do
        mutated = Enum.reduce(1..:rand.uniform(3), bytes, fn _, bytes -> mutate(bytes) end)
        # Half of the images have right checksums, so that more than these is tested.
        mutated = if rem(n, 2) == 0, do: repaired(mutated), else: mutated
        path = file(dir, "x.#{unquote(extension)}", mutated)
        context = "seed #{seed}, number #{n}"

        for call <- [&Data.read/1, &Data.list/1] do
          case bounded(fn -> call.(path) end) do
            {:ok, _} -> :ok
            error -> assert reason(error) in @reasons, "#{context}: #{inspect(error)}"
          end
        end
      end
    end
  end

  # EX_CUBECL_MUTATIONS tests more.
  defp mutations, do: String.to_integer(System.get_env("EX_CUBECL_MUTATIONS") || "300")

  # The bytes of a PNG image with the checksums of its chunks; other bytes as they are.
  defp repaired(<<signature::binary-size(8), chunks::binary>> = bytes) do
    if String.starts_with?(bytes, <<137, "PNG">>), do: signature <> checked(chunks), else: bytes
  end

  defp repaired(bytes), do: bytes

  defp checked(
         <<length::32, type::binary-size(4), bytes::binary-size(length), _::32, rest::binary>>
       ),
       do: chunk(type, bytes) <> checked(rest)

  defp checked(rest), do: rest

  defp good("safetensors", path) do
    tensors = %{"a" => Buffer.iota!([2, 3], :f32), "b" => Buffer.iota!([5], :u8)}
    :ok = Data.write(path, tensors, metadata: %{"k" => "v"})
  end

  defp good("npy", path), do: :ok = Data.write(path, Buffer.iota!([2, 3], :f32))

  defp good(zip, path) when zip in ~w(npz c.npz) do
    tensors = %{"a" => Buffer.iota!([2, 3], :f32), "b" => Buffer.iota!([500], :u8)}
    :ok = Data.write(path, tensors, compress: zip == "c.npz")
  end

  defp good("ppm", path), do: :ok = Data.write(path, Buffer.iota!([4, 5, 3], :u8))
  defp good("pgm", path), do: :ok = Data.write(path, Buffer.iota!([4, 5], :u16))
  # An interlaced image with a palette and transparency.
  defp good("p.png", path) do
    chunks = chunk("PLTE", <<1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12>>) <> chunk("tRNS", <<0, 9>>)
    rows = <<0, 0x40, 1, 0x80, 2, 0x90, 3, 0xE4, 4, 0xE4, 0, 0x1B, 2, 0xFF>>
    File.write!(path, png({4, 4, 2, 3, 1}, rows, chunks))
    assert ExCubecl.shape!(Data.read!(path)) == [4, 4, 4]
  end

  defp good("png", path), do: :ok = Data.write(path, Buffer.iota!([4, 5, 3], :u8))

  @numbers [0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF]

  defp mutate(""), do: "x"

  defp mutate(bytes) do
    at = :rand.uniform(byte_size(bytes)) - 1
    <<head::binary-size(at), byte, rest::binary>> = bytes

    case :rand.uniform(7) do
      1 ->
        head

      2 ->
        head <> <<:rand.uniform(256) - 1>> <> rest

      3 ->
        head <> <<Bitwise.bxor(byte, Bitwise.bsl(1, :rand.uniform(8) - 1))>> <> rest

      4 ->
        head <> rest

      5 ->
        head <> :rand.bytes(:rand.uniform(9)) <> <<byte>> <> rest

      6 ->
        head <>
          number() <> binary_part(rest, min(3, byte_size(rest)), max(byte_size(rest) - 3, 0))

      7 ->
        head <> binary_part(bytes, 0, min(at, 40)) <> rest
    end
  end

  # A number in binary or text, small or extreme.
  defp number do
    number = Enum.random(@numbers)

    case :rand.uniform(4) do
      1 -> <<number::32-little>>
      2 -> <<number::64-little>>
      3 -> <<number::32-big>>
      4 -> Integer.to_string(number)
    end
  end
end
