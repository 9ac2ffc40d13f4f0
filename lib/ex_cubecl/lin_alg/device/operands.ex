defmodule ExCubecl.LinAlg.Device.Operands do
  @moduledoc false
  # Matrices for the algorithms of `ExCubecl.LinAlg.Device`.

  use ExCubecl.Kernel

  alias ExCubecl.{Buffer, Device, Kernel, Shape, View}
  alias ExCubecl.Device.Id
  alias ExCubecl.LinAlg.Operands
  alias ExCubecl.View.Copy

  # The host is faster for fewer elements, over all matrices of a batch. That for CPUs is measured with lavapipe on two cores, where it is for more, too; a GPU does not get matrices
  # over the bus that are so large.
  @least 66_000
  @least_on_cpu 1_000_000

  @forced {__MODULE__, :forced}

  @doc "From here on, the operations of this process use the device whatever the number of elements: for tests and measurements."
  @spec force() :: :ok
  def force do
    Process.put(@forced, true)
    :ok
  end

  @doc """
  `{:ok, buffer}` of [batch, m, n], in the type of the calculation, if the device is faster, else `:host`. `elements` is the number of elements that
  an algorithm goes through for each row.
  """
  def buffer(a, elements), do: if(faster?(a, elements), do: converted(a), else: :host)

  @doc "Whether the device is faster for so many elements, and calculates with the type."
  def faster?(a, elements), do: enough?(a, elements) and computes?(a)

  defp enough?(_a, 0), do: false

  defp enough?(%{buffer: %{device: device}}, elements) do
    least = if Id.cpu?(device), do: @least_on_cpu, else: @least
    elements >= least or Process.get(@forced, false)
  end

  defp computes?(%{buffer: %{device: device}} = a), do: type(a) in Device.info!(device).dtypes

  @doc "The type of the calculation."
  def type(%{dtype: :f64}), do: :f64
  def type(_), do: :f32

  @doc "As `buffer/2`, wherever the algorithm runs."
  def converted(%{m: m, n: n, batch: batch} = a) do
    with {:ok, buffer} <- Buffer.convert(a.buffer, type(a)),
         do: Buffer.reshape(buffer, [Shape.size(batch), m, n])
  end

  @doc "An error if a number is NaN or infinite."
  def finite(%{shape: [count | _]} = buffer, a) do
    with {:ok, found} <- Buffer.zeros([count], :s32, device: buffer.device),
         :ok <- search(buffer, found),
         do: none(found, a)
  end

  @doc "An error if a number of the buffer, which has as many for each matrix, is 1."
  def none(%{shape: [count | _]} = found, a) do
    with {:ok, lists} <- found |> Buffer.reshape!([count, -1]) |> Buffer.to_list() do
      case Enum.find_index(lists, &(1 in &1)) do
        nil -> :ok
        index -> Operands.found(:not_finite, a, index)
      end
    end
  end

  @chunk 64

  defp search(%{shape: [count, m, n]} = buffer, found) do
    parts = div(m * n + @chunk - 1, @chunk)
    Kernel.run({__MODULE__, :not_finite}, [buffer, m * n, parts, found], size: count * parts)
  end

  # Writes 1 for each matrix with an element that is NaN or infinite. Several invocations may write, which is no conflict: all write 1.
  defkernel not_finite(x, size, parts, found) do
    i = cast(index(), :u32)
    b = div(i, parts)
    at = rem(i, parts)
    wrong = false

    for _ <- 0..63 do
      value = x[b * size + at]
      wrong = wrong or (at < size and value - value != 0)
      at = at + parts
    end

    if wrong, do: found[b] = 1
  end

  @doc "An error if a number of the diagonals, of [batch, n], is 0."
  def invertible(diagonal, a) do
    with {:ok, lists} <- Buffer.to_list(diagonal) do
      case Enum.find_index(lists, &Enum.any?(&1, fn x -> x == 0 end)) do
        nil ->
          :ok

        index ->
          pivot = lists |> Enum.at(index) |> Enum.find_index(&(&1 == 0))
          Operands.found({:zero, pivot}, a, index)
      end
    end
  end

  @doc "The diagonals of matrices, as [batch, n]."
  def diagonal(%{shape: [count, n, _]} = buffer, a) do
    diagonals = %{View.new(buffer) | shape: [count, n], strides: [n * n, n + 1]}
    Copy.copy(diagonals, a.name)
  end

  @doc "A result in the shape and the type of the operation's results."
  def result(buffer, shape, dtype) do
    with {:ok, buffer} <- Buffer.reshape(buffer, shape),
         do: if(buffer.dtype == dtype, do: {:ok, buffer}, else: Buffer.convert(buffer, dtype))
  end
end
