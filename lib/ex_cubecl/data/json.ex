defmodule ExCubecl.Data.Json do
  @moduledoc false
  # A strict parser of the JSON in headers of safetensors: objects, arrays, strings and non-negative integers of at most 63 bits. Floats, negative
  # numbers, `true`, `false` and `null` do not occur there and are refused, as are duplicate keys, deep nesting and long arrays.

  @most_depth 8
  # More than a header of 16 MiB can have tensors, and a tensor axes.
  @most_fields 400_000
  @most_elements 1_000
  @most_integer 0x7FFF_FFFF_FFFF_FFFF

  @type value :: %{String.t() => value} | [value] | String.t() | non_neg_integer

  @doc """
  The value of a text, which may have space around it.

      iex> ExCubecl.Data.Json.parse(~s({"a": [1, 20], "b": "\\\\u00e9"}))
      {:ok, %{"a" => [1, 20], "b" => "é"}}
      iex> ExCubecl.Data.Json.parse(~s({"a": 1, "a": 2}))
      {:error, ~s(the key "a" is there twice)}
  """
  @spec parse(binary) :: {:ok, value} | {:error, String.t()}
  def parse(text) do
    {value, rest} = value(space(text), 0)
    if space(rest) == "", do: {:ok, value}, else: fail("text behind the end of the JSON", rest)
  catch
    {:json, problem} -> {:error, problem}
  end

  defp value(_text, depth) when depth > @most_depth,
    do: throw({:json, "its JSON is nested deeper than #{@most_depth} levels"})

  defp value("{" <> rest, depth) do
    case space(rest) do
      "}" <> rest -> {%{}, rest}
      rest -> object(rest, %{}, depth + 1)
    end
  end

  defp value("[" <> rest, depth) do
    case space(rest) do
      "]" <> rest -> {[], rest}
      rest -> array(rest, [], 1, depth + 1)
    end
  end

  defp value("\"" <> rest, _depth), do: string(rest, rest, 0, "")
  defp value(<<digit, _::binary>> = text, _depth) when digit in ?0..?9, do: integer(text, 0, 0)
  defp value(text, _depth), do: fail("no object, array, string or non-negative integer", text)

  defp object("\"" <> rest, fields, depth) do
    {key, rest} = string(rest, rest, 0, "")
    if is_map_key(fields, key), do: throw({:json, "the key #{show(key)} is there twice"})

    if map_size(fields) == @most_fields,
      do: throw({:json, "its JSON has an object of more than #{@most_fields} fields"})

    {value, rest} = rest |> space() |> expect(":") |> space() |> value(depth)
    fields = Map.put(fields, key, value)

    case space(rest) do
      "," <> rest -> object(space(rest), fields, depth)
      "}" <> rest -> {fields, rest}
      rest -> fail("no , or } behind a value", rest)
    end
  end

  defp object(text, _fields, _depth), do: fail("no key", text)

  defp array(_text, _values, count, _depth) when count > @most_elements,
    do: throw({:json, "its JSON has an array of more than #{@most_elements} elements"})

  defp array(text, values, count, depth) do
    {value, rest} = value(text, depth)

    case space(rest) do
      "," <> rest -> array(space(rest), [value | values], count + 1, depth)
      "]" <> rest -> {Enum.reverse([value | values]), rest}
      rest -> fail("no , or ] behind a value", rest)
    end
  end

  # Parts of the text without escapes are taken as they are; `done` is the string before this part.
  defp string(start, text, length, done) do
    case text do
      "\"" <> rest ->
        string = joined(done, binary_part(start, 0, length))

        if String.valid?(string),
          do: {string, rest},
          else: throw({:json, "a string is not valid UTF-8"})

      "\\" <> escaped ->
        {character, rest} = escape(escaped)
        part = binary_part(start, 0, length)
        string(rest, rest, 0, <<done::binary, part::binary, character::binary>>)

      <<byte, rest::binary>> when byte >= 0x20 ->
        string(start, rest, length + 1, done)

      _ ->
        fail("a string without an end, or with a control character", text)
    end
  end

  # A part of its own is copied, because it would keep the whole text in memory.
  defp joined("", part), do: :binary.copy(part)
  defp joined(done, part), do: done <> part

  for {letter, character} <- [
        {?", ?"},
        {?\\, ?\\},
        {?/, ?/},
        {?b, ?\b},
        {?f, ?\f},
        {?n, ?\n},
        {?r, ?\r},
        {?t, ?\t}
      ] do
    defp escape(<<unquote(letter), rest::binary>>), do: {<<unquote(character)>>, rest}
  end

  defp escape(<<"u", high::binary-size(4), "\\u", low::binary-size(4), rest::binary>> = text) do
    case {hex(high), hex(low)} do
      {h, l} when h in 0xD800..0xDBFF and l in 0xDC00..0xDFFF ->
        {<<0x10000 + (h - 0xD800) * 0x400 + (l - 0xDC00)::utf8>>, rest}

      _ ->
        one(text)
    end
  end

  defp escape(text), do: one(text)

  defp one(<<"u", digits::binary-size(4), rest::binary>> = text) do
    case hex(digits) do
      code when code in 0..0xD7FF or code in 0xE000..0xFFFF -> {<<code::utf8>>, rest}
      _ -> fail("no character behind \\u", text)
    end
  end

  defp one(text), do: fail("no escape behind \\", text)

  defp hex(digits) do
    with {:ok, <<code::16>>} <- Base.decode16(digits, case: :mixed), do: code
  end

  defp integer(<<digit, rest::binary>>, value, digits) when digit in ?0..?9 do
    value = value * 10 + digit - ?0

    cond do
      digits == 1 and value < 10 -> throw({:json, "a number starts with 0"})
      value > @most_integer -> throw({:json, "a number is larger than 2^63 - 1"})
      true -> integer(rest, value, digits + 1)
    end
  end

  defp integer(<<next, _::binary>> = text, _value, _digits) when next in [?., ?e, ?E],
    do: fail("a number that is no integer", text)

  defp integer(rest, value, _digits), do: {value, rest}

  defp space(<<byte, rest::binary>>) when byte in [?\s, ?\t, ?\n, ?\r], do: space(rest)
  defp space(rest), do: rest

  defp expect(text, expected) do
    case text do
      <<^expected::binary-size(1), rest::binary>> -> rest
      _ -> fail("no #{expected} behind a key", text)
    end
  end

  @spec fail(String.t(), binary) :: no_return
  defp fail(problem, text) do
    near =
      if text == "",
        do: "at its end",
        else: "at #{show(binary_part(text, 0, min(20, byte_size(text))))}"

    throw({:json, "its JSON has #{problem} #{near}"})
  end

  defp show(text), do: inspect(text, printable_limit: 60)
  @doc "A string as JSON."
  @spec string(String.t()) :: iodata
  def string(text) do
    escaped =
      for <<byte <- text>>, into: <<>> do
        case byte do
          ?" ->
            "\\\""

          ?\\ ->
            "\\\\"

          byte when byte < 0x20 ->
            "\\u" <> String.pad_leading(Integer.to_string(byte, 16), 4, "0")

          byte ->
            <<byte>>
        end
      end

    [?", escaped, ?"]
  end
end
