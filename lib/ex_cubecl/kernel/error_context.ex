defmodule ExCubecl.Kernel.Blame do
  @moduledoc false
  # Finds the argument that an error of a run is about. The native side has only slots and references, no names.

  alias ExCubecl.{Buffer, Device, Error, Native, Shape}

  @doc "The details that name an argument of a kernel."
  def argument(parsed, name) do
    case Enum.find_index(parsed.args, &(&1 == name)) do
      nil -> %{kernel: parsed.name, number: name}
      index -> %{kernel: parsed.name, number: index + 1, name: name}
    end
  end

  @doc "An error about an argument, as `Arguments.invalid/3`."
  def invalid(parsed, name, value, expected) do
    details = %{argument: name, value: value, expected: expected}
    Error.new(:invalid_argument, Map.merge(details, argument(parsed, name)))
  end

  @doc "The error for buffers of different shapes in an element-wise kernel; `name` is `:into` for the result buffer."
  def shapes(parsed, name, shape, {other, expected}) do
    details = %{expected: Shape.size(expected), actual: Shape.size(shape), shape: shape}
    beside = %{other: other && argument(parsed, other), other_shape: expected}
    Error.new(:shape_mismatch, details |> Map.merge(beside) |> Map.merge(argument(parsed, name)))
  end

  @doc """
  The result of a run, with the argument in the details if it is an error about one. `args` is a map; `numbers` are the
  names of the numbers as the native side counts them, and `into` is the buffer that was given for the result.
  """
  def tell(result, parsed, args, numbers \\ [], into \\ nil)

  def tell({:error, %Error{details: details} = error}, parsed, args, numbers, into)
      when not is_map_key(details, :number) do
    case about(error, parsed, args, numbers, into) do
      nil -> {:error, error}
      more -> {:error, %{error | details: Map.merge(details, more)}}
    end
  end

  def tell(result, _parsed, _args, _numbers, _into), do: result

  defp about(%{reason: :invalid_value, details: details}, parsed, args, numbers, _into) do
    name =
      case Enum.at(numbers, details.index) do
        # A float that is converted to an integer type (see `Types.coerce/3`).
        {:whole, name} -> name
        name -> name
      end

    # In a batch the error may be about the number of another step.
    if is_map_key(args, name) and args[name] == details.value, do: argument(parsed, name)
  end

  defp about(%{reason: :not_allocated}, parsed, args, _numbers, _into) do
    find(parsed, args, &(&1.name not in parsed.outputs and not Buffer.allocated?(&1.buffer)))
  end

  defp about(%{reason: :unsupported_dtype, details: details}, parsed, args, _, _) do
    # If the device computes with the type, it is the atomic operations on it that are not supported.
    atomic? = match?({:ok, %{dtypes: _}}, calculating(details))
    typed? = &(&1.buffer.dtype == details.dtype and (not atomic? or &1.name in parsed.outputs))

    with %{} = found <- find(parsed, args, typed?), do: Map.put(found, :atomic, atomic?)
  end

  defp about(%{reason: :stale}, parsed, args, _numbers, _into),
    do: find(parsed, args, &(refused(&1.buffer) == :stale))

  defp about(%{reason: :device_lost}, parsed, args, _numbers, _into),
    do: find(parsed, args, &(refused(&1.buffer) == :device_lost))

  defp about(
         %{reason: :invalid_argument, details: %{reason: %{device: device, on: _}}},
         parsed,
         args,
         _numbers,
         _into
       ),
       do: find(parsed, args, &(&1.buffer.device == device))

  defp about(%{reason: :overlap}, parsed, args, _numbers, into) do
    written = for name <- parsed.outputs, do: {name, args[name]}
    written = if into, do: [{:into, into}], else: written

    Enum.find_value(written, fn {name, buffer} ->
      shares = &(&1.name != name and overlap?(&1.buffer, buffer))

      with %{} = other <- find(parsed, args, shares),
           do: parsed |> argument(name) |> Map.put(:other, other)
    end)
  end

  defp about(_error, _parsed, _args, _numbers, _into), do: nil

  # The first argument that is a buffer for which `wrong?` returns true.
  defp find(parsed, args, wrong?) do
    Enum.find_value(parsed.args, fn name ->
      with %Buffer{} = buffer <- args[name],
           true <- wrong?.(%{name: name, buffer: buffer}),
           do: argument(parsed, name),
           else: (_ -> nil)
    end)
  end

  defp calculating(%{dtype: dtype, device: device}) do
    with {:ok, info} <- Device.info(device), true <- dtype in info.dtypes, do: {:ok, info}
  end

  defp refused(%{ref: ref}) do
    case Error.from_native(fn -> Native.buffer_preview(ref, 1) end) do
      {:error, %{reason: reason}} -> reason
      _ -> nil
    end
  end

  defp overlap?(a, b) do
    Buffer.overlap?(a, b)
  rescue
    Error -> false
  end
end
