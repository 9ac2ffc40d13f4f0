defmodule ExCubecl.Data.Zip do
  @moduledoc false
  # The ZIP archives that NumPy writes: entries that are stored or deflated, with sizes of 32 or 64 bits.

  alias ExCubecl.Data.{Inflate, Reader, Upload, Writer}
  alias ExCubecl.Error.Text

  # The end record has a comment of at most 64 KiB behind it.
  @most_end 22 + 0xFFFF
  @most_directory 16 * 1024 * 1024
  @all32 0xFFFFFFFF

  @type entry :: %{
          name: String.t(),
          method: 0 | 8,
          crc: non_neg_integer,
          compressed: non_neg_integer,
          size: non_neg_integer,
          header: non_neg_integer
        }

  ## Reading

  @doc "The entries in the order of the directory."
  @spec entries(Reader.t()) :: {:ok, [entry]} | {:error, ExCubecl.Error.t()}
  def entries(file) do
    with {:ok, offset, size} <- directory(file),
         :ok <- bounded(file, size),
         {:ok, bytes} <- Reader.bytes(file, offset, size, "the directory"),
         {:ok, entries} <- each(file, bytes, []) do
      names = Enum.map(entries, & &1.name)

      case names -- Enum.uniq(names) do
        [] -> apart(file, entries, offset)
        [name | _] -> Reader.invalid(file, "entry #{Text.show(name)} is there twice")
      end
    end
  end

  # Entries that share bytes could make any amount of data from a small file.
  defp apart(file, entries, directory) do
    starts = entries |> Enum.map(& &1.header) |> Enum.sort() |> Enum.drop(1)
    sorted = Enum.sort_by(entries, & &1.header)

    case Enum.find(Enum.zip(sorted, starts ++ [directory]), fn {entry, next} ->
           entry.header + 30 + entry.compressed > next
         end) do
      nil ->
        {:ok, entries}

      {entry, _} ->
        Reader.invalid(file, "entry #{Text.show(entry.name)} overlaps what follows")
    end
  end

  defp bounded(_file, size) when size <= @most_directory, do: :ok

  defp bounded(file, size),
    do:
      Reader.invalid(
        file,
        "its directory has #{size} bytes, and at most #{@most_directory} are read"
      )

  defp directory(file) do
    count = min(file.size, @most_end)

    with {:ok, bytes} <- Reader.bytes(file, file.size - count, count, "the end of the archive"),
         at when at != nil <- last(bytes) do
      <<_::binary-size(at), "PK\x05\x06", _::binary-size(8), size::32-little, offset::32-little,
        _::binary>> = bytes

      if @all32 in [size, offset],
        do: directory64(file, file.size - count + at),
        else: {:ok, offset, size}
    else
      nil ->
        Reader.invalid(file, "it has no directory of a ZIP archive: it is truncated or damaged")

      error ->
        error
    end
  end

  defp last(bytes) do
    case :binary.matches(bytes, "PK\x05\x06") do
      [] ->
        nil

      matches ->
        {at, _} = List.last(matches)
        if at + 22 <= byte_size(bytes), do: at
    end
  end

  defp directory64(file, end32) when end32 >= 20 do
    with {:ok, <<"PK\x06\x07", _::32, end64::64-little, _::32>>} <-
           Reader.bytes(file, end32 - 20, 20, "the end of the archive"),
         {:ok, <<"PK\x06\x06", _::binary-size(36), size::64-little, offset::64-little>>} <-
           Reader.bytes(file, end64, 56, "the end of the archive") do
      {:ok, offset, size}
    else
      {:ok, _} -> Reader.invalid(file, "its directory of 64 bits is damaged")
      error -> error
    end
  end

  defp directory64(file, _end32), do: Reader.invalid(file, "its directory of 64 bits is damaged")

  defp each(_file, <<>>, entries), do: {:ok, Enum.reverse(entries)}

  defp each(
         file,
         <<"PK\x01\x02", _::32, flags::16-little, method::16-little, _::32, crc::32-little,
           compressed::32-little, size::32-little, n::16-little, m::16-little, k::16-little,
           _::64, header::32-little, name::binary-size(n), extra::binary-size(m),
           _::binary-size(k), rest::binary>>,
         entries
       ) do
    entry = %{
      name: text(name),
      method: method,
      crc: crc,
      compressed: compressed,
      size: size,
      header: header
    }

    with {:ok, entry} <- wide(file, entry, extra),
         :ok <- readable(file, entry, flags),
         do: each(file, rest, [entry | entries])
  end

  defp each(file, _bytes, _entries), do: Reader.invalid(file, "its directory is damaged")

  # Names are UTF-8. Old programs wrote them in a code page that the archive does not name: other bytes are taken for Latin-1.
  defp text(name),
    do: if(String.valid?(name), do: name, else: :unicode.characters_to_binary(name, :latin1))

  # The numbers that do not fit into 32 bits follow in this order.
  defp wide(file, entry, extra) do
    fields = for key <- [:size, :compressed, :header], entry[key] == @all32, do: key

    case {fields, field64(extra)} do
      {[], _} ->
        {:ok, entry}

      {fields, bytes} when byte_size(bytes) >= 8 * length(fields) ->
        numbers = for <<n::64-little <- binary_part(bytes, 0, 8 * length(fields))>>, do: n
        {:ok, Map.merge(entry, Map.new(Enum.zip(fields, numbers)))}

      _ ->
        Reader.invalid(file, "entry #{Text.show(entry.name)} has no sizes of 64 bits")
    end
  end

  defp field64(<<1::16-little, n::16-little, bytes::binary-size(n), _::binary>>), do: bytes

  defp field64(<<_::16, n::16-little, _::binary-size(n), rest::binary>>), do: field64(rest)
  defp field64(_extra), do: <<>>

  defp readable(file, entry, flags) do
    cond do
      rem(flags, 2) == 1 ->
        Reader.unsupported(file, "entry #{Text.show(entry.name)}, which is encrypted")

      entry.method not in [0, 8] ->
        Reader.unsupported(
          file,
          "entry #{Text.show(entry.name)} of the compression #{entry.method}; 0 (stored) and 8 (deflated) are read"
        )

      entry.method == 0 and entry.size != entry.compressed ->
        Reader.invalid(
          file,
          "entry #{Text.show(entry.name)} is stored in another size than its own"
        )

      not Inflate.plausible?(entry.compressed, entry.size) ->
        Reader.invalid(
          file,
          "entry #{Text.show(entry.name)} has #{entry.size} bytes, which #{entry.compressed} compressed ones cannot make"
        )

      true ->
        :ok
    end
  end

  @doc "The stream of the bytes of an entry."
  @spec stream(Reader.t(), entry, :zlib.zstream()) ::
          {:ok, Upload.stream()} | {:error, ExCubecl.Error.t()}
  def stream(file, entry, zlib) do
    what = "entry #{Text.show(entry.name)}"

    with {:ok, <<"PK\x03\x04", _::binary-size(22), n::16-little, m::16-little>>} <-
           Reader.bytes(file, entry.header, 30, what),
         start = entry.header + 30 + n + m,
         :ok <- Reader.inside(file, start, entry.compressed, what) do
      stored = Reader.range(file, start, entry.compressed, what)
      plain = if entry.method == 0, do: stored, else: Inflate.stream(stored, zlib, -15, file)
      {:ok, checked(plain, file, entry, 0, 0)}
    else
      {:ok, _} -> Reader.invalid(file, "#{what} does not start where the directory says")
      error -> error
    end
  end

  # The size and the checksum are compared at the end; more bytes than there should be end it earlier.
  defp checked(stream, file, entry, count, crc) do
    fn ->
      case stream.() do
        {:ok, bytes, next} when count + byte_size(bytes) <= entry.size ->
          {:ok, bytes,
           checked(next, file, entry, count + byte_size(bytes), :erlang.crc32(crc, bytes))}

        :done when count == entry.size and crc == entry.crc ->
          :done

        {:error, _} = error ->
          error

        _ ->
          Reader.invalid(
            file,
            "entry #{Text.show(entry.name)} does not have the size and the checksum that its directory says"
          )
      end
    end
  end

  ## Writing

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
