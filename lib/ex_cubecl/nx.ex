# Compiled if Nx is available.
if Code.ensure_loaded?(Nx.Tensor) do
  defmodule ExCubecl.Nx do
    @moduledoc """
    Converts Nx tensors to buffers and back. The module exists if Nx is among the dependencies.

    Data goes through a binary in host memory: a tensor of `Nx.BinaryBackend` already has one, a tensor of
    another backend is read from that backend.

        {:ok, buffer} = ExCubecl.Nx.from_tensor(Nx.iota({2, 3}, type: :f32))
        {:ok, tensor} = ExCubecl.Nx.to_tensor(buffer)
    """

    use ExCubecl.Error.Bang

    alias ExCubecl.{Buffer, DType, Error}
    alias ExCubecl.Error.Arguments

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
           do: Buffer.new(Nx.to_binary(tensor), tensor.shape, dtype, opts)
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
           {:ok, binary} <- Buffer.read(buffer),
           do: {:ok, tensor(binary, buffer, opts)}
    end

    # Nx has no name for a binary without elements.
    defp tensor(binary, buffer, opts) do
      shape = List.to_tuple(buffer.shape)
      binary |> Nx.from_binary(type(buffer.dtype), opts) |> Nx.reshape(shape)
    end

    for dtype <- DType.all() do
      <<kind, bits::binary>> = String.replace(Atom.to_string(dtype), "bf", "b")
      kind = if kind == ?b, do: :bf, else: String.to_atom(<<kind>>)
      type = {kind, String.to_integer(bits)}

      defp dtype(unquote(Macro.escape(type))), do: {:ok, unquote(dtype)}
      defp type(unquote(dtype)), do: unquote(Macro.escape(type))
    end

    defp dtype(other), do: Error.new(:unsupported_dtype, dtype: other)
  end
end
