defmodule ExCubecl.Replicated.Reduce do
  @moduledoc false
  # Combines the shards or copies of all devices, in the order of the device list, so that the result is the same each time.

  alias ExCubecl.{Buffer, Error, Ops}
  alias ExCubecl.Error.Arguments

  @operations [:sum, :mean, :max, :min]

  @doc "The combined buffer on each device of `buffers`, which have one shape and type."
  @spec all([Buffer.t()], term) :: {:ok, [Buffer.t()]} | {:error, Error.t()}
  def all(buffers, operation) when operation in @operations do
    with {:ok, combined} <- combine(buffers, operation),
         {:ok, combined} <- divided(combined, operation, length(buffers)) do
      [first | rest] = buffers

      with {:ok, own} <- own(combined, first),
           {:ok, copies} <- Error.map(rest, &Buffer.transfer(combined, &1.device)),
           do: {:ok, [own | copies]}
    end
  end

  def all(_buffers, other),
    do: Arguments.invalid(:operation, other, "one of #{inspect(@operations)}")

  # On the device of the first one, to which the others are copied one after the other.
  defp combine([first | rest], operation) do
    Enum.reduce_while(rest, {:ok, first}, fn buffer, {:ok, sum} ->
      with {:ok, copy} <- Buffer.transfer(buffer, first.device),
           {:ok, sum} <- step(operation, sum, copy) do
        {:cont, {:ok, sum}}
      else
        error -> {:halt, error}
      end
    end)
  end

  defp step(:max, a, b), do: Ops.max(a, b)
  defp step(:min, a, b), do: Ops.min(a, b)
  defp step(_sum, a, b), do: Ops.add(a, b)

  defp divided(sum, :mean, count), do: Ops.divide(sum, count)
  defp divided(sum, _operation, _count), do: {:ok, sum}

  # With one device, the result would be the buffer itself, whose later writes would change it.
  defp own(%{ref: ref}, %{ref: ref} = buffer), do: Buffer.duplicate(buffer)
  defp own(combined, _first), do: {:ok, combined}
end
