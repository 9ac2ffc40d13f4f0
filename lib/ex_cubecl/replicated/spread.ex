defmodule ExCubecl.Replicated.Spread do
  @moduledoc false
  # Writes to copies or shards some of which are on other nodes.

  alias ExCubecl.{Buffer, DType, Error, Native, Shape}

  @doc "Uploads the parts beside the buffers, and copies them into the buffers when all uploads are complete."
  @spec write(map, list | binary) :: :ok | {:error, Error.t()}
  def write(%{buffers: buffers, dtype: dtype, shape: shape} = replicated, data) do
    with {:ok, binary} <- encoded(data, dtype, shape),
         parts = parts(replicated, binary),
         {:ok, staged} <- Error.map(Enum.zip(parts, buffers), &upload/1),
         {:ok, _} <- Error.map(Enum.zip(staged, buffers), &copy/1),
         do: :ok
  end

  defp encoded(list, dtype, shape) when is_list(list),
    do: Error.from_native(fn -> Native.list_to_binary(dtype, shape, list) end)

  defp encoded(binary, dtype, shape) do
    case Shape.size(shape) * DType.size!(dtype) do
      bytes when bytes == byte_size(binary) -> {:ok, binary}
      bytes -> Error.new(:shape_mismatch, expected_bytes: bytes, actual_bytes: byte_size(binary))
    end
  end

  defp parts(%{shards: false, buffers: buffers}, binary),
    do: Enum.map(buffers, fn _ -> binary end)

  defp parts(%{shards: true, buffers: buffers}, binary) do
    size = div(byte_size(binary), length(buffers))
    for index <- 0..(length(buffers) - 1), do: binary_part(binary, index * size, size)
  end

  defp upload({part, buffer}),
    do: Buffer.new(part, buffer.shape, buffer.dtype, device: buffer.device)

  defp copy({staged, buffer}), do: with(:ok <- Buffer.copy(staged, buffer), do: {:ok, buffer})
end
