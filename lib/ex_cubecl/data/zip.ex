defmodule ExCubecl.Data.Zip do
  @moduledoc false
  # The ZIP archives that NumPy writes: entries that are stored or deflated, with sizes of 32 or 64 bits.

  alias ExCubecl.Data.{Inflate, Reader, Upload}
  alias ExCubecl.Data.Zip.{Archive, Directory}
  alias ExCubecl.Error.Text

  defdelegate entries(file), to: Directory

  defdelegate save(file, names, compress?, write_entry), to: Archive

  @doc "The stream of the bytes of an entry."
  @spec stream(Reader.t(), Directory.entry(), :zlib.zstream()) ::
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
end
