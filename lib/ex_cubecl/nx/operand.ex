if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Operand do
    @moduledoc false
    # Tensors as arguments of kernels: numbers that are known on the host, and buffers, in the type of the calculation.

    alias ExCubecl.{Buffer, Device, Ops, Shape}
    alias ExCubecl.Nx.{Storage, Types}
    alias Nx.Tensor, as: T

    @type t :: number | :nan | :infinity | :neg_infinity | Buffer.t()

    @doc "The number that a tensor consists of, or its buffer; `:host` for a type that buffers do not have."
    def of(%T{type: type} = tensor, config) do
      with dtype when dtype != nil <- Types.dtype(type) do
        case Storage.known_number(tensor) do
          {:ok, number} -> {:ok, number}
          :error -> {:ok, Storage.buffer(tensor, config)}
        end
      else
        nil -> :host
      end
    end

    @doc "The dtype of the result."
    def dtype(%T{type: type}) do
      case Types.dtype(type) do
        nil -> :host
        dtype -> {:ok, dtype}
      end
    end

    @doc """
    The type to calculate with for a result of type `dtype`. Nx calculates integers together with floats as 64-bit floats, which are
    needed here where the narrower float has no such integers.
    """
    def common(operands, dtype, device) do
      cond do
        Enum.all?(operands, &fits?(&1, dtype)) -> {:ok, dtype}
        dtype in [:f16, :bf16, :f32] and computes?(device, :f64) -> {:ok, :f64}
        true -> :host
      end
    end

    defp fits?(%Buffer{dtype: from}, to) when to in [:f16, :bf16, :f32],
      do: from in [:f16, :bf16, :f32, :f64] or Types.exact?(from, to)

    defp fits?(%Buffer{}, _to), do: true
    defp fits?(number, to) when is_integer(number), do: integer_fits?(number, to)
    defp fits?(_number, _to), do: true

    @doc "Whether a type has this integer."
    def integer_fits?(number, :f16), do: abs(number) <= 2_048
    def integer_fits?(number, :bf16), do: abs(number) <= 256
    def integer_fits?(number, :f32), do: abs(number) <= 16_777_216
    def integer_fits?(number, :f64), do: abs(number) <= 9_007_199_254_740_992
    def integer_fits?(_number, _integer_type), do: true

    @doc "Whether the kernels of a device calculate with a type."
    def computes?(device, dtype), do: dtype in Device.info!(device).dtypes

    @doc "An operand in another type: integers wrap around, and a float does not become an integer."
    def cast(%Buffer{dtype: dtype} = buffer, dtype), do: buffer
    def cast(%Buffer{} = buffer, dtype), do: Buffer.convert!(buffer, dtype)

    def cast(number, dtype) when dtype in [:f16, :bf16, :f32, :f64],
      do: if(is_integer(number), do: number / 1, else: number)

    def cast(number, dtype), do: ExCubecl.Kernel.Types.number_as(number, dtype)

    @doc "Operands of one shape, for an element-wise kernel: those of one element may stay if another one has all elements."
    def spread(operands, shape) do
      shape = Tuple.to_list(shape)
      size = Shape.size(shape)
      full? = Enum.any?(operands, &(is_struct(&1, Buffer) and Shape.size(&1.shape) == size))
      Enum.map(operands, &spread(&1, shape, size, full?))
    end

    defp spread(%Buffer{shape: shape} = buffer, shape, _size, _full?), do: buffer

    defp spread(%Buffer{} = buffer, shape, size, full?) do
      case Shape.size(buffer.shape) do
        ^size -> Buffer.reshape!(buffer, shape)
        1 when full? -> buffer
        _ -> Ops.broadcast_to!(buffer, shape)
      end
    end

    defp spread(number, _shape, _size, _full?), do: number
  end
end
