# Compiled if Nx has pointers.
if Code.ensure_loaded?(Nx.Pointer) do
  defmodule ExCubecl.Nx.Pointers do
    @moduledoc false
    # Addresses of tensors in the memory of CUDA, and tensors with a copy of the elements at an address.

    alias ExCubecl.{Buffer, Error, View}
    alias ExCubecl.Error.{Arguments, Operation}
    alias ExCubecl.Nx.{Options, Storage, Types}
    alias ExCubecl.View.Strides
    alias Nx.Tensor, as: T

    @doc "The address of a tensor whose elements are contiguous in the memory of its device."
    @spec to_pointer(T.t(), keyword) :: Nx.Pointer.t()
    def to_pointer(tensor, opts), do: unwrap(pointer(tensor, opts), :to_pointer)

    defp pointer(%T{data: %{config: %Options{device: device}}} = tensor, opts) do
      with {:ok, opts} <- Arguments.options(opts, [:mode]),
           :ok <- mode(Keyword.get(opts, :mode, :local)),
           {:ok, buffer} <- memory(tensor, device),
           {:ok, address} <- Buffer.pointer(buffer) do
        size = Buffer.size!(buffer)
        {:ok, %Nx.Pointer{kind: :local, address: address, data_size: size}}
      end
    end

    defp mode(:local), do: :ok
    # Handles for other processes are of whole allocations, and CubeCL has many tensors in one.
    defp mode(other), do: Arguments.invalid(:mode, other, ":local")

    defp memory(%T{data: %{state: %View{} = view}} = tensor, device) do
      with {:ok, _view} <- Storage.live(tensor) do
        if Strides.contiguous?(view),
          do: Strides.buffer(view),
          else: elsewhere("are strided", device)
      end
    end

    defp memory(_tensor, device), do: elsewhere("are in host memory", device)

    defp elsewhere(where, device),
      do: Error.new(:unsupported, operation: :to_pointer, elements: where, device: device)

    @doc "A tensor with a copy of the elements at an address."
    @spec from_pointer(Nx.Pointer.t(), T.t(), Options.t()) :: T.t()
    def from_pointer(pointer, out, config) do
      copy = with {:ok, address} <- address(pointer), do: copy(pointer, address, out, config)
      unwrap(copy, :from_pointer)
    end

    defp address(%Nx.Pointer{kind: :local, address: address}) when is_integer(address),
      do: Arguments.index(:address, address)

    defp address(other),
      do:
        Arguments.invalid(:pointer, other, "an %Nx.Pointer{} of the kind :local with an address")

    defp copy(pointer, address, %T{type: type} = out, config) do
      with {:ok, dtype} <- dtype(type),
           {:ok, buffer} <-
             Buffer.empty(Storage.shape(out), dtype, Storage.buffer_options(config)),
           :ok <- large_enough(pointer, buffer),
           :ok <- Buffer.copy_from_pointer(buffer, address),
           do: {:ok, Storage.put(out, buffer, config)}
    end

    defp dtype(type) do
      case Types.storage(type) do
        {dtype, _parts} -> {:ok, dtype}
        nil -> Arguments.invalid(:type, type, "a type of 8 bits or more")
      end
    end

    defp large_enough(%Nx.Pointer{data_size: size}, buffer) do
      expected = Buffer.size!(buffer)

      if is_integer(size) and size < expected,
        do: Error.new(:shape_mismatch, expected_bytes: expected, actual_bytes: size),
        else: :ok
    end

    defp unwrap(result, operation), do: Operation.unwrap!(result, operation, [])
  end
end
