if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.MixedSigns do
    @moduledoc false
    # Operations of `:u64` and signed integers. Nx gives them results of `:s64`, which does not have all values of the operands: the values are calculated
    # with, as Nx.BinaryBackend does, and the result wraps around.

    alias ExCubecl.{Buffer, Error, Kernel, View}
    alias ExCubecl.Nx.Operand
    alias ExCubecl.Ops.{ElementWise, Lowering, Strided}

    require Kernel

    # Operands in code are `{class, variable}`.
    less = fn
      {:s, a}, {:u, b} -> quote(do: unquote(a) < 0 or cast(unquote(a), :u64) < unquote(b))
      {:u, a}, {:s, b} -> quote(do: unquote(b) >= 0 and unquote(a) < cast(unquote(b), :u64))
      {_, a}, {_, b} -> quote(do: unquote(a) < unquote(b))
    end

    result = fn
      {:s, a} -> a
      {:u, a} -> quote(do: bitcast(unquote(a), :s64))
    end

    choice = fn condition, a, b ->
      quote(do: if(unquote(condition), do: unquote(a), else: unquote(b)))
    end

    larger = fn a, b -> choice.(less.(a, b), result.(b), result.(a)) end
    smaller = fn a, b -> choice.(less.(b, a), result.(b), result.(a)) end

    magnitude = fn
      {:s, a} ->
        quote(do: bitcast(if(unquote(a) < 0, do: 0 - unquote(a), else: unquote(a)), :u64))

      {:u, a} ->
        a
    end

    with_sign = fn
      code, {:s, a} -> quote(do: if(unquote(a) < 0, do: 0 - unquote(code), else: unquote(code)))
      code, {:u, _} -> code
    end

    divided = fn function, a, b -> {function, [], [magnitude.(a), magnitude.(b)]} end

    codes = %{
      max: larger,
      min: smaller,
      # The sign of each operand counts: only one of them is signed.
      quotient: fn a, b ->
        {:u, divided.(:div, a, b)} |> result.() |> with_sign.(a) |> with_sign.(b)
      end,
      remainder: fn a, b -> {:u, divided.(:rem, a, b)} |> result.() |> with_sign.(a) end,
      clip: fn x, low, high ->
        choice.(less.(low, x), smaller.(x, high), smaller.(low, high))
      end
    }

    pairs = [[:s, :u], [:u, :s]]
    triples = for a <- [:s, :u], b <- [:s, :u], c <- [:s, :u], a != b or b != c, do: [a, b, c]

    classes = %{
      max: pairs,
      min: pairs,
      quotient: pairs,
      remainder: pairs,
      clip: triples
    }

    @kernels (for {name, code} <- codes, classes <- classes[name], into: %{} do
                variables = Macro.generate_arguments(length(classes), __MODULE__)
                body = apply(code, Enum.zip(classes, variables))
                fun = {:fn, [], [{:->, [], [variables, body]}]}

                {kernel, _} =
                  Code.eval_quoted(quote(do: Kernel.kernel(unquote(fun))), [], __ENV__)

                {{name, classes}, Strided.named(kernel, name)}
              end)

    @doc "Whether an operation with a result of `:s64` has another result if its operands are converted to that type first."
    @spec differs?(atom, [Operand.t()]) :: boolean
    def differs?(:right_shift, [a, _distance]), do: class(a) == :u

    def differs?(name, operands),
      do: is_map_key(@kernels, {name, Enum.map(operands, &class/1)})

    @doc "The result of an operation of which `differs?/2` is true, and at least one operand a view."
    @spec run(atom, [Operand.t()], map) :: {:ok, Buffer.t()} | {:error, Error.t()}
    def run(:right_shift, operands, config) do
      views = Enum.map(operands, &view(&1, :u64, config))

      with {:ok, buffer} <- ElementWise.apply(:right_shift, views),
           do: Buffer.bitcast(buffer, :s64)
    end

    def run(name, operands, config) do
      classes = Enum.map(operands, &class/1)
      types = for class <- classes, do: if(class == :u, do: :u64, else: :s64)
      views = for {operand, type} <- Enum.zip(operands, types), do: view(operand, type, config)
      Lowering.map(@kernels[{name, classes}], views)
    end

    # Of the types whose common one is `:s64`, only `:u64` has values that this one does not have.
    defp class(%View{dtype: :u64}), do: :u
    defp class(n) when is_integer(n) and n >= 0x8000_0000_0000_0000, do: :u
    defp class(_operand), do: :s

    defp view(%View{} = view, type, _config), do: Operand.cast(view, type)
    defp view(number, type, config), do: Operand.one(number, type, config)
  end
end
