defmodule ExCubecl.Ops.Target do
  @moduledoc false
  # The buffer that the last kernel of an operation writes: that of the option `into:` if it fits, else a new one. One that does not fit is reported by
  # `ExCubecl.Ops.Into` when the type and shape of the result are known.

  alias ExCubecl.{Buffer, DType, Error}

  @type into :: Buffer.t() | nil

  @doc "Whether a kernel on the device can write a result of this shape and type into the buffer."
  @spec fits?(into, Buffer.shape(), DType.t(), term) :: boolean
  def fits?(%Buffer{shape: shape, dtype: dtype, device: device}, shape, dtype, device), do: true
  def fits?(_into, _shape, _dtype, _device), do: false

  @doc "The buffer, or a new one that has no memory yet. It has the shape `as`, by default that of the result, with as many elements."
  @spec new(into, Buffer.shape(), DType.t(), term, Buffer.shape() | nil) ::
          {:ok, Buffer.t()} | {:error, Error.t()}
  def new(into, shape, dtype, device, as \\ nil) do
    cond do
      not fits?(into, shape, dtype, device) -> Buffer.empty(as || shape, dtype, device: device)
      as in [nil, shape] -> {:ok, into}
      true -> Buffer.reshape(into, as)
    end
  end

  @doc "A buffer that `run` writes. It has memory also without elements, of which no kernel runs."
  @spec filled(Buffer.t(), (Buffer.t() -> :ok | {:error, Error.t()})) ::
          {:ok, Buffer.t()} | {:error, Error.t()}
  def filled(out, run),
    do: with(:ok <- run.(out), :ok <- Buffer.ensure_allocated(out), do: {:ok, out})

  @doc "The option of a launch, whose result is `:ok` if it has the buffer."
  @spec option(into, Buffer.shape(), DType.t(), term) :: [into: Buffer.t()]
  def option(into, shape, dtype, device),
    do: if(fits?(into, shape, dtype, device), do: [into: into], else: [])
end
