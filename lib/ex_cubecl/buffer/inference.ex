defmodule ExCubecl.Buffer.Inference do
  @moduledoc false
  # The shape and the element type of a buffer whose caller leaves them out: they follow from nested data.

  alias ExCubecl.{DType, Error}
  alias ExCubecl.Error.Arguments

  # Nested lists are walked by recursion, whose depth must be bounded, as in `ExCubecl.Shape`.
  @most_axes 64

  @special [:nan, :infinity, :neg_infinity]

  @doc """
  `{:ok, shape, dtype, opts}` of data and the arguments behind it, each of which may be missing: a shape or an element type, and options.

  Integers alone are `:s32`; floats, and floats together with integers, are `:f32`.
  """
  @spec arguments(term, list) :: {:ok, term, term, term} | {:error, Error.t()}
  def arguments(data, []), do: infer(data, nil, nil, [])
  def arguments(data, [[{_, _} | _] = opts]), do: infer(data, nil, nil, opts)
  def arguments(data, [given]), do: arguments(data, [given, []])

  def arguments(data, [given, opts]) do
    if shape?(given), do: infer(data, given, nil, opts), else: infer(data, nil, given, opts)
  end

  # Any other term is taken for an element type, so that the error says what one is.
  defp shape?(term) when is_list(term), do: true

  defp shape?(term) when is_tuple(term),
    do: term |> Tuple.to_list() |> Enum.all?(&is_integer/1)

  defp shape?(_term), do: false

  # With a shape, the data may be flat, and only its type is inferred.
  defp infer(data, shape, nil, opts) do
    with {:ok, inferred, kind} <- of(data), do: {:ok, shape || inferred, kind, opts}
  end

  defp infer(data, nil, dtype, opts) do
    with {:ok, dtype} <- Arguments.dtype(dtype),
         {:ok, inferred, _kind} <- of(data),
         do: {:ok, inferred, dtype, opts}
  end

  @doc """
  The shape and the element type of nested data.

      iex> ExCubecl.Buffer.Inference.of([[1, 2.0], [3, :nan]])
      {:ok, [2, 2], :f32}
  """
  @spec of(term) :: {:ok, [non_neg_integer], DType.t()} | {:error, Error.t()}
  def of(data) when is_list(data) do
    with {:ok, shape} <- first(data, [], data),
         {:ok, integers?} <- rows(data, shape, [], shape != [] and List.last(shape) > 0),
         do: {:ok, shape, if(integers?, do: :s32, else: :f32)}
  end

  def of(number) when is_integer(number), do: {:ok, [], :s32}
  def of(number) when is_float(number) or number in @special, do: {:ok, [], :f32}

  def of(binary) when is_binary(binary) do
    expected = "a nested list, or a shape and an element type behind the binary"
    Arguments.invalid(:data, short(binary), expected)
  end

  def of(other) do
    expected = "a list of numbers, nested as the shape, or a number"
    Arguments.invalid(:data, other, expected)
  end

  # A binary may be long, and the error keeps what it shows.
  defp short(binary), do: binary_part(binary, 0, min(byte_size(binary), 16))

  # The shape of the first row at each depth.
  defp first(list, lengths, data) when is_list(list) do
    cond do
      length(lengths) == @most_axes ->
        Error.new(:invalid_shape, axes: @most_axes + 1, shape: Enum.reverse(lengths))

      List.improper?(list) ->
        Error.new(:invalid_argument, argument: :data, reason: :improper_list)

      list == [] ->
        {:ok, Enum.reverse([0 | lengths])}

      true ->
        first(hd(list), [length(list) | lengths], data)
    end
  end

  defp first(_element, lengths, _data), do: {:ok, Enum.reverse(lengths)}

  # Whether all elements are integers, if every row has the length of its depth. `path` is the index of the list, reversed.
  defp rows(list, [_length], path, integers?), do: elements(list, path, 0, integers?)

  defp rows(list, [_length | lengths], path, integers?),
    do: rows(list, lengths, path, 0, integers?)

  defp rows([], _lengths, _path, _index, integers?), do: {:ok, integers?}

  defp rows([row | rest], [length | _] = lengths, path, index, integers?) do
    path_of_row = [index | path]

    with :ok <- row(row, length, path_of_row),
         {:ok, integers?} <- rows(row, lengths, path_of_row, integers?),
         do: rows(rest, lengths, path, index + 1, integers?)
  end

  defp row(row, length, path) when is_list(row) do
    cond do
      List.improper?(row) -> Error.new(:invalid_argument, argument: :data, reason: :improper_list)
      length(row) == length -> :ok
      true -> ragged(path, expected: length, actual: length(row))
    end
  end

  defp row(other, length, path),
    do: ragged(path, expected: "a row of #{length}", value: other)

  # An element that is no number is left to the check of the element type, which names its index.
  defp elements([], _path, _index, integers?), do: {:ok, integers?}

  defp elements([element | rest], path, index, integers?) when is_integer(element),
    do: elements(rest, path, index + 1, integers?)

  defp elements([list | _], path, index, _integers?) when is_list(list),
    do: ragged([index | path], expected: "a number", value: list)

  defp elements([_other | rest], path, index, _integers?),
    do: elements(rest, path, index + 1, false)

  defp ragged(path, details),
    do: Error.new(:shape_mismatch, [ragged: Enum.reverse(path)] ++ details)
end
