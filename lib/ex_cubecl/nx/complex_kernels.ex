if Code.ensure_loaded?(Nx.Backend) do
  defmodule ExCubecl.Nx.ComplexKernels do
    @moduledoc false
    # The element-wise operations on complex numbers: for each part of the result, a kernel, and the parts of the operands that it takes. The parts of a + b i
    # are 0 and 1, those of a second operand c + d i are 2 and 3.

    alias ExCubecl.Kernel
    alias ExCubecl.Ops.Lowering

    require Kernel

    @difference Kernel.kernel(fn a, b -> a - b end)
    @total Kernel.kernel(fn a, b -> a + b end)

    # Where the products of the formula leave the range of the type, c and d are divided by the larger one first.
    quotient =
      Kernel.kernel(fn a, b, c, d ->
        square = c * c + d * d
        product = a * c + b * d
        most = max(abs(c), abs(d))
        p = c / most
        q = d / most
        apart = (a * p + b * q) / most
        inside? = square > 1.0e-20 and square < 1.0e20 and abs(product) < 1.0e30
        if inside? or infinite?(most), do: product / square, else: apart / (p * p + q * q)
      end)

    quotient_imaginary =
      Kernel.kernel(fn a, b, c, d ->
        square = c * c + d * d
        product = b * c - a * d
        most = max(abs(c), abs(d))
        p = c / most
        q = d / most
        apart = (b * p - a * q) / most
        inside? = square > 1.0e-20 and square < 1.0e20 and abs(product) < 1.0e30
        if inside? or infinite?(most), do: product / square, else: apart / (p * p + q * q)
      end)

    arithmetic = [
      add: [{@total, [0, 2]}, {@total, [1, 3]}],
      subtract: [{@difference, [0, 2]}, {@difference, [1, 3]}],
      multiply: [
        {Kernel.kernel(fn a, b, c, d -> a * c - b * d end), [0, 1, 2, 3]},
        {Kernel.kernel(fn a, b, c, d -> a * d + b * c end), [0, 1, 2, 3]}
      ],
      divide: [{quotient, [0, 1, 2, 3]}, {quotient_imaginary, [0, 1, 2, 3]}],
      equal: [{Kernel.kernel(fn a, b, c, d -> a == c and b == d end), [0, 1, 2, 3]}],
      not_equal: [{Kernel.kernel(fn a, b, c, d -> a != c or b != d end), [0, 1, 2, 3]}]
    ]

    same = Kernel.kernel(fn x -> x end)
    negated = Kernel.kernel(fn x -> -x end)

    # Half of the magnitude of a number and of its real part, under a root: without cancellation.
    root =
      Kernel.kernel(fn a, b ->
        x = abs(a)
        y = abs(b)
        most = max(x, y)
        ratio = if most == 0, do: most, else: min(x, y) / most
        t = sqrt(0.5 * x + 0.5 * most * sqrt(1.0 + ratio * ratio))
        if a >= 0, do: t, else: if(t == 0, do: t, else: y / (2.0 * t))
      end)

    root_imaginary =
      Kernel.kernel(fn a, b ->
        x = abs(a)
        y = abs(b)
        most = max(x, y)
        ratio = if most == 0, do: most, else: min(x, y) / most
        t = sqrt(0.5 * x + 0.5 * most * sqrt(1.0 + ratio * ratio))
        away = if b >= 0, do: t, else: -t
        if a < 0, do: away, else: if(t == 0, do: b, else: b / (2.0 * t))
      end)

    magnitude =
      Kernel.kernel(fn a, b ->
        most = max(abs(a), abs(b))
        ratio = if most == 0, do: most, else: min(abs(a), abs(b)) / most
        if infinite?(most), do: most, else: most * sqrt(1.0 + ratio * ratio)
      end)

    functions = [
      negate: [{negated, [0]}, {negated, [1]}],
      conjugate: [{same, [0]}, {negated, [1]}],
      real: [{same, [0]}],
      imag: [{same, [1]}],
      is_nan: [{Kernel.kernel(fn a, b -> nan?(a) or nan?(b) end), [0, 1]}],
      is_infinity: [{Kernel.kernel(fn a, b -> infinite?(a) or infinite?(b) end), [0, 1]}],
      abs: [{magnitude, [0, 1]}],
      sqrt: [{root, [0, 1]}, {root_imaginary, [0, 1]}]
    ]

    @parts Map.new(arithmetic ++ functions)
    @magnitude magnitude

    @doc "The kernels of an operation and the parts they take."
    def parts(name), do: Map.fetch!(@parts, name)

    @doc "The names of the operations."
    def names, do: Map.keys(@parts)

    @doc "The magnitudes of numbers by their parts."
    def magnitude(a, b), do: Lowering.map(@magnitude, [a, b])

    @doc "The kernels of differences and sums of two numbers."
    def sums, do: [@difference, @total]
  end
end
