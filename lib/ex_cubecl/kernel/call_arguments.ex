defmodule ExCubecl.Kernel.CallArguments do
  @moduledoc false
  # Checks the arguments of a call of a kernel as far as Elixir can, and finds the shape of its result or of its invocations.

  alias ExCubecl.{Buffer, Error, Shape}
  alias ExCubecl.Buffer.Handle
  alias ExCubecl.Error.Arguments
  alias ExCubecl.Kernel.ErrorContext

  # Numbers that Elixir floats cannot represent.
  @special [:nan, :infinity, :neg_infinity]

  defguardp is_scalar(term) when is_number(term) or term in @special

  @doc "Whether a term can be passed to a kernel as a number."
  def number?(term), do: is_scalar(term)

  @doc "The arguments with their names, as a keyword list."
  def named(%{args: names, name: kernel}, args) do
    if length(names) == length(args),
      do: {:ok, Enum.zip(names, args)},
      else:
        Error.new(:invalid_argument,
          argument: :args,
          kernel: kernel,
          names: names,
          given: length(args)
        )
  end

  # A struct that was built by hand.
  def named(parsed, _args),
    do: Arguments.invalid(:kernel, parsed, "a kernel that ExCubecl.Kernel made")

  @doc "The arguments with their names, each of which is a number or a buffer of this node."
  def check(parsed, args) do
    with {:ok, args} <- named(parsed, args), do: each(args, parsed, [])
  end

  defp each([], _parsed, done), do: {:ok, Enum.reverse(done)}

  defp each([{_name, number} = argument | rest], parsed, done) when is_scalar(number),
    do: each(rest, parsed, [argument | done])

  defp each([{name, value} | rest], parsed, done) do
    case Handle.local(value) do
      {:ok, buffer} ->
        each(rest, parsed, [{name, buffer} | done])

      {:error, %{reason: :invalid_argument}} ->
        ErrorContext.invalid(parsed, name, value, "a buffer or a number")

      {:error, error} ->
        {:error,
         %{error | details: Map.merge(error.details, ErrorContext.argument(parsed, name))}}
    end
  end

  ## Shapes

  @doc "The shape of the result of an element-wise kernel, or of the invocations of an indexed one, which is the option `size`."
  def shape(%{outputs: []} = parsed, args, nil) do
    case for({name, %Buffer{shape: shape}} <- args, do: {name, shape}) do
      [] ->
        details = [argument: :args, kernel: parsed.name, value: Keyword.values(args)]
        Error.new(:invalid_argument, details)

      buffers ->
        common(buffers, parsed)
    end
  end

  # The operations of ExCubecl.Ops read operands of other shapes through their strides.
  def shape(%{outputs: []}, _args, {:result, shape}), do: {:ok, shape}

  def shape(%{outputs: []}, _args, _size),
    do: Arguments.invalid(:option, :size, "none: the result has the shape of the arguments")

  def shape(%{outputs: [first | _]} = parsed, args, size) do
    case {size, args[first]} do
      {nil, %Buffer{shape: shape}} -> {:ok, shape}
      {size, %Buffer{}} -> size(size)
      {_, number} -> no_output(parsed, first, number)
    end
  end

  defp no_output(parsed, name, value),
    do: ErrorContext.invalid(parsed, name, value, "a buffer: the kernel writes into it")

  defp size(number) when is_integer(number), do: size([number])

  defp size(size) do
    case Arguments.shape(size, :u8) do
      {:ok, shape, _count} when length(shape) in 1..3 -> {:ok, shape}
      _ -> Arguments.invalid(:size, size, "a number, or the lengths of two or three axes")
    end
  end

  # A buffer of one element has any shape.
  defp common([{_, one} | _] = buffers, parsed) do
    case Enum.reject(buffers, fn {_, shape} -> Shape.size(shape) == 1 end) do
      [] ->
        {:ok, one}

      [{_, shape} = first | rest] ->
        case Enum.find(rest, fn {_, other} -> other != shape end) do
          nil -> {:ok, shape}
          {name, other} -> ErrorContext.shapes(parsed, name, other, first)
        end
    end
  end

  @doc "Checks that the buffers have the axes whose lengths the kernel uses."
  def axes(parsed, args, scalars) do
    missing? = fn {name, axis} ->
      rank = length(args[name].shape)
      axis >= rank or axis < -rank
    end

    case Enum.find(for({:shape, name, axis} <- scalars, do: {name, axis}), missing?) do
      nil ->
        :ok

      {name, axis} ->
        ErrorContext.invalid(parsed, name, args[name].shape, "a buffer that has axis #{axis}")
    end
  end

  ## Kinds

  @doc "The kind of each argument, on which the types of the kernel depend."
  def kinds(%{outputs: outputs} = parsed, args, shape) do
    case Enum.find(outputs, &(not is_struct(args[&1], Buffer))) do
      nil -> {:ok, for({name, value} <- args, do: {name, kind(value, outputs, shape)})}
      name -> no_output(parsed, name, args[name])
    end
  end

  # A buffer of one element is broadcast to the shape of the result.
  defp kind(%Buffer{shape: own, dtype: dtype}, [], shape) when own != shape do
    if Shape.size(own) == 1 and Shape.size(shape) != 1, do: {:one, dtype}, else: {:buffer, dtype}
  end

  defp kind(%Buffer{dtype: dtype}, _outputs, _shape), do: {:buffer, dtype}
  defp kind(number, _outputs, _shape), do: kind(number)

  @doc "The kind of a number."
  def kind(number), do: if(is_integer(number), do: :int, else: :float)
end
