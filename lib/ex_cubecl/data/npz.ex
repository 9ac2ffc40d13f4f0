defmodule ExCubecl.Data.Npz do
  @moduledoc false
  # The format .npz of NumPy: a ZIP archive of .npy arrays.

  alias ExCubecl.Data.{Inflate, Npy, Reader, Zip}
  alias ExCubecl.Error.Arguments

  # Bytes at the start of an entry in which the header of its array is, at most.
  @head 128 * 1024

  @doc "The arrays of an archive: maps with name, dtype, shape and bytes."
  def entries(file) do
    with {:ok, entries} <- arrays(file) do
      ExCubecl.Error.map(entries, fn {name, entry} ->
        with {:ok, array} <- array(file, entry),
             do: {:ok, Map.merge(array, %{name: name, entry: entry})}
      end)
    end
  end

  # Other entries than arrays are ignored.
  defp arrays(file) do
    with {:ok, entries} <- Zip.entries(file) do
      {:ok,
       for(
         entry <- entries,
         String.ends_with?(entry.name, ".npy"),
         do: {String.replace_suffix(entry.name, ".npy", ""), entry}
       )}
    end
  end

  # The header of the array at the start of an entry.
  defp array(file, entry) do
    Inflate.with_zlib(fn zlib ->
      with {:ok, stream} <- Zip.stream(file, entry, zlib),
           {:ok, head} <- Inflate.bytes(stream, min(@head, entry.size)) do
        Npy.header(file, entry.size, fn offset, count ->
          if offset + count <= byte_size(head),
            do: {:ok, binary_part(head, offset, count)},
            else: Reader.invalid(file, "an array ends within its header")
        end)
      end
    end)
  end

  @doc "The tensor of an array on a device."
  def load(file, %{entry: entry} = array, opts) do
    Inflate.with_zlib(fn zlib ->
      with {:ok, stream} <- Zip.stream(file, entry, zlib),
           do: stream |> skip(array.offset) |> Npy.load(array, opts)
    end)
  end

  defp skip(stream, count) do
    fn ->
      case stream.() do
        {:ok, bytes, next} when byte_size(bytes) <= count ->
          skip(next, count - byte_size(bytes)).()

        {:ok, <<_::binary-size(count), bytes::binary>>, next} ->
          {:ok, bytes, next}

        other ->
          other
      end
    end
  end

  @doc "Writes tensors, buffers by name; with `compress: true`, deflated."
  def save(file, tensors, opts) do
    tensors = Map.new(tensors, fn {name, buffer} -> {name <> ".npy", buffer} end)
    names = tensors |> Map.keys() |> Enum.sort()

    case {Keyword.get(opts, :compress, false), Enum.find(names, &(byte_size(&1) > 0xFFFF))} do
      {compress?, nil} when is_boolean(compress?) ->
        Zip.save(file, names, compress?, &Npy.save(Map.fetch!(tensors, &1), &2))

      {compress?, nil} ->
        Arguments.invalid(:compress, compress?, "true or false")

      {_, name} ->
        Arguments.invalid(:data, name, "names of less than 64 KiB")
    end
  end
end
