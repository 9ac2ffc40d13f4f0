if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ElementWise do
    @moduledoc false
    # Element-wise callbacks as kernels. Each function returns `{:ok, buffer}` or an error of the kernel, or `:host` where the result of the
    # device would not be that of Nx.BinaryBackend.

    alias ExCubecl.{Buffer, Kernel}
    alias ExCubecl.Kernel.Definition
    alias ExCubecl.Nx.{Operand, Storage, Types}

    require Kernel

    @floats [:f16, :bf16, :f32, :f64]
    @unsigned [:u8, :u16, :u32, :u64]

    arithmetic = [
      add: Kernel.kernel(fn a, b -> a + b end),
      subtract: Kernel.kernel(fn a, b -> a - b end),
      multiply: Kernel.kernel(fn a, b -> a * b end),
      divide: Kernel.kernel(fn a, b -> a / b end),
      max: Kernel.kernel(fn a, b -> max(a, b) end),
      min: Kernel.kernel(fn a, b -> min(a, b) end),
      pow: Kernel.kernel(fn a, b -> a ** b end),
      remainder: Kernel.kernel(fn a, b -> rem(a, b) end),
      quotient: Kernel.kernel(fn a, b -> div(a, b) end),
      bitwise_and: Kernel.kernel(fn a, b -> band(a, b) end),
      bitwise_or: Kernel.kernel(fn a, b -> bor(a, b) end),
      bitwise_xor: Kernel.kernel(fn a, b -> bxor(a, b) end),
      left_shift: Kernel.kernel(fn a, b -> bsl(a, b) end),
      right_shift: Kernel.kernel(fn a, b -> bsr(a, b) end)
    ]

    comparisons = [
      equal: Kernel.kernel(fn a, b -> a == b end),
      not_equal: Kernel.kernel(fn a, b -> a != b end),
      greater: Kernel.kernel(fn a, b -> a > b end),
      less: Kernel.kernel(fn a, b -> a < b end),
      greater_equal: Kernel.kernel(fn a, b -> a >= b end),
      less_equal: Kernel.kernel(fn a, b -> a <= b end)
    ]

    logical = [
      logical_and: Kernel.kernel(fn a, b -> a != 0 and b != 0 end),
      logical_or: Kernel.kernel(fn a, b -> a != 0 or b != 0 end),
      logical_xor: Kernel.kernel(fn a, b -> if a != 0, do: b == 0, else: b != 0 end)
    ]

    # These have the same bits on every device, whatever the type.
    exact = [
      abs: Kernel.kernel(fn x -> abs(x) end),
      negate: Kernel.kernel(fn x -> -x end),
      sign: Kernel.kernel(fn x -> if x > 0, do: 1, else: if(x < 0, do: 0 - 1, else: x) end),
      bitwise_not: Kernel.kernel(fn x -> bnot(x) end),
      ceil: Kernel.kernel(fn x -> ceil(x) end),
      floor: Kernel.kernel(fn x -> floor(x) end),
      # Half away from zero; the sum has no negative zero, as the integer that Nx rounds to.
      round:
        Kernel.kernel(fn x ->
          whole = trunc(x)
          rest = x - whole
          away = if rest >= 0.5, do: 1.0, else: if(rest <= -0.5, do: -1.0, else: 0.0)
          whole + away
        end)
    ]

    functions = [
      sqrt: Kernel.kernel(fn x -> sqrt(x) end),
      rsqrt: Kernel.kernel(fn x -> 1.0 / sqrt(x) end),
      exp: Kernel.kernel(fn x -> exp(x) end),
      log: Kernel.kernel(fn x -> log(x) end),
      log1p: Kernel.kernel(fn x -> log1p(x) end),
      sin: Kernel.kernel(fn x -> sin(x) end),
      cos: Kernel.kernel(fn x -> cos(x) end),
      tan: Kernel.kernel(fn x -> tan(x) end),
      sinh: Kernel.kernel(fn x -> sinh(x) end),
      cosh: Kernel.kernel(fn x -> cosh(x) end),
      tanh: Kernel.kernel(fn x -> tanh(x) end),
      sigmoid: Kernel.kernel(fn x -> 1.0 / (1.0 + exp(-x)) end)
    ]

    questions = [
      is_nan: Kernel.kernel(fn x -> nan?(x) end),
      is_infinity: Kernel.kernel(fn x -> infinite?(x) end)
    ]

    others = [
      select: Kernel.kernel(fn pred, a, b -> if pred != 0, do: a, else: b end),
      clip: Kernel.kernel(fn x, low, high -> min(max(x, low), high) end),
      truth: Kernel.kernel(fn x -> x != 0 end)
    ]

    for {name, kernel} <-
          arithmetic ++ comparisons ++ logical ++ exact ++ functions ++ questions ++ others do
      defp kernel(unquote(name)), do: unquote(Macro.escape(Definition.named(kernel, name)))
    end

    @arithmetic Keyword.keys(arithmetic)
    @comparisons Keyword.keys(comparisons)
    @logical Keyword.keys(logical)
    @exact Keyword.keys(exact)
    @functions Keyword.keys(functions)
    @questions Keyword.keys(questions)

    @doc "The names of the callbacks that `run/3` knows."
    def names,
      do:
        @arithmetic ++
          @comparisons ++ @logical ++ @exact ++ @functions ++ @questions ++ [:select, :clip]

    def run(name, [out | tensors], config) do
      with {:ok, dtype} <- Operand.dtype(out),
           {:ok, operands} <- operands(tensors, config),
           operands = some_buffer(operands, tensors, config),
           {name, operands} = simpler(name, operands, dtype),
           {:ok, operands, dtype} <- calculation(name, operands, dtype, config),
           do: launch(name, operands, dtype, out)
    end

    # A square is right to the last bit, other powers are not.
    defp simpler(:pow, [a, two], dtype) when two == 2 and dtype in @floats,
      do: {:multiply, [a, a]}

    defp simpler(name, operands, _dtype), do: {name, operands}

    defp operands(tensors, config) do
      Enum.reduce_while(Enum.reverse(tensors), {:ok, []}, fn tensor, {:ok, done} ->
        case Operand.of(tensor, config) do
          {:ok, operand} -> {:cont, {:ok, [operand | done]}}
          :host -> {:halt, :host}
        end
      end)
    end

    # A kernel needs a buffer.
    defp some_buffer(operands, [tensor | _], config) do
      if Enum.any?(operands, &is_struct(&1, Buffer)),
        do: operands,
        else: [Storage.buffer(tensor, config) | tl(operands)]
    end

    defp launch(name, operands, dtype, out) do
      operands = Operand.spread(operands, out.shape)

      with {:ok, result} <- Kernel.run(kernel(name), operands),
           {:ok, result} <- converted(result, dtype),
           do: Buffer.reshape(result, out.shape)
    end

    defp converted(%{dtype: dtype} = result, dtype), do: {:ok, result}
    defp converted(result, dtype), do: Buffer.convert(result, dtype)

    ## The type of the calculation: `{:ok, operands, dtype of the result}`, or `:host`

    defp calculation(name, operands, dtype, config) when name in @arithmetic do
      if suits?(name, operands, dtype), do: in_common(operands, dtype, config), else: :host
    end

    defp calculation(name, operands, dtype, config) when name in @comparisons do
      with {:ok, common} <- comparable(operands, config),
           do: {:ok, Enum.map(operands, &Operand.cast(&1, common)), dtype}
    end

    defp calculation(name, operands, dtype, _config) when name in @logical do
      {:ok, Enum.map(operands, &truth/1), dtype}
    end

    defp calculation(name, [x], dtype, _config) when name in @exact do
      cond do
        name in [:ceil, :floor, :round] and dtype not in @floats -> :host
        name in [:negate, :sign] and dtype in @unsigned -> :host
        true -> {:ok, [Operand.cast(x, dtype)], dtype}
      end
    end

    # Roots are right to the last bit; of other functions devices have a version for 32 bits only. Their asin, acos, atan and atan2
    # have an error of 1.0e-4: those run on the host.
    defp calculation(name, [x], dtype, config) when name in @functions do
      with true <- dtype in [:f16, :f32] or (dtype == :f64 and name in [:sqrt, :rsqrt]),
           {:ok, common} when common == dtype or name == :sqrt <-
             Operand.common([x], dtype, config.device) do
        {:ok, [Operand.cast(x, common)], dtype}
      else
        _ -> :host
      end
    end

    defp calculation(name, [%Buffer{dtype: from} = x], dtype, _config) when name in @questions,
      do: if(from in @floats, do: {:ok, [x], dtype}, else: :host)

    defp calculation(:select, [pred, a, b], dtype, _config),
      do: {:ok, [truth(pred), Operand.cast(a, dtype), Operand.cast(b, dtype)], dtype}

    defp calculation(:clip, operands, dtype, config), do: in_common(operands, dtype, config)
    defp calculation(_name, _operands, _dtype, _config), do: :host

    defp in_common(operands, dtype, config) do
      with {:ok, common} <- Operand.common(operands, dtype, config.device),
           do: {:ok, Enum.map(operands, &Operand.cast(&1, common)), dtype}
    end

    # Nx cuts off the digits that :bf16 does not have, and devices round.
    defp suits?(name, _operands, :bf16), do: name in [:max, :min]
    defp suits?(name, _operands, dtype) when name == :pow, do: dtype in [:f16, :f32]

    defp suits?(name, _operands, dtype)
         when name in [:max, :min, :add, :subtract, :multiply, :divide],
         do: dtype != :bf16

    # A division by zero raises in Nx, so that the divisor must be known.
    defp suits?(name, [_, divisor], dtype) when name in [:remainder, :quotient] do
      if dtype in @floats,
        do: dtype != :f64 and name == :remainder,
        else: is_integer(divisor) and divisor != 0
    end

    # Devices take the distance modulo the number of bits; Nx raises for a negative one.
    defp suits?(name, [_, distance], dtype) when name in [:left_shift, :right_shift],
      do: is_integer(distance) and distance in 0..(8 * ExCubecl.DType.size!(dtype) - 1)

    defp suits?(_name, _operands, dtype), do: dtype not in @floats

    # A type that has all values of both operands.
    defp comparable(operands, config) do
      known = for %Buffer{dtype: dtype} <- operands, do: dtype
      types = Enum.uniq(known) ++ [:f64]

      case Enum.find(types, fn type -> Enum.all?(operands, &value_of?(&1, type)) end) do
        nil -> :host
        :f64 -> if Operand.computes?(config.device, :f64), do: {:ok, :f64}, else: :host
        type -> {:ok, type}
      end
    end

    defp value_of?(%Buffer{dtype: from}, to), do: Types.exact?(from, to)
    defp value_of?(n, to) when is_integer(n) and to in @floats, do: Operand.integer_fits?(n, to)

    defp value_of?(n, to) when is_integer(n),
      do: ExCubecl.Kernel.Types.number_as(n, to) == n

    defp value_of?(n, :f32) when is_float(n), do: single?(n)

    defp value_of?(n, to) when is_float(n),
      do: to == :f64 or (trunc(n) == n and to not in @floats and value_of?(trunc(n), to))

    defp value_of?(_special, to), do: to in @floats

    defp single?(n) when abs(n) > 3.4028234663852886e38, do: false

    defp single?(n) do
      <<rounded::float-32>> = <<n::float-32>>
      rounded == n
    end

    defp truth(%Buffer{} = buffer), do: buffer
    defp truth(number), do: if(number == 0, do: 0, else: 1)

    @doc "1 where an element is not zero, else 0 (`:u8`)."
    def truths(buffer), do: Kernel.run(kernel(:truth), [buffer])
  end
end
