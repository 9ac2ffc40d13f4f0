if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.Comparison do
    @moduledoc false
    # Comparisons of two operands of which no type of the device has all values: a signed and an unsigned integer, or an integer and a float. The values
    # are compared, as Nx.BinaryBackend does, not the nearest floats.

    alias ExCubecl.{Buffer, DType, Error, Kernel, View}
    alias ExCubecl.Nx.Operand
    alias ExCubecl.Ops.{Lowering, Strided}

    require Kernel

    # The operation with its operands exchanged.
    @exchanged %{
      equal: :equal,
      not_equal: :not_equal,
      less: :greater,
      greater: :less,
      less_equal: :greater_equal,
      greater_equal: :less_equal
    }

    # A signed integer s and an unsigned one u: a negative number is less than all others.
    signs = fn word ->
      as_unsigned = quote(do: cast(s, unquote(word)))

      %{
        equal: quote(do: fn s, u -> s >= 0 and unquote(as_unsigned) == u end),
        not_equal: quote(do: fn s, u -> s < 0 or unquote(as_unsigned) != u end),
        less: quote(do: fn s, u -> s < 0 or unquote(as_unsigned) < u end),
        less_equal: quote(do: fn s, u -> s < 0 or unquote(as_unsigned) <= u end),
        greater: quote(do: fn s, u -> s >= 0 and unquote(as_unsigned) > u end),
        greater_equal: quote(do: fn s, u -> s >= 0 and unquote(as_unsigned) >= u end)
      }
    end

    # An integer n and a float f. The values of the integer type are from `low` up to, not including, `high`; NaN is not among them. The integer
    # part of a float in this range is an integer of the type; if the integers are equal, the fraction decides.
    integers = fn type ->
      inside = quote(do: f >= low and f < high)
      whole = quote(do: cast(trunc(f), unquote(type)))
      same = quote(do: unquote(inside) and n == unquote(whole) and f == trunc(f))
      args = quote(do: [n, f, low, high])

      ordered = fn outside, compare, fraction ->
        fn_of = fn body -> {:fn, [], [{:->, [], [args, body]}]} end

        fn_of.(
          quote do
            unquote(outside) or
              (unquote(inside) and
                 (unquote({compare, [], [quote(do: n), whole]}) or
                    (n == unquote(whole) and
                       unquote({fraction, [], [quote(do: f), quote(do: trunc(f))]}))))
          end
        )
      end

      above = quote(do: f >= high)
      below = quote(do: f < low)

      %{
        equal: {:fn, [], [{:->, [], [args, same]}]},
        not_equal: {:fn, [], [{:->, [], [args, quote(do: not unquote(same))]}]},
        less: ordered.(above, :<, :>),
        less_equal: ordered.(above, :<, :>=),
        greater: ordered.(below, :>, :<),
        greater_equal: ordered.(below, :>, :<=)
      }
    end

    kernels = fn codes ->
      Map.new(codes, fn {name, code} ->
        {kernel, _} = Code.eval_quoted(quote(do: Kernel.kernel(unquote(code))), [], __ENV__)
        {name, Strided.named(kernel, name)}
      end)
    end

    @signs Map.new([:u32, :u64], &{&1, kernels.(signs.(&1))})
    @integers Map.new([:s32, :u32, :s64, :u64], &{&1, kernels.(integers.(&1))})

    @doc "Compares two operands, of which at least one is a view; `:host` if the device does not have the types for it."
    @spec run(atom, [Operand.t()], map) :: {:ok, Buffer.t()} | {:error, Error.t()} | :host
    def run(name, operands, config) do
      [a, b] = types = Enum.map(operands, &type(&1, config.device))

      case {class(a), class(b)} do
        {same, same} -> :host
        {_, :none} -> :host
        {:none, _} -> :host
        {:signed, :unsigned} -> typed(@signs[b][name], operands, types, [], config)
        {:signed, :float} -> integer(name, operands, types, config)
        {:unsigned, :float} -> integer(name, operands, types, config)
        _ -> run(@exchanged[name], Enum.reverse(operands), config)
      end
    end

    defp integer(name, operands, [type, _] = types, config),
      do: typed(@integers[type][name], operands, types, bounds(type), config)

    defp typed(kernel, operands, types, more, config) do
      views = for {operand, type} <- Enum.zip(operands, types), do: view(operand, type, config)
      Lowering.map(kernel, views ++ more)
    end

    defp bounds(type) when type in [:u32, :u64], do: [0.0, 2.0 ** bits(type)]
    defp bounds(type), do: [-(2.0 ** (bits(type) - 1)), 2.0 ** (bits(type) - 1)]

    defp view(%View{} = view, type, _config), do: Operand.cast(view, type)

    defp view(number, type, config),
      do: Operand.one(Operand.cast(number, type), type, config)

    ## The type in which an operand is compared, as wide as the device has it

    defp type(operand, device),
      do: operand |> candidates() |> Enum.find(&Operand.computes?(device, &1))

    defp candidates(%View{dtype: :f64}), do: [:f64]
    defp candidates(%View{dtype: dtype}) when dtype in [:f16, :bf16, :f32], do: [:f32]
    defp candidates(%View{dtype: dtype} = view), do: exact(view, dtype in [:u8, :u16, :u32, :u64])
    defp candidates(n) when is_integer(n), do: exact(n, n >= 0)
    defp candidates(n) when is_float(n), do: Enum.filter([:f32, :f64], &Operand.value_of?(n, &1))
    defp candidates(_special), do: [:f32]

    defp exact(operand, unsigned?) do
      types = if unsigned?, do: [:u64, :u32], else: [:s64, :s32]
      Enum.filter(types, &Operand.value_of?(operand, &1))
    end

    defp class(nil), do: :none
    defp class(type) when type in [:f32, :f64], do: :float
    defp class(type) when type in [:u32, :u64], do: :unsigned
    defp class(_type), do: :signed

    defp bits(type), do: 8 * DType.size!(type)
  end
end
