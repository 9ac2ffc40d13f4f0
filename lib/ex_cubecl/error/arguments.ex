defmodule ExCubecl.Error.Arguments do
  @moduledoc false
  # Checks the arguments of callers once, before the native call: this module checks the terms, the native side
  # their meaning.

  alias ExCubecl.{DType, Error, Shape}
  alias ExCubecl.Error.{Remedy, Suggestion}

  @most 0xFFFF_FFFF_FFFF_FFFF

  def dtype(term) do
    if DType.valid?(term), do: {:ok, term}, else: Error.new(:unsupported_dtype, dtype: term)
  end

  @doc "A shape as a list, with its number of elements."
  def shape(term, dtype) do
    with {:error, details} <- Shape.validate(term, dtype), do: Error.new(:invalid_shape, details)
  end

  @doc "The shape of a reshape of a buffer or view, with its number of elements. One dimension may be -1, which is inferred."
  def reshaped(term, %{shape: from, dtype: dtype}) do
    actual = Shape.size(from)

    with {:ok, known} <- Shape.infer(term, actual),
         {:ok, shape, count} <- shape(known, dtype) do
      if count == actual,
        do: {:ok, shape, count},
        else: misfit(shape, expected: count, actual: actual)
    else
      {:misfit, known} -> misfit(term, multiple: known, actual: actual)
      error -> error
    end
  end

  defp misfit(shape, details),
    do: Error.new(:shape_mismatch, [operation: :reshape, shape: shape] ++ details)

  @doc "Data for a shape: for a scalar, a number is accepted as its only element."
  def data(number, []) when is_number(number), do: {:ok, [number]}

  def data(atom, []) when atom in [:nan, :infinity, :neg_infinity], do: {:ok, [atom]}
  def data(data, _shape) when is_list(data) or is_binary(data), do: {:ok, data}

  def data(other, _shape) do
    expected = "a list of numbers, nested as the shape or flat, or a native-endian binary"

    # A buffer, which depends on this module, is known by its fields.
    copies =
      if match?(%{ref: _, dtype: _, shape: _}, other),
        do: ": see ExCubecl.Buffer.copy/2 and ExCubecl.Buffer.duplicate/2",
        else: ""

    invalid(:data, other, expected <> copies)
  end

  @doc "A non-negative integer, such as a number of bytes."
  def index(_name, term) when is_integer(term) and term >= 0 and term <= @most, do: {:ok, term}
  def index(name, term), do: invalid(name, term, "a non-negative integer below 2^64")

  @doc "A positive integer, such as milliseconds or a number of samples."
  def positive(_name, term) when is_integer(term) and term in 1..0xFFFF_FFFF, do: {:ok, term}
  def positive(name, term), do: invalid(name, term, "an integer from 1 to 4,294,967,295")

  def boolean(_name, term) when is_boolean(term), do: {:ok, term}
  def boolean(name, term), do: invalid(name, term, "true or false")

  @doc """
  A range of `count` elements or bytes, of `size`. The native side checks the bounds, except for
  numbers that do not fit into its 64 bits, which are checked here.
  """
  def part(offset, count, size) do
    cond do
      not natural?(offset) ->
        invalid(:offset, offset, "a non-negative integer")

      not natural?(count) ->
        invalid(:count, count, "a non-negative integer")

      max(offset, count) > @most ->
        Error.new(:out_of_bounds, offset: offset, count: count, size: size)

      true ->
        :ok
    end
  end

  defp natural?(term), do: is_integer(term) and term >= 0

  def timeout(:infinity), do: {:ok, :infinity}
  def timeout(term) when is_integer(term) and term in 0..0xFFFF_FFFF, do: {:ok, term}
  def timeout(term), do: invalid(:timeout, term, "milliseconds or :infinity")

  @doc "Options as a keyword list of known keys."
  def options(opts, known) do
    cond do
      not Keyword.keyword?(opts) ->
        no_keywords(opts, known)

      unknown = Enum.find(Keyword.keys(opts), &(&1 not in known)) ->
        unknown(unknown, known)

      true ->
        {:ok, opts}
    end
  end

  @doc "The result of a function that does not know all options: an error about options names the further ones, too."
  def further_options({:error, %Error{details: %{options: known} = details}}, further) do
    known = known ++ further

    if details.argument == :option,
      do: unknown(details.value, known),
      else: no_keywords(details.value, known)
  end

  def further_options(result, _further), do: result

  def invalid(argument, value, expected),
    do: Error.new(:invalid_argument, argument: argument, value: value, expected: expected)

  defp no_keywords(opts, known) do
    expected = keyword(known) <> Remedy.of_options(opts, known)

    details = [argument: :options, value: opts, expected: expected, options: known]
    Error.new(:invalid_argument, details)
  end

  defp unknown(key, known) do
    expected = if known == [], do: "no options", else: "one of #{names(known)}"
    details = [argument: :option, value: key, expected: expected, options: known]

    case Suggestion.option(key, known) do
      nil -> Error.new(:invalid_argument, details)
      meant -> Error.new(:invalid_argument, [meant: inspect(meant)] ++ details)
    end
  end

  defp keyword([]), do: "a keyword list"
  defp keyword(known), do: "a keyword list with #{names(known)}"

  defp names(known), do: Enum.map_join(known, ", ", &inspect/1)
end
