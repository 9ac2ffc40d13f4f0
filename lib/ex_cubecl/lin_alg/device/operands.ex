defmodule ExCubecl.LinAlg.Device.Operands do
  @moduledoc false
  # Matrices for the algorithms of `ExCubecl.LinAlg.Device`.

  alias ExCubecl.{Buffer, Device, Ops, Shape, View}
  alias ExCubecl.LinAlg.Operands
  alias ExCubecl.View.Copy

  # From these numbers of elements on, over all matrices of a batch, the device is faster than the host; measured on two CPU cores with lavapipe.
  @least %{lu: 10_000, cholesky: 4_000, triangular_solve: 2_000, eigh: 16_000}

  @doc """
  `{:ok, buffer}` of [batch, m, n] if the device is faster, else `:host`; an error for NaN and infinities. `elements` is the number of elements that
  an algorithm goes through for each row.
  """
  def buffer(a, algorithm, elements) do
    if elements >= @least[algorithm] and computes?(a), do: finite(a), else: :host
  end

  defp computes?(%{buffer: %{device: device}} = a), do: type(a) in Device.info!(device).dtypes

  defp type(%{dtype: :f64}), do: :f64
  defp type(_), do: :f32

  @doc "The matrices in the type of the calculation, checked."
  def finite(%{m: m, n: n, batch: batch} = a) do
    with {:ok, buffer} <- Buffer.convert(a.buffer, type(a)),
         {:ok, buffer} <- Buffer.reshape(buffer, [Shape.size(batch), m, n]),
         {:ok, zeros} <- Ops.subtract(buffer, buffer),
         {:ok, nan} <- Ops.is_nan(zeros),
         {:ok, any} <- Ops.any(nan, axes: [1, 2]),
         {:ok, any} <- Buffer.to_list(any) do
      case Enum.find_index(any, &(&1 == 1)) do
        nil -> {:ok, buffer}
        index -> Operands.found(:not_finite, a, index)
      end
    end
  end

  @doc "An error if an element of a diagonal is 0. `name` is that of the operation."
  def invertible(buffer, a) do
    with {:ok, lists} <- diagonals(buffer, a) do
      case Enum.find_index(lists, &Enum.any?(&1, fn x -> x == 0 end)) do
        nil ->
          :ok

        index ->
          pivot = lists |> Enum.at(index) |> Enum.find_index(&(&1 == 0))
          Operands.found({:zero, pivot}, a, index)
      end
    end
  end

  @doc "The diagonals of matrices, as lists."
  def diagonals(%{shape: [count, n, _]} = buffer, a) do
    diagonals = %{View.new(buffer) | shape: [count, n], strides: [n * n, n + 1]}
    with {:ok, diagonals} <- Copy.copy(diagonals, a.name), do: Buffer.to_list(diagonals)
  end

  @doc "A result in the shape and the type of the operation's results."
  def result(buffer, shape, dtype) do
    with {:ok, buffer} <- Buffer.reshape(buffer, shape),
         do: if(buffer.dtype == dtype, do: {:ok, buffer}, else: Buffer.convert(buffer, dtype))
  end
end
