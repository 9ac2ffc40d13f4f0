defmodule ExCubecl.Error.Operation do
  @moduledoc false
  # Puts the name of the public function that was called into its errors, and the name of the argument where the function that found the error only
  # knows it as a buffer. Where public functions call others, the name is that of the first one.

  alias ExCubecl.Error

  # The reasons whose messages do not say which operation failed; `named/4` adds `:invalid_value` where it is about a single value and not about an element of a list.
  @named [:invalid_argument, :invalid_shape, :unsupported_dtype, :type_mismatch] ++
           [:not_allocated, :stale, :unknown_device]

  @doc "The reasons of errors that have the name of the function."
  def reasons, do: @named

  @doc """
  The result of a function, with the function as `:function` in the details of an error that does not name it as its operation, its kernel or its step, and with the
  name of the argument. `names` are those of the arguments, `values` their values.
  """
  @spec named(result, atom, [atom], list) :: result when result: term
  def named({:error, %Error{reason: reason, details: details} = error}, name, names, values)
      when reason in @named or (reason == :invalid_value and not is_map_key(details, :index)) do
    if named?(details, name),
      do: {:error, error},
      else: {:error, %{error | details: named_in(details, name, Enum.zip(names, values))}}
  end

  def named(result, _name, _names, _values), do: result

  defp named?(%{kernel: _}, _name), do: true
  defp named?(%{step: _}, _name), do: true
  # Errors in a source are about the source.
  defp named?(%{argument: :kernel, reason: _}, _name), do: true
  # The environment or the configuration names the device.
  defp named?(%{source: _}, _name), do: true
  defp named?(%{operation: operation}, name), do: operation == name
  defp named?(_details, _name), do: false

  defp named_in(details, name, args), do: details |> argument(args) |> Map.put(:function, name)

  # The arguments of kernels have their names.
  defp argument(%{expected: "an %ExCubecl.Buffer{}", value: value} = details, args) do
    case Enum.find_value(args, &found(&1, value)) do
      nil -> details
      name -> %{details | argument: name}
    end
  end

  defp argument(details, _args), do: details

  defp found({name, value}, value), do: name

  defp found({name, list}, value) when is_list(list) do
    at = if not List.improper?(list), do: Enum.find_index(list, &(&1 === value))
    at && "#{name}[#{at}]"
  end

  defp found(_other, _value), do: nil
end
