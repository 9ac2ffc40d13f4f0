defmodule ExCubecl.DataTest do
  # Files of arrays and images: what is written is read again, and files of other programs are read as they are meant.
  use ExCubecl.Case, async: true

  import ExCubecl.DataFiles

  alias ExCubecl.{Data, DType, NumpyCases, View}

  doctest ExCubecl.Data.Json

  setup do: {:ok, dir: directory()}

  defp list(tensor), do: ExCubecl.to_list!(tensor)
  defp says({:error, error}), do: Exception.message(error)

  # Every byte value occurs in a buffer of any type.
  defp sample(dtype, shape) do
    bytes = Enum.product(shape) * DType.size!(dtype)

    ExCubecl.buffer!(
      for(i <- 0..(bytes - 1)//1, into: <<>>, do: <<rem(i * 37 + 11, 256)>>),
      shape,
      dtype
    )
  end

  defp same?(a, b),
    do: {a.dtype, a.shape, ExCubecl.read!(a)} == {b.dtype, b.shape, ExCubecl.read!(b)}

  test "tensors of every type and of many shapes are read as they were written", %{dir: dir} do
    for dtype <- DType.all(), shape <- [[], [1], [0, 3], [7], [2, 3, 4], [1, 1, 300]] do
      x = sample(dtype, shape)
      path = Path.join(dir, "x.safetensors")
      assert :ok = Data.write(path, %{"a b/é\"\\\n" => x, "" => x})
      assert %{"a b/é\"\\\n" => one, "" => two} = Data.read!(path)
      assert same?(one, x) and same?(two, x)
      assert same?(Data.read!(path, name: ""), x)

      if dtype != :bf16 do
        path = Path.join(dir, "x.npy")
        assert :ok = Data.write(path, x)
        assert same?(Data.read!(path), x)
        assert [%{name: nil, dtype: ^dtype, shape: ^shape}] = Data.list!(path)

        for compress <- [false, true] do
          path = Path.join(dir, "x.npz")
          assert :ok = Data.write(path, %{"a" => x, "é/../b" => x}, compress: compress)
          assert %{"a" => one, "é/../b" => two} = tensors = Data.read!(path)
          assert map_size(tensors) == 2 and same?(one, x) and same?(two, x)
        end
      end
    end
  end

  test "images are read as they were written", %{dir: dir} do
    for dtype <- [:u8, :u16],
        {shape, extensions} <- [
          {[5, 7], ~w(png pgm)},
          {[5, 7, 3], ~w(png ppm)},
          {[5, 7, 4], ~w(png)},
          {[1, 1, 2], ~w(png)},
          {[300, 1], ~w(png pgm)}
        ],
        extension <- extensions do
      x = sample(dtype, shape)
      path = Path.join(dir, "x.#{extension}")
      assert :ok = Data.write(path, x)
      assert same?(Data.read!(path), x)
      assert [%{name: nil, dtype: ^dtype, shape: ^shape}] = Data.list!(path)
    end
  end

  test "elements that take several chunks", %{dir: dir} do
    x = Buffer.iota!([4_300_000], :s64)

    for {name, data, opts} <- [
          {"x.npy", x, []},
          {"x.safetensors", %{"x" => x, "y" => Buffer.iota!([3], :u8)},
           [metadata: %{"k" => "v"}]},
          {"x.npz", %{"x" => x}, []},
          {"x.npz", %{"x" => x}, [compress: true]}
        ] do
      path = Path.join(dir, name)
      :ok = Data.write(path, data, opts)
      read = Data.read!(path)
      read = if is_map(data) and not is_struct(data), do: read["x"], else: read
      assert ExCubecl.read!(read) == ExCubecl.read!(x)
    end

    image = Buffer.iota!([3000, 1500, 3], :u8)
    path = Path.join(dir, "x.png")
    :ok = Data.write(path, image)
    assert ExCubecl.read!(Data.read!(path)) == ExCubecl.read!(image)
  end

  test "a view is written in row-major order", %{dir: dir} do
    path = Path.join(dir, "x.npy")
    :ok = Data.write(path, View.transpose!(Buffer.iota!([2, 3], :s32)))
    assert list(Data.read!(path)) == [[0, 3], [1, 4], [2, 5]]
  end

  test "options of buffers", %{dir: dir} do
    path = Path.join(dir, "x.safetensors")
    :ok = Data.write(path, %{"x" => Buffer.iota!([1000], :f32)})
    tag = make_ref() |> inspect()
    keep(Data.read!(path, tag: tag, device: ExCubecl.default_device!()))
    assert Memory.report!().by_tag[tag].bytes == 4000
    assert reason(Data.read(path, device: {:vulkan, 99})) == :unknown_device
    assert reason(Data.read(path, tag: String.duplicate("a", 5000))) == :invalid_argument
  end

  test "one tensor of a file by name reads no other", %{dir: dir} do
    header =
      ~s({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},"q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[8,10]}})

    path = file(dir, "x.safetensors", safetensors(header, <<1::32-little, 2::32-little, 0, 0>>))
    assert list(Data.read!(path, name: "a")) == [1, 2]

    assert for(e <- Data.list!(path), do: {e.name, e.dtype, e.bytes}) == [
             {"a", :s32, 8},
             {"q", "F8_E4M3", 2}
           ]

    assert reason(Data.read(path)) == :unsupported

    assert says(Data.read(path, name: "q")) =~
             ~s(tensor "q" of the type "F8_E4M3"; these are read: BF16 BOOL)

    assert says(Data.read(path, name: "b")) =~ ~s(expected one of the 2 names ["a", "q"])
  end

  describe "npy" do
    defp array(dir, header, data, version \\ 1),
      do: Data.read(file(dir, "x.npy", npy(header, data, version)))

    test "orders of bytes, booleans, complex numbers and the order of Fortran", %{dir: dir} do
      for {descr, data, expected} <- [
            {">i4", <<1::32-big, -2::32-big>>, [1, -2]},
            {"<i4", <<1::32-little, -2::32-little>>, [1, -2]},
            {"=u2", <<258::16-native, 3::16-native>>, [258, 3]},
            {">f8", <<1.5::float-64-big, -2.0::float-64-big>>, [1.5, -2.0]},
            {"|b1", <<1, 0>>, [1, 0]},
            {"<c8",
             <<1.0::float-32-little, 2.0::float-32-little, 3.0::float-32-little,
               4.0::float-32-little>>, [[1.0, 2.0], [3.0, 4.0]]},
            {">c16",
             <<1.0::float-64-big, 2.0::float-64-big, 3.0::float-64-big, 4.0::float-64-big>>,
             [[1.0, 2.0], [3.0, 4.0]]}
          ],
          version <- 1..3 do
        header = "{'descr': '#{descr}', 'fortran_order': False, 'shape': (2,), }\n"
        assert list(elem(array(dir, header, data, version), 1)) == expected
      end

      header = ~s[{"shape": (2, 3), "fortran_order": True, "descr": "|u1"}]
      assert {:ok, %View{} = view} = array(dir, header, <<1, 4, 2, 5, 3, 6>>)
      assert list(view) == [[1, 2, 3], [4, 5, 6]]

      header = "{'descr': '<c8', 'fortran_order': True, 'shape': (2, 2)}"
      data = for x <- 1..8, into: <<>>, do: <<x * 1.0::float-32-little>>
      assert {:ok, view} = array(dir, header, data)
      assert list(view) == [[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]]
    end

    test "types and versions that are not read", %{dir: dir} do
      for descr <- ["'<V2'", "'|O'", "'<M8[ns]'", "'<U4'", "'f4'", "''", "'<f16'"] do
        {:error, error} =
          array(dir, "{'descr': #{descr}, 'fortran_order': False, 'shape': (2,)}", <<0::64>>)

        assert error.reason in [:unsupported, :invalid_file], descr
      end

      assert reason(
               array(
                 dir,
                 "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}",
                 <<0::64>>
               )
             ) ==
               :invalid_file

      assert says(Data.read(file(dir, "x.npy", <<0x93, "NUMPY", 9, 0, 0::64>>))) =~
               "version 9 of .npy"

      assert says(Data.write(Path.join(dir, "y.npy"), Buffer.iota!([2], :bf16))) =~
               "see ExCubecl.Buffer.convert/3"
    end
  end

  test "the filters of PNG", %{dir: dir} do
    # Rows of two RGB pixels, each with another filter, and the row that it stands for.
    rows = [
      {0, [10, 20, 30, 40, 50, 60], [10, 20, 30, 40, 50, 60]},
      {1, [5, 6, 7, 250, 1, 2], [5, 6, 7, 255, 7, 9]},
      {2, [1, 1, 1, 2, 2, 2], [6, 7, 8, 1, 9, 11]},
      {3, [10, 10, 10, 10, 10, 10], [13, 13, 14, 17, 21, 22]},
      {4, [1, 2, 3, 4, 5, 6], [14, 15, 17, 21, 26, 28]}
    ]

    data =
      for {filter, bytes, _} <- rows,
          into: <<>>,
          do: <<filter, :erlang.list_to_binary(bytes)::binary>>

    path = file(dir, "x.png", png({2, 5, 8, 2, 0}, data))
    assert ExCubecl.to_flat_list!(Data.read!(path)) == Enum.flat_map(rows, &elem(&1, 2))
  end

  test "comments and other white space in the header of an image", %{dir: dir} do
    path = file(dir, "x.pgm", "P5 # a comment\n# another\r2\t1\n255\n" <> <<7, 8>>)
    assert list(Data.read!(path)) == [[7, 8]]
    path = file(dir, "x.pgm", "P5 1 2 300\n" <> <<1, 2, 0, 3>>)
    assert list(Data.read!(path)) == [[258], [3]]
    assert says(Data.read(file(dir, "x.ppm", "P3 1 1 255 1 2 3"))) =~ "an image of the form P3"
  end

  test "misuse is an error that says what is expected", %{dir: dir} do
    x = Buffer.iota!([2], :f32)
    npy = Path.join(dir, "x.npy")
    :ok = Data.write(npy, x)

    for {result, text} <- [
          {Data.read("x.txt"),
           "expected one of the extensions .npy .npz .pgm .png .ppm .safetensors"},
          {Data.read(npy, format: :gif), "invalid format :gif"},
          {Data.read(npy, name: "a"), "invalid name \"a\""},
          {Data.read(npy, nmae: "a"), "invalid option :nmae"},
          {Data.read(Path.join(dir, "none.npy")), "no such file or directory (enoent)"},
          {Data.read(dir, format: :npy), "(eisdir)"},
          {Data.read("/dev/zero", format: :npy), "expected the path of a regular file"},
          {Data.read("a\0.npy"), "expected the path of a file"},
          {Data.read(5), "expected the path of a file"},
          {Data.list(npy, name: "a"), "invalid option :name"},
          {Data.write(npy, 5), "expected a buffer or a view"},
          {Data.write(npy, %{"x" => x}), "expected a buffer or a view"},
          {Data.write(Path.join(dir, "x.npz"), x), "expected a map of buffers or views"},
          {Data.write(Path.join(dir, "x.npz"), %{a: x}), "invalid name :a: expected a string"},
          {Data.write(Path.join(dir, "x.npz"), %{"a" => x}, compress: 1),
           "expected true or false"},
          {Data.write(npy, x, compress: true), "expected none: it is for npz files"},
          {Data.write(Path.join(dir, "x.safetensors"), %{"__metadata__" => x}),
           "safetensors reserves this one"},
          {Data.write(Path.join(dir, "x.safetensors"), %{}, metadata: %{a: 1}),
           "expected a map of strings"},
          {Data.write(Path.join(dir, "x.png"), x),
           "expected an image of the shape [height, width]"},
          {Data.write(Path.join(dir, "x.ppm"), x), "expected an RGB image"},
          {Data.write(Path.join(dir, "x.pgm"), x), "expected a grey image"},
          {Data.write(Path.join([dir, "no", "x.npy"]), x), "cannot write"},
          {Data.write(npy, Buffer.empty!([2], :f32)), "nothing was ever written"}
        ],
        do: assert(says(result) =~ text)

    # A failed write changes nothing and leaves no other file.
    assert list(Data.read!(npy)) == [0.0, 1.0]
    assert File.ls!(dir) == ["x.npy"]
  end

  @tag :numpy
  test "NumPy reads what is written", %{dir: dir} do
    x = View.transpose!(Buffer.iota!([2, 3], :f32))
    npy = Path.join(dir, "x.npy")
    :ok = Data.write(npy, x)

    for {compress, name} <- [{false, "s.npz"}, {true, "c.npz"}] do
      tensors =
        for dtype <- DType.all() -- [:bf16], into: %{}, do: {"#{dtype}", sample(dtype, [3, 5])}

      path = Path.join(dir, name)
      :ok = Data.write(path, tensors, compress: compress)

      code = """
      import sys, numpy
      for name, array in numpy.load(sys.argv[1]).items():
          print(name, array.dtype, array.shape, array.tobytes().hex())
      """

      {text, 0} = System.cmd(NumpyCases.python(), ["-c", code, path], stderr_to_stdout: true)
      names = %{s: "int", u: "uint", f: "float"}

      expected =
        for {name, buffer} <- Enum.sort(tensors) do
          <<kind::binary-size(1), bits::binary>> = name
          hex = buffer |> ExCubecl.read!() |> Base.encode16(case: :lower)
          "#{name} #{names[String.to_existing_atom(kind)]}#{bits} (3, 5) #{hex}\n"
        end

      assert text == Enum.join(expected)
    end

    code =
      "import sys, numpy; a = numpy.load(sys.argv[1]); print(a.tolist(), a.flags['C_CONTIGUOUS'])"

    {text, 0} = System.cmd(NumpyCases.python(), ["-c", code, npy])
    assert text == "[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]] True\n"
  end
end
