defmodule ExCubecl.Data.Zip.Directory do
  @moduledoc false
  # The directory at the end of a ZIP archive: names, sizes, checksums and offsets of its entries.

  alias ExCubecl.Data.{Inflate, Reader}
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
end
