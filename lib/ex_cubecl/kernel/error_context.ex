defmodule ExCubecl.Kernel.ErrorContext do
  @moduledoc false
  # Adds to an error the argument of a kernel that it is about. The native side has only slots and references, no names.

  alias ExCubecl.{Buffer, Device, Error, Shape}
  alias ExCubecl.Error.Operation

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
  The result of a launch, with the argument in the details if it is an error about one. `args` is a keyword list; `scalars` are those of
  the compiled kernel, in the order of the native side, and `into` is the buffer that was given for the result.
  """
  def add(result, parsed, args, scalars \\ [], into \\ nil)

  def add({:error, %Error{details: details} = error}, parsed, args, scalars, into)
      when not is_map_key(details, :number) do
    case argument_of(error, parsed, args, scalars, into) do
      nil -> {:error, error}
      more -> {:error, %{error | details: Map.merge(details, more)}}
    end
  end

  def add(result, _parsed, _args, _scalars, _into), do: result

  defp argument_of(%{reason: :invalid_value, details: details}, parsed, args, scalars, _into) do
    name =
      case Enum.at(scalars, details.index) do
        # A float that is converted to an integer type (see `Types.coerce/3`).
        {:whole, name} -> name
        name -> name
      end

    # In a batch the error may be about the number of another step.
    if is_atom(name) and {:ok, details.value} == Keyword.fetch(args, name),
      do: argument(parsed, name)
  end

  defp argument_of(%{reason: :not_allocated}, parsed, args, _scalars, _into) do
    find(parsed, args, &(&1.name not in parsed.outputs and not Buffer.allocated?(&1.buffer)))
  end

  defp argument_of(%{reason: :unsupported_dtype, details: details}, parsed, args, _, _) do
    # If the device computes with the type, it is the atomic operations on it that are not supported.
    atomic? = match?({:ok, %{dtypes: _}}, calculating(details))
    typed? = &(&1.buffer.dtype == details.dtype and (not atomic? or &1.name in parsed.outputs))

    with %{} = found <- find(parsed, args, typed?), do: Map.put(found, :atomic, atomic?)
  end

  defp argument_of(%{reason: :stale}, parsed, args, _scalars, _into),
    do: find(parsed, args, &(Operation.refusal(&1.buffer) == :stale))

  defp argument_of(%{reason: :device_lost}, parsed, args, _scalars, _into),
    do: find(parsed, args, &(Operation.refusal(&1.buffer) == :device_lost))

  defp argument_of(
         %{reason: :invalid_argument, details: %{reason: %{device: device, on: _}}},
         parsed,
         args,
         _scalars,
         _into
       ),
       do: find(parsed, args, &(&1.buffer.device == device))

  defp argument_of(%{reason: :overlap}, parsed, args, _scalars, into) do
    written = for name <- parsed.outputs, do: {name, args[name]}
    written = if into, do: [{:into, into}], else: written

    Enum.find_value(written, fn {name, buffer} ->
      shares = &(&1.name != name and overlap?(&1.buffer, buffer))

      with %{} = other <- find(parsed, args, shares),
           do: parsed |> argument(name) |> Map.put(:other, other)
    end)
  end

  defp argument_of(_error, _parsed, _args, _scalars, _into), do: nil

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

  defp overlap?(a, b) do
    Buffer.overlap?(a, b)
  rescue
    Error -> false
  end
end
