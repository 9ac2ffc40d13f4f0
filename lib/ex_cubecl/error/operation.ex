defmodule ExCubecl.Error.Operation do
  @moduledoc false
  # Puts the name of the public function that was called into its errors, and the name of the argument where the code that found the error only
  # knows it as a buffer. Where public functions call others, the name is that of the first one.

  alias ExCubecl.{Error, Native}

  @doc """
  The result of a function, with the function as `:function` in the details of an error, and with the name of the argument. `names` are those of
  the arguments, `values` their values.
  """
  @spec named(result, atom, [atom], list) :: result when result: term
  def named({:error, %Error{} = error}, name, names, values) do
    details = argument(error.details, error.reason, Enum.zip(names, values))
    {:error, %{error | details: Map.put(details, :function, name)}}
  end

  def named(result, _name, _names, _values), do: result

  @doc "The value of a result, for a function that raises its errors, such as a predicate, with `args` by their names."
  @spec unwrap!({:ok, value} | {:error, Error.t()}, atom, keyword) :: value when value: term
  def unwrap!(result, name, args),
    do: Error.unwrap!(named(result, name, Keyword.keys(args), Keyword.values(args)))

  @doc "The reason for which the elements of a buffer or a view cannot be read, or `nil`."
  @spec refusal(term) :: Error.reason() | nil
  def refusal(%{ref: ref, dtype: _}) when is_reference(ref) do
    case Error.from_native(fn -> Native.buffer_preview(ref, 1) end) do
      {:error, %{reason: reason}} -> reason
      _ -> nil
    end
  end

  def refusal(%{buffer: buffer, strides: _}), do: refusal(buffer)
  def refusal(_other), do: nil

  # The arguments of kernels have their names.
  defp argument(%{kernel: _} = details, _reason, _args), do: details

  defp argument(%{expected: "an %ExCubecl.Buffer{}", value: value} = details, _reason, args),
    do: put(details, :argument, found(args, &(&1 === value)))

  defp argument(%{argument: _} = details, _reason, _args), do: details

  defp argument(%{actual: dtype} = details, :type_mismatch, args),
    do: put(details, :operand, found(args, &match?(%{ref: _, dtype: ^dtype}, &1)))

  defp argument(%{reason: :closed} = details, :stale, args),
    do: Map.merge(details, args |> Keyword.take([:pool]) |> Map.new())

  defp argument(details, reason, args) when reason in [:not_allocated, :stale],
    do: put(details, :operand, found(args, &(refusal(&1) == reason)))

  defp argument(details, _reason, _args), do: details

  # A function of one buffer has no other that could be meant.
  defp put(details, _key, nil), do: details
  defp put(details, :operand, :buffer), do: details
  defp put(details, key, name), do: Map.put(details, key, name)

  # The name of the first argument, the place in an argument that is a list, or the name of an option.
  defp found(args, wanted?) do
    Enum.find_value(args, fn {name, value} ->
      cond do
        wanted?.(value) -> name
        not is_list(value) or List.improper?(value) -> nil
        at = Enum.find_index(value, wanted?) -> "#{name}[#{at}]"
        not Keyword.keyword?(value) -> nil
        true -> Enum.find_value(value, fn {key, option} -> if wanted?.(option), do: key end)
      end
    end)
  end
end
