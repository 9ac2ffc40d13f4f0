if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Expression do
    @moduledoc false
    # Element-wise callbacks as expressions of kernels, in the intermediate form of `ExCubecl.Kernel.Parser`: the operations, casts and kernels are those with which
    # `ExCubecl.Nx.ElementWise` runs the callback, so that the bits of the result are the same.

    alias ExCubecl.{DType, View}
    alias ExCubecl.Nx.{ElementWise, Operand}
    alias ExCubecl.Ops
    alias ExCubecl.Ops.{Conversion, Reads}

    @type operand :: {DType.t(), term} | number | :nan | :infinity | :neg_infinity

    # The bits of numbers that Elixir floats cannot represent, as 32-bit floats.
    @special %{nan: 0x7FC0_0000, infinity: 0x7F80_0000, neg_infinity: 0xFF80_0000}

    @words [:s32, :u32, :s64, :u64]

    @doc "The names of the callbacks that `of/4` knows."
    def names, do: [:as_type, :bitcast | ElementWise.names()]

    @doc """
    The expression of a callback with a result of type `dtype`, which the device computes, as it does those of the operands. An operand is a number, or an expression with its type.
    `:unknown` if no kernel has the result of the callback.
    """
    @spec of(atom, DType.t(), [operand], map) :: {:ok, term} | :unknown
    def of(:as_type, dtype, [{dtype, expression}], _config), do: {:ok, expression}

    def of(:as_type, dtype, [{from, expression}], _config) do
      {kernel, limits} = Conversion.kernel(from, dtype)
      numbers = for limit <- limits, do: {:number, limit}
      {:ok, Reads.apply(kernel, [expression | numbers], nil, dtype)}
    end

    def of(:as_type, _dtype, _operands, _config), do: :unknown

    # A float that was not stored may have other bits: a driver chooses those of NaN.
    def of(:bitcast, dtype, [{from, expression}], _config) when from in @words do
      if DType.size!(from) == DType.size!(dtype),
        do: {:ok, {:bitcast, 0, dtype, {:cast, from, expression}}},
        else: :unknown
    end

    def of(:bitcast, _dtype, _operands, _config), do: :unknown

    def of(name, dtype, operands, config) do
      values = operands |> Enum.with_index() |> Enum.map(&value(&1, config))

      with true <- Enum.any?(values, &is_struct(&1, View)),
           {:ok, name, values, casts} <- ElementWise.lowered(name, values, dtype, config) do
        {types, expressions} = values |> Enum.map(&typed(&1, operands)) |> Enum.unzip()
        {kernel, more, own} = Ops.ElementWise.kernel(name, types)
        casts = own ++ casts
        more = for number <- more, do: {:number, number}
        expression = Reads.apply(kernel, expressions ++ more, casts[:as], casts[:dtype])
        {:ok, {:cast, dtype, expression}}
      else
        _ -> :unknown
      end
    end

    # A view stands for an expression. Its offset is the index of the operand.
    defp value({{dtype, _expression}, at}, config),
      do: %View{
        buffer: nil,
        offset: at,
        shape: [],
        strides: [],
        dtype: dtype,
        device: config.device
      }

    defp value({number, _at}, _config), do: number

    defp typed({:in, dtype, value}, operands) do
      {type, expression} = typed(value, operands)
      type = if is_struct(type, View), do: %{type | dtype: dtype}, else: Operand.cast(type, dtype)
      expression = if is_number(type), do: {:number, type}, else: expression
      {type, {:cast, dtype, expression}}
    end

    defp typed(%View{offset: at} = view, operands),
      do: {view, operands |> Enum.at(at) |> elem(1)}

    defp typed(number, _operands), do: {number, number(number)}

    @doc "A number as an expression."
    def number(special) when is_map_key(@special, special),
      do: {:bitcast, 0, :f32, {:cast, :u32, {:number, @special[special]}}}

    def number(number), do: {:number, number}
  end
end
