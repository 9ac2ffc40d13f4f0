# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx do
    @moduledoc """
    Converts Nx tensors to buffers and back. The module exists if Nx is among the dependencies.

    A tensor of `ExCubecl.Backend` is copied on its device. Data of other backends goes through a binary in host memory: a tensor
    of `Nx.BinaryBackend` already has one, a tensor of another backend is read from that backend.

        {:ok, buffer} = ExCubecl.Nx.from_tensor(Nx.iota({2, 3}, type: :f32))
        {:ok, tensor} = ExCubecl.Nx.to_tensor(buffer)
    """

    use ExCubecl.Error.Bang

    alias ExCubecl.{Backend, Buffer, Error, View}
    alias ExCubecl.Error.Arguments
    alias ExCubecl.Nx.{Movement, Storage, Types}

    @doc """
    Returns `{:ok, buffer}` with the type, shape and elements of a tensor. Names are not kept.

    Options and errors as `ExCubecl.Buffer.new/4`; `:unsupported_dtype` for types that buffers do not
    have, such as complex numbers and integers of less than eight bits; `:invalid_argument` for a
    vectorized tensor: devectorize it first, with `Nx.devectorize/2`.
    """
    @spec from_tensor(Nx.Tensor.t(), keyword) :: {:ok, Buffer.t()} | {:error, Error.t()}
    def from_tensor(tensor, opts \\ [])

    def from_tensor(%Nx.Tensor{vectorized_axes: [_ | _]} = tensor, _opts),
      do: Arguments.invalid(:tensor, tensor, "one without vectorized axes")

    def from_tensor(%Nx.Tensor{} = tensor, opts) do
      with {:ok, dtype} <- dtype(tensor.type),
           do: buffer(tensor, dtype, opts)
    end

    def from_tensor(other, _opts), do: Arguments.invalid(:tensor, other, "an %Nx.Tensor{}")

    @doc """
    Returns `{:ok, tensor}` with the type, shape and elements of a buffer.

    `opts` are passed to `Nx.from_binary/3`: `backend:` is the backend of the tensor, by default Nx's
    default backend. Errors as `ExCubecl.Buffer.read/2`.
    """
    @spec to_tensor(Buffer.t(), keyword) :: {:ok, Nx.Tensor.t()} | {:error, Error.t()}
    def to_tensor(buffer, opts \\ []) do
      with {:ok, opts} <- Arguments.options(opts, [:backend]),
           {:ok, buffer} <- Buffer.check(buffer) do
        case backend(opts[:backend] || Nx.default_backend()) do
          {Backend, options} -> on_device(buffer, Backend.config(options))
          _other -> through_host(buffer, opts)
        end
      end
    end

    defp backend({module, options}), do: {module, options}
    defp backend(module), do: {module, []}

    defp on_device(buffer, config) do
      template = Nx.template(List.to_tuple(buffer.shape), Types.type(buffer.dtype))
      options = Keyword.delete(Storage.buffer_options(config), :device)

      with {:ok, copy} <- Buffer.transfer(buffer, config.device, options),
           do: {:ok, Storage.put(template, copy, config)}
    end

    defp through_host(buffer, opts) do
      with {:ok, binary} <- Buffer.read(buffer), do: {:ok, tensor(binary, buffer, opts)}
    end

    # Copies, because a write into a buffer is visible through all of its handles, and tensors do not change.
    defp buffer(%Nx.Tensor{data: %Backend{state: %View{}}} = tensor, _dtype, opts) do
      with {:ok, opts} <- Arguments.options(opts, [:device, :tag, :allocation, :progress]),
           {:ok, view} <- Storage.live(tensor),
           {:ok, buffer} <- Movement.contiguous(view) do
        case Keyword.pop(opts, :device) do
          {nil, opts} -> Buffer.transfer(buffer, buffer.device, opts)
          {device, opts} -> Buffer.transfer(buffer, device, opts)
        end
      end
    end

    defp buffer(tensor, dtype, opts),
      do: Buffer.new(Nx.to_binary(tensor), tensor.shape, dtype, opts)

    # Nx has no name for a binary without elements.
    defp tensor(binary, buffer, opts) do
      shape = List.to_tuple(buffer.shape)
      binary |> Nx.from_binary(Types.type(buffer.dtype), opts) |> Nx.reshape(shape)
    end

    defp dtype(type) do
      case Types.dtype(type) do
        nil -> Error.new(:unsupported_dtype, dtype: type)
        dtype -> {:ok, dtype}
      end
    end
  end
end
