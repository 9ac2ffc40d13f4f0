if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ComplexFunctions do
    @moduledoc false
    # Functions of complex numbers. A number is `{a, b}`, views or numbers of the real and the imaginary parts; so is the result. Errors are raised.

    alias ExCubecl.{Error, Kernel, Ops}
    alias ExCubecl.Nx.ComplexKernels
    alias ExCubecl.Ops.Lowering

    require Kernel

    @product Kernel.kernel(fn x, y -> x * y end)
    @negated Kernel.kernel(fn x, y -> -(x * y) end)
    @opposite Kernel.kernel(fn x -> -x end)

    # The real and the imaginary part of each function of a + b i are products of a function of a and a function of b, as in
    # exp(a + b i) = exp(a) cos(b) + exp(a) sin(b) i. Each part is {the kernel of the product, the function of a, the function of b}.
    @products %{
      exp: [{@product, :exp, :cos}, {@product, :exp, :sin}],
      sin: [{@product, :sin, :cosh}, {@product, :cos, :sinh}],
      cos: [{@product, :cos, :cosh}, {@negated, :sin, :sinh}],
      sinh: [{@product, :sinh, :cos}, {@product, :cosh, :sin}],
      cosh: [{@product, :cosh, :cos}, {@product, :sinh, :sin}]
    }

    # tan(a + b i) with t = tan(a), h = tanh(b), c = cosh(b): 1 - h * h is 1 / (c * c), without cancellation.
    @tan_real Kernel.kernel(fn t, h, c -> t / (c * c) / (1.0 + t * t * h * h) end)
    @tan_imaginary Kernel.kernel(fn t, h -> h * (1.0 + t * t) / (1.0 + t * t * h * h) end)

    # Of the logarithm r and the angle t of the base and the exponent c + d i: the logarithm and the angle of the power.
    @power [
      Kernel.kernel(fn r, t, c, d -> c * r - d * t end),
      Kernel.kernel(fn r, t, c, d -> c * t + d * r end)
    ]

    # The powers of 0, and those that are exact.
    @powers [
      Kernel.kernel(fn x, a, b, c, d ->
        if a == 0 and b == 0,
          do: if(c == 0 and d == 0, do: 1.0, else: 0.0),
          else: if(c == 1 and d == 0, do: a, else: x)
      end),
      Kernel.kernel(fn x, a, b, c, d ->
        if a == 0 and b == 0, do: 0.0, else: if(c == 1 and d == 0, do: b, else: x)
      end)
    ]

    @composed [:expm1, :log1p, :sigmoid, :rsqrt, :tan, :tanh, :cbrt] ++
                [:asin, :acos, :atan, :asinh, :acosh, :atanh]

    # Their formulas subtract numbers of the same magnitude, or multiply the error of a logarithm.
    @unstable [:pow, :expm1, :log1p, :asin, :acos, :atan, :asinh, :acosh, :atanh]

    @doc "The names of the functions of one number."
    def names, do: [:log] ++ Map.keys(@products) ++ @composed

    @doc "Whether 32-bit floats would lose digits of the result of a function."
    def unstable?(name), do: name in @unstable

    @doc "The parts of the function of a number."
    def of(:log, {a, b} = z),
      do: {Error.unwrap!(Ops.log(magnitude(z))), Error.unwrap!(Ops.atan2(b, a))}

    def of(:tan, {a, b}) do
      [t, h, c] = for {name, x} <- [tan: a, tanh: b, cosh: b], do: function(name, x)
      {map(@tan_real, [t, h, c]), map(@tan_imaginary, [t, h])}
    end

    # tanh(z) = -i tan(i z)
    def of(:tanh, z), do: z |> turned() |> then(&of(:tan, &1)) |> turned_back()
    def of(:expm1, z), do: operation(:subtract, [of(:exp, z), {1.0, 0.0}])
    def of(:log1p, z), do: of(:log, operation(:add, [z, {1.0, 0.0}]))

    def of(:sigmoid, z) do
      exp = of(:exp, operation(:negate, [z]))
      operation(:divide, [{1.0, 0.0}, operation(:add, [exp, {1.0, 0.0}])])
    end

    def of(:rsqrt, z), do: operation(:divide, [{1.0, 0.0}, operation(:sqrt, [z])])

    def of(:cbrt, z) do
      {_, angle} = of(:log, z)
      third = Error.unwrap!(Ops.divide(angle, 3.0))
      root = function(:cbrt, magnitude(z))
      {map(@product, [root, function(:cos, third)]), map(@product, [root, function(:sin, third)])}
    end

    # -i log(i z + sqrt(1 - z z))
    def of(:asin, z) do
      root = operation(:sqrt, [operation(:subtract, [{1.0, 0.0}, square(z)])])
      turned_back(of(:log, operation(:add, [turned(z), root])))
    end

    # -i log(z + sqrt(z z - 1))
    def of(:acos, z) do
      root = operation(:sqrt, [operation(:subtract, [square(z), {1.0, 0.0}])])
      turned_back(of(:log, operation(:add, [z, root])))
    end

    # i / 2 (log(1 - i z) - log(1 + i z))
    def of(:atan, z) do
      [less, more] = for name <- [:subtract, :add], do: operation(name, [{1.0, 0.0}, turned(z)])
      [less, more] = for x <- [less, more], do: of(:log, x)
      operation(:multiply, [{0.0, 0.5}, operation(:subtract, [less, more])])
    end

    # log(z + sqrt(z z + 1))
    def of(:asinh, z) do
      root = operation(:sqrt, [operation(:add, [square(z), {1.0, 0.0}])])
      of(:log, operation(:add, [z, root]))
    end

    # log(z + sqrt(z z - 1)), the branch of Nx
    def of(:acosh, z) do
      root = operation(:sqrt, [operation(:subtract, [square(z), {1.0, 0.0}])])
      of(:log, operation(:add, [z, root]))
    end

    # (log(1 + z) - log(1 - z)) / 2
    def of(:atanh, z) do
      [more, less] = for name <- [:add, :subtract], do: operation(name, [{1.0, 0.0}, z])
      [more, less] = for x <- [more, less], do: of(:log, x)
      operation(:multiply, [{0.5, 0.0}, operation(:subtract, [more, less])])
    end

    def of(name, {a, b}) do
      [re, im] =
        for {kernel, f, g} <- @products[name], do: map(kernel, [function(f, a), function(g, b)])

      {re, im}
    end

    @doc "The parts of the powers."
    def pow({a, b} = z, {c, d}) do
      {r, t} = of(:log, z)
      [log, angle] = for kernel <- @power, do: map(kernel, [r, t, c, d])
      {re, im} = of(:exp, {log, angle})
      [re, im] = for {kernel, x} <- Enum.zip(@powers, [re, im]), do: map(kernel, [x, a, b, c, d])
      {re, im}
    end

    @doc "An operation of `ExCubecl.Nx.ComplexKernels` with two parts."
    def operation(name, numbers) do
      values = Enum.flat_map(numbers, &Tuple.to_list/1)

      [re, im] =
        for {kernel, at} <- ComplexKernels.parts(name),
            do: map(kernel, Enum.map(at, &Enum.at(values, &1)))

      {re, im}
    end

    defp square(z), do: operation(:multiply, [z, z])

    # i z and -i z
    defp turned({a, b}), do: {map(@opposite, [b]), a}
    defp turned_back({a, b}), do: {b, map(@opposite, [a])}

    defp magnitude({a, b}), do: Error.unwrap!(ComplexKernels.magnitude(a, b))
    defp function(name, x), do: Error.unwrap!(apply(Ops, name, [x]))
    defp map(kernel, values), do: Error.unwrap!(Lowering.map(kernel, values))
  end
end
