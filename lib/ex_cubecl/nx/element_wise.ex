if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ElementWise do
    @moduledoc false
    # Element-wise callbacks as operations of `ExCubecl.Ops`, in the types in which Nx.BinaryBackend calculates. `run/3` returns `{:ok, buffer}` or
    # an error of the operation; `{:fill, element}` for a result whose elements are all the same; `:host` where the device cannot calculate the result; `:raises` where Nx.BinaryBackend raises.

    alias ExCubecl.{Buffer, Error, View}
    alias ExCubecl.Nx.{Comparison, MixedSigns, Operand, Reduction, Storage}
    alias ExCubecl.Ops.{ComputeType, ElementWise, Functions}
    alias ExCubecl.View.Strides

    @floats [:f16, :bf16, :f32, :f64]
    @unsigned [:u8, :u16, :u32, :u64]

    @arithmetic [:add, :subtract, :multiply, :divide, :max, :min, :pow, :atan2]
    @divisions [:remainder, :quotient]
    @shifts [:left_shift, :right_shift]
    @bitwise [:bitwise_and, :bitwise_or, :bitwise_xor]
    @comparisons [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal]
    @logical [:logical_and, :logical_or, :logical_xor]
    @questions [:is_nan, :is_infinity]

    @bit_counts [:population_count, :count_leading_zeros]
    @exact [:abs, :negate, :sign, :ceil, :floor, :round, :bitwise_not] ++
             @questions ++ @bit_counts

    @functions Keyword.keys(Functions.all()) -- [:gelu]

    # Callbacks of Nx.BinaryBackend that for infinities and NaN raise, never return, or have another result than IEEE 754.
    @for_finite [:sign, :ceil, :floor, :round, :log, :log1p, :tanh, :atanh, :atan2, :remainder]

    # These are calculated in the type of the result, or in `:f32` if that is a 16-bit float without the values of the operands.
    @transcendental [:pow, :atan2] ++ (@functions -- [:sqrt, :rsqrt])

    @doc "The names of the callbacks that `run/3` knows."
    def names do
      @arithmetic ++
        @divisions ++
        @shifts ++
        @bitwise ++
        @comparisons ++ @logical ++ @exact ++ @functions ++ [:select, :clip]
    end

    @doc "The callbacks that `on_device?/2` may leave to the device."
    def for_finite, do: @for_finite

    @doc "Whether only the device has the result of a callback for tensors in host memory, because of their infinities and NaN."
    # The hyperbolic tangent of complex numbers is right.
    def on_device?(:tanh, [%{type: {:c, _}}]), do: false

    def on_device?(name, tensors) when name in @for_finite,
      do: not Enum.all?(tensors, &Storage.finite?/1)

    def on_device?(_name, _tensors), do: false

    def run(name, [out | tensors], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, operands} <- Operand.all(tensors, config) do
        operands = Operand.as_floats(operands, tensors, dtype, config.device)

        if Enum.any?(operands, &is_struct(&1, View)),
          do: calculated(name, shaped(operands, Tuple.to_list(out.shape)), dtype, config),
          else: number(name, out, tensors, config)
      end
    end

    # A tensor whose elements are all the same is a number here, and the views alone may have a smaller shape than the result.
    defp shaped(operands, shape) do
      if Enum.any?(operands, &match?(%View{shape: ^shape}, &1)) do
        operands
      else
        at = Enum.find_index(operands, &is_struct(&1, View))
        List.update_at(operands, at, &Strides.broadcast(&1, shape))
      end
    end

    # All elements of the result are the same, which the host calculates where it can.
    defp number(name, out, tensors, config) do
      if on_device?(name, tensors),
        do: as_views(name, out, tensors, config),
        else: {:fill, number_on_host(name, out, tensors)}
    rescue
      # Nx.BinaryBackend raises where a float overflows.
      ArithmeticError -> as_views(name, out, tensors, config)
    end

    defp number_on_host(name, out, tensors) do
      [out_one | ones] = for tensor <- [out | tensors], do: %{tensor | shape: {}, names: []}
      Nx.to_binary(apply(Nx.BinaryBackend, name, [out_one | Enum.map(ones, &Storage.to_host/1)]))
    end

    defp as_views(name, out, [first | rest], config) do
      with {:ok, rest} <- Operand.all(rest, config),
           {:ok, dtype} <- Operand.dtype(out) do
        operands = shaped([Storage.view(first, config) | rest], Tuple.to_list(out.shape))
        calculated(name, operands, dtype, config)
      end
    end

    defp calculated(name, operands, dtype, config) do
      case chosen(name, operands, dtype, config) do
        {:ok, name, operands, as} ->
          with {:ok, buffer} <-
                 ElementWise.apply(name, made(name, operands, dtype, config), as),
               # The type of the result may be one that kernels do not have.
               do: ComputeType.converted(buffer, dtype)

        :unlike ->
          Comparison.run(name, operands, config)

        :mixed_signs ->
          MixedSigns.run(name, operands, config)

        other ->
          other
      end
    end

    # The type of the result of a selection is that of a view.
    defp made(:select, operands, dtype, config) do
      [pred, a, b] = cast(operands)
      one = if is_struct(a, View) or is_struct(b, View), do: a, else: one(a, dtype, config)
      [pred, one, b]
    end

    defp made(_name, operands, _dtype, _config), do: cast(operands)

    defp cast(operands) do
      Enum.map(operands, fn
        {:in, type, operand} -> Operand.cast(operand, type)
        operand -> operand
      end)
    end

    @doc """
    The operation of `ExCubecl.Ops.ElementWise` for a callback with a result of type `dtype`, its operands and its casts: `{:ok, name, operands, casts}`. An operand
    `{:in, type, operand}` is one that is converted first. Operands are numbers, and views whose buffer is `nil`. `:unknown` if the elements of an operand decide what the callback does, else as `run/3`.
    """
    def lowered(name, [_, %View{}], dtype, _config)
        when (name in @divisions or name == :pow) and dtype not in @floats,
        do: :unknown

    def lowered(name, [_, %View{dtype: type}], _dtype, _config)
        when name in @shifts and type not in @unsigned,
        do: :unknown

    def lowered(name, operands, dtype, config) do
      with other when other in [:unlike, :mixed_signs] <-
             chosen(name, operands, dtype, config),
           do: :unknown
    end

    defp chosen(name, operands, dtype, config) do
      with {:ok, _name, _operands, _as} = calculation <-
             calculation(name, operands, dtype, config),
           do:
             if(dtype == :s64 and MixedSigns.differs?(name, operands),
               do: :mixed_signs,
               else: calculation
             )
    end

    ## The operation, its operands and the type of the calculation

    # A square is right to the last bit, other powers are not.
    defp calculation(:pow, [%View{} = a, two], dtype, config) when two == 2 and dtype in @floats,
      do: calculation(:multiply, [a, a], dtype, config)

    defp calculation(:pow, [_, exponent] = operands, dtype, config) when dtype not in @floats do
      if negative?(exponent),
        do: :raises,
        else: {:ok, :integer_pow, in_type(operands, dtype, config), []}
    end

    defp calculation(name, operands, dtype, config) when name in @transcendental do
      type = Operand.function_type(operands, dtype, config.device)
      stored = Operand.compute_type(dtype, config.device)
      {:ok, name, numbers(operands, type), as: type, dtype: stored}
    end

    defp calculation(name, operands, dtype, config)
         when name in @arithmetic or name in @functions or name == :clip,
         do: in_common(name, operands, dtype, config)

    # Nx.BinaryBackend raises for a division by zero.
    defp calculation(name, [_, divisor] = operands, dtype, config) when name in @divisions do
      cond do
        dtype in @floats -> in_common(name, operands, dtype, config)
        zero?(divisor) -> :raises
        true -> {:ok, name, in_type(operands, dtype, config), []}
      end
    end

    defp calculation(name, [_, distance] = operands, dtype, config) when name in @shifts do
      if negative?(distance),
        do: :raises,
        else: {:ok, name, in_type(operands, dtype, config), []}
    end

    defp calculation(name, operands, dtype, config) when name in @bitwise,
      do: {:ok, name, in_type(operands, dtype, config), []}

    # The type of a result is named where a device may not calculate with it.
    defp calculation(name, operands, dtype, config) when name in @comparisons do
      case comparable(operands, config.device) do
        {:ok, common} ->
          {:ok, name, numbers(operands, common), as: common, dtype: dtype}

        :none ->
          :unlike
      end
    end

    defp calculation(name, operands, dtype, _config) when name in @logical,
      do: {:ok, name, Enum.map(operands, &truth/1), dtype: dtype}

    defp calculation(name, [x], dtype, _config) when name in @questions,
      do: {:ok, name, [x], dtype: dtype}

    defp calculation(:negate, [x], dtype, _config) when dtype in @unsigned,
      do: {:ok, :subtract, [0, x], []}

    # The bits of a wider type are others.
    defp calculation(name, [x], dtype, _config) when name in @bit_counts and x.dtype != dtype,
      do: :host

    defp calculation(name, [x], _dtype, _config) when name in @exact, do: {:ok, name, [x], []}

    defp calculation(:select, [pred, a, b], dtype, config),
      do: {:ok, :select, [truth(pred) | in_type([a, b], dtype, config)], []}

    defp one(number, dtype, config),
      do: Operand.one(number, Operand.compute_type(dtype, config.device), config)

    defp in_common(name, operands, dtype, config) do
      with {:ok, common} <- Operand.common(operands, dtype, config.device) do
        stored = Operand.compute_type(dtype, config.device)
        {:ok, name, numbers(operands, common), as: common, dtype: stored}
      end
    end

    defp numbers(operands, dtype) do
      Enum.map(operands, &if(is_struct(&1, View), do: &1, else: Operand.cast(&1, dtype)))
    end

    defp in_type(operands, dtype, config) do
      type = Operand.compute_type(dtype, config.device)
      for operand <- operands, do: {:in, type, operand}
    end

    # A type of the device that has all values of both operands.
    defp comparable(operands, device) do
      known = for %View{dtype: dtype} <- operands, do: dtype
      has_all? = fn type -> Enum.all?(operands, &Operand.value_of?(&1, type)) end
      wider? = &(has_all?.(&1) and Operand.computes?(device, &1))
      type = Enum.find(known, has_all?) || Enum.find([:f32, :f64], wider?)
      if type, do: {:ok, type}, else: :none
    end

    defp truth(%View{} = view), do: view
    defp truth(number), do: if(number == 0, do: 0, else: 1)

    ## Operands for which Nx.BinaryBackend raises; for a view, the call waits for the device

    defp zero?(%View{} = view), do: item(:all, view) == 0
    defp zero?(number), do: number == 0

    defp negative?(%View{dtype: dtype} = view),
      do: dtype not in @unsigned and item(:reduce_min, view) < 0

    defp negative?(number), do: number < 0

    defp item(reduction, view) do
      with({:ok, result} <- Reduction.reduced(reduction, view, []), do: Buffer.item(result))
      |> Error.unwrap!()
    end
  end
end
