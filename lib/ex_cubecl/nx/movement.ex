if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Movement do
    @moduledoc false
    # Elements in row-major order, and elements in another type, of types that the kernels of a device may not have.

    alias ExCubecl.{Buffer, Device, DType, Error, View}
    alias ExCubecl.Ops.ComputeType
    alias ExCubecl.View.{Copy, Strides}

    @doc "Whether the kernels of a device calculate with a type."
    def computes?(device, dtype), do: dtype in Device.info!(device).dtypes

    @doc "The elements of a view in a buffer, in row-major order, which shares the memory if they are contiguous there."
    @spec contiguous(View.t()) :: {:ok, Buffer.t()} | {:error, Error.t()}
    def contiguous(view) do
      if Strides.contiguous?(view) do
        Strides.buffer(view)
      else
        with {:ok, wide} <- ComputeType.widened(view),
             {:ok, buffer} <- Copy.copy(wide, :contiguous),
             do: ComputeType.converted(buffer, view.dtype)
      end
    end

    @doc "The view itself, or a view of new elements of another type: integers wrap around, and floats saturate."
    @spec cast(View.t(), DType.t()) :: {:ok, View.t()} | {:error, Error.t()}
    def cast(%{dtype: dtype} = view, dtype), do: {:ok, view}

    def cast(%{device: device} = view, dtype) do
      with {:ok, view} <- ComputeType.widened(view),
           {:ok, buffer} <- converted(view, dtype, computes?(device, dtype)),
           do: {:ok, View.new(buffer)}
    end

    # A kernel converts strided elements if it has the type, and the device the contiguous elements of any type.
    defp converted(view, dtype, true), do: Copy.copy(view, :as_type, dtype)

    defp converted(view, dtype, false),
      do: with({:ok, buffer} <- contiguous(view), do: Buffer.convert(buffer, dtype))
  end
end
