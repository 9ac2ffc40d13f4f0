defmodule ExCubecl.Ops.Initial do
  @moduledoc false
  # The initial accumulator of a fold: a number, or a buffer of one element.

  alias ExCubecl.{Buffer, DType, Error, Shape, View}
  alias ExCubecl.Kernel.{CallArguments, Types}
  alias ExCubecl.Ops.{ComputeType, Operands, Shapes}

  require Types

  @type t :: number | :nan | :infinity | :neg_infinity | Buffer.t()

  @doc "The initial accumulator of an operation, if the term is one."
  @spec checked(atom, term) :: {:ok, t} | {:error, Error.t()}
  def checked(operation, %struct{} = tensor) when struct in [Buffer, View] do
    with {:ok, buffer} <- Operands.contiguous(tensor, operation) do
      if Shape.size(buffer.shape) == 1, do: {:ok, buffer}, else: wrong(operation, tensor)
    end
  end

  def checked(operation, other),
    do: if(CallArguments.number?(other), do: {:ok, other}, else: wrong(operation, other))

  defp wrong(operation, value),
    do: Shapes.invalid(operation, :initial, value, "a number, or a buffer of one element")

  @doc "The type that a type and that of the accumulator merge to; a number takes the type of the elements."
  @spec merged(DType.t(), t) :: DType.t()
  def merged(dtype, %Buffer{dtype: other}), do: Types.mix(dtype, other)

  def merged(dtype, number),
    do: Types.join(dtype, {:argument, CallArguments.kind(number), nil}, 0)

  @doc "Checks that a type has all values of the type of a buffer, or the number."
  @spec fits(atom, t, DType.t()) :: :ok | {:error, Error.t()}
  def fits(operation, %Buffer{dtype: other} = buffer, dtype) do
    if Types.mix(dtype, other) == dtype,
      do: :ok,
      else: Shapes.invalid(operation, :initial, buffer, "a value of #{dtype}")
  end

  def fits(_operation, _number, dtype) when Types.floating?(dtype), do: :ok

  def fits(operation, number, dtype) do
    if is_number(number) and Types.number_as(number, dtype) == number,
      do: :ok,
      else: Shapes.invalid(operation, :initial, number, "a number that #{dtype} can hold")
  end

  @doc "The accumulator as an argument of a kernel: the device calculates with its type."
  @spec argument(t) :: {:ok, t} | {:error, Error.t()}
  def argument(%Buffer{dtype: dtype, device: device} = buffer),
    do:
      with({:ok, type} <- ComputeType.of(dtype, device), do: ComputeType.converted(buffer, type))

  def argument(number), do: {:ok, number}

  @doc "The expression that reads the argument `initial`, in a type."
  def expression(%Buffer{}, as), do: {:cast, as, {:at, 0, :initial, {:number, 0}}}
  def expression(_number, as), do: {:cast, as, {:var, :initial}}
end
