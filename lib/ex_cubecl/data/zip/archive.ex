defmodule ExCubecl.Data.Zip.Archive do
  @moduledoc false
  # Writes a ZIP archive. The sizes of its entries and of its directory have 64 bits, as NumPy writes them.

  alias ExCubecl.Data.{Inflate, Writer}

  @all32 0xFFFFFFFF

  @doc """
  Writes an archive: `write_entry` is called with each name and a function that takes the bytes of the entry.
  """
  def save(file, names, compress?, write_entry) do
    result =
      Enum.reduce_while(names, {:ok, [], 0}, fn name, {:ok, entries, offset} ->
        case entry(file, name, offset, compress?, write_entry) do
          {:ok, entry, next} -> {:cont, {:ok, [entry | entries], next}}
          error -> {:halt, error}
        end
      end)

    with {:ok, entries, offset} <- result,
         do: Writer.write(file, directory_of(Enum.reverse(entries), offset))
  end

  # The sizes and the checksum are written when they are known.
  defp entry(file, name, offset, compress?, write_entry) do
    entry = %{name: name, method: if(compress?, do: 8, else: 0), header: offset}
    placeholder = local(Map.merge(entry, %{crc: 0, size: 0, compressed: 0}))
    counter = :counters.new(3, [])

    with :ok <- Writer.write(file, placeholder),
         :ok <- contents(file, name, compress?, counter, write_entry) do
      [crc, size, compressed] = for n <- 1..3, do: :counters.get(counter, n)
      entry = Map.merge(entry, %{crc: crc, size: size, compressed: compressed})

      with :ok <- Writer.write_at(file, offset, local(entry)),
           do: {:ok, entry, offset + byte_size(placeholder) + compressed}
    end
  end

  defp contents(file, name, false, counter, write_entry) do
    write_entry.(name, fn bytes ->
      count(counter, bytes, bytes)
      Writer.write(file, bytes)
    end)
  end

  defp contents(file, name, true, counter, write_entry) do
    Inflate.with_zlib(fn zlib ->
      :ok = :zlib.deflateInit(zlib, :default, :deflated, -15, 8, :default)

      write = fn bytes, flush ->
        deflated = :zlib.deflate(zlib, bytes, flush)
        count(counter, bytes, deflated)
        Writer.write(file, deflated)
      end

      with :ok <- write_entry.(name, &write.(&1, :none)), do: write.(<<>>, :finish)
    end)
  end

  defp count(counter, bytes, written) do
    :counters.put(counter, 1, :erlang.crc32(:counters.get(counter, 1), bytes))
    :counters.add(counter, 2, IO.iodata_length(bytes))
    :counters.add(counter, 3, IO.iodata_length(written))
  end

  # The sizes are in the extra field of 64 bits, always, as NumPy writes them.
  defp local(%{name: name} = entry) do
    <<"PK\x03\x04", 45::16-little, 0x800::16-little, entry.method::16-little, 0::16,
      0x21::16-little, entry.crc::32-little, @all32::32, @all32::32, byte_size(name)::16-little,
      20::16-little, name::binary, 1::16-little, 16::16-little, entry.size::64-little,
      entry.compressed::64-little>>
  end

  defp directory_of(entries, offset) do
    records = for entry <- entries, do: central(entry)
    size = IO.iodata_length(records)
    count = length(entries)

    [
      records,
      <<"PK\x06\x06", 44::64-little, 45::16-little, 45::16-little, 0::32, 0::32, count::64-little,
        count::64-little, size::64-little, offset::64-little>>,
      <<"PK\x06\x07", 0::32, offset + size::64-little, 1::32-little>>,
      <<"PK\x05\x06", 0::32, min(count, 0xFFFF)::16-little, min(count, 0xFFFF)::16-little,
        min(size, @all32)::32-little, min(offset, @all32)::32-little, 0::16>>
    ]
  end

  defp central(%{name: name} = entry) do
    <<"PK\x01\x02", 45::16-little, 45::16-little, 0x800::16-little, entry.method::16-little,
      0::16, 0x21::16-little, entry.crc::32-little, @all32::32, @all32::32,
      byte_size(name)::16-little, 28::16-little, 0::16, 0::16, 0::16, 0::32, @all32::32,
      name::binary, 1::16-little, 24::16-little, entry.size::64-little,
      entry.compressed::64-little, entry.header::64-little>>
  end
end
