if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Operand do
    @moduledoc false
    # Tensors as operands of operations: numbers that are known on the host, and views, in the type of the calculation.

    alias ExCubecl.{Buffer, Error, View}
    alias ExCubecl.Nx.{Movement, Storage, Types}
    alias ExCubecl.Ops.ComputeType
    alias Nx.Tensor, as: T

    @type t :: number | :nan | :infinity | :neg_infinity | View.t()

    @floats [:f16, :bf16, :f32, :f64]

    @doc "The number that a tensor consists of, or its view; `:host` for a type with which kernels do not calculate."
    def of(%T{type: type} = tensor, config) do
      if Types.dtype(type) do
        case Storage.known_number(tensor) do
          {:ok, number} -> {:ok, number}
          :error -> tensor |> Storage.view(config) |> ComputeType.widened()
        end
      else
        :host
      end
    end

    @doc "As `of/2`, for several tensors."
    def all(tensors, config) do
      Enum.reduce_while(Enum.reverse(tensors), {:ok, []}, fn tensor, {:ok, done} ->
        case of(tensor, config) do
          {:ok, operand} -> {:cont, {:ok, [operand | done]}}
          other -> {:halt, other}
        end
      end)
    end

    @doc """
    The operands of a calculation with a result of type `dtype`. Narrow integers that were widened, because the device does not calculate with them, become
    floats, if that is the type of the result: it has their values, but not all of the wide type.
    """
    def as_floats(operands, tensors, dtype, device) when dtype in @floats do
      float = compute_type(dtype, device)

      for {operand, tensor} <- Enum.zip(operands, tensors),
          do: if(widened?(operand, tensor, float), do: cast(operand, float), else: operand)
    end

    def as_floats(operands, _tensors, _dtype, _device), do: operands

    defp widened?(%View{dtype: dtype}, %T{type: type}, float) do
      stored = Types.dtype(type)
      dtype != stored and dtype not in @floats and Types.exact?(stored, float)
    end

    defp widened?(_number, _tensor, _float), do: false

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
      type = compute_type(dtype, device)

      cond do
        Enum.all?(operands, &fits?(&1, type)) -> {:ok, type}
        dtype in [:f16, :bf16, :f32] and computes?(device, :f64) -> {:ok, :f64}
        dtype in [:f16, :bf16] and Enum.all?(operands, &fits?(&1, :f32)) -> {:ok, :f32}
        true -> :host
      end
    end

    @doc "The type to calculate a function with for a result of type `dtype`: a narrow float may have neither the digits nor the range of an operand."
    def function_type(operands, dtype, device) do
      type = compute_type(dtype, device)

      if dtype in [:f16, :bf16] and not Enum.all?(operands, &fits?(&1, type)),
        do: :f32,
        else: type
    end

    # The elements of `:bf16` may be in a view of `:f32`.
    defp fits?(%View{dtype: from}, to) when to in [:f16, :bf16] and from in @floats,
      do: from == to

    defp fits?(%View{dtype: from}, :f32), do: from in @floats or Types.exact?(from, :f32)
    defp fits?(%View{dtype: from}, to) when to in [:f16, :bf16], do: Types.exact?(from, to)

    defp fits?(%View{}, _to), do: true
    defp fits?(number, to) when is_integer(number), do: integer_fits?(number, to)
    defp fits?(_number, _to), do: true

    @doc "Whether a type has this integer."
    def integer_fits?(number, :f16), do: abs(number) <= 2_048
    def integer_fits?(number, :bf16), do: abs(number) <= 256
    def integer_fits?(number, :f32), do: abs(number) <= 16_777_216
    def integer_fits?(number, :f64), do: abs(number) <= 9_007_199_254_740_992
    def integer_fits?(_number, _integer_type), do: true

    defdelegate computes?(device, dtype), to: Movement

    @doc "The type in which a device calculates results of a type."
    def compute_type(dtype, device), do: Error.unwrap!(ComputeType.of(dtype, device))

    @doc "A number of a type as a view of one element, for kernels that need it in memory."
    def one(number, dtype, config),
      do: View.new(Buffer.full!([1], dtype, number, Storage.buffer_options(config)))

    @doc "An operand in another type: integers wrap around, and a float does not become an integer."
    def cast(%Buffer{} = buffer, dtype),
      do: Error.unwrap!(ComputeType.converted(buffer, dtype))

    def cast(%View{} = view, dtype), do: view |> Movement.cast(dtype) |> Error.unwrap!()

    def cast(number, dtype) when dtype in @floats,
      do: if(is_integer(number), do: number / 1, else: number)

    def cast(number, dtype), do: ExCubecl.Kernel.Types.number_as(number, dtype)

    @doc "Whether a type has the value of an operand."
    def value_of?(%View{dtype: from}, to), do: Types.exact?(from, to)
    def value_of?(n, to) when is_integer(n) and to in @floats, do: integer_fits?(n, to)
    def value_of?(n, to) when is_integer(n), do: cast(n, to) == n
    def value_of?(n, :f32) when is_float(n), do: single?(n)

    def value_of?(n, to) when is_float(n),
      do: to == :f64 or (trunc(n) == n and to not in @floats and value_of?(trunc(n), to))

    def value_of?(_special, to), do: to in @floats

    defp single?(n) when abs(n) > 3.4028234663852886e38, do: false

    defp single?(n) do
      <<rounded::float-32>> = <<n::float-32>>
      rounded == n
    end
  end
end
