defmodule ExCubecl.DataFiles do
  @moduledoc false
  # Files for the tests of ExCubecl.Data, in a directory of their own.

  @doc "A new directory, removed at the end of the test."
  def directory do
    name = "ex_cubecl_data_#{System.pid()}_#{System.unique_integer([:positive])}"
    path = Path.join(System.tmp_dir!(), name)
    File.mkdir_p!(path)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(path) end)
    path
  end

  # Words of host memory that a process may use, about 400 MB. Larger claims of a file must not be believed.
  @most_words 50_000_000

  @doc "The result of a function in a process whose memory is bounded."
  def bounded(fun) do
    task =
      Task.async(fn ->
        Process.flag(:max_heap_size, %{size: @most_words, kill: true, error_logger: false})
        fun.()
      end)

    Task.await(task, :infinity)
  end

  @doc "Bytes in a file of the directory."
  def file(directory, name, bytes) do
    path = Path.join(directory, name)
    File.write!(path, bytes)
    path
  end

  @doc "A safetensors file with this header and data."
  def safetensors(header, data \\ <<>>), do: <<byte_size(header)::64-little>> <> header <> data

  @doc "An .npy file with this header and data."
  def npy(header, data \\ <<>>, version \\ 1) do
    length =
      if version == 1,
        do: <<byte_size(header)::16-little>>,
        else: <<byte_size(header)::32-little>>

    <<0x93, "NUMPY", version, 0>> <> length <> header <> data
  end

  @doc "A ZIP archive with these entries: name, method, the bytes that are stored, and the size and checksum that it says."
  def zip(entries) do
    {locals, centrals, offset} =
      Enum.reduce(entries, {[], [], 0}, fn {name, method, bytes, size, crc},
                                           {locals, centrals, offset} ->
        common =
          <<20::16-little, 0::16, method::16-little, 0::32, crc::32-little,
            byte_size(bytes)::32-little, size::32-little, byte_size(name)::16-little, 0::16>>

        local = <<"PK", 3, 4>> <> common <> name <> bytes
        central = <<"PK", 1, 2, 20::16-little>> <> common <> <<0::80, offset::32-little>> <> name
        {[locals, local], [centrals, central], offset + byte_size(local)}
      end)

    count = length(entries)
    size = IO.iodata_length(centrals)

    IO.iodata_to_binary([
      locals,
      centrals,
      <<"PK", 5, 6, 0::32, count::16-little, count::16-little, size::32-little, offset::32-little,
        0::16>>
    ])
  end

  @doc "Bytes as raw deflate."
  def deflate(bytes) do
    z = :zlib.open()
    :ok = :zlib.deflateInit(z, :best_compression, :deflated, -15, 8, :default)
    deflated = IO.iodata_to_binary(:zlib.deflate(z, bytes, :finish))
    :zlib.close(z)
    deflated
  end

  @doc "A chunk of a PNG image."
  def chunk(type, bytes),
    do: <<byte_size(bytes)::32>> <> type <> bytes <> <<:erlang.crc32([type, bytes])::32>>

  @doc "A PNG image with these fields of its header, these bytes of its rows, and these chunks before them."
  def png({width, height, bits, color, interlaced}, rows, chunks \\ "") do
    <<137, "PNG\r\n", 26, 10>> <>
      chunk("IHDR", <<width::32, height::32, bits, color, 0, 0, interlaced>>) <>
      chunk("tEXt", "Title\0a test") <>
      chunks <>
      chunk("IDAT", :zlib.compress(rows)) <> chunk("IEND", "")
  end
end
