defmodule ExCubecl.Soak.Calls do
  @moduledoc false
  # The reads of a worker, and the errors that it expects.

  alias ExCubecl.{Buffer, Error}

  @doc "Whether an error only says that there is no room."
  def no_room?(%Error{reason: reason}),
    do: reason in [:limit_exceeded, :out_of_memory, :pool_exhausted]

  @doc "Whether an error says that the buffer's device was lost."
  def lost?(%Error{reason: reason}), do: reason == :device_lost

  @doc "Reads a buffer in one of three ways."
  def read(buffer, way) do
    case way do
      1 -> Buffer.read(buffer)
      2 -> with {:ok, transfer} <- Buffer.read_async(buffer), do: Buffer.await(transfer, 60_000)
      3 -> with {:ok, [bytes]} <- Buffer.read_all([buffer]), do: {:ok, bytes}
    end
  end
end
