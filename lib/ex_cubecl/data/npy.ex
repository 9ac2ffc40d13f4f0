defmodule ExCubecl.Data.Npy do
  @moduledoc false
  # The format .npy of NumPy: a header that is a Python dictionary, and the elements. It is a file of its own, or an entry of an .npz archive.

  alias ExCubecl.{DType, Ops, Shape, View}
  alias ExCubecl.Cluster.Location
  alias ExCubecl.Data.{Reader, Upload, Writer}
  alias ExCubecl.Error.{Arguments, Text}

  # NumPy itself reads at most 10,000 bytes unless told otherwise.
  @most_header 64 * 1024

  # Types without the order of their bytes: the element type, and the axes that an element has (complex numbers are pairs).
  @types %{
    "b1" => {:u8, []},
    "u1" => {:u8, []},
    "i1" => {:s8, []},
    "u2" => {:u16, []},
    "i2" => {:s16, []},
    "u4" => {:u32, []},
    "i4" => {:s32, []},
    "u8" => {:u64, []},
    "i8" => {:s64, []},
    "f2" => {:f16, []},
    "f4" => {:f32, []},
    "f8" => {:f64, []},
    "c8" => {:f32, [2]},
    "c16" => {:f64, [2]}
  }

  @names for {name, {dtype, []}} <- @types, name != "b1", into: %{}, do: {dtype, name}

  @doc """
  The array at the start of `size` bytes, which `at` reads as `Reader.bytes/4` does: a map with dtype, shape, bytes, and the offset of its elements.
  """
  def header(file, size, at) do
    with {:ok, <<0x93, "NUMPY", major, _minor>>} <- at.(0, 8),
         {:ok, start, length} <- length(file, major, at),
         :ok <- bounded(file, length),
         {:ok, text} <- at.(start, length),
         {:ok, fields} <- fields(file, text),
         {:ok, array} <- array(file, fields) do
      whole(file, Map.put(array, :offset, start + length), size)
    else
      {:ok, _other} -> Reader.invalid(file, "it does not start as an .npy array does")
      error -> error
    end
  end

  defp length(_file, 1, at),
    do: with({:ok, <<n::16-little>>} <- at.(8, 2), do: {:ok, 10, n})

  defp length(_file, major, at) when major in [2, 3],
    do: with({:ok, <<n::32-little>>} <- at.(8, 4), do: {:ok, 12, n})

  defp length(file, major, _at),
    do: Reader.unsupported(file, "version #{major} of .npy; 1 to 3 are read")

  defp bounded(_file, length) when length <= @most_header, do: :ok

  defp bounded(file, length),
    do:
      Reader.invalid(file, "its header has #{length} bytes, and at most #{@most_header} are read")

  defp whole(file, array, size) do
    if array.offset + array.bytes == size,
      do: {:ok, array},
      else:
        Reader.invalid(
          file,
          "its array ends at byte #{array.offset + array.bytes}, and there are #{size}: it is truncated or damaged"
        )
  end

  ## The dictionary

  defp fields(file, text) do
    with "{" <> rest <- String.trim(text),
         {:ok, fields} <- pairs(rest, %{}),
         %{"descr" => _, "fortran_order" => _, "shape" => _} <- fields do
      {:ok, fields}
    else
      {:error, problem} -> Reader.invalid(file, problem)
      _ -> Reader.invalid(file, "its header is no dictionary of descr, fortran_order and shape")
    end
  end

  @key ~r/\A\s*(?:'(\w{1,20})'|"(\w{1,20})")\s*:\s*/
  @value ~r/\A(?:'([^'\\]{1,20})'|"([^"\\]{1,20})"|(True|False)|\(([\d,\s]*)\))\s*(,?)/

  defp pairs(text, fields) do
    with nil <- Regex.run(~r/\A\s*\}\z/, text),
         [start | key] <- Regex.run(@key, text),
         key = List.last(key),
         false <- is_map_key(fields, key),
         rest = binary_part(text, byte_size(start), byte_size(text) - byte_size(start)),
         [start, string, other, bool, shape, comma] <- Regex.run(@value, rest),
         rest = binary_part(rest, byte_size(start), byte_size(rest) - byte_size(start)),
         true <- comma == "," or rest =~ ~r/\A\s*\}\z/ do
      value = if bool != "", do: bool == "True", else: text_or_shape(string <> other, shape)
      pairs(rest, Map.put(fields, key, value))
    else
      ["}" <> _] -> {:ok, fields}
      [_end] -> {:ok, fields}
      true -> {:error, "a key of its header is there twice"}
      _ -> {:error, "its header is no dictionary of strings, booleans and tuples of integers"}
    end
  end

  defp text_or_shape("", shape), do: {:shape, shape}
  defp text_or_shape(text, _shape), do: text

  defp array(
         file,
         %{"descr" => descr, "fortran_order" => fortran?, "shape" => {:shape, shape}} = fields
       )
       when is_binary(descr) and is_boolean(fortran?) and map_size(fields) == 3 do
    with {:ok, order, {dtype, pair}} <- type(file, descr),
         {:ok, shape, count} <- shape(file, shape, pair, dtype) do
      bytes = count * DType.size!(dtype)

      {:ok,
       %{dtype: dtype, shape: shape, pair: pair, order: order, fortran?: fortran?, bytes: bytes}}
    end
  end

  defp array(file, _fields),
    do:
      Reader.invalid(
        file,
        "its header has other fields than a type, an order and a shape, or a type of several fields"
      )

  defp type(file, <<order, name::binary>> = descr) do
    case {order, @types[name]} do
      {_, nil} -> no_type(file, descr)
      {?<, type} -> {:ok, :little, type}
      {?>, type} -> {:ok, :big, type}
      {order, type} when order in [?|, ?=] -> {:ok, native(), type}
      _ -> no_type(file, descr)
    end
  end

  defp no_type(file, descr) do
    types = @types |> Map.keys() |> Enum.sort() |> Enum.join(" ")
    Reader.unsupported(file, "an array of the type #{Text.show(descr)}; these are read: #{types}")
  end

  defp native, do: System.endianness()

  defp shape(file, text, pair, dtype) do
    dims = text |> String.split(",") |> Enum.map(&String.trim/1)
    # A tuple of one element has a comma behind it.
    dims = if List.last(dims) == "", do: Enum.drop(dims, -1), else: dims

    with true <- Enum.all?(dims, &(&1 =~ ~r/\A\d{1,19}\z/)),
         true <- length(dims) != 1 or String.contains?(text, ","),
         {:ok, shape, count} <-
           Shape.validate(Enum.map(dims, &String.to_integer/1) ++ pair, dtype) do
      {:ok, shape, count}
    else
      _ -> Reader.invalid(file, "(#{String.slice(text, 0, 60)}) is no shape of an array")
    end
  end

  ## Elements

  @doc "The tensor with the elements of a stream of the bytes of an array: a buffer, or a transposed view of one for the order of Fortran."
  def load(stream, array, opts) do
    if array.fortran? and length(array.shape) - length(array.pair) > 1 do
      axes = length(array.shape) - length(array.pair)
      {dims, pair} = Enum.split(array.shape, axes)
      order = Enum.to_list((axes - 1)..0//-1) ++ if(pair == [], do: [], else: [axes])

      with {:ok, buffer} <-
             Upload.run(stream, array.order, Enum.reverse(dims) ++ pair, array.dtype, opts),
           do: transposed(buffer, order)
    else
      Upload.run(stream, array.order, array.shape, array.dtype, opts)
    end
  end

  # Views are of this node only: on another one, the elements are transposed.
  defp transposed(buffer, order) do
    case Location.node_of(buffer) do
      nil -> View.transpose(buffer, axes: order)
      _node -> Ops.transpose(buffer, axes: order)
    end
  end

  @doc "The header of an array of a shape and type. The elements behind it start at a multiple of 64 bytes."
  def header_of(%{shape: shape, dtype: dtype}) do
    case @names[dtype] do
      nil ->
        Arguments.invalid(
          :data,
          dtype,
          "another type: .npy has no #{dtype}, see ExCubecl.Buffer.convert/3"
        )

      name ->
        order = if DType.size!(dtype) == 1, do: "|", else: "<"
        dims = if match?([_], shape), do: "#{hd(shape)},", else: Enum.join(shape, ", ")
        text = "{'descr': '#{order}#{name}', 'fortran_order': False, 'shape': (#{dims}), }"
        padding = 63 - rem(byte_size(text) + 10, 64)
        text = text <> String.duplicate(" ", padding) <> "\n"
        {:ok, <<0x93, "NUMPY", 1, 0, byte_size(text)::16-little, text::binary>>}
    end
  end

  @doc "Writes an array by `write`, which takes bytes."
  def save(buffer, write) do
    with {:ok, header} <- header_of(buffer),
         :ok <- write.(header),
         do: Upload.each(buffer, :little, write)
  end

  @doc "Writes a file of one array."
  def save_file(file, buffer), do: save(buffer, &Writer.write(file, &1))

  @doc "The array of a file."
  def of_file(file), do: header(file, file.size, &Reader.bytes(file, &1, &2, "the header"))

  @doc "The tensor of a file."
  def load_file(file, opts) do
    with {:ok, array} <- of_file(file) do
      file |> Reader.range(array.offset, array.bytes, "the array") |> load(array, opts)
    end
  end
end
