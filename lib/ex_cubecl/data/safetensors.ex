defmodule ExCubecl.Data.Safetensors do
  @moduledoc false
  # The format safetensors: the length of the header as 64 bits, the header in JSON, and the bytes of the tensors, little-endian and without gaps.

  alias ExCubecl.{DType, Error, Shape}
  alias ExCubecl.Data.{Json, Reader, Upload, Writer}
  alias ExCubecl.Error.{Arguments, Text}

  # A tensor needs about 100 bytes of header.
  @most_header 16 * 1024 * 1024

  @dtypes %{
    "BOOL" => :u8,
    "U8" => :u8,
    "I8" => :s8,
    "U16" => :u16,
    "I16" => :s16,
    "U32" => :u32,
    "I32" => :s32,
    "U64" => :u64,
    "I64" => :s64,
    "F16" => :f16,
    "BF16" => :bf16,
    "F32" => :f32,
    "F64" => :f64
  }

  @names for {name, dtype} <- @dtypes, name != "BOOL", into: %{}, do: {dtype, name}

  @doc "The tensors of a file in the order of their bytes: maps with name, dtype (a string if no buffer has this type), shape and bytes, and where these are."
  def entries(file) do
    with {:ok, <<length::64-little>>} <- Reader.bytes(file, 0, 8, "the length of the header"),
         :ok <- bounded(file, length),
         {:ok, text} <- Reader.bytes(file, 8, length, "the header"),
         {:ok, header} <- parse(file, text),
         {:ok, entries} <- each(file, Map.to_list(Map.delete(header, "__metadata__")), []),
         :ok <- metadata(file, Map.get(header, "__metadata__", %{})) do
      placed(file, Enum.sort_by(entries, &{&1.offset, &1.offset + &1.bytes, &1.name}), 8 + length)
    end
  end

  defp bounded(_file, length) when length <= @most_header, do: :ok

  defp bounded(file, length),
    do:
      Reader.invalid(file, "its header has #{length} bytes, and at most #{@most_header} are read")

  defp parse(file, text) do
    case Json.parse(text) do
      {:ok, header} when is_map(header) -> {:ok, header}
      {:ok, _} -> Reader.invalid(file, "its header is no JSON object")
      {:error, problem} -> Reader.invalid(file, problem)
    end
  end

  defp metadata(file, metadata) do
    if is_map(metadata) and Enum.all?(metadata, fn {_, value} -> is_binary(value) end),
      do: :ok,
      else: Reader.invalid(file, "its __metadata__ is no object of strings")
  end

  defp each(_file, [], entries), do: {:ok, entries}

  defp each(file, [{name, fields} | rest], entries) do
    with {:ok, entry} <- entry(file, name, fields), do: each(file, rest, [entry | entries])
  end

  defp entry(
         file,
         name,
         %{"dtype" => type, "shape" => shape, "data_offsets" => [first, last]} = fields
       )
       when map_size(fields) == 3 and is_binary(type) and is_integer(first) and is_integer(last) and
              first <= last do
    dtype = Map.get(@dtypes, type, type)

    with {:ok, shape, count} <- shape(file, name, shape, dtype),
         :ok <- size(file, name, dtype, count, last - first) do
      {:ok, %{name: name, dtype: dtype, shape: shape, offset: first, bytes: last - first}}
    end
  end

  defp entry(file, name, _fields) do
    Reader.invalid(
      file,
      "tensor #{Text.show(name)} does not have exactly a dtype, a shape and ascending data_offsets"
    )
  end

  defp shape(file, name, shape, dtype) do
    storable = if is_atom(dtype), do: dtype, else: :u8

    case Shape.validate(if(is_list(shape), do: shape), storable) do
      {:ok, shape, count} ->
        {:ok, shape, count}

      {:error, _} ->
        Reader.invalid(
          file,
          "tensor #{Text.show(name)} has the shape #{Text.show(shape)}, which is none"
        )
    end
  end

  defp size(_file, _name, dtype, _count, _bytes) when is_binary(dtype), do: :ok

  defp size(file, name, dtype, count, bytes) do
    case count * DType.size!(dtype) do
      ^bytes ->
        :ok

      needed ->
        Reader.invalid(
          file,
          "tensor #{Text.show(name)} has #{bytes} bytes, and its shape needs #{needed}"
        )
    end
  end

  # The tensors fill the rest of the file, each byte once.
  defp placed(file, entries, start) do
    last =
      Enum.reduce_while(entries, 0, fn entry, expected ->
        if entry.offset == expected,
          do: {:cont, expected + entry.bytes},
          else: {:halt, {entry, expected}}
      end)

    cond do
      is_tuple(last) ->
        {entry, expected} = last

        Reader.invalid(
          file,
          "tensor #{Text.show(entry.name)} starts at byte #{entry.offset} of the data, and the one before ends at #{expected}"
        )

      start + last != file.size ->
        Reader.invalid(
          file,
          "its tensors end at byte #{start + last}, and the file has #{file.size}: it is truncated or damaged"
        )

      true ->
        {:ok, for(entry <- entries, do: %{entry | offset: start + entry.offset})}
    end
  end

  @doc "The tensor of an entry on a device."
  def load(file, %{dtype: type, name: name}, _opts) when is_binary(type) do
    types = @dtypes |> Map.keys() |> Enum.sort() |> Enum.join(" ")

    Reader.unsupported(
      file,
      "tensor #{Text.show(name)} of the type #{Text.show(type)}; these are read: #{types}"
    )
  end

  def load(file, entry, opts) do
    file
    |> Reader.range(entry.offset, entry.bytes, "tensor #{Text.show(entry.name)}")
    |> Upload.run(:little, entry.shape, entry.dtype, opts)
  end

  ## Writing

  @doc "Writes tensors, buffers by name, and the strings of the option `metadata:`."
  def save(file, tensors, opts) do
    # Larger elements first, so that each tensor starts at a multiple of their size.
    tensors = Enum.sort_by(tensors, fn {name, %{dtype: dtype}} -> {-DType.size!(dtype), name} end)

    with {:ok, metadata} <- strings(opts[:metadata] || %{}),
         :ok <- names(tensors),
         :ok <- Writer.write(file, header(tensors, metadata)) do
      Error.each(tensors, fn {_name, buffer} ->
        Upload.each(buffer, :little, &Writer.write(file, &1))
      end)
    end
  end

  defp strings(metadata) do
    if is_map(metadata) and Enum.all?(metadata, fn {k, v} -> text?(k) and text?(v) end),
      do: {:ok, metadata},
      else: Arguments.invalid(:metadata, metadata, "a map of strings")
  end

  defp text?(term), do: is_binary(term) and String.valid?(term)

  defp names(tensors) do
    if List.keymember?(tensors, "__metadata__", 0),
      do: Arguments.invalid(:data, "__metadata__", "another name: safetensors reserves this one"),
      else: :ok
  end

  # Padded with spaces to a multiple of eight bytes.
  defp header(tensors, metadata) do
    {fields, _} =
      Enum.map_reduce(tensors, 0, fn {name, %{dtype: dtype, shape: shape}}, offset ->
        last = offset + Shape.size(shape) * DType.size!(dtype)

        {[
           Json.string(name),
           ~s(:{"dtype":"#{@names[dtype]}","shape":[#{Enum.join(shape, ",")}],"data_offsets":[#{offset},#{last}]})
         ], last}
      end)

    strings = for {key, value} <- metadata, do: [Json.string(key), ":", Json.string(value)]

    described =
      if strings == [],
        do: [],
        else: [["\"__metadata__\":{", Enum.intersperse(strings, ","), "}"]]

    text = IO.iodata_to_binary(["{", Enum.intersperse(described ++ fields, ","), "}"])
    padding = rem(8 - rem(byte_size(text), 8), 8)
    [<<byte_size(text) + padding::64-little>>, text, String.duplicate(" ", padding)]
  end
end
